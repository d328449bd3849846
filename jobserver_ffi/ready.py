"""A slot, or something else that a scheduler waits for: the exit of a child, output of one."""

from __future__ import annotations

import os
import select
import sys
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ._core import ffi
from .acquired import Acquired
from .arguments import nanoseconds
from .errors import AcquireTimeout, Unsupported, timed_out
from .event import Event

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

    from .client import Client


class HasFileno(Protocol):
    """A file, a socket, a pipe."""

    def fileno(self) -> int:
        """Its descriptor."""


Waitable: TypeAlias = "subprocess.Popen[Any] | HasFileno | int"
W = TypeVar("W", bound=Waitable)


def slot_or_ready(client: Client, others: Iterable[W], timeout: float | None) -> tuple[Acquired | None, list[W]]:
    """See `Client.slot_or_ready`."""
    nanoseconds(timeout)
    with ExitStack() as opened:
        watched = [(descriptor(other, opened), other) for other in others]
        event = Event(when_implicit_slot_is_free=True)
        opened.callback(event.close)
        waitables = ffi.new("intptr_t[]", [*(number for number, _ in watched), event.waitable])
        # No frame that sees the stack close has the slot in a variable: an exception out of a callback of the stack is
        # a cycle with its traceback, and a token in there would be out until the garbage is collected.
        return _first(client, watched, event, waitables, timeout)


def _first(
    client: Client, watched: list[tuple[int, W]], event: Event, waitables: Any, timeout: float | None
) -> tuple[Acquired | None, list[W]]:
    """What comes first. The event and the descriptors are in `waitables`."""
    end = monotonic() + timeout if timeout is not None else None
    while True:
        found = ready(watched)
        if found:
            return None, found
        event.clear()
        left = None if end is None else max(end - monotonic(), 0)
        try:
            slot = client._implicit_slot() or client._acquire_or((waitables, len(watched) + 1), left)
        except AcquireTimeout:
            return None, ready(watched)
        if slot is not None:
            return slot, []


def wait_for_slot(client: Client, timeout: float | None) -> Acquired:
    """Waits for a token or the implicit slot, which this process owns."""
    slot: Acquired | None = None
    while slot is None:
        try:
            slot, _ = slot_or_ready(client, (), timeout)
        except Unsupported:
            if timeout is not None:
                raise
            return client.acquire()
        if slot is None and timeout is not None:
            raise timed_out(timeout)
    return slot


def descriptor(other: Waitable, opened: ExitStack) -> int:
    """A descriptor that is readable when this is ready; for a child it is opened here. On Windows its handle."""
    if sys.platform == "win32":
        from .windows import handle

        return handle(other)
    if isinstance(other, int):
        return other
    if hasattr(other, "fileno"):
        return other.fileno()
    return child_descriptor(other, opened)


def child_descriptor(child: subprocess.Popen[Any], opened: ExitStack) -> int:
    """A descriptor that is readable when the child has exited. The child is not reaped."""
    if child.returncode is not None:  # the number may be another process's by now
        return always_readable(opened)
    try:
        return exit_descriptor(child.pid, opened)
    except ProcessLookupError:  # somebody else has reaped it
        return always_readable(opened)


def exit_descriptor(pid: int, opened: ExitStack) -> int:
    """A pidfd on Linux, a kqueue on macOS and the BSDs."""
    if sys.platform == "linux":
        pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else pidfd_open(pid)
        opened.callback(os.close, pidfd)
        return pidfd
    queue = select.kqueue()
    opened.callback(queue.close)
    exits = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
    queue.control([exits], 0)
    return queue.fileno()


def pidfd_open(pid: int) -> int:
    """What PyPy lacks, and a CPython that was compiled with the headers of a Linux before 5.3."""
    import ctypes

    number = 434  # the same on all but one of the processors that Linux knows
    pidfd = int(ctypes.CDLL(None, use_errno=True).syscall(number, pid, 0))
    if pidfd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pidfd


def always_readable(opened: ExitStack) -> int:
    """A pipe at its end."""
    read_fd, write_fd = os.pipe()
    opened.callback(os.close, read_fd)
    os.close(write_fd)
    return read_fd


def ready(watched: list[tuple[int, W]]) -> list[W]:
    """Those that are ready now."""
    if sys.platform == "win32":
        from .windows import is_signalled

        return [other for number, other in watched if is_signalled(number)]
    poll = select.poll()
    for number, _ in watched:
        poll.register(number, select.POLLIN)
    found = {number for number, _ in poll.poll(0)}
    return [other for number, other in watched if number in found]
