"""Real builds for tests: jobs that are counted while they run, and recipes that run a piece of Python."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobserver_ffi import Client
from jobserver_ffi.create import STYLES

from .conftest import Tool, need_make

# What ends a process at once, and the status that its parent then sees.
KILL = int(getattr(signal, "SIGKILL", 9))
KILLED = KILL if os.name == "nt" else -KILL

GUARD = 120.0  # seconds until a build that hangs is let go, so that the test fails

# What a job runs: it ends when the counter says so. With arguments it becomes that program, which is then the job.
JOB = """\
import os, socket, sys
job = socket.socket({family})
job.connect({address!r})
job.set_inheritable(True)
assert job.recv(1), "nobody counts any more"
if len(sys.argv) > 1:
    os.execvp(sys.argv[1], sys.argv[1:])
"""


def command_line(words: list[str]) -> str:
    """The words as the shell of a recipe takes them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


class JobCounter:
    """Counts the jobs that run at the same time, and makes the peak certain.

    Each job connects and is held. When `full` jobs are there, the counter asks how many tokens are free (none may be,
    or one more job could start), lets the oldest end, and goes on so until the last job has come; then all may end. A
    build that does not fill its slots is let go when no job came or went for GUARD seconds; that shows in `stuck`.

    Args:
        jobs: How many jobs will come.
        full: How many of them the slots allow at once.
        free: Tells how many tokens are free; called from the counter's thread.
        once: Whether it is enough that the slots are full once: ninja does not wait for tokens, so those that another
            build gives back stay free until one of its own jobs ends.

    Attributes:
        command: The shell command of a job.
        peak: The most jobs that ran at once.
        jobs: How many came.
        free: What was free whenever all slots were in use.
        stuck: Whether it had to be let go.
    """

    def __init__(self, jobs: int, full: int, free: Callable[[], int], *, once: bool = False) -> None:
        self.jobs = self.peak = 0
        self.free: set[int] = set()
        self.stuck = False
        self._expected, self._full, self._ask_free, self._once = jobs, full, free, once
        self._directory = tempfile.TemporaryDirectory()
        place = Path(self._directory.name)
        # A local socket shows the end of a job before the next one can begin.
        local = hasattr(socket, "AF_UNIX")
        family = int(socket.AF_UNIX if local else socket.AF_INET)
        self._listener = socket.socket(family)
        self._listener.bind(str(place / "jobs") if local else ("127.0.0.1", 0))
        self._listener.listen(1000)
        (place / "job.py").write_text(JOB.format(family=family, address=self._listener.getsockname()))
        self.command = command_line([sys.executable, "-I", "-S", str(place / "job.py")])
        self._held: list[socket.socket] = []
        self._let_go: list[socket.socket] = []
        self._stopped, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> JobCounter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._directory.cleanup()

    def _serve(self) -> None:
        try:
            self._count()
        finally:
            self._listener.close()  # A job that comes after all fails, and the build with it.
            while self._held:
                self._let_oldest_go()
            for job in self._let_go:
                job.close()

    def _count(self) -> None:
        while True:
            watched = [self._stopped, self._listener, *self._held, *self._let_go]
            ready = select.select(watched, [], [], GUARD)[0]
            if self._listener in ready:
                self._accept()
            else:
                self._forget_ended()
            self.stuck = not ready
            if self.stuck or self._stopped in ready:
                return
            self._let_some_go()

    def _accept(self) -> None:
        """Counts a job that has come, after those that ended before it could start."""
        job = self._listener.accept()[0]
        self._forget_ended()
        self._held.append(job)
        self.jobs += 1
        self.peak = max(self.peak, len(self._held) + len(self._let_go))

    def _forget_ended(self) -> None:
        """Forgets the jobs that have ended; a job never says anything, so what is readable is its end."""
        jobs = [*self._held, *self._let_go]
        for job in select.select(jobs, [], [], 0)[0] if jobs else []:
            (self._held if job in self._held else self._let_go).remove(job)
            job.close()

    def _let_some_go(self) -> None:
        full = len(self._held) >= self._full
        if full:
            self.free.add(self._ask_free())
        if self.jobs >= self._expected or (self._once and self.free):
            while self._held:
                self._let_oldest_go()
        elif full:
            self._let_oldest_go()

    def _let_oldest_go(self) -> None:
        job = self._held.pop(0)
        with contextlib.suppress(BrokenPipeError):
            job.send(b".")
        self._let_go.append(job)

    def check(self) -> None:
        """Fails unless all jobs came, as many at once as there were slots, and never more."""
        assert not self.stuck, f"the slots were never filled: {self.peak} jobs at most, and no change for {GUARD} s"
        assert (self.jobs, self.peak) == (self._expected, self._full)
        assert self.free == {0}, "all slots were in use and yet tokens were free"


# GNU make as it can be the jobserver: its version and its style.
MAKE_SERVERS = ["4.3 pipe", "4.4.1 pipe", "4.4.1 fifo"] if "pipe" in STYLES else ["4.4.1 semaphore"]

# What puts a make or ninja under a client: MAKEFLAGS too, which is not set on Windows unless it is named.
FOR_MAKE: dict[str, Any] = {"variables": ("MAKEFLAGS", "CARGO_MAKEFLAGS")}


def server_command(server: str) -> tuple[Tool, list[str]]:
    """The make of an entry of MAKE_SERVERS, and the command that makes it a jobserver of that style, without -j."""
    version, style = server.split()
    tool = need_make(version)
    return tool, [
        tool.path,
        "-s",
        *([f"--jobserver-style={style}"] if version != "4.3" and style != "semaphore" else []),
    ]


# What a program of a test begins with; one that waits for ever is ended, so that the test fails.
PROGRAM = f"""\
import json, os, signal, subprocess, sys, threading
from jobserver_ffi import Client, FromEnvError
if hasattr(signal, "alarm"):
    import fcntl
    signal.alarm({GUARD:.0f})
else:
    guard = threading.Timer({GUARD}, os._exit, [99])
    guard.daemon = True
    guard.start()
"""

# In a recipe's program there are also `client` and `error`, and tell(), which hands values to the test.
RECIPE = """\
def tell(**values):
    with open({told!r}, "a") as told:
        print(json.dumps(values), file=told)
found = Client.from_env_ext()
client, error = found.client, found.error
"""


def python(program: str) -> list[str]:
    """The command for a program that uses the library."""
    return [sys.executable, "-I", "-c", PROGRAM + program]


def write_recipe(path: Path, program: str, told: Path) -> list[str]:
    """Writes a program that tells what it finds in the environment; returns its command."""
    path.write_text(PROGRAM + RECIPE.format(told=str(told)) + program)
    return [sys.executable, "-I", str(path)]


class Recipe:
    """A directory with a makefile of one rule, whose recipe runs programs that use the library.

    Args:
        directory: Where the makefile and the programs are put.
        lines: The lines of the recipe: the prefix, "+" or "", and the program.
    """

    def __init__(self, directory: Path, *lines: tuple[str, str]) -> None:
        self._directory = directory
        self._told = directory / "told"
        self._told.touch()
        makefile = ["all:"]
        for number, (prefix, program) in enumerate(lines):
            command = write_recipe(directory / f"recipe{number}.py", program, self._told)
            makefile.append(f"\t{prefix}{command_line(command)}")
        (directory / "Makefile").write_text("\n".join(makefile) + "\n")

    def run(self, command: list[str], **popen_kwargs: Any) -> list[dict[str, Any]]:
        """Runs a make that must end well and must not complain; returns what its recipe told."""
        quiet(subprocess.run(command, cwd=self._directory, **captured(popen_kwargs)))
        return told_in(self._told)


def told_in(path: Path) -> list[dict[str, Any]]:
    """What programs told."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def captured(popen_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for subprocess.run to catch what a build prints."""
    return {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **popen_kwargs}


def quiet(done: subprocess.CompletedProcess[Any]) -> None:
    """Fails unless a build ended well and make had nothing to warn of: `jobserver unavailable`, tokens missing …"""
    assert (done.returncode, done.stderr) == (0, "")


# Prints which descriptors are open, without the one that it takes to look.
LIST_OPEN = [
    *(sys.executable, "-I", "-S", "-c"),
    "import os; print(*(fd for fd in os.listdir('/dev/fd') if os.path.exists('/dev/fd/' + fd)))",
]


def ends(client: Client) -> set[int]:
    """The descriptors that a pool's address names."""
    return set(map(int, client.auth.split(","))) if "," in client.auth else set()
