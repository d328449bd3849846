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
    from .environment import FromEnv, FromEnvError, FromEnvErrorKind
    from .lease import Lease, LeaseReport
    from .pool import Pool, PoolStatus

__all__ = [
    "AcquireTimeout",
    "Acquired",
    "AcquiredBatch",
    "Client",
    "ClientBusy",
    "ClientClosed",
    "FromEnv",
    "FromEnvError",
    "FromEnvErrorKind",
    "JobserverError",
    "Lease",
    "LeaseBusy",
    "LeaseReport",
    "OverRelease",
    "Pool",
    "PoolClosed",
    "PoolFull",
    "PoolGone",
    "PoolStatus",
    "Unsupported",
]


_ON_FIRST_USE = {
    "FromEnv": "environment",
    "FromEnvError": "environment",
    "FromEnvErrorKind": "environment",
    "Lease": "lease",
    "LeaseReport": "lease",
    "Pool": "pool",
    "PoolStatus": "pool",
}


def __getattr__(name: str) -> object:
    """Imports on first use what not every program needs."""
    if name in _ON_FIRST_USE:
        from importlib import import_module

        return getattr(import_module(f".{_ON_FIRST_USE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those that are imported on first use too."""
    return sorted({*globals(), *__all__})
