"""`Pool`: slots that no process can lose, given out in leases."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from dataclasses import dataclass
from errno import EAGAIN
from typing import TYPE_CHECKING, Any

from ._core import ffi, lib
from .arguments import pool_limit
from .create import fifo_directories
from .errors import PoolClosed, check, no_leases
from .lease import Lease, LeaseReport

if TYPE_CHECKING:
    from types import TracebackType

ORPHAN_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class PoolStatus:
    """What a pool has.

    Attributes:
        limit: How many slots there are.
        in_use: How many of them are in use; more than the limit while a smaller one waits for jobs to end.
        queued: How many leases wait for their first slot.
        leases: Those that have not been dropped, in the order in which they were made.
    """

    limit: int
    in_use: int
    queued: int
    leases: tuple[LeaseReport, ...]

    @property
    def free(self) -> int:
        """Slots that are not in use; offers that nobody has taken count as free."""
        return max(self.limit - self.in_use, 0)


class Pool:
    """Slots that are given out in leases: each process gets a jobserver of its own, and tokens out of this pool.

    Unlike on a pipe or fifo that several share, it is known what each of them holds: a process that is killed with
    tokens in its hands loses none, one that gives back too many makes none up, and each gets its share. The clients are
    unmodified tools. Of clients that keep the protocol never more than `limit` jobs run at once.

    A thread of this process, in C and without the GIL, moves the tokens. It sleeps while nothing moves. A context
    manager; leaving it closes the pool. Every method may be called from any thread. In a forked child the pool can only
    be dropped. Not on Windows.

    Args:
        limit: How many slots; at least 1.

    Raises:
        ValueError: The limit is below 1.
        OSError: The system refused (no descriptors left, no directory for fifos …).
        Unsupported: This system has no leases.
    """

    def __init__(self, limit: int) -> None:
        self._closed = True
        self._limit = _checked(limit)
        self._handle = _create(self._limit)
        self._leases: list[weakref.ref[Lease]] = []
        serving = threading.Thread(target=_serve, args=(self._handle,), name="jobserver pool", daemon=True)
        self._end = weakref.finalize(self, _end, self._handle, serving)
        serving.start()
        self._closed = False

    @property
    def limit(self) -> int:
        """How many slots there are."""
        return self._limit

    def lease(
        self,
        name: str,
        *,
        style: str = "auto",
        minimum: int = 0,
        maximum: int | None = None,
        weight: float = 1.0,
        orphan_timeout: float = ORPHAN_TIMEOUT,
    ) -> Lease:
        """A lease for one process, which is started by the lease's `run`, `popen` or `configure`.

        Args:
            name: What it is called in reports.
            style: "pipe" (every make), "fifo" (make 4.4, ninja 1.13), or "auto": a command that is a make is asked for
                its version, otherwise the make in PATH.
            minimum: Slots that are set aside for it from its start, which waits for them, to its end.
            maximum: Most slots that it may have, its process's included; None for no limit of its own.
            weight: Its share when several leases want tokens, beside the others' weights.
            orphan_timeout: Seconds for which processes that are left behind count as the lease's: it ends when the last
                of them is gone (they inherit a descriptor, which some programs close), so that a killed make's
                compilers and what is started next are never more than the slots. None: for ever; 0: not at all.

        Raises:
            ValueError: The minimum is more than the pool has, or more than the maximum …
            PoolClosed: The pool was closed.
        """
        if self._closed:
            raise PoolClosed("this pool was closed: make a new one")
        orphans = float("inf") if orphan_timeout is None else orphan_timeout
        lease = Lease(self, name, style, minimum, maximum, weight, orphans)
        self._leases = [other for other in self._leases if other() is not None]
        self._leases.append(weakref.ref(lease))
        return lease

    def resize(self, limit: int) -> int:
        """Changes how many slots there are.

        A smaller number takes effect as jobs end: none is stopped.

        Returns:
            How many slots more are in use than there are now.

        Raises:
            ValueError: The limit is below 1.
            PoolClosed: The pool was closed.
        """
        limit = _checked(limit)
        self._check(lib.jobserver_broker_resize(self._handle, limit))
        self._limit = limit
        status = self.status()
        return max(status.in_use - limit, 0)

    def status(self) -> PoolStatus:
        """What the pool has and who has it, as of now.

        Raises:
            PoolClosed: The pool was closed.
        """
        found = ffi.new("jobserver_broker_report *")
        self._check(lib.jobserver_broker_describe(self._handle, found))
        leases = [lease for lease in (reference() for reference in self._leases) if lease is not None]
        return PoolStatus(found.limit, found.in_use, found.queued, tuple(lease.report() for lease in leases))

    def close(self) -> None:
        """Ends the pool; again: harmless. Processes that still run go on with the slots that they hold."""
        self._closed = True
        self._end()

    def _check(self, code: int) -> None:
        if self._closed or code == lib.JOBSERVER_CLOSED:
            raise PoolClosed("this pool was closed, or is the pool of the process that this one was forked from")
        check(code)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, finalizing: Any = sys.is_finalizing) -> None:
        if not self._closed and not finalizing():
            import warnings

            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a Pool cannot be pickled: start processes on its leases")

    def __repr__(self) -> str:
        return f"<jobserver_ffi.Pool {self._limit}{' closed' if self._closed else ''}>"


def _checked(limit: int) -> int:
    if pool_limit(limit) < 1:
        raise ValueError(f"limit={limit}: at least 1 slot is wanted, or no process can start")
    return limit


def _create(limit: int) -> Any:
    out = ffi.new("jobserver_broker **")
    code = -EAGAIN
    for directory in fifo_directories():
        code = lib.jobserver_broker_create(os.fsencode(directory), limit, out)
        if code in (0, lib.JOBSERVER_UNSUPPORTED):
            break
    if code == lib.JOBSERVER_UNSUPPORTED:
        raise no_leases()
    check(code)
    return ffi.gc(out[0], lib.jobserver_broker_free)


def _serve(handle: Any) -> None:
    """The thread of a pool; it does not keep the Pool alive."""
    lib.jobserver_broker_serve(handle)


def _end(handle: Any, serving: threading.Thread) -> None:
    """Stops the thread, when the pool is closed or dropped, or at exit."""
    lib.jobserver_broker_stop(handle)
    if serving.is_alive():
        serving.join()
    # Now, not when the last reference is gone: at exit that would be never, and the directory would stay.
    ffi.release(handle)
