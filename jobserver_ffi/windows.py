"""What Windows does in its own way: Ctrl-C and the texts of its errors. Imported on Windows only."""

from __future__ import annotations

import sys

from ._core import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any

    from .event import Event

assert sys.platform == "win32"


def end_waits_on_interrupt() -> None:
    """Has Ctrl-C end the waits of the main thread at once.

    Ctrl-C comes in a thread of its own. CPython's handler sets an event there, which its own waits look at too.
    PyPy has no such event: there Python's handler runs when the wait is over.
    """
    import _thread

    # Without that module there are no other threads yet, and importing it costs as much as all of this package.
    threading = sys.modules.get("threading")
    main_thread = _thread.get_ident() if threading is None else threading.main_thread().ident
    library = getattr(sys, "dllhandle", None)
    if library is not None:
        lib.jobserver_interrupt_from(library, b"_PyOS_SigintEvent", main_thread)


def system_error(code: int) -> OSError:
    """The exception for a code of GetLastError, with the system's text."""
    import ctypes

    return OSError(0, ctypes.FormatError(code).strip(), None, code)


def handle(other: subprocess.Popen[Any] | object) -> int:
    """The handle of a child or another object, by which one can wait for it."""
    found = getattr(other, "_handle", other)
    if not isinstance(found, int):
        raise TypeError(f"{other!r}: on Windows one can wait for a child or for a handle (a number)")
    return int(found)


_CREATE_SUSPENDED = 4


def suspended(popen_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for Popen with which a process does nothing until `resume`."""
    return {**popen_kwargs, "creationflags": popen_kwargs.get("creationflags", 0) | _CREATE_SUSPENDED}


def resume(process: subprocess.Popen[Any]) -> None:
    """Lets a suspended process begin.

    `subprocess` has closed the handle of its thread, so all of it is resumed, which Microsoft does not document.
    """
    import ctypes
    from ctypes import wintypes

    ctypes.WinDLL("ntdll").NtResumeProcess(wintypes.HANDLE(handle(process)))


class Changes:
    """What is rung when leases of a pool have changed: an event of the system, which who finds it set clears.

    Args:
        number: The pool's own handle, which its end closes.
    """

    def __init__(self, number: int) -> None:
        import _winapi

        process = _winapi.GetCurrentProcess()
        self._handle = _winapi.DuplicateHandle(process, number, process, 0, False, _winapi.DUPLICATE_SAME_ACCESS)

    def wait_or(self, event: Event) -> None:
        """Sleeps until leases have changed since the last `take`, or the event is set."""
        import _winapi

        # The event comes first, and stays set: so what has changed stays too, if both have happened.
        _winapi.WaitForMultipleObjects([event.waitable, self._handle], False, _winapi.INFINITE)

    def take(self) -> None:
        """What has changed so far is about to be looked at: nothing to do, since the wait has cleared it."""

    def close(self) -> None:
        """Closes the handle."""
        import _winapi

        _winapi.CloseHandle(self._handle)


def is_signalled(number: int) -> bool:
    """Whether what the handle leads to is signalled: a process has ended, an event is set."""
    import _winapi

    return _winapi.WaitForSingleObject(number, 0) == _winapi.WAIT_OBJECT_0
