"""A recording in the Trace Event Format, which Perfetto (ui.perfetto.dev) and Chrome (about:tracing) show."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from .analysis import in_use

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .recording import RecordedProcess, Recording, Step

_POOL, _FIRST_LEASE = 1, 2  # numbers of the rows' groups, which the format calls processes
_MICROSECONDS = 1e6


def trace(recording: Recording) -> dict[str, Any]:
    """What `json.dump` writes: counters of slots and of the machine, and the processes in lanes, lease by lease."""
    events = [_name(_POOL, "slots and machine")]
    limits, machine = recording.limits, recording.machine
    events += _counter("slots in use", in_use(recording))
    events += _counter("limit", limits)
    events += _counter("CPU %", ((time, 100 * share) for time, share in zip(machine.times, machine.cpu, strict=False)))
    events += _counter(
        "memory MiB", ((t, used / 2**20) for t, used in zip(machine.times, machine.memory, strict=False))
    )
    for name, shares in vars(machine.pressure).items():
        values = ((time, 100 * share) for time, share in zip(machine.times, shares, strict=False))
        events += _counter(f"{name} pressure %", values)
    for index, lease in enumerate(recording.leases):
        group = _FIRST_LEASE + index
        events.append(_name(group, lease.name))
        if len(recording.leases) > 1:
            events += _counter(f"slots of {lease.name}", lease.changes, group)
        for number, lane in enumerate(lanes(process for process in recording.processes if process.lease == index)):
            events.append(_name(group, f"lane {number + 1}", number + 1))
            events += [_span(process, group, number + 1) for process in lane]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"command": " ".join(recording.command), "started": recording.started, "source": recording.source},
    }


def lanes(processes: Iterable[RecordedProcess]) -> list[list[RecordedProcess]]:
    """Puts each process into the first lane that is free from its start on, so that no two in a lane overlap."""
    found: list[list[RecordedProcess]] = []
    busy: list[tuple[float, int]] = []  # until when, and which lane
    free: list[int] = []
    for process in sorted(processes, key=lambda process: (process.start, -process.end, process.pid)):
        while busy and busy[0][0] <= process.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(found)
        if lane == len(found):
            found.append([])
        found[lane].append(process)
        heapq.heappush(busy, (process.end, lane))
    return found


def _span(process: RecordedProcess, group: int, lane: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": "process",
        "name": process.name,
        "pid": group,
        "tid": lane,
        "ts": round(process.start * _MICROSECONDS, 3),
        "dur": round((process.end - process.start) * _MICROSECONDS, 3),
        "args": {
            "command": process.command,
            "process": process.pid,
            "parent": process.parent,
            "CPU seconds": process.cpu,
            "memory MiB": round(process.memory / 2**20, 1),
        },
    }


def _counter(name: str, steps: Iterable[Step], group: int = _POOL) -> list[dict[str, Any]]:
    return [
        {"ph": "C", "name": name, "pid": group, "ts": round(time * _MICROSECONDS, 3), "args": {"value": value}}
        for time, value in steps
    ]


def _name(group: int, name: str, lane: int | None = None) -> dict[str, Any]:
    """The event that names a group, or a lane in it."""
    event: dict[str, Any] = {"ph": "M", "pid": group, "args": {"name": name}}
    return {**event, "name": "process_name"} if lane is None else {**event, "name": "thread_name", "tid": lane}
