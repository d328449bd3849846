"""`ObservedClient`: a client that tells what it does. One without `on_event` has none of this on its way.

A client that is observed is of a class of its own, and keeps its free cells in a list of its own kind. Everything that
is released through an `Acquired` puts its cell into that list, whichever thread, task or executor had it.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from ._core import lib
from .acquired import Acquired, AcquiredBatch, FreeCells
from .arguments import nanoseconds
from .client import Client
from .errors import AcquireTimeout, Unsupported
from .hooks import EventKind, JobserverEvent, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .event import Others
    from .hooks import OnEvent

T = TypeVar("T")


def observe(client: Client, on_event: OnEvent) -> None:
    """Makes a client that has taken nothing yet tell what it does."""
    client._cells = Ledger(client.auth, on_event)
    client.__class__ = observed(type(client))
    _observed.add(client)


def observed(kind: type[Client]) -> type[Client]:
    """The class that tells what a client of this class does."""
    if kind not in _kinds:
        _kinds[kind] = type(kind.__name__, (kind, ObservedClient), {"__slots__": ()})
    return _kinds[kind]


class _Out(weakref.ref):  # type: ignore[type-arg]  # it is generic from Python 3.11 on, for isinstance alone
    """What is out: the cell or the batch that holds it, weakly, since dropping that is what gives it back."""

    __slots__ = ("count", "implicit", "key", "out", "taken")

    key: int
    count: int
    implicit: bool
    taken: float  # when
    out: bool  # whether it was told that it is, and not that it is not


class Ledger(FreeCells):
    """The free cells of an observed client, what is held in others, and who is told."""

    def __init__(self, name: str, on_event: OnEvent) -> None:
        super().__init__()
        self.name = name
        self.on_event = on_event
        self.out: dict[int, _Out] = {}
        # A destructor runs anywhere, perhaps while its thread has a lock that the hook wants: so it is told later. And
        # what a destructor calls is no Python, in which a Ctrl-C would be swallowed.
        self.dropped: deque[_Out] = deque()

    def tell(
        self,
        kind: EventKind,
        tokens: int = 0,
        implicit: bool = False,
        waited: float = 0.0,
        held: float | None = None,
        dropped: bool = False,
        error: str = "",
    ) -> float:
        """Tells of an event of now, and returns when that is."""
        now = monotonic()
        tell(self.on_event, JobserverEvent(kind, now, self.name, tokens, implicit, waited, held, dropped, error))
        return now

    def tell_dropped(self) -> None:
        """Tells of what was dropped since the last call."""
        while self.dropped:
            try:
                entry = self.dropped.popleft()
            except IndexError:  # another thread was faster
                return
            if self.out.get(entry.key) is entry:  # and not of another one at the same place
                del self.out[entry.key]
            if entry.out:
                self.tell(EventKind.RELEASED, entry.count, entry.implicit, dropped=True)

    def took(self, holder: Acquired | AcquiredBatch, began: float | None = None) -> None:
        """Tells that this was taken, after a wait since `began`; gives it back if whoever is told is interrupted."""
        try:
            entry = self._entry(holder)
            waited = 0.0 if began is None else monotonic() - began
            if began is not None:
                self.tell(EventKind.WAIT_ENDED, entry.count, waited=waited)
            entry.taken, entry.out = monotonic(), True
            self.out[entry.key] = entry
            self.tell(EventKind.ACQUIRED, entry.count, entry.implicit, waited)
        except BaseException:
            holder.release()
            raise

    def _entry(self, holder: Acquired | AcquiredBatch) -> _Out:
        if isinstance(holder, Acquired):
            handle, count, implicit = holder._held[0], 1, holder.implicit
        else:
            handle, count, implicit = holder._batch, len(holder), False
        entry = _Out(handle, self.dropped.append)
        entry.key, entry.count, entry.implicit, entry.out = id(handle), count, implicit, False
        return entry

    def forget(self, handle: Any) -> _Out | None:
        """Takes a cell or batch out of the account, if it is there."""
        entry = self.out.pop(id(handle), None)
        if entry is not None:
            entry.out = False  # a traceback may keep it beyond its cell
        return entry

    def gave_back(self, entry: _Out) -> None:
        """Tells that this was released."""
        held = monotonic() - entry.taken
        self.tell(EventKind.RELEASED, entry.count, entry.implicit, held=held)

    def append(self, cell: Any) -> None:
        """Takes a cell that is free now; if it held something, that was released."""
        entry = self.forget(cell)  # first: in the list the cell is anybody's
        super().append(cell)
        if entry is not None:
            self.gave_back(entry)


class ObservedBatch(AcquiredBatch):
    """Several tokens of an observed client."""

    __slots__ = ()

    def release(self) -> None:
        """As `AcquiredBatch.release`."""
        super().release()
        ledger = self._client._cells
        assert isinstance(ledger, Ledger)
        entry = ledger.forget(self._batch)
        if entry is not None:
            ledger.gave_back(entry)


class ObservedClient(Client):
    """A client that tells what it does; see docs/events.md.

    The hook is called by the thread that does it, outside of every lock. A token that was taken is in its cell by then.
    """

    __slots__ = ()

    _cells: Ledger

    def acquire(self, timeout: float | None = None) -> Acquired:
        """As `Client.acquire`."""
        if nanoseconds(timeout) == 0:
            token = super().acquire(timeout)
            self._cells.took(token)
            return token
        try:
            now = self.try_acquire()
        except Unsupported:  # it can only be found out by a wait
            now = None
        return now or self._wait_for(super().acquire, timeout)

    def try_acquire(self) -> Acquired | None:
        """As `Client.try_acquire`."""
        self._cells.tell_dropped()
        token = super().try_acquire()
        if token is not None:
            self._cells.took(token)
        return token

    def _implicit_slot(self) -> Acquired | None:
        self._cells.tell_dropped()
        slot = super()._implicit_slot()
        if slot is not None:
            self._cells.took(slot)
        return slot

    def _acquire_or(self, others: Others, timeout: float | None = None) -> Acquired | None:
        wait = super()._acquire_or
        return self._take(lambda timeout: wait(others, timeout), timeout)

    def _acquire_many_or(
        self, others: Others, maximum: int, minimum: int, timeout: float | None = None
    ) -> AcquiredBatch | None:
        wait = super()._acquire_many_or

        def take(timeout: float | None) -> AcquiredBatch | None:
            batch = wait(others, maximum, minimum, timeout)
            return None if batch is None else ObservedBatch(self, batch._batch, len(batch))

        return self._take(take, timeout)

    def _take(self, take: Callable[[float | None], T | None], timeout: float | None) -> T | None:
        """Takes something at once, or waits for it."""
        self._cells.tell_dropped()
        try:
            found = take(0)
        except (AcquireTimeout, Unsupported):
            if nanoseconds(timeout) == 0:
                raise
            return self._wait_for(take, timeout)
        if isinstance(found, (Acquired, AcquiredBatch)):
            self._cells.took(found)
        return found

    def _wait_for(self, take: Callable[[float | None], T], timeout: float | None) -> T:
        """Takes something by a wait, and tells when that begins and ends."""
        ledger = self._cells
        began = ledger.tell(EventKind.WAIT_BEGAN)
        try:
            found = take(timeout)
        except BaseException as error:
            ledger.tell(EventKind.WAIT_ENDED, waited=monotonic() - began, error=type(error).__name__)
            raise
        if isinstance(found, (Acquired, AcquiredBatch)):
            ledger.took(found, began)
        else:  # a raw token, or something else came first
            count, waited = int(isinstance(found, int)), monotonic() - began
            ledger.tell(EventKind.WAIT_ENDED, count, waited=waited)
            if count:
                ledger.tell(EventKind.ACQUIRED, count, waited=waited)
        return found

    def acquire_raw(self, timeout: float | None = None) -> int:
        """As `Client.acquire_raw`."""
        self._cells.tell_dropped()
        byte = lib.jobserver_acquire_raw(self._handle, 0)
        if byte < 0:
            if nanoseconds(timeout) != 0:
                return self._wait_for(super().acquire_raw, timeout)
            byte = super().acquire_raw(0)  # which raises what is the matter
        self._cells.tell(EventKind.ACQUIRED, 1)
        return byte

    def release_raw(self, byte: int | None = None) -> None:
        """As `Client.release_raw`."""
        super().release_raw(byte)
        self._cells.tell(EventKind.RELEASED, 1)

    def _forget(self, cell: Any) -> None:
        self._cells.forget(cell)
        super()._forget(cell)

    def close(self) -> None:
        """As `Client.close`."""
        try:
            super().close()
        finally:
            self._cells.tell_dropped()


_kinds: dict[type[Client], type[Client]] = {Client: ObservedClient}
"""For each class of clients the one that tells."""

_observed: weakref.WeakSet[Client] = weakref.WeakSet()


def _forget_parents() -> None:
    """A forked child holds nothing of its parent's."""
    for client in _observed:
        ledger = client._cells
        assert isinstance(ledger, Ledger)
        ledger.out.clear()
        ledger.dropped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
