"""The far end of a served pool: its client asks for a lease, for the pool's status, or for another number of slots."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..lease_report import LeaseReport
from .lines import BadLine, Lines
from .place import PlaceError, socket_path

if TYPE_CHECKING:
    from collections.abc import Callable


_MOMENT = 0.2  # seconds; who gets a slot, or another place in the queue, as soon as that need not hear of this one


# Between two looks at a pool: one costs its server about 0.04 ms a lease, so a watcher takes about 1% of a CPU at most.
_LEAST_PAUSE, _PAUSE_PER_LEASE = 0.5, 0.004  # seconds


def pause_after(status: dict[str, Any]) -> float:
    """Seconds after which who watches a pool may ask for its status again."""
    return max(_LEAST_PAUSE, _PAUSE_PER_LEASE * len(status["leases"]))


class NoServer(Exception):
    """Nobody serves the pool."""


class ServerGone(Exception):
    """The server ended the connection."""


class RequestRefused(Exception):
    """The server refused; the message is what it says."""


@dataclass
class JoinedLease:
    """A lease that has its first slot.

    Attributes:
        auth: The address for MAKEFLAGS.
        limit: The slots of the pool.
        for_command: The descriptors that the command must inherit.
        take, give: The two pipes of style "pipe", or -1.
        kept: Descriptors that must stay open as long as the lease is used.
    """

    auth: str
    limit: int
    for_command: list[int]
    take: int
    give: int
    kept: list[int]


class PoolConnection:
    """A connection to the server of a pool; a lease that is asked for on it ends with it. A context manager.

    Args:
        pool: The pool's name, or the path of its socket.
        timeout: Seconds to wait for each answer at most; None waits for ever.

    Raises:
        NoServer: Nobody serves it.
        PlaceError: There can be no such socket, or it may not be used.
        ValueError: It is no name for a pool.
    """

    def __init__(self, pool: str, timeout: float | None = None) -> None:
        self.path = socket_path(pool)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(timeout)
        try:
            connected.connect(self.path)
        except OSError as error:
            connected.close()
            if isinstance(error, (TimeoutError, BlockingIOError)):
                raise self._silent() from None
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise NoServer(f"nobody serves {self.path}") from None
            mend = ": it is another user's" if error.errno == errno.EACCES else ""
            raise PlaceError(f"cannot connect to {self.path}: {error.strerror}{mend}") from None
        self._lines = Lines(connected)
        self._answers: deque[dict[str, Any]] = deque()

    def status(self) -> dict[str, Any]:
        """What the pool has and who has it.

        Raises:
            ServerGone, RequestRefused: See there.
        """
        self.ask("status")
        found: dict[str, Any] = self._answer()["status"]
        return found

    def resize(self, limit: int) -> int:
        """Changes how many slots the pool has. Returns how many slots more than that are still in use.

        Raises:
            ServerGone, RequestRefused: See there.
        """
        self.ask("resize", limit=limit)
        return int(self._answer()["excess"])

    def join(self, name: str, command: list[str], style: str, queued: Callable[[int], object]) -> JoinedLease:
        """Asks for a lease and waits for its first slot.

        Args:
            name: What it is called in reports.
            command: What will run on it.
            style: "pipe" or "fifo".
            queued: Is told how many others are before it in the queue, when that has changed.

        Raises:
            ServerGone, RequestRefused: See there.
            OSError: The fifo is not to be found from here.
        """
        self.ask("lease", name=name, command=command, style=style)
        while (answer := self._answer())["reply"] == "queued":
            if not self._answers and not select.select([self._lines], [], [], _MOMENT)[0]:
                queued(answer["before"])
        descriptors = self._lines.take_descriptors()
        limit = int(answer["limit"])
        if answer["style"] == "pipe":
            take, give, life_line = descriptors
            return JoinedLease(f"{take},{give}", limit, [take, give, life_line], take, give, [take, give])
        life_line, lock = descriptors
        # What lies in a fifo that nobody has open is gone: between two commands of a script, say.
        fifo = os.open(answer["path"], os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return JoinedLease(f"fifo:{answer['path']}", limit, [life_line], -1, -1, [fifo, lock])

    def end(self) -> None:
        """Says that nobody uses the lease any more; `wait_for_end` gets the answer."""
        self.ask("end")

    def wait_for_end(self) -> LeaseReport:
        """What came of the lease, when it has ended.

        Raises:
            ServerGone: The server ended first.
        """
        report = self._answer()["report"]
        return LeaseReport(**{**report, "command": tuple(report["command"])})

    def fileno(self) -> int:
        """The socket's descriptor: readable when `answers` need not wait."""
        return self._lines.fileno()

    def ask(self, request: str, **items: Any) -> None:
        """Sends a request and does not wait; `answers` has what the server says to it.

        Args:
            request: Which one.
            items: What belongs to it, as in docs/serve.md.
        """
        with suppress(OSError):  # what the server said before it hung up, and that it did, is still to be read
            self._lines.send({"request": request, **items})

    def answers(self) -> list[dict[str, Any]]:
        """What the server has said since the last call, refusals too, in its order. Waits for something to come.

        Returns:
            The answers; none if no more than a part of one has come.

        Raises:
            ServerGone: It will say no more.
        """
        try:
            found = self._lines.receive()
        except TimeoutError:
            raise self._silent() from None
        except (BadLine, ConnectionError):
            found = None
        if found is None:
            raise ServerGone(f"the server at {self.path} is gone")
        return found

    def close(self) -> None:
        """Ends the connection."""
        self._lines.close()

    def __enter__(self) -> PoolConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _silent(self) -> ServerGone:
        return ServerGone(
            f"the server at {self.path} does not answer: it is stopped (`kill -CONT` continues it), or the machine is "
            f"too busy"
        )

    def _answer(self) -> dict[str, Any]:
        """The next line of the server."""
        while not self._answers:
            self._answers.extend(self.answers())
        answer = self._answers.popleft()
        if answer.get("reply") == "refused":
            raise RequestRefused(str(answer.get("reason")))
        return answer
