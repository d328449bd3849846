"""`jobserver run` with several commands: each on a lease of its own out of one pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import JobserverError
from ..pool import ORPHAN_TIMEOUT
from ..style import style_for
from .messages import say, shown
from .on_leases import NO_JOBSERVER, settle
from .progress import Progress, of_pool
from .supervise import stop_this_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..lease import Lease
    from ..lease_report import LeaseReport
    from ..pool import Pool
    from ..timeline.recorder import Recorder

_ENDING = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
_NOT_PASSED_ON = {signal.SIGCHLD, signal.SIGCONT}  # who continues this process continues its group
_AWAITED = _ENDING | _NOT_PASSED_ON | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTSTP}
_OF_A_KEY = {signal.SIGINT, signal.SIGQUIT}


@dataclass
class _Command:
    """One of the commands, while it waits for its slot, runs, and has ended."""

    words: list[str]
    lease: Lease
    number: int
    process: subprocess.Popen[bytes] | None = None
    status: int = 0
    report: LeaseReport | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, number: int) -> None:
        with self.lock:
            if self.process is not None:
                self.process.send_signal(number)


class _Commands:
    """All the commands, a thread for each, and what is known of signals."""

    def __init__(
        self,
        pool: Pool,
        commands: list[list[str]],
        style: str | None,
        environment: dict[str, str],
        mask: set[int | signal.Signals],
        recorder: Recorder | None,
    ) -> None:
        self._pool = pool
        self._recorder = recorder
        self._environment = environment
        self._mask = mask
        self._ended_by = 0
        self._left = len(commands)
        self._lock = threading.Lock()
        self._all: list[_Command] = []
        for words in commands:
            own = style_for(words, environment, say) if style in (None, "auto") else style
            command = _Command(words, pool.lease(shown(words[0]), style=own), len(self._all))
            self._all.append(command)
            if recorder is not None:
                recorder.add_lease(command.lease.name, words, command.lease)

    def run(self, progress: Progress) -> list[_Command]:
        """Runs them all; signals for this process are passed on to each, but for a stop, which the terminal sends."""
        threads = [threading.Thread(target=self._run, args=(command,)) for command in self._all]
        for thread in threads:
            thread.start()
        progress.begin(of_pool(self._pool))
        while self._left > 0:
            found = signal.sigwaitinfo(_AWAITED)
            if found.si_signo == signal.SIGTSTP:
                with progress.hidden():
                    stop_this_process()
                continue
            if found.si_signo in _ENDING:
                self._ended_by = found.si_signo
            if found.si_signo not in _NOT_PASSED_ON and not (found.si_code > 0 and found.si_signo in _OF_A_KEY):
                for command in self._all:
                    command.send(found.si_signo)
        for thread in threads:
            thread.join()
        return self._all

    def _run(self, command: _Command) -> None:
        """In a thread: waits for the slot, and for the end of the command and of what it leaves behind."""
        try:
            arguments = command.lease.configure(env=self._environment)
            self._start(command, arguments)
            if command.process is not None:
                status = command.process.wait()
                command.status = status if status >= 0 else 128 - status
                command.report = command.lease.wait()
        except (OSError, JobserverError) as error:
            say(f"cannot run `{shown(command.words[0])}`: {error}")
            command.status = NO_JOBSERVER
        finally:
            command.lease.close()
            with self._lock:
                self._left -= 1
            os.kill(os.getpid(), signal.SIGCHLD)

    def _start(self, command: _Command, arguments: dict[str, object]) -> None:
        mask = ",".join(str(int(number)) for number in self._mask)
        adopter = [sys.executable, "-m", "jobserver_ffi.cli.adopt", mask, str(ORPHAN_TIMEOUT), *command.words]
        with command.lock:
            if self._ended_by:
                command.status = 128 + self._ended_by
                return
            command.process = subprocess.Popen(adopter, **arguments)  # type: ignore[call-overload]
        command.lease.watch(command.process.pid)
        if self._recorder is not None:
            self._recorder.follow(command.process.pid, command.number, shown=False)  # it is not the command yet


def run_several(
    make_pool: Callable[[], Pool],
    commands: list[list[str]],
    style: str | None,
    environment: dict[str, str],
    check: bool,
    recorder: Recorder | None,
    progress: Progress,
) -> int:
    """Runs the commands at the same time, each on a lease of one pool.

    Returns:
        The status of the first command that failed, in their order; 0 if none did.
    """
    # Before there is any other thread: one that does not block a signal would get it in the place of who waits for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    for number in _NOT_PASSED_ON:
        signal.signal(number, lambda *_: None)  # one that is ignored might not wake the wait
    try:
        pool = make_pool()
        if recorder is not None:
            recorder.use_pool(pool)
    except OSError as error:
        say(f"cannot make a jobserver: {error.strerror}")
        return NO_JOBSERVER
    with pool, progress:
        done = _Commands(pool, commands, style, environment, mask, recorder).run(progress)
        if recorder is not None:
            recorder.end([command.report for command in done])
    statuses = [
        command.status if command.report is None else settle(command.report, command.status, check, pool.limit)
        for command in done
    ]
    return next((status for status in statuses if status), 0)
