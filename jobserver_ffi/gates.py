"""Gates: what a pool holds tokens back for, while the machine suffers."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from .cgroups import own_groups, read
from .errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HYSTERESIS = 0.1  # by which a value must be better again before tokens come back
PRESSURES = ("cpu", "memory", "io")


class Gate(ABC):
    """Something of the machine that must not get worse than a limit.

    Attributes:
        name: What it is called in `PoolStatus.gates`.
        value: What it was when it was last measured.
    """

    name: str
    value: float = 0.0

    @abstractmethod
    def measure(self) -> bool | None:
        """Measures it now.

        Returns:
            True if it is worse than the limit, False if it is better by a margin, None in between.
        """


class MaxLoad(Gate):
    """Closes while more than so many processes run or are ready to, on the whole machine.

    On Linux they are counted, and averaged over the last looks; elsewhere it is the load average of the last minute,
    which follows slowly.

    Raises:
        ValueError: The limit is not above 0.
        Unsupported: The system has neither (Windows).
    """

    def __init__(self, limit: float, root: str = "/") -> None:
        if not limit > 0:
            raise ValueError(f"limit={limit!r}: a load above 0 is wanted")
        self.name = f"load above {limit:g}"
        self._limit = limit
        self._file = os.path.join(root, "proc/loadavg")
        self._last: float | None = None
        if not hasattr(os, "getloadavg") and not os.path.exists(self._file):
            raise Unsupported("this system has no load average: leave this gate out, or watch its memory (MinMemory)")

    def measure(self) -> bool | None:
        """See `Gate.measure`."""
        words = read(self._file).split()
        try:
            running = float(words[3].partition("/")[0]) - 1  # this thread is one of them
            self._last = running if self._last is None else (self._last + running) / 2
            self.value = self._last
        except (IndexError, ValueError):
            self.value = os.getloadavg()[0]
        return _above(self.value, self._limit)


class MinMemory(Gate):
    """Closes while less memory is available, to the machine or within a limit of a control group of this process.

    Args:
        least: Bytes, at least 1; or, below 1, the share of the machine's memory or of the group's limit.

    Raises:
        ValueError: It is not above 0.
        Unsupported: The system does not tell (psutil is needed elsewhere than on Linux).
    """

    def __init__(self, least: float, root: str = "/") -> None:
        if not 0 < least < float("inf"):
            raise ValueError(f"least={least!r}: bytes, or a share between 0 and 1, are wanted")
        self.name = f"memory below {least:.0%}" if least < 1 else f"memory below {least / 2**20:g}M"
        self._least = least
        self._root = root
        self.measure()

    def measure(self) -> bool | None:
        """See `Gate.measure`; `value` is the bytes that are available where they are scarcest."""
        verdicts = []
        scarcest = float("inf")
        for available, total in (_machine_memory(self._root), *_group_memory(self._root)):
            least = self._least * total if self._least < 1 else self._least
            scarcest = min(scarcest, available)
            verdicts.append(True if available < least else False if available >= (1 + HYSTERESIS) * least else None)
        self.value = scarcest
        return _worst(verdicts)


class MaxPressure(Gate):
    """Closes while tasks are stalled for want of a resource for more than so many percent of the time (Linux, PSI).

    On the whole machine or in the control group of this process (version 2), whichever is worse.

    Args:
        resource: "cpu", "memory" or "io".
        limit: Percent of the time since the last look in which some task was stalled.

    Raises:
        ValueError: The resource is another, or the limit is not between 0 and 100.
        Unsupported: The kernel has no pressure stall information.
    """

    def __init__(self, resource: str, limit: float, root: str = "/") -> None:
        if resource not in PRESSURES:
            raise ValueError(f"resource={resource!r}: one of {', '.join(map(repr, PRESSURES))} is wanted")
        if not 0 < limit < 100:
            raise ValueError(f"limit={limit!r}: percent, above 0 and below 100, are wanted")
        self.name = f"{resource} pressure above {limit:g}%"
        self._limit = limit
        machine = os.path.join(root, "proc/pressure", resource)
        if _stalled(machine) is None:
            raise Unsupported(
                f"there is no pressure stall information in {machine}: it takes Linux 4.20 or newer, with CONFIG_PSI, "
                f"and started with psi=1 where that is not the default"
            )
        groups = [place for kind, place in own_groups("memory", root) if kind == "cgroup2"]
        self._files = [machine, *(os.path.join(place, f"{resource}.pressure") for place in groups)]
        self._totals: dict[str, int] = {}
        self._measured_at = 0.0

    def measure(self) -> bool | None:
        """See `Gate.measure`; `value` is in percent."""
        now = time.monotonic()
        passed = (now - self._measured_at) * 1e6
        self._measured_at = now
        values = [0.0]
        for file in self._files:
            found = _stalled(file)
            if found is None:
                continue
            average, total = found
            last = self._totals.get(file)
            self._totals[file] = total
            values.append(average if last is None or passed <= 0 else min(100 * (total - last) / passed, 100.0))
        self.value = max(values)
        return _above(self.value, self._limit)


def _above(value: float, limit: float) -> bool | None:
    return True if value > limit else False if value <= (1 - HYSTERESIS) * limit else None


def _worst(verdicts: Iterable[bool | None]) -> bool | None:
    found = set(verdicts)
    return True if True in found else None if None in found else False


def _machine_memory(root: str) -> tuple[int, int]:
    """Bytes that are available, and all there are."""
    fields = dict(line.partition(":")[::2] for line in read(os.path.join(root, "proc/meminfo")).splitlines())
    try:
        return int(fields["MemAvailable"].split()[0]) * 1024, int(fields["MemTotal"].split()[0]) * 1024
    except (KeyError, ValueError, IndexError):
        pass
    try:
        import psutil
    except ImportError:
        raise Unsupported(
            "this system does not tell in /proc/meminfo how much memory is available: install jobserver-ffi[gates], "
            "which brings psutil"
        ) from None
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def _group_memory(root: str) -> list[tuple[int, int]]:
    """The same for each limit of a control group. What could be dropped at once counts as available."""
    found = []
    for kind, place in own_groups("memory", root):
        version2 = kind == "cgroup2"
        limit_in, used_in = ("max", "current") if version2 else ("limit_in_bytes", "usage_in_bytes")
        inactive = "inactive_file" if version2 else "total_inactive_file"
        statistics = dict(line.partition(" ")[::2] for line in read(os.path.join(place, "memory.stat")).splitlines())
        try:
            limit, used = (int(read(os.path.join(place, f"memory.{name}"))) for name in (limit_in, used_in))
            droppable = int(statistics.get(inactive, 0))
        except ValueError:
            continue  # "max", or a group without such a file
        if limit < 1 << 60:  # version 1 writes "no limit" as nearly 2**63
            found.append((max(limit - used + min(droppable, used), 0), limit))
    return found


def _stalled(file: str) -> tuple[float, int] | None:
    """Percent of the last ten seconds and microseconds in all in which some task was stalled; see proc_pressure(5)."""
    for line in read(file).splitlines():
        if line.startswith("some "):
            fields = dict(word.partition("=")[::2] for word in line.split()[1:])
            try:
                return float(fields["avg10"]), int(fields["total"])
            except (KeyError, ValueError):
                return None
    return None


@dataclass(frozen=True)
class GateStatus:
    """What a gate does.

    Attributes:
        name: What it watches.
        value: What that was when it was last measured: a load, bytes, or percent.
        held_back: Slots that it keeps from being used; 0 while it is open.
    """

    name: str
    value: float
    held_back: int


def measured(name: str, value: float) -> str:
    """What a gate measured last, with its unit, as people read it.

    Args:
        name: The gate's.
        value: As in `GateStatus`.
    """
    if name.startswith("memory below"):
        return f"{value / 2**30:.1f} GiB"
    return f"{value:.1f}%" if name.endswith("%") else f"{value:.2f}"


class Gatekeeper:
    """Decides how many slots may be in use, from what the gates measure.

    A gate that closes lets a quarter less be in use at each look, down to one slot; one that opens gives back a few at
    each look, and all when it is where it began.
    """

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = tuple(gates)
        self._allowed: dict[Gate, int] = {}
        self._before: dict[Gate, int] = {}

    def look(self, in_use: int) -> int | None:
        """Measures, once.

        Args:
            in_use: Slots in use now.

        Returns:
            How many may be, or None for as many as there are.
        """
        for gate in self._gates:
            verdict = gate.measure()
            allowed = self._allowed.get(gate)
            if verdict:
                if allowed is None:
                    self._before[gate] = in_use
                now = in_use if allowed is None else min(allowed, in_use)
                self._allowed[gate] = max(now - max(now // 4, 1), 1)
            elif verdict is False and allowed is not None:
                allowed += max(self._before[gate] // 8, 1)
                self._allowed[gate] = allowed
                if allowed >= self._before[gate]:
                    del self._allowed[gate]
        return min(self._allowed.values(), default=None)

    def status(self, limit: int) -> tuple[GateStatus, ...]:
        """What each gate does in a pool of so many slots."""
        return tuple(
            GateStatus(gate.name, gate.value, max(limit - self._allowed.get(gate, limit), 0)) for gate in self._gates
        )
