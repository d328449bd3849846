"""The `jobserver` command for tests: started as a user does, guarded against hanging, and on a terminal."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from jobserver_ffi.makeflags import parse

from .conftest import CAPABILITIES, in_pipe
from .overlap import GUARD, captured

JOBSERVER = [sys.executable, "-m", "jobserver_ffi.cli"]
Done = subprocess.CompletedProcess[str]


def python(program: str) -> list[str]:
    """The command that runs a piece of Python."""
    return [sys.executable, "-I", "-S", "-c", program]


class Running:
    """A process in a session of its own; leaving the context ends what is left of it."""

    def __init__(self, command: list[str], **popen_kwargs: Any) -> None:
        self.command = command
        self.process = subprocess.Popen(command, start_new_session=True, **captured(popen_kwargs))
        self.pid = self.process.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if CAPABILITIES["signals"]:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self.process.kill()  # which takes the rest of its job object with it
        with self.process:
            pass

    def finish(self, given: str | None = None) -> Done:
        """Waits for the end; `given` goes to its standard input."""
        out, err = self.process.communicate(given, timeout=GUARD)
        return subprocess.CompletedProcess(self.command, self.process.returncode, out, err)

    def free(self) -> int:
        """How many tokens are in the pool that `jobserver run` made, seen from outside."""
        (child,) = psutil.Process(self.pid).children()
        auth = parse(child.environ()["MAKEFLAGS"]).auth or ""
        fifo = auth.removeprefix("fifo:")
        descriptor = os.open(
            fifo if fifo != auth else f"/proc/{child.pid}/fd/{auth.partition(',')[0]}", os.O_RDONLY | os.O_NONBLOCK
        )
        try:
            return in_pipe(descriptor)
        finally:
            os.close(descriptor)


def start(*words: str, **popen_kwargs: Any) -> Running:
    """Starts `jobserver run` with these arguments."""
    return Running([*JOBSERVER, "run", *words], **popen_kwargs)


def run(*words: str, given: str | None = None, **popen_kwargs: Any) -> Done:
    """Runs `jobserver run` with these arguments until it ends."""
    stdin = {} if given is None else {"stdin": subprocess.PIPE}
    with start(*words, **stdin, **popen_kwargs) as running:
        return running.finish(given)


class Lines:
    """Lines out of a descriptor, each waited for; a writer that is silent for GUARD seconds fails the test."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def next(self) -> str:
        while b"\n" not in self._rest:
            assert select.select([self.descriptor], [], [], GUARD)[0], f"nothing came but {self._rest!r}"
            found = os.read(self.descriptor, 4096)
            assert found, f"the end came after {self._rest!r}"
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


# The least that a shell with job control does: the job gets the terminal, and back it goes when the job stops.
SHELL = """\
import fcntl, os, signal, sys, termios
told, wanted, background = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "background"
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.set_inheritable(told, False)
os.set_inheritable(wanted, False)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    if not background:
        os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(sys.argv[4], sys.argv[4:])
os.write(told, b"%d\\n" % job)
while True:
    status = os.waitpid(job, os.WUNTRACED)[1]
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        os.write(told, b"status %d\\n" % os.waitstatus_to_exitcode(status))
        break
    os.write(told, b"stopped\\n")
    continued = os.read(wanted, 1) == b"c"
    os.tcsetpgrp(0, job)
    os.write(told, b"foreground\\n")
    if continued:
        os.killpg(job, signal.SIGCONT)
"""


class Shell:
    """A shell that runs one job on a terminal.

    Attributes:
        job: The job's process number.
        terminal: What a person would sit at: what is written there is typed, what the job writes is read there.
        told: What the shell tells of the job: "stopped", "foreground", and "status N" (negative: a signal) at the end.
    """

    def __init__(self, terminal: int, told: Lines, wanted: int) -> None:
        self.told = told
        self.terminal, self._wanted = terminal, wanted
        self.job = int(told.next())

    def press(self, key: bytes) -> None:
        """Types something at the terminal."""
        os.write(self.terminal, key)

    def foreground(self, *, continued: bool = True) -> None:
        """Gives a stopped job the terminal and continues it, as `fg` does; or leaves it stopped."""
        os.write(self._wanted, b"c" if continued else b".")
        assert self.told.next() == "foreground"


def set_size(terminal: int, columns: int, rows: int) -> None:
    """Gives a terminal another size, of which it tells the foreground."""
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def shell(
    command: list[str], *, background: bool = False, size: tuple[int, int] | None = None, **popen_kwargs: Any
) -> Iterator[Shell]:
    """Runs a command as the job of a shell on a new terminal, in the foreground or in the background.

    The terminal does not tell its size, unless there is one: columns and rows.
    """
    import pty

    terminal, end = pty.openpty()
    if size is not None:
        set_size(terminal, *size)
    (told, tell), (wanted, want) = os.pipe(), os.pipe()
    started = subprocess.Popen(
        [*python(SHELL), str(tell), str(wanted), "background" if background else "foreground", *command],
        start_new_session=True,
        stdin=end,
        stdout=end,
        stderr=end,
        **{**popen_kwargs, "pass_fds": (tell, wanted, *popen_kwargs.get("pass_fds", ()))},
    )
    for descriptor in (end, tell, wanted):
        os.close(descriptor)
    try:
        yield Shell(terminal, Lines(told), want)
    finally:
        for process in psutil.Process(started.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        started.kill()
        started.wait()
        for descriptor in (terminal, told, want):
            os.close(descriptor)


def descriptors_of(process: str = "self") -> set[int]:
    """The open descriptors of a process."""
    return {int(name) for name in os.listdir(f"/proc/{process}/fd")}


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    """A file that can be run."""
    path.write_text(text)
    path.chmod(mode)
    return path
