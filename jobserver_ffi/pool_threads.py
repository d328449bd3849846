"""`PoolThreads`: the threads that serve a pool, and how they end."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING, Any

from ._core import ffi, lib
from .event import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client import Client
    from .gates import Gatekeeper
    from .lease_events import LeaseWatcher

GATE_INTERVAL = 1_000_000_000  # nanoseconds between two looks at the machine
_NO_LIMIT = 2**31 - 1


class PoolThreads:
    """All threads of a pool. They do not know the Pool, which may be dropped.

    Args:
        broker: The core's pool.
        outer: Where its slots come from, if it has none of its own.
        gatekeeper: What watches the machine, if there are gates.
        watcher: What reports changes of its leases, if there is a hook.
    """

    def __init__(
        self, broker: Any, outer: Client | None, gatekeeper: Gatekeeper | None, watcher: LeaseWatcher | None
    ) -> None:
        self._broker = broker
        self._watcher = watcher
        self._stopped = False
        self._threads = [_thread("jobserver pool", lib.jobserver_broker_serve, broker)]
        if outer is not None:
            self._threads.append(_thread("jobserver bridge", _bridge, broker, outer))
        if gatekeeper is not None:
            self._threads.append(_thread("jobserver gates", _keep_gates, broker, gatekeeper, Event()))
        if watcher is not None:
            self._threads.append(_thread("jobserver events", watcher.serve))

    def start(self) -> None:
        """Starts them all. If one cannot be started, the others end."""
        for other in list(_running):
            other.forget_if_ended()
        _running.add(self)
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Has them end soon. It waits for none of them and takes no lock, so a finaliser may call it in any thread."""
        lib.jobserver_broker_stop(self._broker)
        watcher = self._watcher
        if watcher is not None:
            watcher.stop()
        self._watcher = None  # afterwards: its hook must not live as long as this
        self._stopped = True

    def end(self) -> None:
        """Has them end and waits until they have. Then the directory of fifos is gone, if all leases are."""
        self.stop()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():  # a hook may close the pool
                thread.join()
        _running.discard(self)

    def forget_if_ended(self) -> None:
        """Leaves nothing to do at exit for a pool that was dropped, once its threads have ended."""
        if self._stopped and not any(thread.is_alive() for thread in self._threads):
            _running.discard(self)


_running: set[PoolThreads] = set()
"""Those that `end` was not called for. Each call on it is atomic."""


def _end_all() -> None:
    """At exit: leaves no directory behind, and no token with a bridge."""
    for threads in list(_running):
        threads.end()


atexit.register(_end_all)


def _thread(name: str, function: Callable[..., object], *arguments: Any) -> threading.Thread:
    return threading.Thread(target=function, args=arguments, name=name, daemon=True)


def _bridge(broker: Any, outer: Client) -> None:
    """Brings slots from an outer jobserver; a failure ends the waits for a first slot."""
    lib.jobserver_broker_bridge(broker, outer._handle)


def _keep_gates(broker: Any, gatekeeper: Gatekeeper, event: Event) -> None:
    """Looks after the machine, asleep on the event while no token moves."""
    found = ffi.new("jobserver_broker_report *")
    interval = 0
    while lib.jobserver_broker_rest(broker, event._handle, interval) == 0:
        interval = GATE_INTERVAL
        lib.jobserver_broker_describe(broker, found)
        allowed = gatekeeper.look(found.in_use)
        lib.jobserver_broker_allow(broker, _NO_LIMIT if allowed is None else allowed)
