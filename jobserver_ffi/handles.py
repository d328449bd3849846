"""Handles: what the C core makes, as Python owns it.

A handle ends when its last reference is gone, by a destructor that is plain C. The cyclic garbage collector does not
know of handles. It runs the finalisers of a cycle in any order, so it could free what a handle stands for (as it does
with the objects of `ffi.gc`) before a `__del__` or a suspended generator of the same cycle uses it. Reference counts
free it after all of them. No Python runs between the making of an object and its handle, so Ctrl-C loses none.
"""

from __future__ import annotations

from ._core import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import MethodType
    from typing import Any

_TOKEN = ffi.typeof("jobserver_token *")
_BATCH = ffi.typeof("jobserver_batch *")
_HOLD = ffi.typeof("jobserver_hold *")
_LEASE = ffi.typeof("jobserver_lease *")
_PLACE = ffi.typeof("jobserver_place *")

# For each kind of what is made in a place: the type of its handle, what takes it out of the place, what frees it.
_KINDS = {
    "client": (ffi.typeof("jobserver_client *"), lib.jobserver_place_client, lib.jobserver_client_free),
    "event": (ffi.typeof("jobserver_event *"), lib.jobserver_place_event, lib.jobserver_event_free),
    "broker": (ffi.typeof("jobserver_broker *"), lib.jobserver_place_broker, lib.jobserver_broker_free),
    "lease": (_LEASE, lib.jobserver_place_lease, lib.jobserver_lease_free),
}


def _maker(make: Callable[[int], Any], free: object) -> Callable[[object], Any]:
    """A function that makes a handle of a type: of what `make(size)` returns. `free`, a function of the core, ends it.

    To bind an argument of `make` use MethodType: it runs no Python, which could be interrupted.
    """
    return ffi.new_allocator(make, free, False)  # without clearing what was made


_new_place = _maker(lib.jobserver_place_new, lib.jobserver_place_free)


class Place:
    """Where a function of the core puts what it makes.

    Args:
        kind: "client", "event", "broker" or "lease".
    """

    __slots__ = ("_kind", "_place", "out")

    out: Any
    """What the function takes for it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._place = _new_place(_PLACE)
        self.out = ffi.addressof(self._place, kind)

    def take(self) -> Any:
        """The handle of what is there."""
        handle, take, free = _KINDS[self._kind]
        return _maker(MethodType(take, self._place), free)(handle)


if not TYPE_CHECKING:
    MethodType = type(Place("client").take)  # of the module types, without importing it


def cell_maker(client: Any) -> Callable[[], Any]:
    """A function that makes cells of a client. It raises MemoryError."""
    return MethodType(_maker(MethodType(lib.jobserver_owned_token, client), lib.jobserver_token_free), _TOKEN)


def batch_maker(client: Any, room: int) -> Callable[[], Any]:
    """A function that makes batches with room for `room` tokens of a client. It raises MemoryError."""
    make = MethodType(MethodType(lib.jobserver_owned_batch, client), room)
    return MethodType(_maker(make, lib.jobserver_batch_free), _BATCH)


def hold(client: Any) -> Any:
    """What keeps the descriptors and the fifo of a client.

    Raises:
        MemoryError: The client was closed, or there is no memory.
    """
    return _maker(MethodType(lib.jobserver_owned_hold, client), lib.jobserver_hold_free)(_HOLD)


def observer(lease: Any) -> Any:
    """A second handle of a lease, for a watcher. The lease ends when its first handle does."""
    return _maker(MethodType(lib.jobserver_owned_observer, lease), lib.jobserver_lease_forget)(_LEASE)
