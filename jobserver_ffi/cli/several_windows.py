"""Windows: `jobserver run` with several commands, each on a lease of its own out of one pool.

Ctrl-C reaches each command by itself, as they share the console. What they leave behind is in the job objects of their
leases.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..children import ChildProcess, held_back
from ..errors import JobserverError, PoolClosed
from ..event import Event
from .execute import cannot_run
from .messages import say, shown
from .on_leases import NO_JOBSERVER, settle
from .tools import variables_for

if sys.platform == "win32":
    from .supervise_windows import CONTROL_C_EXIT, Supervisor, as_found, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..lease import Lease
    from ..lease_report import LeaseReport
    from ..pool import Pool
    from ..timeline.recorder import Recorder
    from .progress import Progress


assert sys.platform == "win32"


@dataclass
class _Command:
    """One of the commands; `lock` keeps it from being started and called off at once."""

    words: list[str]
    lease: Lease
    status: int = 0
    report: LeaseReport | None = None
    runs: bool = False  # there is a process
    ended: bool = False  # nothing is left of it that is waited for
    called_off: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_awaited(self, interrupted: bool) -> bool:
        """Whether the end is to be waited for; after Ctrl-C only that of a process that runs."""
        with self.lock:
            if interrupted and not self.runs and not self.ended:
                self.called_off, self.status = True, self.status or CONTROL_C_EXIT
            return self.runs if interrupted else not self.ended


class _Commands:
    """All the commands: one thread starts them, and another for each waits for its end."""

    def __init__(self, pool: Pool, commands: list[list[str]], style: str | None, environment: dict[str, str]) -> None:
        self._environment = environment
        self._changed = Event()
        self._all = [_Command(words, pool.lease(shown(words[0]), style=style or "auto")) for words in commands]

    def run(self, supervisor: Supervisor) -> list[_Command]:
        """Runs them all. Ctrl-C ends the wait of this thread, the main one, so that it looks again."""
        threading.Thread(target=self._start_all, daemon=True).start()
        while any([command.is_awaited(supervisor.interrupted) for command in self._all]):
            self._changed.wait()
            self._changed.clear()
        return self._all

    def _start_all(self) -> None:
        """Starts them in their order, each when there is a slot for it."""
        for command in self._all:
            process = self._start(command)
            if process is not None:
                threading.Thread(target=self._wait, args=(command, process), daemon=True).start()
                continue
            with suppress(PoolClosed):
                command.lease.close()
            self._end(command)

    def _start(self, command: _Command) -> ChildProcess | None:
        """Starts the command once it has its slot; None if it was called off, or cannot be started."""
        try:
            arguments = command.lease.configure(env=self._environment, variables=variables_for(command.words))
            with command.lock:
                if command.called_off:
                    return None
                words = as_found(command.words, self._environment)
                process = ChildProcess(words, command.lease, **held_back(arguments))
                command.runs = True
            process.begin(command.lease.watch)
            return process
        except PoolClosed:
            pass  # after Ctrl-C nobody waits for those that have not begun
        except JobserverError as error:
            say(f"cannot run `{shown(command.words[0])}`: {error}")
            command.status = NO_JOBSERVER
        except OSError as error:
            command.status = cannot_run(command.words[0], error)
        return None

    def _wait(self, command: _Command, process: ChildProcess) -> None:
        """Waits for the end of the command, and of what it leaves behind."""
        process.wait()
        with command.lock:
            command.status, command.runs = status_of(process), False
        self._changed.set()
        with suppress(PoolClosed):  # after Ctrl-C nobody waits for what is left
            command.report = command.lease.wait()
        self._end(command)

    def _end(self, command: _Command) -> None:
        with command.lock:
            command.runs, command.ended = False, True
        self._changed.set()


def run_several(
    make_pool: Callable[[], Pool],
    commands: list[list[str]],
    style: str | None,
    environment: dict[str, str],
    check: bool,
    _recorder: Recorder | None,
    _progress: Progress,
) -> int:
    """Runs the commands at the same time, each on a lease of one pool; nothing is recorded or shown here.

    Returns:
        The status of the first command that failed, in their order; 0 if none did.
    """
    supervisor = Supervisor()
    try:
        pool = make_pool()
    except OSError as error:
        say(f"cannot make a jobserver: {error.strerror}")
        return NO_JOBSERVER
    with pool:
        done = _Commands(pool, commands, style, environment).run(supervisor)
    supervisor.let_go(*(command.status for command in done))
    statuses = [
        command.status if command.report is None else settle(command.report, command.status, check, pool.limit)
        for command in done
    ]
    return next((status for status in statuses if status), 0)
