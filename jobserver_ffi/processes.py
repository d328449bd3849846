"""Other processes, as Linux shows them in /proc: who stands above this one, and who has a pool open.

Where there is no /proc, or what is asked is another user's, nothing is seen: the answer is then None, or nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cached_property

from .environment import address_in

_PROC = "/proc"
_MOST_ABOVE = 100

File = tuple[int, int]  # device and inode


class Process:
    """A process, found by its number.

    Attributes:
        pid: The number.
        parent: Its parent's.
        name: What the kernel calls it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # "pid (name) state parent …"; the name may have blanks and parentheses.
        name, _, rest = _read(f"{pid}/stat").partition("(")[2].rpartition(")")
        if not rest:
            raise ProcessLookupError(pid)
        self.name = name
        self.parent = int(rest.split()[1])

    def __str__(self) -> str:
        return f"`{self.name}` (process {self.pid})"

    @cached_property
    def command(self) -> list[str]:
        """Its words; none for a kernel thread and for a process that has ended."""
        return _read(f"{self.pid}/cmdline").split("\0")[:-1]

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
            file = self.fifo_at(number)
            if file is None or self.mode_of(number) in (None, unwanted):
                return None
            found.append(file)
        return found[0]

    def fifo_at(self, number: int) -> File | None:
        """The pipe or fifo that it has open at a descriptor."""
        status = _status(f"{self.pid}/fd/{number}")
        return (status.st_dev, status.st_ino) if status is not None and stat.S_ISFIFO(status.st_mode) else None

    def mode_of(self, number: int) -> int | None:
        """How a descriptor was opened: os.O_RDONLY, O_WRONLY or O_RDWR."""
        flags = [line.split()[1] for line in _read(f"{self.pid}/fdinfo/{number}").splitlines() if "flags" in line]
        return int(flags[0], 8) & os.O_ACCMODE if flags else None

    def descriptors(self) -> list[int] | None:
        """The numbers of its descriptors; None where they are not to be seen."""
        try:
            return sorted(map(int, os.listdir(f"{_PROC}/{self.pid}/fd")))
        except OSError:
            return None

    def path_of(self, number: int) -> str:
        """What a descriptor leads to, as the kernel writes it; "" if it is closed."""
        try:
            return os.readlink(f"{_PROC}/{self.pid}/fd/{number}")
        except OSError:
            return ""

    def open_files(self) -> set[File] | None:
        """All that its descriptors are; None where they are not to be seen."""
        numbers = self.descriptors()
        if numbers is None:
            return None
        found = (_status(f"{self.pid}/fd/{number}") for number in numbers)
        return {(status.st_dev, status.st_ino) for status in found if status is not None}

    def fifo_named(self, path: str) -> File | None:
        """The fifo at a path in the file system as that process sees it."""
        status = _status(f"{self.pid}/root{path}") if os.path.isabs(path) else None
        return (status.st_dev, status.st_ino) if status is not None and stat.S_ISFIFO(status.st_mode) else None

    def sees(self, path: str) -> bool:
        """Whether there is a fifo at a path in the file system as that process sees it."""
        return self.fifo_named(path) is not None


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


def who_has(files: Collection[File]) -> tuple[dict[File, list[Process]], list[Process]]:
    """The processes that have each of some files open, and those of which that cannot be seen; not this one."""
    found: dict[File, list[Process]] = {file: [] for file in files}
    unseen = []
    for process in everyone():
        opened = process.open_files()
        if opened is None:
            unseen.append(process)
            continue
        for file in opened.intersection(found):
            found[file].append(process)
    return found, unseen


def may_have_made(process: Process, auth: str) -> bool:
    """Whether a process that has a pool open may have made it: it was not started with its address."""
    environ = process.environment()
    return environ is None or address_in(environ) != auth


def tokens_at(place: str) -> int | None:
    """How many bytes lie in a pipe or fifo; None where it cannot be opened.

    It is opened anew, so nothing that others share is changed, and nothing is read.

    Args:
        place: A path below /proc: "PID/fd/N", or "PID/root" and an absolute path behind it.
    """
    import fcntl
    import struct
    import termios

    try:
        descriptor = os.open(f"{_PROC}/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0])
    except OSError:
        return None
    finally:
        os.close(descriptor)


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
