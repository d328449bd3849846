"""`Event`: wakes one thread of this process that waits in the core, for a token or for nothing else."""

from __future__ import annotations

from ._core import ffi, lib
from .errors import check
from .handles import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Others: TypeAlias = tuple[Any, int]
    """Things beside a token that end a wait, as the core takes them: an `intptr_t[]`, and how many are in it."""

NOTHING: Others = (ffi.NULL, 0)


class Event:
    """A flag that a thread can wait for together with a token, which `threading.Event` cannot.

    Setting it is thread-safe and never blocks. A forked child can set none of its parent's.

    Args:
        when_implicit_slot_is_free: Set it also each time the process's implicit slot is given back.
    """

    __slots__ = ("_handle", "_waitable", "others")

    others: Others
    """This event, as what ends a wait for a token."""

    def __init__(self, *, when_implicit_slot_is_free: bool = False) -> None:
        place = Place("event")
        check(lib.jobserver_event_new(place.out))
        self._handle = place.take()
        if when_implicit_slot_is_free:
            check(lib.jobserver_implicit_watch(self._handle))
        self._waitable = ffi.new("intptr_t[1]", [lib.jobserver_event_waitable(self._handle)])
        self.others = (self._waitable, 1)

    @property
    def waitable(self) -> int:
        """A descriptor that is readable while the event is set, on Windows a handle; only to wait for."""
        return int(self._waitable[0])

    def set(self) -> None:
        """Wakes who waits; it stays set until `clear`."""
        lib.jobserver_event_set(self._handle)

    def clear(self) -> None:
        """Makes the next wait sleep. Look afterwards at what the event tells of, not before."""
        lib.jobserver_event_clear(self._handle)

    def close(self) -> None:
        """Frees it now; from then on every method raises TypeError. No thread may wait for it.

        One that is dropped is freed too, by PyPy some time later.
        """
        handle, self._handle = self._handle, None
        ffi.release(handle)

    def wait(self) -> None:
        """Sleeps until the event is set, or a signal comes."""
        lib.jobserver_event_wait(self._handle)
