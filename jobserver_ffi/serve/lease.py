"""A lease of a served pool: its process is at the far end of a connection."""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING, Any

from .._core import lib
from ..errors import error_for
from ..lease import _address

if TYPE_CHECKING:
    from ..lease_report import LeaseReport
    from ..pool import Pool

_WAITS_ON = (-EAGAIN, -lib.ETIMEDOUT)


class ServedLease:
    """What one connected client has of the pool, from when it asked for it until all that it left behind is gone.

    Args:
        pool: The pool.
        name: What it is called.
        command: What runs on it, for reports.
        style: "pipe" or "fifo".
        process: The client's process number, 0 if it is not known.

    Raises:
        OSError: The system refused: too many descriptors, say.
    """

    def __init__(self, pool: Pool, name: str, command: tuple[str, ...], style: str, process: int) -> None:
        self.process = process
        self.connected = True
        self.place = -1  # in the queue, as the client was told
        self._started = False
        self._pool = pool
        self._style = style
        self._lease = pool.lease(name, style=style)
        self._handle = self._lease._opened(command)
        self._lease._command = command

    def start(self) -> bool:
        """Takes a place in the queue, or keeps it. Returns whether the first slot is there."""
        if not self._started:
            code = lib.jobserver_lease_start(self._handle, 0)
            if code < 0 and code not in _WAITS_ON:
                raise error_for(code)
            self._started = code == 0
        return self._started

    def hand_over(self) -> tuple[dict[str, Any], list[int]]:
        """What the client must know to use the lease, and the descriptors that it gets; both but once."""
        auth, descriptors = _address(self._handle)
        if self._style == "pipe":
            return {"style": "pipe", "descriptors": ["take", "give", "life line"]}, list(descriptors)
        lock = lib.jobserver_broker_lock(self._pool._handle)
        path = auth.removeprefix("fifo:")
        return {"style": "fifo", "path": path, "descriptors": ["life line", "lock"]}, [*descriptors, lock]

    def handed_over(self) -> None:
        """The client has its descriptors: those of this process are closed."""
        self._check(lib.jobserver_lease_spawned(self._handle, 0))

    def leave(self) -> None:
        """The connection has ended. Whoever still has the life line counts as the lease's."""
        self.connected = False
        self._check(lib.jobserver_lease_leave(self._handle))

    def end(self) -> LeaseReport:
        """The client says that nobody is left: everything is taken back."""
        self._check(lib.jobserver_lease_end(self._handle))
        return self.report()

    def report(self) -> LeaseReport:
        """What it has and what came of it."""
        return self._lease.report()

    @staticmethod
    def _check(code: int) -> None:
        if code < 0:
            raise error_for(code)
