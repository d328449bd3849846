"""A pool whose slots come from an outer jobserver: on demand, the same bytes, all of them back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi import Client, Pool, Unsupported
from jobserver_ffi.errors import PoolGone

from .command import JOBSERVER, Running
from .conftest import PATH, TokenPipe, Tool, in_pipe
from .overlap import GUARD, JobCounter
from .overlap import python as program

pytestmark = pytest.mark.needs("signals")

NewPipe = Callable[[bytes], TokenPipe]
NESTED = shlex.join([*JOBSERVER, "run"])

# Takes so many tokens, says so, and ends when it is told.
HOLDER = """\
client = Client.from_env()
held = [client.acquire() for _ in range(int(sys.argv[1]))]
print("held", flush=True)
sys.stdin.readline()
"""


def hold(tokens: int) -> dict[str, Any]:
    return {"args": [*program(HOLDER), str(tokens)], "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def wait_for(told: Callable[[], object]) -> None:
    """Returns when it is so; a guard ends the test if it never is."""
    end = time.monotonic() + GUARD
    while not told():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_slots_come_on_demand_and_go_back(style: str, whole: NewPipe) -> None:
    """No lease, no token; what a lease uses is held; afterwards every byte is where it was."""
    pipe = whole(b"abcdef")
    with Pool(pipe.client()) as pool:
        assert in_pipe(pipe.read_fd) == 6
        with pool.lease("holder", style=style) as lease:
            process = lease.popen(**hold(3))
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            assert lease.report().slots == pool.status().in_use == 4
            wait_for(lambda: in_pipe(pipe.read_fd) > 0)  # what it was offered beyond goes back while it is idle
            process.communicate("\n", timeout=GUARD)
            assert lease.wait(GUARD).complaints == []
        wait_for(lambda: in_pipe(pipe.read_fd) == 6)
        assert pool.status().limit == 0


def test_killed_client_and_dropped_pool_lose_none(whole: NewPipe) -> None:
    pipe = whole(b"abcd")
    client = pipe.client()
    with Pool(client) as pool, pool.lease("killed", style="fifo") as lease:
        process = lease.popen(**hold(3))
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        process.kill()
        process.communicate(timeout=GUARD)
        assert lease.wait(GUARD).lost == 3
        wait_for(lambda: in_pipe(pipe.read_fd) == 4)
        with pytest.raises(KeyboardInterrupt), Pool(client) as other:
            other.lease("interrupted").configure()
            raise KeyboardInterrupt
        assert in_pipe(pipe.read_fd) == 4


@pytest.mark.parametrize("end", ["pass", "sys.exit(1)", "raise KeyboardInterrupt", "os.fork()"])
def test_all_back_when_the_process_ends(end: str, whole: NewPipe) -> None:
    """Also if nobody closed the pool, and if a forked child outlives it."""
    pipe = whole(b"abc")
    text = (
        "from jobserver_ffi import Pool\n"
        f"outer = Client.open('{pipe.auth}')\n"
        "pool = Pool(outer)\n"
        "leases = [pool.lease('x'), pool.lease('y')]\n"
        "for lease in leases: lease.configure()\n"
        f"{end}\n"
    )
    subprocess.run(
        program(text), pass_fds=(pipe.read_fd, pipe.write_fd), stderr=subprocess.DEVNULL, timeout=GUARD, check=False
    )
    assert in_pipe(pipe.read_fd) == 3


def test_implicit_slot_is_used_once(whole: NewPipe) -> None:
    """The first lease runs on it; while the process itself is on it a lease needs a token."""
    pipe = whole(b"ab")
    text = (
        "from jobserver_ffi import Pool\n"
        "client = Client.from_env()\n"
        "def left(): return client.available()\n"
        "with Pool(client) as pool:\n"
        "    with pool.lease('first', maximum=1) as first, pool.lease('second', maximum=1) as second:\n"
        "        first.configure()\n"
        "        assert left() == 2 and client.try_acquire() is not None\n"
        "        second.configure()\n"
        "        assert left() == 1\n"
        "    own = client.slot()\n"
        "    while not own.implicit:\n"
        "        own.release()\n"
        "        own = client.slot()\n"
        "    with own, pool.lease('third', maximum=1) as third:\n"
        "        third.configure()\n"
        "        assert left() == 1 and pool.status().limit == 1\n"
    )
    done = subprocess.run(
        program(text),
        env={**os.environ, **pipe.environ},
        pass_fds=(pipe.read_fd, pipe.write_fd),
        stderr=subprocess.PIPE,
        text=True,
        timeout=GUARD,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_first_slot_waits_for_the_outer_pool_asleep(whole: NewPipe) -> None:
    pipe = whole(b"a")
    taker = pipe.client()
    with Pool(pipe.client()) as pool, pool.lease("waits") as lease:
        token = taker.acquire()
        waiting = threading.Thread(target=lease.configure)
        waiting.start()
        wait_for(lambda: lease.report().state == "queued")
        token.release()
        waiting.join(GUARD)
        assert (lease.report().state, in_pipe(pipe.read_fd)) == ("started", 0)


def test_what_an_outer_jobserver_does_not_allow(whole: NewPipe) -> None:
    with Pool(whole(b"ab").client()) as pool:
        assert pool.limit is None
        with pytest.raises(Unsupported, match="outer jobserver"):
            pool.resize(3)
        with pytest.raises(ValueError, match="minimum=2"):
            pool.lease("x", minimum=2)


def test_outer_jobserver_that_goes_away_is_an_error() -> None:
    client = Client(0)
    with Pool(client) as pool, pool.lease("never") as lease:
        failed: list[BaseException] = []

        def start() -> None:
            try:
                lease.configure()
            except BaseException as error:
                failed.append(error)

        waiting = threading.Thread(target=start)
        waiting.start()
        wait_for(lambda: lease.report().state == "queued")
        pool._threads.end()  # as at exit: the pool stops while a thread waits
        waiting.join(GUARD)
        assert failed
    client.close()
    with Pool(client) as pool, pool.lease("never") as lease, pytest.raises(PoolGone):
        lease.configure()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signalled_command_gives_all_back(name: str, whole: NewPipe) -> None:
    """`jobserver run` passes the signal on to its command, whose tokens it then gives back."""
    number = signal.Signals[name]
    pipe = whole(b"abc")
    environment = {**os.environ, **pipe.environ}
    command = [*JOBSERVER, "run", "--style", "fifo", *program(HOLDER), "2"]
    with Running(command, env=environment, pass_fds=(pipe.read_fd, pipe.write_fd), stdin=subprocess.PIPE) as running:
        assert running.process.stdout is not None and running.process.stdout.readline() == "held\n"
        running.process.send_signal(number)
        assert running.process.wait(GUARD) == 128 + number
    assert in_pipe(pipe.read_fd) == 3


# Real builds


def builds(directory: Path, command: str, jobs: int) -> None:
    """A makefile part.mk and a build.ninja with so many jobs."""
    names = " ".join(f"job{number}" for number in range(jobs))
    (directory / "part.mk").write_text(f"all: {names}\n.PHONY: all {names}\n{names}:\n\t@{command}\n")
    edges = "".join(f"build job{number}: job\n" for number in range(jobs))
    (directory / "build.ninja").write_text(f"rule job\n  command = {command}\n{edges}")


def run_outer(make: Tool, recipes: list[str], directory: Path, *options: str) -> str:
    """Runs a make -j4 whose recipes are these; it must end well. Returns what was said."""
    names = " ".join(f"part{number}" for number in range(len(recipes)))
    rules = "".join(f"part{number}:\n\t+@{recipe}\n" for number, recipe in enumerate(recipes))
    (directory / "Makefile").write_text(f"all: {names}\n{rules}")
    command = [make.path, "-s", "-j4", *options, "-C", str(directory)]
    with Running(command, env={**os.environ, "PATH": PATH}) as running:
        done = running.finish()
    assert done.returncode == 0, done.stderr
    assert "INTERNAL" not in done.stderr and "jobserver tokens" not in done.stderr
    return done.stderr


def test_pipe_of_an_old_make_for_ninja(make43: Tool, ninja: Tool, tmp_path: Path) -> None:
    """make -j4 with a make and a ninja below: never more than 4 jobs, and make misses no token at the end."""
    with JobCounter(60, 1, lambda: 0) as counter:
        builds(tmp_path, f"{counter.command} sleep 0.01", 30)
        said = run_outer(
            make43, [f"$(MAKE) -s -f part.mk -C {tmp_path}", f"{NESTED} {ninja.path} --quiet -C {tmp_path}"], tmp_path
        )
    assert "taking slots from the jobserver of MAKEFLAGS" in said and "which cannot read that one" in said
    assert counter.jobs == 60 and 1 < counter.peak <= 4


def test_fifo_of_a_new_make_for_an_old_one(make43: Tool, make441: Tool, tmp_path: Path) -> None:
    """make 4.3 would stop at the fifo; through the bridge it fills every slot."""
    with JobCounter(9, 4, lambda: 0) as counter:
        builds(tmp_path, counter.command, 9)
        said = run_outer(make441, [f"{NESTED} {make43.path} -s -f part.mk -C {tmp_path}"], tmp_path)
    counter.check()
    assert "which cannot read that one" in said


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_two_bridges_in_one_jobserver(style: str, make441: Tool, tmp_path: Path) -> None:
    """Each gets its share; together they fill the slots and never run more."""
    part = f"{NESTED} --style {style} --check {make441.path} -s -f part.mk -C {tmp_path}"
    with JobCounter(16, 4, lambda: 0) as counter:
        builds(tmp_path, counter.command, 8)
        run_outer(make441, [part, part], tmp_path, f"--jobserver-style={'fifo' if style == 'pipe' else 'pipe'}")
    counter.check()


def test_several_commands_and_a_killed_one(make441: Tool, tmp_path: Path) -> None:
    """Each has a lease of its own out of the outer pool; what one loses, make has back at the end."""
    (tmp_path / "lose.py").write_text(
        "import os, signal\n"
        "from jobserver_ffi import Client\n"
        "token = Client.from_env().acquire()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    recipe = f"{NESTED} -- {sys.executable} lose.py --- true; test $$? = {128 + signal.SIGKILL}"
    assert "taking slots" in run_outer(make441, [recipe], tmp_path)
