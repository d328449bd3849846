"""Windows: running a command as a child in this process's place.

This process puts itself into a job object, and so all that it starts. When it is killed, or interrupted, the system
kills what is left of the job: no process outlives it that nobody would wait for. Ctrl-C reaches each process of the
console by itself, so nothing is passed on, and the command may end of it before this process hears of it.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
import time
from ctypes import wintypes
from typing import TYPE_CHECKING, Any

from .messages import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

assert sys.platform == "win32"

_ACCOUNTING_INFORMATION = 1
_EXTENDED_LIMIT_INFORMATION = 9
_KILL_ON_JOB_CLOSE = 0x2000

CONTROL_C_EXIT = 0xC000013A - (1 << 32)
"""The status of a process that Ctrl-C or Ctrl-Break ended, and that had no handler of its own."""

_LATEST_INTERRUPT = 2.0
"""Seconds that an interrupt has to arrive here after the command ended of it."""


class _ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION; only the flags are of interest here."""

    _fields_ = (
        ("process_time", wintypes.LARGE_INTEGER),
        ("job_time", wintypes.LARGE_INTEGER),
        ("flags", wintypes.DWORD),
        ("working_set", ctypes.c_size_t * 2),
        ("processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority", wintypes.DWORD),
        ("scheduling", wintypes.DWORD),
        ("transfers", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    )


class _Accounting(ctypes.Structure):
    """JOBOBJECT_BASIC_ACCOUNTING_INFORMATION."""

    _fields_ = (
        ("times", wintypes.LARGE_INTEGER * 4),
        ("page_faults", wintypes.DWORD),
        ("processes", wintypes.DWORD),
        ("active_processes", wintypes.DWORD),
        ("terminated_processes", wintypes.DWORD),
    )


class _Job:
    """A job object around this process and its children."""

    def __init__(self) -> None:
        self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        for name in ("CreateJobObjectW", "GetCurrentProcess"):
            getattr(self._kernel, name).restype = wintypes.HANDLE
        # The handle is never closed: the system does that when this process ends, however it does.
        self._handle = wintypes.HANDLE(self._kernel.CreateJobObjectW(None, None))
        process = wintypes.HANDLE(self._kernel.GetCurrentProcess())
        self._works = bool(self._handle and self._kernel.AssignProcessToJobObject(self._handle, process))
        if not self._works:
            reason = ctypes.FormatError(ctypes.get_last_error()).strip()
            say(f"no job object for the command ({reason}): if this is killed, the command's processes go on")

    def end_with_this_process(self, wanted: bool) -> None:
        """Whether what is left of the job is killed when this process ends."""
        limits = _ExtendedLimits(flags=_KILL_ON_JOB_CLOSE if wanted else 0)
        if self._works:
            self._kernel.SetInformationJobObject(
                self._handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )

    def has_others(self) -> bool:
        """Whether a process other than this one is in the job."""
        told = _Accounting()
        return bool(
            self._works
            and self._kernel.QueryInformationJobObject(
                self._handle, _ACCOUNTING_INFORMATION, ctypes.byref(told), ctypes.sizeof(told), None
            )
            and told.active_processes > 1
        )


class Supervisor:
    """Runs commands as children. From when it is made on, Ctrl-C ends the commands and not this process.

    Attributes:
        interrupted: Whether Ctrl-C or Ctrl-Break was pressed.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._job = _Job()
        self._job.end_with_this_process(True)
        for number in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: Any) -> None:
        self.interrupted = True
        self._job.end_with_this_process(True)

    def run(
        self,
        command: list[str],
        environment: Mapping[str, str],
        started: Callable[[int], object] = lambda _: None,
        _while_stopped: object = None,
    ) -> int:
        """Starts the command and waits for its end.

        What it left in the background goes on, unless Ctrl-C or Ctrl-Break ended it. To know that takes up to
        two seconds more if it failed and left something.

        Args:
            command: The command and its arguments.
            environment: Its environment.
            started: Is told the number of its process.
            _while_stopped: Not used: no key stops a process here.

        Returns:
            Its exit status, see `status_of`.

        Raises:
            OSError: It cannot be started.
        """
        with subprocess.Popen(as_found(command, environment), env=dict(environment)) as child:
            started(child.pid)
            child.wait()
        status = status_of(child)
        self.let_go(status)
        return status

    def let_go(self, *statuses: int) -> None:
        """Lets what is left of the job go on, unless an interrupt ended one of the commands, which had these statuses.

        The system starts a thread in each process of the console, in no order that could be relied on: a command can
        end of the interrupt, and this process see that, before its own thread runs. So where one failed and processes
        are left, it is not believed at once; and an interrupt that comes later still ends them, for as long as this
        process is there.
        """
        if CONTROL_C_EXIT in statuses:
            self.interrupted = True
        latest = time.monotonic() + _LATEST_INTERRUPT
        while any(statuses) and not self.interrupted and self._job.has_others() and time.monotonic() < latest:
            time.sleep(0.01)
        self._job.end_with_this_process(False)
        if self.interrupted:
            self._job.end_with_this_process(True)


def as_found(command: list[str], environment: Mapping[str, str]) -> list[str]:
    """The command with the program that the command's own PATH leads to."""
    return [shutil.which(command[0], path=environment.get("PATH")) or command[0], *command[1:]]


def status_of(child: subprocess.Popen[Any]) -> int:
    """The exit status of a child that has ended, as the C library takes it: negative from 0x80000000 on."""
    status = child.returncode
    return status - (1 << 32) if status >= 1 << 31 else status
