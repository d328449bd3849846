"""`LeaseReport`: what a lease has, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._core import ffi, lib

if TYPE_CHECKING:
    from typing import Any

STATES = {
    lib.JOBSERVER_LEASE_OPEN: "open",
    lib.JOBSERVER_LEASE_QUEUED: "queued",
    lib.JOBSERVER_LEASE_STARTED: "started",
    lib.JOBSERVER_LEASE_ORPHANS: "orphans",
    lib.JOBSERVER_LEASE_ENDED: "ended",
}

_ORPHANS = {0: "none", 1: "ended", 2: "left"}
_NANOSECONDS = 1e9  # in a second


@dataclass(frozen=True)
class LeaseReport:
    """What a lease has, and what came of it.

    Attributes:
        name: As it was given to `Pool.lease`.
        command: What runs on it; () before it was started, and for `configure`.
        state: "open" (no slot yet), "queued", "started", "orphans" (its process is gone, processes that it started are
            not), or "ended" (all is back in the pool).
        queued_before: Leases that wait for their first slot in front of it.
        slots: Slots in use now: its process's, and one for each token that it holds.
        untaken: Tokens that it is offered and has not taken.
        peak: The most slots that were in use at once.
        lost: Tokens that it held when all its processes were gone, and that are back in the pool all the same.
        orphans: Whether its process left others behind: "none", "ended" (gone before the time limit) or "left".
        taken: Tokens taken in all. On a fifo one that is given back and taken again at once may not be seen.
        waits: How often there was no token to offer after it had taken the last one.
        over_released: Bytes given back beyond what was taken; they were thrown away.
        foreign: Bytes given back that are no token of this pool; a `+` took their places.
        slot_seconds: Seconds that slots were in use, added up.
        queue_seconds: Seconds between asking for the first slot and getting it.
    """

    name: str
    command: tuple[str, ...]
    state: str
    queued_before: int
    slots: int
    untaken: int
    peak: int
    lost: int
    orphans: str
    taken: int
    waits: int
    over_released: int
    foreign: int
    slot_seconds: float
    queue_seconds: float

    @property
    def complaints(self) -> list[str]:
        """What its processes did wrong, in words; nothing if they kept the protocol."""
        said = []
        if self.lost:
            said.append(f"{_tokens(self.lost)} not given back: back in the pool")
        if self.orphans == "left":
            said.append("processes that it left behind still run, beyond the slots of the pool")
        if self.over_released:
            said.append(f"{_tokens(self.over_released)} given back that had not been taken: thrown away")
        if self.foreign:
            said.append(f"{_tokens(self.foreign)} given back with another byte than `+`: put right")
        return said


def _tokens(count: int) -> str:
    return f"{count} token{'s' * (count != 1)}"


def report_of(handle: Any, name: str, command: tuple[str, ...]) -> LeaseReport:
    """The report of a lease of the core, as of now; of None, which is a lease that was not used yet."""
    found = ffi.new("jobserver_lease_report *")
    if handle is not None:
        lib.jobserver_lease_describe(handle, found)
    return LeaseReport(
        name,
        command,
        STATES[found.state],
        found.queued_before,
        found.slots,
        found.untaken,
        found.peak,
        found.lost,
        _ORPHANS[found.orphaned],
        found.taken,
        found.waits,
        found.over_released,
        found.foreign,
        found.slot_time / _NANOSECONDS,
        found.queue_time / _NANOSECONDS,
    )
