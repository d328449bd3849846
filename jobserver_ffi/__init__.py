"""The GNU make jobserver: share one machine's job slots between make, ninja, cargo and your own programs.

`Client` is a jobserver; `Acquired` is one slot of it that you hold. See the README for a first example.
"""

from __future__ import annotations

from .acquired import Acquired, AcquiredBatch
from .client import Client
from .errors import (
    AcquireTimeout,
    ClientBusy,
    ClientClosed,
    HelperClosed,
    JobserverError,
    LeaseBusy,
    OverRelease,
    PoolClosed,
    PoolFull,
    PoolGone,
    Unsupported,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .embedding import FUNCTION_TABLE, copy_sources, get_include
    from .environment import FromEnv, FromEnvError, FromEnvErrorKind
    from .executor import JobserverExecutor
    from .gates import GateStatus, MaxLoad, MaxPressure, MinMemory
    from .helper import HelperThread
    from .hooks import EventKind, JobserverEvent, log_events
    from .lease import Lease
    from .lease_report import LeaseReport
    from .pool import Pool, PoolStatus

__all__ = [
    "FUNCTION_TABLE",
    "AcquireTimeout",
    "Acquired",
    "AcquiredBatch",
    "Client",
    "ClientBusy",
    "ClientClosed",
    "EventKind",
    "FromEnv",
    "FromEnvError",
    "FromEnvErrorKind",
    "GateStatus",
    "HelperClosed",
    "HelperThread",
    "JobserverError",
    "JobserverEvent",
    "JobserverExecutor",
    "Lease",
    "LeaseBusy",
    "LeaseReport",
    "MaxLoad",
    "MaxPressure",
    "MinMemory",
    "OverRelease",
    "Pool",
    "PoolClosed",
    "PoolFull",
    "PoolGone",
    "PoolStatus",
    "Unsupported",
    "copy_sources",
    "get_include",
    "log_events",
]


_ON_FIRST_USE = {
    "EventKind": ".hooks",
    "FUNCTION_TABLE": ".embedding",
    "FromEnv": ".environment",
    "FromEnvError": ".environment",
    "FromEnvErrorKind": ".environment",
    "GateStatus": ".gates",
    "HelperThread": ".helper",
    "JobserverEvent": ".hooks",
    "JobserverExecutor": ".executor",
    "Lease": ".lease",
    "LeaseReport": ".lease_report",
    "MaxLoad": ".gates",
    "MaxPressure": ".gates",
    "MinMemory": ".gates",
    "Pool": ".pool",
    "PoolStatus": ".pool",
    "copy_sources": ".embedding",
    "get_include": ".embedding",
    "log_events": ".hooks",
}


def __getattr__(name: str) -> object:
    """Imports on first use what a program that is no client of an inherited jobserver does not need."""
    module = _ON_FIRST_USE.get(name)
    if module is not None:
        from importlib import import_module

        return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those that are imported on first use too."""
    return sorted({*globals(), *__all__})
