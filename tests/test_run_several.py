"""`jobserver run` with several commands: each on a lease of its own out of one pool."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .command import JOBSERVER, Running, python, run
from .conftest import TokenPipe, Tool
from .overlap import GUARD, JobCounter

pytestmark = pytest.mark.needs("signals")

LOSER = (
    "import os\n"
    "auth = os.environ['CARGO_MAKEFLAGS'].rpartition('=')[2]\n"
    "read_fd = os.open(auth[5:], os.O_RDWR) if auth.startswith('fifo:') else int(auth.partition(',')[0])\n"
    "os.read(read_fd, 1)\n"
    "os.kill(os.getpid(), {})\n"
)


def test_all_run_and_the_first_failure_is_the_status() -> None:
    done = run("-j3", "--", "sh", "-c", "echo one; exit 3", "---", "echo", "two", "---", "sh", "-c", "exit 4")
    assert (done.returncode, done.stderr, sorted(done.stdout.split())) == (3, "", ["one", "two"])


def test_signal_that_ends_one() -> None:
    assert run("-j2", "true", "---", "sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_more_commands_than_slots_run_one_after_the_other(tmp_path: Path) -> None:
    job = f"mkdir {tmp_path}/running && sleep 0.05 && rmdir {tmp_path}/running"
    words = " --- ".join([f"sh -c {shlex.quote(job)}"] * 4)
    assert run("-j1", *shlex.split(words)).returncode == 0


def test_commands_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "commands").write_text("# two of them\necho 'one  word'\n\necho two # the second\n")
    done = run("-j2", "--file", str(tmp_path / "commands"))
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["one  word", "two"])
    assert run("-j2", "--file", "-", given="true\nfalse\n").returncode == 1


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (["true", "---"], None, "no CMD given"),
        (["--", "---", "true"], None, "no CMD given"),
        (["--file", "/no/such"], None, "cannot read commands from '/no/such'"),
        (["--file", "-"], "# nothing\n", "there is no command in '-'"),
        (["--file", "-"], "echo 'open\n", "No closing quotation"),
        (["--file", "-", "true"], "true\n", "CMD goes into the FILE"),
    ],
)
def test_wrong_arguments(words: list[str], given: str | None, message: str) -> None:
    done = run(*words, given=given)
    assert done.returncode == 2 and message in done.stderr


def test_command_that_is_not_there() -> None:
    done = run("-j2", "/no/such", "---", "true")
    assert done.returncode == 127
    assert done.stderr == "jobserver: cannot run `/no/such`: No such file or directory\n"


def test_makes_share_the_slots(gnu_make: Tool, tmp_path: Path) -> None:
    targets = " ".join(f"job{number}" for number in range(12))
    with JobCounter(24, 4, lambda: 0) as counter:
        makefile = f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@{counter.command}\n"
        (tmp_path / "Makefile").write_text(makefile)
        make = [gnu_make.path, "-s", "-C", str(tmp_path)]
        done = run("-j4", "--check", *make, "---", *make)
    assert (done.returncode, done.stderr) == (0, "")
    counter.check()


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_who_lost_tokens_is_named(style: str, tmp_path: Path) -> None:
    program = [*python(LOSER.format(int(signal.SIGTERM)))]
    done = run("-j4", "--check", "--style", style, *program, "---", "true")
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.startswith(f"jobserver: `{sys.executable}` left tokens missing: 1 of 3;")


def test_what_a_command_leaves_behind_keeps_its_slot(tmp_path: Path) -> None:
    """Also if it has closed the life line, as what Python's subprocess starts has."""
    orphan = f"import os, time; time.sleep(0.3); os.rmdir({str(tmp_path / 'running')!r})"
    parent = (
        f"import os, subprocess, sys; os.mkdir({str(tmp_path / 'running')!r}); "
        f"subprocess.Popen([sys.executable, '-c', {orphan!r}]); os._exit(0)"
    )
    done = run("-j1", *python(parent), "---", "test", "!", "-e", str(tmp_path / "running"))
    assert done.returncode == 0


def test_daemon_is_not_waited_for(tmp_path: Path) -> None:
    """A process that made a session of its own, and closed what it inherited."""
    daemon = "import os; os.setsid(); os.closerange(0, 1000); os.execvp('sleep', ['sleep', '1000'])"
    parent = f"import os, subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {daemon!r}]).pid)"
    done = run("-j1", *python(parent + "; os._exit(sys.stdout.flush() or 0)"), "---", "true")
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "number", [number for number in signal.Signals if number.name in ("SIGTERM", "SIGINT", "SIGHUP")]
)
def test_signal_ends_them_all_and_starts_none(number: int) -> None:
    words = ["sh", "-c", "echo there; exec cat"]
    with Running([*JOBSERVER, "run", "-j2", *words, "---", *words, "---", *words], stdin=subprocess.PIPE) as running:
        assert running.process.stdout is not None
        assert [running.process.stdout.readline() for _ in range(2)] == ["there\n"] * 2
        os.kill(running.pid, number)
        assert running.process.wait(GUARD) == 128 + number
        assert running.process.stdout.read() == ""


def test_inside_a_jobserver_they_take_slots_of_it(whole: Callable[[bytes], TokenPipe]) -> None:
    pipe = whole(b"abc")
    environment = {**os.environ, **pipe.environ}
    done = run("true", "---", "true", env=environment, pass_fds=(pipe.read_fd, pipe.write_fd))
    assert done.returncode == 0
    assert "since running several commands needs a jobserver of CMD's own" in done.stderr
    done = run("true", "---", "true", env={**os.environ, "MAKEFLAGS": "--jobserver-auth=61,62"})
    assert (done.returncode, "add -j N" in done.stderr) == (2, True)
