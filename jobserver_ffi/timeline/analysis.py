"""What a recording says about a run: how well the slots were used, and what ran alone for long."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .recording import RecordedProcess, Recording, Step

SHORTEST_SHARE = 0.01  # of a run, that a serial stretch must last to be told of
NOTABLE = 0.05  # of a stretch, that a process must use the CPU for to have made it so long
MOST_OF_IT = 0.8  # of a stretch
_SHOWN = 60


@dataclass(frozen=True)
class Stretch:
    """A time in which at most one slot was in use.

    Attributes:
        start, end: In seconds since the start of the run.
        slots: The most slots in use meanwhile: 0 or 1.
        process: What took most CPU time meanwhile, or lived longest if none took much; None if nothing was seen.
    """

    start: float
    end: float
    slots: int
    process: RecordedProcess | None

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.start

    @property
    def name(self) -> str:
        """The program of the process; "" if nothing was seen."""
        return "" if self.process is None else self.process.name


def in_use(recording: Recording) -> list[Step]:
    """The slots in use of all leases together: each change and the number from then on, from 0 on."""
    changes: list[tuple[float, float]] = []
    for lease in recording.leases:
        before = 0.0
        for time, slots in lease.changes:
            changes.append((time, slots - before))
            before = slots
        if before:
            changes.append((lease.ended, -before))
    return _summed(changes)


def _summed(changes: Iterable[tuple[float, float]]) -> list[Step]:
    """Steps from differences; those at the same time become one."""
    steps: list[Step] = [(0.0, 0.0)]
    for time, difference in sorted(changes):
        total = steps[-1][1] + difference
        if time <= steps[-1][0]:
            steps[-1] = (steps[-1][0], total)
        elif difference:
            steps.append((time, total))
    return steps


def _spans(steps: list[Step], end: float) -> list[tuple[float, float, float]]:
    """Start, end and value of each step that lasts, up to the end."""
    times = [time for time, _ in steps[1:]] + [end]
    pairs = zip(steps, times, strict=False)
    return [(start, min(until, end), value) for (start, value), until in pairs if min(until, end) > start]


def levels(recording: Recording) -> dict[int, float]:
    """Seconds for which each number of slots was in use, by that number. They add up to the length of the run."""
    found: dict[int, float] = defaultdict(float)
    for start, end, slots in _spans(in_use(recording), recording.seconds):
        found[int(slots)] += end - start
    return dict(sorted(found.items()))


def slot_seconds(recording: Recording) -> float:
    """Seconds that slots were in use, added up."""
    return math.fsum(slots * seconds for slots, seconds in levels(recording).items())


def utilisation(recording: Recording) -> float:
    """The share (0 to 1) of the slots that there were that was in use, over all the time.

    0 where it is not known how many there were. Slots that are in use beyond a limit that was lowered count as the
    limit.
    """
    if not recording.limits or recording.seconds <= 0:
        return 0.0
    limits = [(0.0, recording.limits[0][1]), *recording.limits[1:]]
    there = math.fsum((end - start) * limit for start, end, limit in _spans(limits, recording.seconds))
    return min(slot_seconds(recording) / there, 1.0) if there > 0 else 0.0


def serial_stretches(recording: Recording, most: int = 3) -> list[Stretch]:
    """The longest times in which at most one slot was in use although there were more, the longest first.

    Args:
        recording: What was seen.
        most: How many of them.

    Returns:
        Those that lasted for more than a hundredth of the run. None if nothing is known of slots.
    """
    if not any(lease.changes for lease in recording.leases):
        return []
    if recording.limits and max(limit for _, limit in recording.limits) <= 1:
        return []
    joined: list[list[float]] = []
    for start, end, slots in _spans(in_use(recording), recording.seconds):
        if slots > 1:
            continue
        if joined and joined[-1][1] == start:
            joined[-1][1:] = [end, max(slots, joined[-1][2])]
        else:
            joined.append([start, end, slots])
    longest = sorted(joined, key=lambda stretch: stretch[0] - stretch[1])[:most]
    least = SHORTEST_SHARE * recording.seconds
    return [
        Stretch(start, end, int(slots), _busiest(recording.processes, start, end))
        for start, end, slots in longest
        if end - start >= least
    ]


def _busiest(processes: Iterable[RecordedProcess], start: float, end: float) -> RecordedProcess | None:
    """What used most CPU time in a time, if each used its own evenly, or lived longest in it if none used much.

    Not one that had children for most of its part of it: it waited for them. Of those that lived for most of it the one
    that started last: the others wait for it.
    """
    seconds = end - start
    inside = [process for process in processes if process.start < end and process.end > start]

    def within(process: RecordedProcess) -> float:
        return min(process.end, end) - max(process.start, start)

    with_children: dict[int, float] = defaultdict(float)
    for process in inside:
        with_children[process.parent] += within(process)

    def share(process: RecordedProcess) -> tuple[float, bool, float, float]:
        here = within(process)
        life = process.end - process.start
        used = process.cpu * here / life if life > 0 else 0.0
        works = with_children[process.pid] < here / 2
        return (used if used >= NOTABLE * seconds else 0.0, works, min(here, MOST_OF_IT * seconds), process.start)

    return max(inside, key=share, default=None)


def summary(recording: Recording) -> list[str]:
    """A few lines for people: utilisation, and the longest serial stretches."""
    peak = max((int(slots) for _, slots in in_use(recording)), default=0)
    limits = [limit for _, limit in recording.limits]
    used = f"at most {peak} slot{'s' * (peak != 1)} in use"
    if limits:
        used = f"{utilisation(recording):.0%} of {_range(limits)} in use, {peak} at most"
    how = " (looked at now and then)" if recording.source == "samples" else ""
    lines = [f"{seconds_shown(recording.seconds)}, {used}{how}"]
    for stretch in serial_stretches(recording):
        what = "no slot" if stretch.slots == 0 else "one slot"
        lines.append(
            f"{seconds_shown(stretch.seconds)} with {what} in use, from {seconds_shown(stretch.start)} on"
            + ("" if stretch.process is None else f": {_program(stretch.process)}")
        )
    lost = sum(lease.lost for lease in recording.leases)
    if lost:
        lines.append(f"{lost} token{'s' * (lost != 1)} lost")
    if recording.dropped:
        lines.append(f"{recording.dropped} changes came too fast to be recorded: the figures are rough")
    return lines


def _range(limits: list[float]) -> str:
    low, high = int(min(limits)), int(max(limits))
    return f"{high} slot{'s' * (high != 1)}" if low == high else f"{low} to {high} slots"


def seconds_shown(seconds: float) -> str:
    """A time as people read it."""
    if seconds >= 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def _program(process: RecordedProcess) -> str:
    """The program, and its command line if that says more, as they can stand in a message."""
    name, command = (text if text.isprintable() else repr(text) for text in (process.name, process.command))
    command = command if len(command) <= _SHOWN else command[: _SHOWN - 1] + "…"
    return f"`{name}`" if command in ("", name) else f"`{name}` ({command})"
