"""What Windows does in its own way: Ctrl-C and the texts of its errors. Imported on Windows only."""

from __future__ import annotations

import sys

from ._core import lib

assert sys.platform == "win32"


def end_waits_on_interrupt() -> None:
    """Has Ctrl-C end the waits of the main thread at once.

    Ctrl-C comes in a thread of its own. CPython's handler sets an event there, which its own waits look at too.
    PyPy has no such event: there Python's handler runs when the wait is over.
    """
    import threading

    library = getattr(sys, "dllhandle", None)
    if library is not None:
        lib.jobserver_interrupt_from(library, b"_PyOS_SigintEvent", threading.main_thread().ident or 0)


def system_error(code: int) -> OSError:
    """The exception for a code of GetLastError, with the system's text."""
    import ctypes

    return OSError(0, ctypes.FormatError(code).strip(), None, code)
