"""What is known of a pool from outside of the program that uses it, and where a program tells what is wrong."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobserver_ffi import Client

_WRITE: Callable[[int, bytes], int] = os.write


def bytes_in(descriptor: int) -> int:
    """How many bytes a pipe or a fifo has."""
    if sys.platform == "win32":
        raise NotImplementedError("a pool on Windows is no pipe")
    import fcntl
    import termios

    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0])


FALLS_OFF, SYS_EXIT, AN_EXCEPTION = WAYS_TO_END = ("falls off the end", "sys.exit", "an exception")
"""How the process of a program ends whose objects are alive."""


class Report:
    """Where a program tells what is wrong, and which pools it has."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.pools = 0

    def fault(self, text: str) -> None:
        """Tells of something that must not be."""
        self.faults.append(text)

    def pool(self, limit: int, path: str, descriptors: tuple[int, ...]) -> int:
        """Tells of a new pool. Returns its number."""
        self.pools += 1
        return self.pools - 1

    def raw(self, number: int, change: int) -> None:
        """Tells that raw tokens went out of a pool (negative) or came back."""

    def holds(self) -> None:
        """Tells that there is something for a child. A fifo is not removed at exit while that is alive."""


class SentReport(Report):
    """The same, told to the process that has started this one: it counts the tokens when this one has ended.

    The descriptor stays open to the end of the process. Its text is also written while the interpreter ends, when the
    names of a module may be None already; so the functions are bound here.
    """

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self.channel = channel
        self.descriptor = os.dup(channel.fileno())

    def say(self, line: str, write: Callable[[int, bytes], int] = _WRITE) -> None:
        """Sends a line."""
        write(self.descriptor, f"{line}\n".encode())

    def fault(self, text: str) -> None:
        """See `Report.fault`."""
        self.faults.append(text)
        self.say(f"fault {' | '.join(text.splitlines())}")

    def pool(self, limit: int, path: str, descriptors: tuple[int, ...]) -> int:
        """See `Report.pool`. The other process gets the descriptors."""
        socket.send_fds(self.channel, [f"pool {limit} {path}\n".encode()], descriptors[:1])
        return super().pool(limit, path, descriptors)

    def raw(self, number: int, change: int) -> None:
        """See `Report.raw`."""
        self.say(f"raw {number} {change}")

    def holds(self) -> None:
        """See `Report.holds`."""
        self.say("holds")


class Witness:
    """Both ends of a pool, apart from the client's, outside of every cycle.

    Args:
        report: Is told of the pool.
        auth: The pool's address.
        limit: How many tokens it has.
        made_here: Whether a client of this program made it, which must remove its fifo.
    """

    def __init__(self, report: Report, auth: str, limit: int, *, made_here: bool) -> None:
        self.report = report
        self.limit = limit
        # Raw tokens that went out (negative) or came back. A list, since a finaliser may interrupt an addition.
        self.changes: list[int] = []
        self.path = auth.removeprefix("fifo:") if auth.startswith("fifo:") and made_here else ""
        self.client: Client | None = None
        self.ends: tuple[int, ...] = ()
        if sys.platform == "win32":
            from jobserver_ffi import Client

            self.client = Client.open(auth)
        elif self.path:
            self.ends = (os.open(self.path, os.O_RDWR | os.O_NONBLOCK),)
        else:
            self.ends = tuple(os.dup(int(number)) for number in auth.split(","))
        self.auth = auth if len(self.ends) < 2 else f"{self.ends[0]},{self.ends[1]}"
        self.number = report.pool(limit, self.path, self.ends)

    def count(self, change: int) -> None:
        """Notes that raw tokens went out (negative) or came back."""
        self.changes.append(change)
        self.report.raw(self.number, change)

    def free(self) -> int:
        """How many tokens the pool has now."""
        return self.client.available() if self.client is not None else bytes_in(self.ends[0])

    def repay(self) -> None:
        """Gives back the raw tokens that are out, or somebody might wait for them."""
        owed = -sum(self.changes)
        if self.ends and owed > 0:
            os.write(self.ends[-1], b"+" * owed)
            self.changes.append(owed)

    @property
    def whole(self) -> int:
        """How many it must have when nobody holds any, but for raw ones."""
        return self.limit + sum(self.changes)

    def is_open_at(self, descriptor: int) -> bool:
        """Whether a descriptor leads to this pool."""
        try:
            found, own = os.fstat(descriptor), os.fstat(self.ends[0])
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def close(self) -> None:
        """Gives up the ends."""
        for descriptor in self.ends:
            os.close(descriptor)
        if self.client is not None:
            self.client.close()
