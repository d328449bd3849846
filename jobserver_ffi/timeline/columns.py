"""A recording's figures as a page carries them: in columns, mostly of differences, compressed."""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from .recording import Machine, RecordedLease, RecordedProcess, Recording, Step

# Units of the whole numbers that the columns hold; assets/data.js has the same.
CHANGE = 1e-4  # seconds
MOMENT = 1e-3  # seconds, of processes and of the machine, which are sampled
SHARE = 1e-3
MEMORY = 1024  # bytes


def encoded(recording: Recording, programs: list[str], coloured: int) -> str:
    """The figures as text that any HTML can carry.

    Args:
        recording: What was recorded.
        programs: The names of all programs; their order is the order of their colours.
        coloured: How many of them have a colour of their own.

    Returns:
        Base64 of a zlib stream of JSON: so nothing in a recording can end the element that it stands in.
    """
    columns = {
        "seconds": recording.seconds,
        "cpus": recording.cpus,
        "late": recording.processes_sampled_every,
        "limits": _steps(recording.limits),
        "leases": [_lease(lease) for lease in recording.leases],
        "programs": [readable(name) for name in programs],
        "coloured": coloured,
        **_processes(recording.processes, {name: index for index, name in enumerate(programs)}),
        "machine": _machine(recording.machine),
    }
    text = json.dumps(columns, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def readable(value: str) -> str:
    """A string of a recording with a question mark for each byte that was no text (in a file name, say)."""
    return value.encode("utf-8", "replace").decode()


def _whole(values: Iterable[float], unit: float) -> list[int]:
    return [round(value / unit) for value in values]


def _differences(values: Iterable[int]) -> list[int]:
    """Each value less the one before it; the first less 0."""
    found, before = [], 0
    for value in values:
        found.append(value - before)
        before = value
    return found


def _steps(changes: Iterable[Step]) -> dict[str, list[int]]:
    changes = list(changes)
    return {
        "times": _differences(_whole((time for time, _ in changes), CHANGE)),
        "counts": _differences(_whole((count for _, count in changes), 1)),
    }


def _lease(lease: RecordedLease) -> dict[str, Any]:
    return {
        "name": readable(lease.name),
        "command": readable(shlex.join(lease.command)),
        "changes": _steps(lease.changes),
        "ended": lease.ended,
        "peak": lease.peak,
        "slotSeconds": lease.slot_seconds,
        "lost": lease.lost,
        "overReleased": lease.over_released,
        "queueSeconds": lease.queue_seconds,
    }


def _processes(processes: Iterable[RecordedProcess], programs: dict[str, int]) -> dict[str, Any]:
    """Columns in the order of the starts; commands are numbered as they come, so most numbers follow each other."""
    ordered = sorted(processes, key=lambda process: (process.start, process.pid))
    commands: dict[str, int] = {}
    numbers = [commands.setdefault(process.command, len(commands)) for process in ordered]
    starts = _whole((process.start for process in ordered), MOMENT)
    ends = _whole((process.end for process in ordered), MOMENT)
    return {
        "commands": [readable(command) for command in commands],
        "processes": {
            "start": _differences(starts),
            "length": [max(0, end - start) for start, end in zip(starts, ends, strict=True)],
            "pid": _differences(process.pid for process in ordered),
            "parent": [process.pid - process.parent for process in ordered],
            "lease": [process.lease for process in ordered],
            "program": [programs[process.name] for process in ordered],
            "command": _differences(numbers),
            "cpu": _whole((process.cpu for process in ordered), MOMENT),
            "memory": _whole((process.memory for process in ordered), MEMORY),
        },
    }


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "times": _differences(_whole(machine.times, MOMENT)),
        "cpu": _whole(machine.cpu, SHARE),
        "load": _whole(machine.load, SHARE),
        "memory": _differences(_whole(machine.memory, MEMORY)),
        "memoryTotal": machine.memory_total,
        "pressure": {name: _whole(values, SHARE) for name, values in asdict(machine.pressure).items()},
    }
