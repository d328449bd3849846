"""Stand-in until the recording's own module is merged."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lease:
    """A build's slots."""

    name: str
    command: list[str]
    changes: list[tuple[float, int]]
    ended: float
    peak: int
    slot_seconds: float
    lost: int = 0
    over_released: int = 0
    queue_seconds: float = 0.0


@dataclass(frozen=True)
class Process:
    """A process that ran."""

    pid: int
    parent: int
    lease: int
    name: str
    command: str
    start: float
    end: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class Machine:
    """What the machine did."""

    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    memory_total: int = 0
    load: list[float] = field(default_factory=list)
    pressure: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """All that was recorded of a build."""

    command: list[str]
    started: float
    seconds: float
    status: int
    cpus: int
    source: str
    sampled_every: float
    processes_sampled_every: float
    dropped: int
    limits: list[tuple[float, int]]
    leases: list[Lease]
    processes: list[Process]
    machine: Machine
