"""`LeaseWatcher`: tells what becomes of the leases of a pool with `on_event`; others have no such thread."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._core import lib
from .errors import check
from .event import Event
from .handles import observer
from .hooks import EventKind, JobserverEvent, tell
from .lease_report import LeaseReport, report_of

if TYPE_CHECKING:
    from .hooks import OnEvent

if sys.platform == "win32":
    from .windows import Changes
else:

    class Changes:
        """What is rung when leases have changed: a descriptor that becomes readable.

        Args:
            number: The pool's own descriptor, which its end closes.
        """

        def __init__(self, number: int) -> None:
            self._descriptor = os.dup(number)

        def wait_or(self, event: Event) -> None:
            """Sleeps until leases have changed since the last `take`, or the event is set."""
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            poll.register(event.waitable, select.POLLIN)
            poll.poll()

        def take(self) -> None:
            """What has changed so far is about to be looked at."""
            with suppress(BlockingIOError):
                while len(os.read(self._descriptor, 4096)) == 4096:
                    pass

        def close(self) -> None:
            """Closes the descriptor."""
            os.close(self._descriptor)


_numbers = count(1)  # of all leases of this process that are watched


class _Watched:
    """A lease of the core, and what was told of it. The lease ends all the same when it is dropped."""

    def __init__(self, lease: Any, name: str, command: tuple[str, ...]) -> None:
        self.number = next(_numbers)
        self.name = name
        self.command = command
        self.handle = observer(lease)
        self.queue_seconds: float | None = None  # until its last start; None before the first one
        self.over_released = 0

    def report(self) -> LeaseReport:
        """What the lease has now, or had when it ended."""
        return report_of(self.handle, self.name, self.command)


class LeaseWatcher:
    """Looks at the leases whenever the state of one has changed, in a thread that sleeps meanwhile.

    Args:
        broker: The core's pool. Nobody else may watch it: a change is told once.
        on_event: Is called in that thread, but for LEASE_OPENED.
    """

    def __init__(self, broker: Any, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._changes = Changes(check(lib.jobserver_broker_watch(broker)))  # its own: a hook may close the pool
        self._wake = Event()
        self._watched: dict[int, _Watched] = {}  # those whose end was not told
        self._stopped = False

    def watch(self, lease: Any, name: str, command: tuple[str, ...]) -> None:
        """Tells that a lease was opened, and from now on what becomes of it, until it is closed or dropped."""
        watched = _Watched(lease, name, command)
        self._tell(EventKind.LEASE_OPENED, watched, watched.report())
        self._watched[watched.number] = watched
        if self._stopped:  # meanwhile: the thread may have had its last look
            self._end(watched, watched.report())

    def serve(self) -> None:
        """What the thread does until `stop`."""
        try:
            self._serve()
        finally:
            self._changes.close()

    def _serve(self) -> None:
        while True:
            self._wake.clear()  # first: what changes after this is looked at in the next turn
            stopped = self._stopped
            self._changes.take()
            self._look()
            if stopped:
                break
            self._changes.wait_or(self._wake)
        for watched in list(self._watched.values()):
            self._end(watched, watched.report())

    def stop(self) -> None:
        """Lets the thread have one more look and end. Of leases that go on it tells the end, as of now."""
        self._stopped = True
        self._wake.set()

    def _look(self) -> None:
        for watched in list(self._watched.values()):
            report = watched.report()
            if report.state == "ended":
                self._end(watched, report)
            else:
                self._go_on(watched, report)

    def _go_on(self, watched: _Watched, report: LeaseReport) -> None:
        """Tells what is new of a lease that has not ended, or that has."""
        if report.peak > 0 and report.queue_seconds != watched.queue_seconds:
            waited = report.queue_seconds - (watched.queue_seconds or 0.0)
            watched.queue_seconds = report.queue_seconds
            self._tell(EventKind.LEASE_STARTED, watched, report, waited=waited)
        more = report.over_released - watched.over_released
        if more > 0:
            watched.over_released = report.over_released
            self._tell(EventKind.OVER_RELEASED, watched, report, tokens=more)

    def _end(self, watched: _Watched, report: LeaseReport) -> None:
        """Tells that a lease has ended, unless another thread does."""
        if self._watched.pop(watched.number, None) is None:
            return
        self._go_on(watched, report)
        if report.lost:
            self._tell(EventKind.LOST, watched, report, tokens=report.lost)
        self._tell(EventKind.LEASE_ENDED, watched, report)

    def _tell(self, kind: EventKind, watched: _Watched, report: LeaseReport, **values: Any) -> None:
        event = JobserverEvent(kind, monotonic(), watched.name, lease=watched.number, report=report, **values)
        tell(self._on_event, event)
