"""Lines of JSON over a local socket, with descriptors beside them."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_LINE = 65536  # bytes of one request; answers may be longer

_AT_ONCE = 65536
_MOST_DESCRIPTORS = 8
_ABOVE_STANDARD = 3


class BadLine(Exception):
    """What came is no line of the protocol."""


@dataclass
class _Outgoing:
    """What is left to be sent of a line, with the descriptors that go with its first byte."""

    data: bytes
    descriptors: list[int]
    copies: list[int] = field(default_factory=list)  # those that are to be closed when they are sent

    def keep(self) -> None:
        """The caller may close its descriptors from now on."""
        for number in self.descriptors:
            self.copies.append(_copy(number))
        self.descriptors = self.copies

    def sent(self, count: int) -> None:
        """So many bytes are on their way."""
        self.data = self.data[count:]
        _close(self.copies)
        self.descriptors, self.copies = [], []


class Lines:
    """Both directions of a connection. It owns the socket, and the descriptors that came and were not fetched.

    On a socket that does not block, `send` keeps what does not fit, for `flush`.
    """

    def __init__(self, connected: socket.socket, longest: int | None = None) -> None:
        self.socket = connected
        self._longest = longest
        self._in = bytearray()
        self._out: deque[_Outgoing] = deque()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something waits for `flush`."""
        return bool(self._out)

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Sends a line, with copies of the descriptors.

        Raises:
            OSError: The other end is gone.
        """
        waiting = _Outgoing(json.dumps(message).encode() + b"\n", list(descriptors))
        self._out.append(waiting)
        self.flush()
        # Copies only if they must be kept: the other end gets its own, which cost this process nothing.
        if waiting.descriptors:
            waiting.keep()

    def flush(self) -> None:
        """Sends what waits, as far as it fits.

        Raises:
            OSError: The other end is gone.
        """
        while self._out:
            first = self._out[0]
            try:
                if first.descriptors:
                    sent = socket.send_fds(self.socket, [first.data], first.descriptors)
                else:
                    sent = self.socket.send(first.data)
            except BlockingIOError:
                return
            first.sent(sent)
            if not first.data:
                self._out.popleft()

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come in whole lines; None at the end. Waits for something on a socket that blocks.

        Raises:
            BadLine: It is none.
            OSError: The connection is broken.
        """
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        found, descriptors, _, _ = socket.recv_fds(self.socket, _AT_ONCE, _MOST_DESCRIPTORS, flags)
        try:
            for number in descriptors:
                os.set_inheritable(number, False)  # where there is no flag for that
                above = number >= _ABOVE_STANDARD
                self._descriptors.append(number if above else _copy(number))
        finally:
            _close([number for number in descriptors if number not in self._descriptors])
        if not found:
            return None
        self._in += found
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        if self._longest is not None and max(map(len, (*lines, rest))) > self._longest:
            raise BadLine(f"a line of more than {self._longest} bytes")
        return [_object(line) for line in lines]

    def take_descriptors(self) -> list[int]:
        """The descriptors that came since the last call; the caller owns them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        """Closes the connection; what is on the way to the other end still arrives."""
        _close(self.take_descriptors())
        for waiting in self._out:
            _close(waiting.copies)
        self._out.clear()
        self.socket.close()


def _copy(number: int) -> int:
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STANDARD)


def _close(descriptors: list[int]) -> None:
    for number in descriptors:
        os.close(number)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise BadLine("a line that is no JSON") from None
    if not isinstance(found, dict):
        raise BadLine("a line that is no JSON object")
    return found
