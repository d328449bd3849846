"""`Pool`: slots that no process can lose, given out in leases."""

from __future__ import annotations

import os
import sys
import weakref
from dataclasses import dataclass
from errno import EAGAIN
from typing import TYPE_CHECKING, Any

from ._core import ffi, lib
from .arguments import pool_limit
from .client import Client
from .create import STYLES, fifo_directories
from .errors import PoolClosed, Unsupported, check, no_bridge
from .gates import Gate, Gatekeeper, GateStatus
from .handles import Place
from .lease import Lease
from .lease_report import LeaseReport
from .pool_threads import PoolThreads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .hooks import OnEvent
    from .lease_events import LeaseWatcher

ORPHAN_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class PoolStatus:
    """What a pool has.

    Attributes:
        limit: How many slots there are; of an outer jobserver, how many are taken from it now.
        in_use: How many of them are in use; more than the limit while a smaller one waits for jobs to end.
        queued: How many leases wait for their first slot.
        held_back: Free slots that no lease is offered, since a gate is closed.
        gates: What each gate does; several may hold back the same slots.
        leases: Those that have not been dropped, in the order in which they were made.
    """

    limit: int
    in_use: int
    queued: int
    leases: tuple[LeaseReport, ...]
    held_back: int = 0
    gates: tuple[GateStatus, ...] = ()

    @property
    def free(self) -> int:
        """Slots that are not in use; offers that nobody has taken count as free."""
        return max(self.limit - self.in_use, 0)


class Pool:
    """Slots that are given out in leases: each process gets a jobserver of its own, and tokens out of this pool.

    Unlike on a pipe or fifo that several share, it is known what each of them holds: a process that is killed with
    tokens in its hands loses none, one that gives back too many makes none up, and each gets its share. The clients are
    unmodified tools. Of clients that keep the protocol never more than `limit` jobs run at once.

    A thread of this process, in C and without the GIL, moves the tokens. On Linux it sleeps while nothing moves,
    elsewhere it looks after 1 to 50 ms while there are leases. A context manager; leaving it closes the pool. Every
    method may be called from any thread. In a forked child the pool can only be dropped.

    Args:
        source: How many slots, at least 1; or the client of an outer jobserver that they come from, which must stay
            open as long as the pool. Then a slot is taken when a lease would use it, the process's implicit slot first
            (`Client.from_env`), and goes back when none does; in whichever style the outer jobserver is, a lease can
            have the other. What is not back when the pool is closed, or this process ends, goes back then; only if
            the process is killed are its tokens lost.
        directory: Where fifos are put, in a directory of their own, if it is an absolute path without blanks; otherwise
            below XDG_RUNTIME_DIR or TMPDIR.
        gates: What must not get worse: `MaxLoad`, `MinMemory`, `MaxPressure`. While a gate is closed fewer and fewer
            slots are used, as jobs end; each lease keeps its first slot and its minimum. They are looked at once a
            second while tokens move, and not while none does.
        on_event: Is called with a `JobserverEvent` when a lease is opened, gets its first slot, gives back too much,
            and ends, perhaps with tokens lost: mostly in a thread that there is only for this; see docs/events.md.

    Raises:
        ValueError: The number is below 1.
        OSError: The system refused (no descriptors left, no directory for fifos …).
        Unsupported: The source is a client, on Windows.
    """

    _closed = True  # until it is made

    def __init__(
        self,
        source: int | Client,
        *,
        gates: Sequence[Gate] = (),
        directory: str | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        if isinstance(source, Client) and "semaphore" in STYLES:
            raise no_bridge()
        self._limit = None if isinstance(source, Client) else _checked(source)
        self._handle = _create(self._limit or 0, directory)
        self._gatekeeper = Gatekeeper(gates)
        self._leases: list[weakref.ref[Lease]] = []
        self._watcher = None if on_event is None else _watcher(self._handle, on_event)
        outer = source if isinstance(source, Client) else None
        self._threads = PoolThreads(self._handle, outer, self._gatekeeper if gates else None, self._watcher)
        self._threads.start()
        self._closed = False

    @property
    def limit(self) -> int | None:
        """How many slots there are; None where they come from an outer jobserver, as many as it has to give."""
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
                its version, otherwise the make in PATH. On Windows "semaphore", which "auto" is there.
            minimum: Slots that are set aside for it from its start, which waits for them, to its end.
            maximum: Most slots that it may have, its process's included; None for no limit of its own.
            weight: Its share when several leases want tokens, beside the others' weights.
            orphan_timeout: Seconds for which processes that are left behind count as the lease's: it ends when the last
                of them is gone (they inherit a descriptor, which some programs close; on Windows they are in a job
                object), so that a killed make's compilers and what is started next are never more than the slots.
                None: for ever; 0: not at all.

        Raises:
            ValueError: The minimum is more than the pool has (with an outer jobserver: more than 1, since slots set
                aside there might wait for each other for ever), or more than the maximum …
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
            Unsupported: The slots come from an outer jobserver.
        """
        limit = _checked(limit)
        if self._limit is None:
            raise Unsupported(
                "the slots of this pool come from an outer jobserver, whose maker says how many there are"
            )
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
        return PoolStatus(
            found.limit,
            found.in_use,
            found.queued,
            tuple(lease.report() for lease in leases),
            found.held_back,
            self._gatekeeper.status(found.limit),
        )

    def close(self) -> None:
        """Ends the pool; again: harmless. Processes that still run go on with the slots that they hold."""
        self._closed = True
        self._threads.end()

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

            self._threads.stop()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a Pool cannot be pickled: start processes on its leases")

    def __repr__(self) -> str:
        return f"<jobserver_ffi.Pool {self._limit or 'of an outer jobserver'}{' closed' if self._closed else ''}>"


def _checked(limit: int) -> int:
    if pool_limit(limit) < 1:
        raise ValueError(f"limit={limit}: at least 1 slot is wanted, or no process can start")
    return limit


def _create(limit: int, preferred: str | None) -> Any:
    place = Place("broker")
    code = -EAGAIN
    for directory in fifo_directories(preferred) if "fifo" in STYLES else [""]:
        code = lib.jobserver_broker_create(os.fsencode(directory), limit, place.out)
        if code == 0:
            break
    check(code)
    return place.take()


def _watcher(handle: Any, on_event: OnEvent) -> LeaseWatcher:
    from .lease_events import LeaseWatcher

    return LeaseWatcher(handle, on_event)
