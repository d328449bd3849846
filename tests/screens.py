"""What a person sees at a terminal: a job's screen, kept by pyte, or by a real tmux."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import Shell, set_size, shell
from .conftest import PATH, missing
from .overlap import GUARD

if TYPE_CHECKING:
    import pyte

_UTF8 = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "NO_COLOR": ""}


def of_terminal(environment: dict[str, str], **more: str) -> dict[str, str]:
    """An environment of somebody at a terminal."""
    return {**environment, **_UTF8, **more}


class OnScreen:
    """A job of a shell, and the screen that it draws on.

    Attributes:
        job: The job.
        raw: All that it wrote.
        screen: What shows.
    """

    def __init__(self, job: Shell, screen: pyte.Screen, stream: pyte.ByteStream) -> None:
        self.job, self.screen, self._stream = job, screen, stream
        self.raw = b""

    def until(self, holds: Callable[[list[str]], object]) -> list[str]:
        """The lines of the screen, as soon as something holds of them."""
        end = time.monotonic() + GUARD
        while not holds(lines := self.lines()):
            assert select.select([self.job.terminal], [], [], max(end - time.monotonic(), 0))[0], f"never came: {lines}"
            self._read()
        return lines

    def until_text(self, text: str) -> list[str]:
        """The lines of the screen, as soon as a text is in one of them."""
        return self.until(lambda lines: any(text in line for line in lines))

    def rest(self) -> list[str]:
        """The lines of the screen when the job has ended and all is read."""
        with suppress(OSError):  # the shell may have ended too
            while select.select([self.job.terminal], [], [], 0)[0]:
                self._read()
        return self.lines()

    def lines(self) -> list[str]:
        """The lines of the screen now."""
        return [line.rstrip() for line in self.screen.display]

    def resize(self, columns: int, rows: int) -> None:
        """Gives the terminal another size."""
        self.screen.resize(rows, columns)
        set_size(self.job.terminal, columns, rows)

    def modes(self) -> list[Any]:
        """How the terminal is set, as `stty -a` tells."""
        import termios

        return termios.tcgetattr(self.job.terminal)

    def _read(self) -> None:
        found = os.read(self.job.terminal, 65536)
        self.raw += found
        self._stream.feed(found)


@contextmanager
def on_screen(command: list[str], size: tuple[int, int] | None = (80, 24), **popen_kwargs: Any) -> Iterator[OnScreen]:
    """Runs a command as the job of a shell on a terminal with a screen; it does not tell its size if that is None."""
    try:
        import pyte
    except ImportError:
        missing("pyte")
    screen = pyte.Screen(*(size or (80, 24)))
    with shell(command, size=size, **popen_kwargs) as job:
        yield OnScreen(job, screen, pyte.ByteStream(screen))


class Tmux:
    """A window of a real tmux with a shell in it."""

    def __init__(self, program: str, socket: Path, environment: dict[str, str]) -> None:
        self._command, self._environment = [program, "-S", str(socket), "-f", "/dev/null"], environment

    def call(self, *words: str) -> str:
        """What a command of tmux prints."""
        done = subprocess.run(
            [*self._command, *words], env=self._environment, capture_output=True, text=True, timeout=GUARD, check=True
        )
        return done.stdout

    def type(self, text: str) -> None:
        """Types a line."""
        self.call("send-keys", "-l", text)
        self.call("send-keys", "Enter")

    def until(self, holds: Callable[[list[str]], object], *, history: bool = False) -> list[str]:
        """The lines of the screen, or all that there ever were, as soon as something holds of them."""
        end = time.monotonic() + GUARD
        words = ["-S", "-"] if history else []
        while not holds(lines := self.call("capture-pane", "-p", *words).splitlines()):
            assert time.monotonic() < end, f"never came: {lines}"
            time.sleep(0.02)
        return lines


@contextmanager
def tmux(directory: Path, environment: dict[str, str]) -> Iterator[Tmux]:
    """A tmux of 80 columns and 24 rows."""
    program = shutil.which("tmux", path=PATH) or missing("tmux")
    environment = {name: value for name, value in environment.items() if name not in ("TMUX", "TMUX_PANE")}
    window = Tmux(program, directory / "tmux", of_terminal(environment, ENV="", PATH=PATH))
    window.call("new-session", "-d", "-x", "80", "-y", "24", "sh")
    try:
        window.until(lambda lines: lines[0])  # the shell asks for a command
        yield window
    finally:
        with suppress(subprocess.CalledProcessError):
            window.call("kill-server")
