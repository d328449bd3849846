"""The processes of a run, looked at now and then in /proc (Linux): who ran when, without privileges or tracing.

Nothing about the processes is changed. Those that start and end between two looks are not seen. A process that was seen
once is followed to its end, also when its parent has ended before it.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import suppress

from .recording import RecordedProcess

_LONGEST = 4096  # bytes of a command line that are read
_SHOWN = 500  # characters of it that are kept
_GONE = (b"Z", b"X", b"x")
_NANOSECONDS = 1e9


class _Seen:
    """A process that lives."""

    __slots__ = ("command", "cpu", "lease", "looks", "memory", "name", "parent", "pid", "shown", "threads", "ticks")

    def __init__(self, pid: int, parent: int, lease: int, shown: bool) -> None:
        self.pid, self.parent, self.lease, self.shown = pid, parent, lease, shown
        self.looks = self.ticks = self.cpu = self.memory = self.threads = 0
        self.name = self.command = b""


class Processes:
    """What runs below some processes.

    Args:
        origin: The time that counts as 0, of CLOCK_MONOTONIC in nanoseconds.
    """

    def __init__(self, origin: int) -> None:
        self._live: dict[int, _Seen] = {}
        self._ticks, self._page, self._booted = 100, 4096, 0
        self._ended: list[tuple[_Seen, int]] = []
        self._origin = origin
        self.can_see = False
        if sys.platform == "linux" and os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            self.can_see = True
            self._ticks = os.sysconf("SC_CLK_TCK")
            self._page = os.sysconf("SC_PAGE_SIZE")
            asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self._booted = -asleep - origin  # on the recording's clock, in nanoseconds
        self.count = 0

    def follow(self, process: int, lease: int, *, shown: bool = True) -> None:
        """Sees this process and its descendants from the next look on; itself only if it is to be shown."""
        if self.can_see:
            self._live[process] = _Seen(process, os.getpid(), lease, shown)

    def look(self, now: int) -> None:
        """Looks at all of them, once.

        Args:
            now: The time, of CLOCK_MONOTONIC in nanoseconds.
        """
        self.count += 1
        waiting = list(self._live.values())
        while waiting:
            seen = waiting.pop()
            if self._update(seen):
                for child in _children(seen.pid, seen.threads):
                    if child not in self._live:
                        self._live[child] = found = _Seen(child, seen.pid, seen.lease, True)
                        waiting.append(found)
            else:
                del self._live[seen.pid]
                self._ended.append((seen, now))

    def _update(self, seen: _Seen) -> bool:
        """Whether it lives, with what is known of it brought up to date."""
        stat = _read(f"/proc/{seen.pid}/stat", 1024)
        name, _, rest = stat.rpartition(b")")
        fields = rest.split(b" ", 23)
        if len(fields) < 24 or fields[1] in _GONE:
            return False
        ticks = int(fields[20])
        if seen.ticks and ticks != seen.ticks:
            return False  # another one, with the number of one that has ended
        name = name.partition(b"(")[2]
        # A child of make is a make until it has become the command; so it is looked at a second time.
        if seen.looks < 2 or name != seen.name:
            seen.command = _read(f"/proc/{seen.pid}/cmdline", _LONGEST) or seen.command
        seen.ticks, seen.name = ticks, name
        seen.cpu = int(fields[12]) + int(fields[13])
        seen.memory = max(seen.memory, int(fields[22]))
        seen.threads = int(fields[18])
        seen.looks += 1
        return True

    def found(self, end: int) -> list[RecordedProcess]:
        """All that were seen, by the time of their start; those that live end at this time (CLOCK_MONOTONIC)."""
        if not self.can_see:
            return []
        all_seen = [*self._ended, *((seen, end) for seen in self._live.values())]
        found = [self._recorded(seen, ended) for seen, ended in all_seen if seen.ticks and seen.shown]
        return sorted(found, key=lambda process: (process.start, process.pid))

    def _recorded(self, seen: _Seen, ended: int) -> RecordedProcess:
        started = (self._booted + seen.ticks * 1_000_000_000 // self._ticks) / _NANOSECONDS
        end = max(ended - self._origin, 0) / _NANOSECONDS
        return RecordedProcess(
            pid=seen.pid,
            parent=seen.parent,
            lease=seen.lease,
            name=seen.name.decode(errors="backslashreplace"),
            command=_shown(seen.command),
            start=min(max(started, 0.0), end),
            end=end,
            cpu=seen.cpu / self._ticks,
            memory=seen.memory * self._page,
        )


def _shown(command: bytes) -> str:
    words = command.rstrip(b"\0").split(b"\0")
    line = shlex.join(word.decode(errors="backslashreplace") for word in words) if command else ""
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _children(process: int, threads: int) -> list[int]:
    """The children of a process, which are listed for each thread that started some."""
    tasks = [str(process)]
    if threads > 1:
        with suppress(OSError):
            tasks = os.listdir(f"/proc/{process}/task")
    return [int(child) for task in tasks for child in _read(f"/proc/{process}/task/{task}/children", 65536).split()]


def _read(path: str, most: int) -> bytes:
    """The beginning of a file of /proc; nothing where it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
