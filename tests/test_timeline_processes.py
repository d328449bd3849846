"""What the looks at /proc find of processes whose state is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobserver_ffi.timeline import RecordedProcess
from jobserver_ffi.timeline.processes import Processes

from .overlap import GUARD

pytestmark = [
    pytest.mark.needs("sh", "/proc"),
    pytest.mark.skipif(not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="no children in /proc"),
]


@contextmanager
def shell(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A shell that runs a program (and is there, with its command line), in a group that ends with this."""
    command = ["sh", "-c", f"echo; {program}", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            line_of(process)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + GUARD
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


def words_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")[:-1]


class Watched:
    """The looks at what runs below a process."""

    def __init__(self, process: int, *, shown: bool = True) -> None:
        self.processes = Processes(time.monotonic_ns())
        self.processes.follow(process, 0, shown=shown)

    def look(self) -> dict[int, RecordedProcess]:
        """What has been found after one look more, by number."""
        self.processes.look(time.monotonic_ns())
        return {process.pid: process for process in self.processes.found(time.monotonic_ns())}


def test_program_that_becomes_another_of_the_same_name() -> None:
    """As a child of make is a make, with make's command line, until it has become the next make."""
    with shell("read line; exec sh -c 'echo $$; read line' second") as process:
        watched = Watched(process.pid)
        assert watched.look()[process.pid].command.startswith("sh -c 'echo; read line; exec")
        tell(process)
        assert line_of(process) == str(process.pid)
        assert watched.look()[process.pid].command == """sh -c 'echo $$; read line' second"""


def test_child_of_a_process_that_has_ended_is_followed() -> None:
    with shell("sh -c 'sleep 1000 & echo $!; read line' inner; read line") as process:
        orphan = int(line_of(process))
        watched = Watched(process.pid)
        until(lambda: watched.look()[orphan].name == "sleep")
        parent = watched.look()[orphan].parent
        assert parent not in (process.pid, os.getpid())
        tell(process)  # one of the two reads it, and ends: the inner one is the one in the foreground
        until(lambda: not os.path.exists(f"/proc/{parent}"))
        seen = watched.look()
        ended = seen[parent].end
        assert seen[orphan].end > ended
        os.kill(orphan, signal.SIGKILL)
        until(lambda: watched.look()[orphan].end == watched.look()[orphan].end)
        assert watched.look()[parent].end == ended


def test_child_of_a_thread_is_found() -> None:
    program = (
        "import subprocess, sys, threading\n"
        "thread = threading.Thread(target=subprocess.run, args=(['sh', '-c', 'echo $$; read line'],))\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    with shell('exec "$@"', "sh", sys.executable, "-I", "-S", "-c", program) as process:
        child = int(line_of(process))
        found = Watched(process.pid).look()
        assert (found[child].parent, found[child].command) == (process.pid, "sh -c 'echo $$; read line'")


def test_what_stands_between_is_not_shown_but_what_it_started_is() -> None:
    with shell("sh -c 'echo $$; read line'; read line") as process:
        child = int(line_of(process))
        assert set(Watched(process.pid, shown=False).look()) == {child}


def test_one_that_has_ended_and_was_not_waited_for_has_ended() -> None:
    with shell("read line") as process:
        watched = Watched(process.pid)
        watched.look()
        tell(process)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ended = watched.look()[process.pid].end
        assert watched.look()[process.pid].end == ended
        process.wait()


def test_command_line_is_quoted_and_cut() -> None:
    with shell("read line", "a b", "c" * 10_000) as process:
        command = Watched(process.pid).look()[process.pid].command
    assert command.startswith("sh -c 'echo; read line' 'a b' ccc")
    assert len(command) == 500 and command.endswith("…")


def test_times_and_figures_of_this_process() -> None:
    """Started before the recording; it uses CPU and memory."""
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    found = Watched(os.getpid()).look()[os.getpid()]
    assert found.start == 0.0
    assert 0.04 <= found.cpu <= time.process_time() + 0.02
    assert found.memory > 2**20
