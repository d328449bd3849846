"""`jobserver run --progress`: how many slots are in use, on one line at the foot of the terminal.

CMD writes to the same terminal, and what it writes is not seen here: so the line cannot be wiped away before and drawn
again after it, as programs do with output of their own. Instead the last line of the screen is taken out of what
scrolls (DECSTBM); CMD's lines stay whole, and CMD still has a terminal.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from .messages import say
from .terminals import cannot_move_cursor, shows_unicode, size_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from .. import Client
    from ..pool import Pool

_PAUSE = 0.25  # seconds between two looks
_TERMINAL = 2  # the descriptor that is written to
_LEAST_ROWS = 3
_BAR = 24

_SAVE, _RESTORE = "\x1b7", "\x1b8"
_WHOLE = f"{_SAVE}\x1b[r{_RESTORE}"  # all lines scroll


@dataclass(frozen=True)
class Figures:
    """What the line tells; `limit` is None where nobody knows how many slots there are, and then `free` is told."""

    in_use: int
    limit: int | None
    waiting: int = 0
    free: int = 0


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --progress."""
    parser.add_argument(
        "--progress",
        action="store_true",
        help="show how many slots are in use on the last line of the terminal that is standard error",
    )


def of_pool(pool: Pool) -> Callable[[], Figures]:
    """What tells of a pool in this process."""

    def look() -> Figures:
        status = pool.status()
        return Figures(status.in_use, status.limit, status.queued)

    return look


def of_served_pool(name: str) -> Callable[[], Figures]:
    """What tells of a pool that is served: it asks the server, and waits for no more than a moment."""
    from ..serve.client import NoServer, PoolConnection, ServerGone, pause_after
    from ..serve.place import PlaceError

    connection: PoolConnection | None = None
    due: float | None = 0.0  # when to ask again; None while the server owes an answer
    status: dict[str, Any] | None = None

    def look() -> Figures:
        nonlocal connection, due, status
        try:
            connection = connection or PoolConnection(name)
            if due is not None and monotonic() >= due:
                connection.ask("status")
                due = None
            if due is None and select.select([connection], [], [], _PAUSE)[0]:
                for answer in connection.answers():
                    if answer["reply"] != "status":
                        raise OSError(answer.get("reason"))
                    status = answer["status"]
                    due = monotonic() + pause_after(answer["status"])
        except (NoServer, PlaceError, ServerGone) as error:
            raise OSError(str(error)) from None
        if status is None:
            raise OSError("the server has not answered yet")
        return Figures(status["in_use"], status["limit"], status["queued"])

    return look


def of_client(client: Client, jobs: int | None) -> Callable[[], Figures]:
    """What tells of the jobserver that is there: what is not in its pool is in use, and its first slot is no token."""

    def look() -> Figures:
        free = client.available()
        return Figures(max(jobs - free, 1), jobs, free=free) if jobs else Figures(0, None, free=free)

    return look


class Progress:
    """The line, from `begin` until this context manager is left; nothing at all if it is not wanted, or cannot be.

    A thread of its own draws it. Each writing is one system call that leaves the cursor where it was, so nothing of
    another process's comes in between.

    Args:
        wanted: Whether there is to be one.

    Attributes:
        shown: Whether there will be one.
    """

    def __init__(self, wanted: bool) -> None:
        reason = _why_not() if wanted else None
        if reason is not None:
            say(f"no progress is shown: {reason}")
        self.shown = wanted and reason is None
        self._bar, self._free = ("█", "░") if self.shown and shows_unicode() else ("#", ".")
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._size: os.terminal_size | None = None  # of the screen whose last line is ours; None while none is
        self._line = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with self._lock:
            self._give_back()

    def begin(self, look: Callable[[], Figures]) -> None:
        """Shows the line from now on. After the fork that makes CMD: a child of a process with threads may block.

        Args:
            look: Tells the figures; an OSError or JobserverError if it cannot.
        """
        if self.shown:
            threading.Thread(
                target=self._draw, args=(look, monotonic()), name="jobserver progress", daemon=True
            ).start()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """While it lasts the terminal is as before: this process is stopped, say, and a shell has it."""
        with self._lock:
            self._give_back()
            yield

    def _draw(self, look: Callable[[], Figures], began: float) -> None:
        from ..errors import JobserverError

        while not self._ended.is_set():
            # The lock is held while a pool is looked at, so that it is not closed meanwhile.
            with self._lock, suppress(OSError):  # a terminal that is gone is CMD's affair
                if not self._ended.is_set() and os.tcgetpgrp(_TERMINAL) == os.getpgrp():
                    figures = None
                    with suppress(OSError, JobserverError):
                        figures = look()
                    self._show(self._text(figures, int(monotonic() - began)))
            self._ended.wait(_PAUSE)

    def _show(self, line: str) -> None:
        size = size_of(_TERMINAL)
        if size.lines < _LEAST_ROWS:
            return
        out = ""
        if size != self._size:
            self._size, self._line = size, ""
            out = _last_line_apart(size.lines)
        line = line[: size.columns - 1]
        if line != self._line:
            self._line = line
            _write(f"{out}{_SAVE}\x1b[{size.lines};1H\x1b[0m\x1b[2K{line}{_RESTORE}")

    def _text(self, figures: Figures | None, seconds: int) -> str:
        minutes = f"{seconds // 60}:{seconds % 60:02}"
        if figures is None:
            return f"slots in use: not known  {minutes}"
        if figures.limit is None:
            return f"slots free: {figures.free}  {minutes}"
        scale = max(figures.limit, figures.in_use, 1)
        filled = round(figures.in_use / scale * _BAR)
        waiting = f"  {figures.waiting} waiting" if figures.waiting else ""
        bar = self._bar * filled + self._free * (_BAR - filled)
        return f"{bar} {figures.in_use} of {figures.limit} slots in use{waiting}  {minutes}"

    def _give_back(self) -> None:
        if self._size is None:
            return
        with suppress(OSError):
            _write(f"{_WHOLE}{_SAVE}\x1b[{self._size.lines};1H\x1b[2K{_RESTORE}")
        self._size = None


def _last_line_apart(rows: int) -> str:
    """What makes the last line stay where it is while the others scroll; the cursor ends above it, in its column.

    After a change of the size the old line is somewhere below the cursor.
    """
    make_room = "\x1bD\x1b[A"
    wipe_below = f"{_SAVE}\x1b[B\r\x1b[J{_RESTORE}"
    return f"{_WHOLE}{make_room}{wipe_below}{_SAVE}\x1b[1;{rows - 1}r{_RESTORE}"


def _write(text: str) -> None:
    os.write(_TERMINAL, text.encode())


def _why_not() -> str | None:
    if sys.platform == "win32":
        return "not on Windows"
    if not os.isatty(_TERMINAL):
        return "standard error is no terminal"
    if cannot_move_cursor():
        return "by TERM the terminal has no cursor that can be moved"
    try:
        os.tcgetpgrp(_TERMINAL)
    except OSError:
        return "standard error is a terminal that this does not run on"
    return None
