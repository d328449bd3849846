"""`Batch`: processes that run at the same time, for somebody who waits for all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..client import Client

# Whoever writes to the output of this process for a command that has ended. One for all, since there is one output.
_output = threading.Lock()


class Stopped(BaseException):
    """Unwinds what was under way when something else failed, or was interrupted: it is no error of its own."""


class Batch:
    """Calls that were handed out together. The first that fails stops the rest.

    Args:
        calls: What to call; each runs on a slot of its own, in a thread of its own.

    Attributes:
        waiting: Those that did not start yet, with their places.
        left: How many are not done.
        results: What they returned, in their order.
        error: What the first that failed raised.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self.waiting = deque(enumerate(calls))
        self.left = len(calls)
        self.results: list[Any] = [None] * len(calls)
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._processes: set[subprocess.Popen[bytes]] = set()

    def call(self, place: int, function: Callable[[], Any]) -> None:
        """Makes one of the calls."""
        try:
            self.results[place] = function()
        except BaseException as error:
            self.fail(error)

    def one_is_done(self) -> None:
        """Keeps account of a call that was made, and whose slot was given back."""
        with self._lock:
            self.left -= 1

    def fail(self, error: BaseException) -> None:
        """Keeps the first error and stops the rest."""
        with self._lock:
            if self.error is None and not self._stopped:
                self.error = error
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Lets no process start any more and signals those that run. Their output is not shown."""
        with self._lock:
            self._stopped = True
            self.left -= len(self.waiting)
            self.waiting.clear()
            processes = list(self._processes)
        for process in processes:
            _signal_group(process, number)

    def run(
        self, command: Sequence[str], client: Client, env: Mapping[str, str] | None, announce: Callable[[], object]
    ) -> int:
        """Runs a process, which runs on the slot of who calls this, and shows its output in one piece when it ends.

        It has no input, and a process group of its own (not on Windows), so that its children end with it.

        Args:
            command: The program and its arguments.
            client: The jobserver that it gets, since a linker may have jobs too (`-flto=jobserver`).
            env: Its environment; None: this process's.
            announce: Shows the command; called just before its output is shown.

        Returns:
            The exit status; negative: the signal that ended it.

        Raises:
            Stopped: The batch was stopped.
            OSError: It cannot be started.
        """
        options = client.configure(
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        with self._lock:
            if self._stopped:
                raise Stopped
            try:
                process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)
            except OSError:
                with _output:
                    announce()
                raise
            self._processes.add(process)
        try:
            out, err = process.communicate()
        finally:
            with self._lock:
                self._processes.discard(process)
        with _output:
            if self._stopped:
                raise Stopped
            announce()
            _show(1, sys.stdout, out)
            _show(2, sys.stderr, err)
        return process.returncode


def _show(descriptor: int, stream: Any, content: bytes) -> None:
    """Writes to where the process itself would have written, behind what Python has written there."""
    if stream is not None:
        stream.flush()
    # A terminal or log that is gone is no reason for a build to fail, nor is it for a compiler.
    with suppress(OSError):
        while content:
            content = content[os.write(descriptor, content) :]


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # A process that was reaped is not in the batch any more but for an instant, in which its group is of no process.
    if process.returncode is not None:
        return
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
