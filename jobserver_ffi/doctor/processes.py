"""Other processes, as Linux shows them in /proc: who stands above this one, and who has a pool open.

Where there is no /proc, or what is asked is another user's, nothing is seen: the answer is then None, or nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

_PROC = "/proc"
_MOST_ABOVE = 100

File = tuple[int, int]  # device and inode


class Process:
    """A process, found by its number.

    Attributes:
        pid: The number.
        parent: Its parent's.
        name: What the kernel calls it.
        command: Its words; none for a kernel thread and for a process that has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # "pid (name) state parent …"; the name may have blanks and parentheses.
        name, _, rest = _read(f"{pid}/stat").partition("(")[2].rpartition(")")
        if not rest:
            raise ProcessLookupError(pid)
        self.name = name
        self.parent = int(rest.split()[1])
        self.command = _read(f"{pid}/cmdline").split("\0")[:-1]

    def __str__(self) -> str:
        return f"`{self.name}` (process {self.pid})"

    @property
    def program(self) -> str:
        """The name that it was started by, without a directory."""
        return os.path.basename(self.command[0]).lstrip("-") if self.command else self.name

    def owner(self) -> int | None:
        """The user that it is, or None when it has ended."""
        status = _status(str(self.pid))
        return None if status is None else status.st_uid

    def environment(self) -> dict[str, str] | None:
        """What it was started with; None where that is not to be seen."""
        text = _read(f"{self.pid}/environ")
        return dict(entry.partition("=")[::2] for entry in text.split("\0") if "=" in entry) if text else None

    def pool_at(self, read_fd: int, write_fd: int) -> File | None:
        """What it has open at two descriptors, if they could be the two ends of a pool."""
        found = []
        for number, unwanted in ((read_fd, os.O_WRONLY), (write_fd, os.O_RDONLY)):
            place = f"{self.pid}/fd/{number}"
            flags = [line.split()[1] for line in _read(f"{self.pid}/fdinfo/{number}").splitlines() if "flags" in line]
            status = _status(place)
            if not flags or status is None or int(flags[0], 8) & os.O_ACCMODE == unwanted:
                return None
            if not stat.S_ISFIFO(status.st_mode):
                return None
            found.append((status.st_dev, status.st_ino))
        return found[0]

    def has_open(self, file: File) -> bool | None:
        """Whether one of its descriptors is this file; None where that is not to be seen."""
        try:
            numbers = os.listdir(f"{_PROC}/{self.pid}/fd")
        except OSError:
            return None
        found = (_status(f"{self.pid}/fd/{number}") for number in numbers)
        return any(status is not None and (status.st_dev, status.st_ino) == file for status in found)

    def sees(self, path: str) -> bool:
        """Whether there is a fifo at a path in the file system as that process sees it."""
        status = _status(f"{self.pid}/root{path}") if os.path.isabs(path) else None
        return status is not None and stat.S_ISFIFO(status.st_mode)


def can_see() -> bool:
    """Whether this system shows what processes have open."""
    return os.path.isdir(f"{_PROC}/self/fd")


def above() -> list[Process]:
    """The processes above this one: its parent first."""
    found: list[Process] = []
    pid = os.getppid()
    while pid > 0 and len(found) < _MOST_ABOVE:
        try:
            found.append(Process(pid))
        except (OSError, ValueError):
            break
        pid = found[-1].parent
    return found


def first() -> Process:
    """The first process of this system, or of this container."""
    return Process(1)


def everyone() -> Iterator[Process]:
    """All processes that can be seen, except this one."""
    numbers = [name for name in os.listdir(_PROC) if name.isdecimal()] if os.path.isdir(_PROC) else []
    for number in map(int, numbers):
        if number != os.getpid():
            with suppress(OSError, ValueError):
                yield Process(number)


def _read(name: str) -> str:
    try:
        with open(f"{_PROC}/{name}", "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return ""


def _status(name: str) -> os.stat_result | None:
    try:
        return os.stat(f"{_PROC}/{name}")
    except OSError:
        return None
