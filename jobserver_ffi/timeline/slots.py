"""Where it is known from how many slots are in use: a pool's journal, a pipe that is looked at, or a pool's server."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._core import ffi, lib
from ..errors import check
from .recording import RecordedLease, Recording, Step

if TYPE_CHECKING:
    from ..client import Client
    from ..lease import Lease
    from ..lease_report import LeaseReport
    from ..pool import Pool
    from ..serve.client import PoolConnection

_ROOM = 1 << 16  # changes that the journal holds until it is emptied
_CHANGE = struct.Struct("=qii")  # struct jobserver_change
_NANOSECONDS = 1e9


class Slots:
    """How many slots are in use, of each lease.

    Attributes:
        source: "lease" or "samples", see `Recording`.
        pause: Seconds between two looks, at least.
    """

    source = "samples"
    pause = 0.01

    def __init__(self) -> None:
        self.leases: list[RecordedLease] = []
        self.count = 0

    def add(self, name: str, command: list[str], lease: Lease | None = None) -> int:
        """A lease of the recording. Returns its index."""
        self.leases.append(RecordedLease(name, list(command)))
        return len(self.leases) - 1

    def look(self, now: int) -> None:
        """Looks, once; the time is one of CLOCK_MONOTONIC, in nanoseconds. No two threads at once."""
        self.count += 1

    def ended(self, lease: int, report: LeaseReport) -> None:
        """What came of a lease."""
        found = self.leases[lease]
        found.peak, found.slot_seconds = report.peak, report.slot_seconds
        found.lost, found.over_released = report.lost, report.over_released
        found.queue_seconds = report.queue_seconds

    def fill(self, recording: Recording, origin: int) -> None:
        """Writes down what was seen; `origin` is the recording's time 0."""
        recording.source = self.source
        recording.leases = self.leases
        for lease in self.leases:
            lease.ended = _end_of(lease, recording.seconds)
            if not lease.slot_seconds:
                lease.slot_seconds = _slot_seconds(lease)
            lease.peak = max(lease.peak, *(int(slots) for _, slots in lease.changes), 0)

    def close(self) -> None:
        """Ends what was opened for it."""


class JournalSlots(Slots):
    """Every change in a pool of this process, from its journal.

    Args:
        pool: The pool; it must be open until the last look.

    Raises:
        OSError: There is no memory for the journal.
    """

    source = "lease"
    pause = 0.1

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool
        self._of_core: list[Lease | None] = []
        self._changes = ffi.new("jobserver_change[]", _ROOM)
        self._dropped = ffi.new("int64_t *")
        self._taken: list[bytes] = []
        check(lib.jobserver_broker_record(pool._handle, _ROOM))

    def add(self, name: str, command: list[str], lease: Lease | None = None) -> int:
        """See `Slots.add`."""
        self._of_core.append(lease)
        return super().add(name, command)

    def look(self, now: int) -> None:
        """Takes what there is; it is read when all is over."""
        super().look(now)
        count = lib.jobserver_broker_changes(self._pool._handle, self._changes, _ROOM, self._dropped)
        if count > 0:
            self._taken.append(bytes(ffi.buffer(self._changes, count * _CHANGE.size)))

    def fill(self, recording: Recording, origin: int) -> None:
        """See `Slots.fill`."""
        steps: dict[int, list[Step]] = {0: recording.limits}
        for lease, recorded in zip(self._of_core, self.leases, strict=True):
            if lease is not None and lease._handle is not None:
                steps[lib.jobserver_lease_number(lease._handle)] = recorded.changes
        for chunk in self._taken:
            for time, number, slots in _CHANGE.iter_unpack(chunk):
                if number in steps:
                    steps[number].append((_seconds(time - origin), slots))
        recording.dropped = int(self._dropped[0])
        super().fill(recording, origin)


class ClientSlots(Slots):
    """The whole of a surrounding jobserver, as far as its pipe shows: what does not lie there is in use.

    Args:
        client: In the jobserver; it must be open until the last look.
        limit: How many slots there are, the implicit one included; None if nobody knows. Then it is taken for granted
            that none but one was in use when most tokens lay there.
    """

    def __init__(self, client: Client, limit: int | None) -> None:
        super().__init__()
        self._client = client
        self._limit = limit
        self._free: list[tuple[int, int]] = []

    def look(self, now: int) -> None:
        """See `Slots.look`."""
        super().look(now)
        free = self._client.available()
        if not self._free or self._free[-1][1] != free:
            self._free.append((now, free))

    def fill(self, recording: Recording, origin: int) -> None:
        """See `Slots.fill`."""
        limit = self._limit or max((free for _, free in self._free), default=0) + 1
        self.leases[0].changes = [(_seconds(time - origin), max(limit - free, 0)) for time, free in self._free]
        if self._limit is not None:
            recording.limits = [(0.0, self._limit)]
        super().fill(recording, origin)


class ServerSlots(Slots):
    """One lease of a served pool, which its server is asked about, on a connection of its own.

    Args:
        pool: The pool's name, or the path of its socket.
    """

    pause = 0.05

    def __init__(self, pool: str) -> None:
        from ..serve.client import NoServer, PoolConnection
        from ..serve.place import PlaceError

        super().__init__()
        self._connection: PoolConnection | None = None
        with suppress(NoServer, PlaceError):  # it has just ended; whoever has a lease there says so
            self._connection = PoolConnection(pool)
        self._limits: list[tuple[int, int]] = []
        self._slots: list[tuple[int, int]] = []

    def look(self, now: int) -> None:
        """See `Slots.look`. A server that is gone is asked no more."""
        from ..serve.client import RequestRefused, ServerGone

        if self._connection is None:
            return
        try:
            status: dict[str, Any] = self._connection.status()
        except (ServerGone, RequestRefused, OSError):
            self._connection = None
            return
        super().look(now)
        _note(self._limits, now, status["limit"])
        ours = [lease for lease in status["leases"] if lease["process"] == os.getpid()]
        if ours:
            _note(self._slots, now, ours[0]["slots"])

    def fill(self, recording: Recording, origin: int) -> None:
        """See `Slots.fill`."""
        recording.limits = [(_seconds(time - origin), limit) for time, limit in self._limits]
        self.leases[0].changes = [(_seconds(time - origin), slots) for time, slots in self._slots]
        super().fill(recording, origin)

    def close(self) -> None:
        """See `Slots.close`."""
        if self._connection is not None:
            self._connection.close()


def _note(steps: list[tuple[int, int]], now: int, value: int) -> None:
    if not steps or steps[-1][1] != value:
        steps.append((now, value))


def _seconds(nanoseconds: int) -> float:
    return round(max(nanoseconds, 0) / _NANOSECONDS, 6)


def _end_of(lease: RecordedLease, end: float) -> float:
    """When it used its last slot, or the end of the recording."""
    return lease.changes[-1][0] if lease.changes and lease.changes[-1][1] == 0 else end


def _slot_seconds(lease: RecordedLease) -> float:
    times = [time for time, _ in lease.changes[1:]] + [lease.ended]
    return sum(max(end - start, 0.0) * slots for (start, slots), end in zip(lease.changes, times, strict=False))
