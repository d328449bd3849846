"""The whole terminal for a while: taken, given back on every way out, and all signals in one place."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import termios
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

assert sys.platform != "win32"

KEYBOARD, DISPLAY = 0, 1  # descriptors

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HEEDED = (*ENDING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)

# The other screen, no cursor, and no line that goes on in the next one.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"

_INPUT, _LOCAL, _CHARACTERS = 0, 3, 6  # places in what tcgetattr returns


class _Ended(Exception):
    """A signal that ends this process came while the terminal took nothing."""


class Screen:
    """The terminal, from when this is entered until it is left; a context manager.

    While it lasts signals do nothing by themselves: `wake` becomes readable, and `signals` tells which came. Handlers
    and the terminal are afterwards as before. Only in the main thread.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._saved: list[Any] | None = None  # how the terminal was, while it is taken
        self._writing = False
        self._stuck = False

    def __enter__(self) -> Screen:
        with ExitStack() as undo:
            self._open_wake(undo)
            for number in _HEEDED:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    signal.signal(number, self._heed)
                    undo.callback(signal.signal, number, before)
            undo.callback(self.leave)
            self.enter()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def enter(self) -> None:
        """Takes the terminal, also again. In the background this stops the process, as for whatever sets a terminal."""
        self.leave()
        saved = termios.tcgetattr(KEYBOARD)
        wanted = termios.tcgetattr(KEYBOARD)
        wanted[_INPUT] &= ~termios.IXON  # a Ctrl-S would keep `q` from being heard
        wanted[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
        wanted[_CHARACTERS][termios.VMIN], wanted[_CHARACTERS][termios.VTIME] = 1, 0
        self._saved = saved
        _set(wanted)
        self.write(_ENTER)

    def leave(self) -> None:
        """Gives the terminal back; harmless if it is not taken, or gone."""
        if self._saved is None:
            return
        with suppress(OSError, termios.error):
            if self._stuck:
                termios.tcflush(DISPLAY, termios.TCOFLUSH)
            self.write(_LEAVE)
        with suppress(OSError, termios.error):
            # In the background it is not ours to set, and the shell has done so.
            if os.tcgetpgrp(KEYBOARD) == os.getpgrp():
                _set(self._saved)
        self._saved = None

    def stop(self) -> None:
        """Gives the terminal back and stops this process until it is continued; `enter` is then to be called."""
        self.leave()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)

    def write(self, data: bytes) -> None:
        """Writes to the terminal. A signal that ends this process also ends the wait for a terminal that takes nothing.

        Raises:
            OSError: The terminal is gone.
        """
        try:
            self._writing = True
            while data:
                data = data[os.write(DISPLAY, data) :]
            self._writing = False
        except _Ended:
            self._stuck = True
        finally:
            self._writing = False

    def signals(self) -> set[int]:
        """The signals that came since the last call."""
        try:
            return set(self.wake.recv(4096))
        except BlockingIOError:
            return set()

    def _open_wake(self, undo: ExitStack) -> None:
        self.wake, woken = socket.socketpair()
        for end in (self.wake, woken):
            undo.enter_context(end)
            end.setblocking(False)
        before = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        undo.callback(signal.set_wakeup_fd, before)

    def _heed(self, number: int, _: FrameType | None) -> None:
        if self._writing and number in ENDING:
            self._writing = False
            raise _Ended


def _set(attributes: list[Any]) -> None:
    """Sets the keyboard; a stop for doing so in the background interrupts that."""
    while True:
        try:
            termios.tcsetattr(KEYBOARD, termios.TCSANOW, attributes)
            return
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise
