"""The machine during a run, looked at now and then: CPU, memory, load and pressure. Only the load off Linux."""

from __future__ import annotations

import os
from contextlib import suppress

from ..cgroups import read
from ..gates import PRESSURES, _stalled
from .recording import Machine

MOST = 4000  # looks that are kept; of more every second one is left out, and there are half as many from then on


class MachineSamples:
    """What was seen of the machine.

    Attributes:
        found: What goes into the recording.
        thinned: How often half of the looks were left out.
    """

    def __init__(self) -> None:
        self.found = Machine()
        self.thinned = 0
        self._cpu = _cpu_times()
        self._stalls: dict[str, int | None] = {name: _stalled_time(name) for name in PRESSURES}
        self._last = 0.0

    def look(self, now: float) -> None:
        """Looks once; `now` is the time of the recording, in seconds."""
        found, passed = self.found, now - self._last
        if passed <= 0:
            return
        self._last = now
        found.times.append(round(now, 6))
        self._look_at_cpu()
        self._look_at_memory()
        if hasattr(os, "getloadavg"):
            found.load.append(round(os.getloadavg()[0], 2))
        for name, before in self._stalls.items():
            stalled = _stalled_time(name)
            if before is not None and stalled is not None:
                share = (stalled - before) / 1e6 / passed
                getattr(found.pressure, name).append(round(min(max(share, 0.0), 1.0), 4))
                self._stalls[name] = stalled
        if len(found.times) >= MOST:
            self._thin()

    def _look_at_cpu(self) -> None:
        times = _cpu_times()
        if times and self._cpu:
            busy, total = (now - before for now, before in zip(times, self._cpu, strict=True))
            last = self.found.cpu[-1] if self.found.cpu else 0.0
            self.found.cpu.append(round(min(max(busy / total, 0.0), 1.0), 4) if total > 0 else last)
            self._cpu = times

    def _look_at_memory(self) -> None:
        lines = dict(line.partition(":")[::2] for line in read("/proc/meminfo").splitlines()[:5])
        with suppress(KeyError, ValueError, IndexError):
            total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
            self.found.memory_total = total
            self.found.memory.append(total - available)

    def _thin(self) -> None:
        """Leaves out every second look; what is a share of the time since the one before becomes the mean of both."""
        found = self.found
        self.thinned += 1
        found.times = found.times[1::2]
        found.memory, found.load = found.memory[1::2], found.load[1::2]
        found.cpu = _means(found.cpu)
        for name in PRESSURES:
            setattr(found.pressure, name, _means(getattr(found.pressure, name)))


def _means(values: list[float]) -> list[float]:
    return [round((one + other) / 2, 4) for one, other in zip(values[::2], values[1::2], strict=False)]


def _cpu_times() -> tuple[int, int] | None:
    """The time that all CPUs were busy and the time that there was, in ticks; see proc_stat(5)."""
    words = read("/proc/stat").partition("\n")[0].split()
    try:
        user, nice, system, idle, waiting, *others = (int(word) for word in words[1:9])
    except ValueError:
        return None
    busy = user + nice + system + sum(others)
    return busy, busy + idle + waiting


def _stalled_time(resource: str) -> int | None:
    found = _stalled(f"/proc/pressure/{resource}")
    return None if found is None else found[1]
