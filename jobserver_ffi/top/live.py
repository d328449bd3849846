"""The watch itself: one wait for keys, signals, the server and the clock."""

from __future__ import annotations

import os
import selectors
import signal
import sys
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..cli.terminals import shows_unicode, size_of
from ..serve.client import pause_after
from .terminal import DISPLAY, ENDING, KEYBOARD, Screen
from .view import ASCII, UNICODE, History, draw

if TYPE_CHECKING:
    from typing import Any

    from ..serve.client import PoolConnection

_PATIENCE = 3.0  # seconds for which the server may leave a question open before that is told


class _Live:
    """A pool on a screen, until somebody leaves."""

    def __init__(self, connection: PoolConnection, screen: Screen) -> None:
        self._connection, self._screen = connection, screen
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._glyphs = UNICODE if shows_unicode() else ASCII
        self._history = History()
        self._shown: list[str] = []  # the lines that the screen has
        self._note = ""
        self._wanted: int | None = None  # slots that the pool is to have, until the server has said so
        self._asked: list[str] = []  # what has no answer yet, the oldest first
        self._asked_at = 0.0
        self._take(connection.status())

    def run(self) -> int:
        """Returns the signal that ended it, 0 for the key."""
        with selectors.DefaultSelector() as selector:
            for what in (KEYBOARD, self._screen.wake, self._connection):
                selector.register(what, selectors.EVENT_READ)
            due = monotonic() + pause_after(self._status)
            while True:
                self._show()
                ready = {key.fileobj for key, _ in selector.select(max(due - monotonic(), 0))}
                if self._screen.wake in ready:
                    ended_by = self._heed(self._screen.signals())
                    if ended_by:
                        return ended_by
                if self._connection in ready:
                    for answer in self._connection.answers():
                        self._hear(answer)
                if KEYBOARD in ready and not self._press(os.read(KEYBOARD, 1024)):
                    return 0
                if monotonic() >= due:
                    due = monotonic() + pause_after(self._status)
                    self._ask("status")

    def _heed(self, signals: set[int]) -> int:
        """Does what signals ask for. Returns one that ends the watch, or 0."""
        if signal.SIGTSTP in signals and signals.isdisjoint(ENDING):
            self._screen.stop()
            signals = self._screen.signals() | {signal.SIGCONT}
        for number in ENDING:
            if number in signals:
                return number
        if signal.SIGCONT in signals:
            self._screen.enter()
        self._shown = []
        return 0

    def _press(self, keys: bytes) -> bool:
        """Does what keys ask for. Returns whether the watch goes on; it does not without a keyboard."""
        self._note = ""
        for key in keys.decode(errors="replace"):
            if key == "q":
                return False
            if key in "+-":
                self._resize(1 if key == "+" else -1)
        return keys != b""

    def _resize(self, more: int) -> None:
        """Wants another number of slots; while the server is asked for one the next is only kept in mind."""
        limit = (self._wanted or self._status["limit"]) + more
        if limit < 1:
            self._note = "a pool has at least 1 slot"
            return
        self._wanted = limit
        self._ask("resize", limit=limit)

    def _ask(self, request: str, **items: Any) -> None:
        """Asks the server, unless it still owes the answer to such a question."""
        if request in self._asked:
            return
        if not self._asked:
            self._asked_at = monotonic()
        self._asked.append(request)
        self._connection.ask(request, **items)

    def _hear(self, answer: dict[str, Any]) -> None:
        """What the server says to the oldest question."""
        request = self._asked.pop(0)
        self._asked_at = monotonic()
        if answer["reply"] == "status":
            self._take(answer["status"])
        elif request == "resize":
            self._resized(answer)
        else:
            self._note = str(answer.get("reason"))

    def _resized(self, answer: dict[str, Any]) -> None:
        if answer["reply"] == "refused":
            self._note, self._wanted = str(answer["reason"]), None
        elif answer["limit"] == self._wanted:
            self._wanted = None
        elif self._wanted is not None:
            self._ask("resize", limit=self._wanted)
        self._ask("status")

    def _take(self, status: dict[str, Any]) -> None:
        self._status = status
        self._history.add(monotonic(), status["in_use"])

    def _show(self) -> None:
        """Writes the lines that have changed."""
        size = size_of(DISPLAY)
        silent = monotonic() - self._asked_at if self._asked else 0.0
        alarm = f"the server has not answered for {silent:.0f} s" if silent >= _PATIENCE else ""
        lines = draw(self._status, self._history, size, self._glyphs, self._note, alarm)
        with self._console.capture() as captured:
            self._console.print(Text("\n").join(lines), end="")
        drawn = captured.get().split("\n")
        out = []
        if len(self._shown) != len(drawn):
            self._shown = [""] * len(drawn)
            out.append("\x1b[2J")
        for row, (line, before) in enumerate(zip(drawn, self._shown, strict=True), 1):
            if line != before:
                out.append(f"\x1b[{row};1H\x1b[2K{line}")
        self._shown = drawn
        if out:
            self._screen.write("".join(out).encode())


def watch(connection: PoolConnection) -> int:
    """Shows a pool in the terminal that is standard input and output, until `q` or a signal.

    Args:
        connection: To its server.

    Returns:
        The number of the signal that ended it, 0 for the key.

    Raises:
        ServerGone: The server ended.
        RequestRefused: It does not tell.
    """
    screen = Screen()
    live = _Live(connection, screen)
    with screen:
        return live.run()
