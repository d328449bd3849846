"""Stand-in until the analysis is merged."""

from __future__ import annotations

from typing import NamedTuple

from .recording import Recording


class Stretch(NamedTuple):
    """A stretch of time with one slot in use, and the program that took it."""

    start: float
    end: float
    name: str


def utilisation(recording: Recording) -> float:
    """The share of the slots that was in use."""
    limit = recording.limits[0][1] if recording.limits else 0
    used = sum(lease.slot_seconds for lease in recording.leases)
    return used / (limit * recording.seconds) if limit and recording.seconds else 0.0


def serial_stretches(recording: Recording) -> list[Stretch]:
    """The longest stretches with one slot in use."""
    found = []
    if len(recording.leases) == 1:
        lease = recording.leases[0]
        ends = [time for time, _ in lease.changes[1:]] + [lease.ended]
        for (start, count), end in zip(lease.changes, ends, strict=True):
            if count == 1 and end > start:
                inside = [p for p in recording.processes if p.start < end and p.end > start]
                name = max(inside, key=lambda p: (p.cpu, p.name)).name if inside else lease.name
                found.append(Stretch(start, end, name))
    return sorted(found, key=lambda s: s.start - s.end)[:5]
