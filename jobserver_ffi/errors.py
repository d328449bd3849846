"""The errors of this package, and the one place where results of the C core become exceptions."""

from __future__ import annotations

import errno
import os
import sys

from ._core import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class JobserverError(Exception):
    """The root of this package's own errors."""


class AcquireTimeout(JobserverError, TimeoutError):
    """No token came in time."""


class ClientBusy(JobserverError):
    """A client cannot be closed while another thread waits in it."""


class ClientClosed(JobserverError):
    """The client was closed."""


class HelperClosed(JobserverError):
    """The thread or task that would have waited for the token is not there any more."""


class OverRelease(JobserverError):
    """A token was to be given back that this process has not taken."""


class Unsupported(JobserverError):
    """This kind of pool cannot do that safely on this system."""


class PoolGone(JobserverError, BrokenPipeError):
    """The far end of the jobserver was closed: its maker is gone."""


class PoolFull(JobserverError, BlockingIOError):
    """A token did not fit back into the pool, so it is still held."""


class PoolClosed(JobserverError):
    """The pool was closed, or this process was forked from the one that has it."""


class LeaseBusy(JobserverError):
    """A lease cannot be closed while its process runs, nor be given a second one."""


_MESSAGES: dict[int, tuple[type[JobserverError], str]] = {
    lib.JOBSERVER_CLOSED: (ClientClosed, "this client was closed: make a new one"),
    lib.JOBSERVER_OVER_RELEASE: (
        OverRelease,
        "no token of this process is out, so there is none to give back: release just what was acquired",
    ),
    lib.JOBSERVER_NOT_OUT: (
        OverRelease,
        "this process has not taken a token with that byte: give back the byte that acquire_raw returned",
    ),
    lib.JOBSERVER_TOO_MANY: (
        OverRelease,
        "the jobserver's semaphore has all its tokens already (Windows error 298), so the token is still held: some "
        "process gave back more tokens than it took",
    ),
    lib.JOBSERVER_UNSUPPORTED: (
        Unsupported,
        "this jobserver cannot be used like that without the danger of waiting for ever (it is another user's, or this "
        "system has no way to read it without blocking): use acquire() without a timeout",
    ),
    lib.JOBSERVER_FOREIGN: (
        JobserverError,
        "this client belongs to another copy of the core in this process: hand over client.auth and open that",
    ),
    lib.JOBSERVER_STRANDED: (
        JobserverError,
        "a failure of an earlier release was just told to another thread: call again",
    ),
    lib.JOBSERVER_LEASE_STATE: (
        LeaseBusy,
        "this lease has a process already, or has ended with it: make a lease for each process",
    ),
    -errno.EBUSY: (ClientBusy, "another thread is waiting in this client: let it finish before close()"),
}

_WITH_ERRNO: dict[int, tuple[type[OSError], int, str]] = {
    lib.JOBSERVER_GONE: (PoolGone, errno.EPIPE, "the jobserver is gone: its maker has closed it or has died"),
    -errno.EPIPE: (PoolGone, errno.EPIPE, "the jobserver is gone: nobody reads it any more"),
    -errno.EAGAIN: (
        PoolFull,
        errno.EAGAIN,
        "the jobserver's pipe is full, so the token is still held: some process gave back more tokens than it took",
    ),
}


def timed_out(timeout: float | None) -> AcquireTimeout:
    """The error of a wait that lasted so many seconds in vain."""
    return AcquireTimeout(errno.ETIMEDOUT, f"no token became free within {timeout} s")


def no_bridge() -> Unsupported:
    """The error of a pool whose slots are to be tokens of another jobserver, on Windows."""
    return Unsupported(
        "a pool on Windows has slots of its own only, it cannot take them from another jobserver: give it a number of "
        "slots, or start the process with the client itself"
    )


def error_for(code: int) -> Exception:
    """The exception for a result of the C core.

    Args:
        code: A negated errno, or one of the core's `jobserver_error`.
    """
    if code in _MESSAGES:
        kind, message = _MESSAGES[code]
        return kind(message)
    if code in _WITH_ERRNO:
        system_kind, number, message = _WITH_ERRNO[code]
        return system_kind(number, message)
    if sys.platform == "win32" and code <= lib.JOBSERVER_WINDOWS:
        from .windows import system_error

        return system_error(lib.JOBSERVER_WINDOWS - code)
    return OSError(-code, os.strerror(-code))


def fail(code: int) -> NoReturn:
    """Raises the exception for a result of the C core."""
    raise error_for(code)


def check(code: int) -> int:
    """Returns a result of the C core, or raises what it stands for."""
    if code < 0:
        fail(code)
    return code
