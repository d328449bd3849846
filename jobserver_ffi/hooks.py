"""What a `Client` or a `Pool` tells those who want to know what it does: `JobserverEvent`, and a log of them."""

from __future__ import annotations

import enum
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from .lease_report import LeaseReport

OnEvent: TypeAlias = "Callable[[JobserverEvent], object]"


class EventKind(enum.Enum):
    """What happened."""

    WAIT_BEGAN = "wait began"
    WAIT_ENDED = "wait ended"
    ACQUIRED = "acquired"
    RELEASED = "released"
    LEASE_OPENED = "lease opened"
    LEASE_STARTED = "lease started"
    LEASE_ENDED = "lease ended"
    LOST = "lost"
    OVER_RELEASED = "over-released"


class JobserverEvent(NamedTuple):  # which takes a third of a frozen dataclass's time to make, and two are made a pair
    """Something that a client, or a lease of a pool, has done. `str()` of it is a sentence.

    Use its attributes by their names: there may be more of them one day.

    Attributes:
        kind: What happened.
        time: When, in seconds of `time.monotonic`.
        name: Whose it is: the client's `auth`, or the name of the lease.
        tokens: How many tokens it is about. Of WAIT_ENDED: how many came of it, 0 if it ended for another reason.
        implicit: Whether it is about the process's implicit slot, which is no token.
        waited: Seconds of the wait (WAIT_ENDED, ACQUIRED) or in the queue for the first slot (LEASE_STARTED); 0.0 if
            there was none.
        held: Seconds for which it was held (RELEASED); None where that is not known: raw, or dropped.
        dropped: Whether nobody released it: it went back when its object was dropped, some time before (RELEASED).
        error: The name of the exception that ended the wait (WAIT_ENDED), or "".
        lease: The number of the lease, unique in this process; 0 where it is about a client.
        report: What the lease has and what came of it; None where it is about a client.
    """

    kind: EventKind
    time: float
    name: str
    tokens: int = 0
    implicit: bool = False
    waited: float = 0.0
    held: float | None = None
    dropped: bool = False
    error: str = ""
    lease: int = 0
    report: LeaseReport | None = None

    def __str__(self) -> str:
        what = "the implicit slot" if self.implicit else f"{self.tokens} token{'s' * (self.tokens != 1)}"
        after = "" if self.held is None else f" after {self.held:.6f} s"
        said = {
            EventKind.WAIT_BEGAN: "waits",
            EventKind.WAIT_ENDED: f"waited for {self.waited:.6f} s: {self.error or what}",
            EventKind.ACQUIRED: f"took {what}",
            EventKind.RELEASED: f"{'dropped' if self.dropped else 'gave back'} {what}{after}",
            EventKind.LEASE_STARTED: f"lease started, {self.waited:.6f} s in the queue",
            EventKind.LOST: f"{what} not given back: back in the pool",
            EventKind.OVER_RELEASED: f"{what} given back that had not been taken: thrown away",
        }
        return f"{self.name}: {said.get(self.kind, self.kind.value)}"


_WARNINGS = (EventKind.LOST, EventKind.OVER_RELEASED)


def log_events(logger: logging.Logger | None = None, level: int | None = None) -> OnEvent:
    """A value for `on_event` that logs every event.

    Args:
        logger: Where to; by default `logging.getLogger("jobserver_ffi")`.
        level: At which level, by default `logging.DEBUG`; LOST and OVER_RELEASED at WARNING at least.
    """
    import logging

    target = logging.getLogger("jobserver_ffi") if logger is None else logger
    usual = logging.DEBUG if level is None else level

    def log(event: JobserverEvent) -> None:
        target.log(max(usual, logging.WARNING) if event.kind in _WARNINGS else usual, "%s", event)

    return log


def tell(on_event: OnEvent, event: JobserverEvent) -> None:
    """Calls a hook. What it raises is shown as that of a thread and ends nothing, but for Ctrl-C and the like."""
    try:
        on_event(event)
    except Exception:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
