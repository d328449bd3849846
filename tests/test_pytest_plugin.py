"""The plugin in real runs of pytest and pytest-xdist, under real makes; every token must come back."""

from __future__ import annotations

import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi import Client
from jobserver_ffi.pytest.service import Remote, Service

from .command import Lines, Running
from .conftest import ACCEPT, TokenPipe, wait_until_asleep
from .overlap import FOR_MAKE, MAKE_SERVERS, JobCounter, captured, command_line, server_command

pytest.importorskip("xdist")
pytestmark = pytest.mark.needs("sh", "pipe", "/proc")

NewPipe = Callable[[bytes], TokenPipe]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "jobserver_ffi.pytest", "-p", "xdist.plugin", "--rootdir=."]
GUARD = 240
GUARD_OF_ONE_WAIT = 30

# Each test is one job of a JobCounter; the command is in the environment. xdist hands tests out in advance, so that the
# last ones may lie with fewer workers than there are slots: it is enough that these are full once.
JOBS = """
import os, subprocess, pytest
@pytest.mark.parametrize("number", range(8))
def test_job(number):
    subprocess.run(os.environ["JOB"], shell=True, check=True)
"""

# Each worker tells when it has collected: what it waits for from then on is a slot for a test.
COLLECTED = """
import os
def pytest_collection_finish(session):
    if hasattr(session.config, "workerinput"):
        open(f"collected-{os.getpid()}", "w").close()
"""
WORKERS = 4

TELL = """
import os, pytest
@pytest.mark.parametrize("number", range(6))
def test_token(number, jobserver_token):
    with open("told", "a") as told:
        print(jobserver_token, file=told)
"""


def suite(directory: Path, text: str) -> Path:
    (directory / "test_suite.py").write_text(text)
    return directory


def environment(**more: str) -> dict[str, str]:
    """Ours without what pytest and xdist put there for themselves, and without plugins that these runs do not need."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**ours, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more}


def run_pytest(*words: str, cwd: Path, **popen_kwargs: Any) -> subprocess.CompletedProcess[str]:
    kwargs = captured({"cwd": cwd, "env": environment(), **popen_kwargs})
    return subprocess.run([*PYTEST, *words], check=False, timeout=GUARD, **kwargs)


def under(pipe: TokenPipe, **more: str) -> dict[str, Any]:
    """Arguments for a child that inherits the pipe, as in a recipe of make."""
    return {"env": environment(**pipe.environ, **more), "pass_fds": (pipe.read_fd, pipe.write_fd)}


def free_while_one_waits(directory: Path, free: Callable[[], int]) -> int:
    """How many tokens are free when one of the workers waits for a slot; -1 if none does."""
    end = time.monotonic() + GUARD_OF_ONE_WAIT
    while time.monotonic() < end:
        workers = [path.name.removeprefix("collected-") for path in directory.glob("collected-*")]
        with suppress(OSError):  # one may have ended
            if len(workers) == WORKERS and any("unix_stream" in place_of(worker) for worker in workers):
                return free()
        os.sched_yield()
    return -1


def place_of(process: str) -> str:
    """Where in the kernel the main thread of a process sleeps."""
    return Path(f"/proc/{process}/task/{process}/wchan").read_text()


def counter_of(client: Client, directory: Path) -> JobCounter:
    return JobCounter(8, 3, lambda: free_while_one_waits(directory, client.available), once=True)


def jobs(directory: Path) -> Path:
    (directory / "conftest.py").write_text(COLLECTED)
    return suite(directory, JOBS)


def told(directory: Path) -> list[str]:
    return (directory / "told").read_text().split()


@pytest.mark.parametrize("server", MAKE_SERVERS)
def test_workers_under_make_are_as_many_as_its_slots(server: str, tmp_path: Path) -> None:
    """Four workers and make -j3: two tokens, and the slot that the recipe runs on."""
    command = command_line([*PYTEST, "-n", "4", "--color=no"])
    (jobs(tmp_path) / "Makefile").write_text(f"all:\n\t+{command}\n")
    with JobCounter(8, 3, lambda: free_while_one_waits(tmp_path, lambda: 0), once=True) as counter:
        make = [*server_command(server)[1], "-j3"]
        done = subprocess.run(
            make, cwd=tmp_path, check=False, timeout=GUARD, **captured({"env": environment(JOB=counter.command)})
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "8 passed" in done.stdout
    counter.check()


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_no_token_is_free_while_tests_wait_and_all_are_at_the_end(style: str, tmp_path: Path) -> None:
    with Client(3, style=style) as client, client.acquire(), counter_of(client, tmp_path) as counter:
        more = client.configure(env=environment(JOB=counter.command), cwd=jobs(tmp_path), **FOR_MAKE)
        done = subprocess.run([*PYTEST, "-n", "4"], check=False, timeout=GUARD, **captured(more))
        assert done.returncode == 0, done.stdout + done.stderr
        assert client.available() == 2
    counter.check()


def test_two_runs_share_the_slots(tmp_path: Path) -> None:
    recipes = "".join(f"{name}:\n\t+{command_line([*PYTEST, '-n', '2'])}\n" for name in ("one", "two"))
    (jobs(tmp_path) / "Makefile").write_text(f"all: one two\n{recipes}")
    with JobCounter(16, 3, lambda: free_while_one_waits(tmp_path, lambda: 0), once=True) as counter:
        make = [*server_command("4.4.1 pipe")[1], "-j3"]
        env = environment(JOB=counter.command)
        done = subprocess.run(make, cwd=tmp_path, check=False, timeout=GUARD, **captured({"env": env}))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    counter.check()


def test_one_process_runs_on_the_implicit_slot(tmp_path: Path, whole: NewPipe) -> None:
    done = run_pytest("-v", cwd=suite(tmp_path, TELL), **under(whole(b"")))
    assert done.returncode == 0, done.stdout
    assert told(tmp_path) == ["None"] * 6


def test_the_fixture_gives_the_byte(tmp_path: Path, whole: NewPipe) -> None:
    done = run_pytest("-n", "3", cwd=suite(tmp_path, TELL), **under(whole(b"xy")))
    assert done.returncode == 0, done.stdout
    assert len(told(tmp_path)) == 6
    assert set(told(tmp_path)) <= {"None", str(ord("x")), str(ord("y"))}


def test_two_workers_do_not_both_run_on_the_implicit_slot(tmp_path: Path, whole: NewPipe) -> None:
    """Each of two tests waits for the other, so one has the token and one the slot of the process."""
    text = """
import os, pytest
@pytest.mark.parametrize("mine, other", [("a", "b"), ("b", "a")])
def test_token(mine, other, jobserver_token):
    with open(mine + ".told", "w") as told:
        print(jobserver_token, file=told)
    while not os.path.exists(other + ".told"):
        os.sched_yield()
"""
    done = run_pytest("-n", "2", cwd=suite(tmp_path, text), **under(whole(b"x")))
    assert done.returncode == 0, done.stdout
    assert {(tmp_path / f"{name}.told").read_text().strip() for name in "ab"} == {"None", str(ord("x"))}


def test_without_a_jobserver_tests_run_without_slots(tmp_path: Path) -> None:
    done = run_pytest("-n", "2", cwd=suite(tmp_path, TELL))
    assert done.returncode == 0, done.stdout
    assert told(tmp_path) == ["None"] * 6


def test_a_jobserver_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    done = run_pytest(cwd=suite(tmp_path, TELL), env=environment(MAKEFLAGS="-j2 --jobserver-auth=60,61"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "descriptor 60 is closed in this process: mark the recipe line with `+`" in done.stderr


@pytest.mark.parametrize("how", ["variable", "option, one process"])
def test_a_fifo_that_is_named(how: str, tmp_path: Path) -> None:
    path = tmp_path / "with a blank"
    with Client(1, style="fifo", path=path):
        words = [] if how == "variable" else ["--jobserver", str(path)]
        words += ["-n", "2"] if how != "option, one process" else []
        env = environment(**({"PYTEST_JOBSERVER": str(path)} if how == "variable" else {}))
        done = run_pytest(*words, cwd=suite(tmp_path, TELL), env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(told(tmp_path)) <= {"None", str(ord("+"))}


def test_a_fifo_that_is_not_there(tmp_path: Path) -> None:
    done = run_pytest("--jobserver", str(tmp_path / "gone"), cwd=suite(tmp_path, TELL))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "gone' cannot be opened (No such file or directory)" in done.stderr


@pytest.mark.parametrize("workers", [[], ["-n", "3"]])
def test_a_run_that_stops_at_the_first_failure(workers: list[str], tmp_path: Path, whole: NewPipe) -> None:
    """The pool is checked byte by byte when this is over, as after each test here."""
    text = "import pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_it(n):\n    assert n != 4\n"
    done = run_pytest("-x", *workers, cwd=suite(tmp_path, text), **under(whole(b"pqr")))
    assert done.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED), done.stdout
    assert "assert 4 != 4" in done.stdout


def test_a_worker_that_crashes_on_a_token(tmp_path: Path, whole: NewPipe) -> None:
    """The token comes back: the pool is checked byte by byte when this is over."""
    text = """
import os, pytest
@pytest.mark.parametrize("number", range(2))
def test_it(number, jobserver_token):
    if jobserver_token is not None:
        open("crashed", "w").close()
        os._exit(3)
    while not os.path.exists("crashed"):
        os.sched_yield()
"""
    done = run_pytest("-n", "2", cwd=suite(tmp_path, text), **under(whole(b"p")))
    assert "1 failed, 1 passed" in done.stdout, done.stdout


def test_a_worker_that_crashes_on_the_implicit_slot(tmp_path: Path, whole: NewPipe) -> None:
    """There is no other slot, and the other tests run on it."""
    text = """
import os, pytest
@pytest.mark.parametrize("number", range(6))
def test_it(number):
    if number == 1:
        os.kill(os.getpid(), 9)
"""
    done = run_pytest("-n", "2", cwd=suite(tmp_path, text), **under(whole(b"")))
    assert "1 failed, 5 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "3"]])
def test_control_c(workers: list[str], tmp_path: Path, whole: NewPipe) -> None:
    """In the middle of tests that hold every slot."""
    text = """
import os, signal, pytest
@pytest.mark.parametrize("number", range(9))
def test_it(number):
    os.write(os.open("told", os.O_WRONLY), b"running\\n")
    signal.pause()
"""
    os.mkfifo(suite(tmp_path, text) / "told")
    descriptor = os.open(tmp_path / "told", os.O_RDWR)
    pipe = whole(b"pq")
    kwargs = under(pipe)
    try:
        with Running([*PYTEST, *workers], cwd=tmp_path, **kwargs) as running:
            lines = Lines(descriptor)
            for _ in range(3 if workers else 1):
                assert lines.next() == "running"
            os.killpg(running.pid, signal.SIGINT)
            done = running.finish()
    finally:
        os.close(descriptor)
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert pipe.content() == b"pq"


def test_the_socket_of_the_workers_is_removed(tmp_path: Path, whole: NewPipe) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    done = run_pytest("-n", "2", cwd=suite(tmp_path, TELL), **under(whole(b"x"), TMPDIR=str(place)))
    assert done.returncode == 0, done.stdout
    assert not list(place.glob("jobserver-pytest-*"))


def test_workers_are_served_again_when_there_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service outlives a moment in which there are none: else who asks next would wait for ever."""
    import resource  # not on Windows

    ended: queue.SimpleQueue[threading.ExceptHookArgs] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", ended.put)  # pytest's own opens files
    with Client(1) as client:
        service = Service(client)
        workers = [Remote(service.address)]
        with workers[0].slot():
            late = socket.socket(socket.AF_UNIX)
        wait_until_asleep("self", service._thread.native_id, ACCEPT)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            late.connect(service.address)  # whom accept() waited for, with a descriptor; but no slot can be waited for
            late.settimeout(GUARD_OF_ONE_WAIT)
            late.sendall(b"?")
            assert late.recv(1) == b""  # it hears of that
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        late.close()
        workers.append(Remote(service.address))
        workers[1]._connection.settimeout(GUARD_OF_ONE_WAIT)
        with workers[1].slot() as slot:
            assert slot.byte == ord("+")
        for worker in workers:
            worker.close()
        service.close()
        assert client.available() == 1
        why = ended.get(timeout=GUARD_OF_ONE_WAIT).exc_value
        assert isinstance(why, OSError) and why.errno == errno.EMFILE
