"""`Recording`: what was seen of a run, and its JSON form, which docs/timings.md describes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

FORMAT = "jobserver-timings"
VERSION = 1

Step = tuple[float, float]  # a time, and the value from then on


@dataclass
class RecordedLease:
    """The slots that one command used.

    Attributes:
        name: What the lease is called.
        command: What ran on it; empty where that is not known.
        changes: Each change of the number of slots in use: its time, and the number from then on.
        ended: When it ended.
        peak: The most slots that were in use at once. It may be more than any of the changes has, where the
            slots were in use for less time than passed between two looks.
        slot_seconds: Seconds that slots were in use, added up.
        lost: Tokens that were not given back.
        over_released: Tokens given back that had not been taken.
        queue_seconds: How long it waited for its first slot.
    """

    name: str
    command: list[str] = field(default_factory=list)
    changes: list[Step] = field(default_factory=list)
    ended: float = 0.0
    peak: int = 0
    slot_seconds: float = 0.0
    lost: int = 0
    over_released: int = 0
    queue_seconds: float = 0.0


@dataclass
class RecordedProcess:
    """One process that was seen.

    Attributes:
        pid, parent: Process numbers, of it and of its parent when it was first seen.
        lease: The index of its lease in the recording.
        name: The program's name as the system has it, 15 bytes of it.
        command: Its command line, quoted as for a shell and cut to a sane length.
        start: When it started, by the system's clock of 10 ms.
        end: When it was first seen to be gone: at most an interval of the samples too late.
        cpu: Seconds of CPU time that it was last seen to have used.
        memory: The most bytes of memory that it was seen to have.
    """

    pid: int
    parent: int
    lease: int
    name: str
    command: str
    start: float
    end: float
    cpu: float
    memory: int


@dataclass
class Pressure:
    """Shares of the time (0 to 1) in which some task was stalled for want of each, one for each time of the machine."""

    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    io: list[float] = field(default_factory=list)


@dataclass
class Machine:
    """How the machine was, at some times. A list is empty where the system does not tell.

    Attributes:
        times: When it was looked at.
        cpu: The share (0 to 1) of all CPUs that was in use since the time before.
        memory: Bytes in use.
        memory_total: Bytes that there are.
        load: The load average of a minute.
        pressure: What tasks were stalled for.
    """

    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    memory_total: int = 0
    load: list[float] = field(default_factory=list)
    pressure: Pressure = field(default_factory=Pressure)


@dataclass
class Recording:
    """What was seen of a run. All times are seconds since its start.

    Attributes:
        command: What was run; of several commands the words of all, with `---` between them.
        started: The time of the start, in seconds since 1970.
        seconds: How long it took.
        status: Its exit status.
        cpus: CPUs that might be used.
        source: "lease": every change of the slots in use is there; "samples": they were looked at now and then.
        sampled_every: Seconds between two looks at the slots, on average; 0 with "lease".
        processes_sampled_every: Seconds between two looks at the processes, on average; shorter ones may be missing. 0
            where processes cannot be seen.
        dropped: Changes that were not recorded, since they came too fast.
        limits: Each change of the number of slots that there are; empty where that is not known.
        leases, processes, machine: What was seen of each.
    """

    command: list[str] = field(default_factory=list)
    started: float = 0.0
    seconds: float = 0.0
    status: int = 0
    cpus: int = 1
    source: str = "lease"
    sampled_every: float = 0.0
    processes_sampled_every: float = 0.0
    dropped: int = 0
    limits: list[Step] = field(default_factory=list)
    leases: list[RecordedLease] = field(default_factory=list)
    processes: list[RecordedProcess] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine)

    def as_json(self) -> dict[str, Any]:
        """What `json.dump` takes, and `from_json` takes back. The lists in it are the recording's own."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **vars(self),
            "leases": [vars(lease) for lease in self.leases],
            "processes": [vars(process) for process in self.processes],
            "machine": {**vars(self.machine), "pressure": vars(self.machine.pressure)},
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Recording:
        """The recording that `as_json` made; keys that are not known are left out.

        Raises:
            ValueError: It is none, or of a newer version.
        """
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"no recording: its `format` is not {FORMAT!r}")
        if found.get("version") != VERSION:
            raise ValueError(f"a recording of version {found.get('version')!r}: only version {VERSION} can be read")
        machine = _known(Machine, found.get("machine", {}))
        machine["pressure"] = Pressure(**_known(Pressure, machine.get("pressure", {})))
        leases = [RecordedLease(**_known(RecordedLease, lease)) for lease in found.get("leases", ())]
        for lease in leases:
            lease.changes = _steps(lease.changes)
        return cls(
            **{
                **_known(cls, found),
                "limits": _steps(found.get("limits", ())),
                "leases": leases,
                "processes": [
                    RecordedProcess(**_known(RecordedProcess, process)) for process in found.get("processes", ())
                ],
                "machine": Machine(**machine),
            }
        )


def _known(kind: type[Any], found: dict[str, Any]) -> dict[str, Any]:
    """Those entries that are attributes of the class."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in found.items() if name in names}


def _steps(found: Any) -> list[Step]:
    return [(time, value) for time, value in found]
