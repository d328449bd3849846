"""`BackgroundThread`: a thread of ours that waits for tokens, and ends before the interpreter does."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class BackgroundThread:
    """A daemon thread that `close` ends, at the latest when the interpreter exits.

    It is a daemon since the interpreter waits for other threads before it calls anybody who could end them.

    Args:
        name: Of the thread.
        serve: What it does until `stop` is called. It must not keep the owner of this object alive.
        stop: Makes `serve` return soon. Called from any thread, perhaps several times.
    """

    __slots__ = ("__weakref__", "_stop", "_thread")

    def __init__(self, name: str, serve: Callable[[], None], stop: Callable[[], None]) -> None:
        self._stop = stop
        self._thread = threading.Thread(target=serve, name=name, daemon=True)
        _open.add(self)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it runs: not any more when it was closed, and never in a forked child, where only its copy is."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread and waits until it has ended, unless it is the caller itself; again: harmless."""
        self._stop()
        _open.discard(self)
        if self._thread is not threading.current_thread():
            self._thread.join()


_open: weakref.WeakSet[BackgroundThread] = weakref.WeakSet()


def _close_all() -> None:
    for thread in list(_open):
        thread.close()


atexit.register(_close_all)
