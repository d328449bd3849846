"""`Recorder`: records a run, in a thread that sees to it that it costs little."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..cpus import usable_cpus
from ..errors import JobserverError
from .machine import MachineSamples
from .processes import Processes
from .recording import Recording
from .slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..client import Client
    from ..lease import Lease
    from ..lease_report import LeaseReport
    from ..pool import Pool

_SHARE = 0.005  # of one CPU that all looks together may use
_PROCESSES_PAUSE = 0.02
_MACHINE_PAUSE = 0.25
_LONGEST_PAUSE = 2.0
_GOODBYE = 2.0  # seconds for which a look that hangs (a server that does not answer) is waited for
_NANOSECONDS = 1e9


class _Duty:
    """Something that is looked at again and again, as often as it may cost.

    Args:
        look: Looks once.
        pause: Seconds between two looks, at least.
        share: Of one CPU, that the looks may use.
    """

    def __init__(self, look: Callable[[], None], pause: float, share: float) -> None:
        self._look, self._pause, self._share = look, pause, share
        self._cost = 0.0
        self.due = 0.0

    def do(self) -> None:
        """Looks once, and decides when to do so again: never, if it failed."""
        before = time.thread_time()
        try:
            self._look()
        except (OSError, JobserverError):  # what is looked at has gone: the recording ends with what was seen of it
            self.due = math.inf
            return
        cost = time.thread_time() - before
        self._cost = cost if self._cost == 0.0 else 0.7 * self._cost + 0.3 * cost
        self.due = time.monotonic() + min(max(self._pause, self._cost / self._share), _LONGEST_PAUSE)


class Recorder:
    """Records one run: `use_…` says where slots are known from, `follow` starts the thread, `end` ends it.

    The thread looks at the processes, the machine and the slots in turn, each as often as 0.5% of one CPU allows,
    and at most every 20 ms, 250 ms, and 10 to 100 ms.

    Args:
        commands: What is run, each with its arguments.
    """

    def __init__(self, commands: list[list[str]]) -> None:
        self._origin = _now()
        self._started = time.time()
        words = commands[0] + [word for command in commands[1:] for word in ("---", *command)]
        self._recording = Recording(command=words, started=self._started, cpus=usable_cpus())
        self._processes = Processes(self._origin)
        self._machine = MachineSamples()
        self._slots = Slots()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def begun(self) -> bool:
        """Whether anything was recorded."""
        return self._thread is not None

    def use_pool(self, pool: Pool) -> None:
        """Slots are known from the journal of a pool, which is kept from now on.

        Raises:
            OSError: There is no memory for it.
        """
        from .slots import JournalSlots

        self._slots = JournalSlots(pool)

    def use_client(self, client: Client, limit: int | None) -> None:
        """Slots are known from what lies in a jobserver; `limit`: how many slots there are, if that is known."""
        from .slots import ClientSlots

        self._slots = ClientSlots(client, limit)

    def use_server(self, pool: str) -> None:
        """Slots are known from the server of a pool, which is asked on a connection of its own."""
        from .slots import ServerSlots

        self._slots = ServerSlots(pool)

    def add_lease(self, name: str, command: list[str], lease: Lease | None = None) -> int:
        """A command that runs on slots. Returns the index of its lease."""
        return self._slots.add(name, command, lease)

    def follow(self, process: int, lease: int, *, shown: bool = True) -> None:
        """A process that was started on a lease. From any thread."""
        with self._lock:
            self._processes.follow(process, lease, shown=shown)
            if self._thread is None:
                self._begin()

    def _begin(self) -> None:
        """Starts the thread: after the fork of the (first) command, whose child has one thread then."""
        self._thread = threading.Thread(target=self._run, name="jobserver timings", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        duties = [
            _Duty(self._look_at_slots, self._slots.pause, 0.3 * _SHARE),
            _Duty(self._look_at_processes, _PROCESSES_PAUSE, 0.5 * _SHARE),
            _Duty(self._look_at_machine, _MACHINE_PAUSE, 0.2 * _SHARE),
        ]
        while not self._stop.is_set():
            now = time.monotonic()
            for duty in duties:
                if duty.due <= now:
                    duty.do()
            self._stop.wait(max(min(duty.due for duty in duties) - time.monotonic(), 0.0))

    def _look_at_slots(self) -> None:
        self._slots.look(_now())

    def _look_at_processes(self) -> None:
        with self._lock:
            self._processes.look(_now())

    def _look_at_machine(self) -> None:
        if len(self._machine.found.times) * _MACHINE_PAUSE * 2**self._machine.thinned <= self._passed():
            self._machine.look(self._passed())

    def _passed(self) -> float:
        return (_now() - self._origin) / _NANOSECONDS

    def end(self, reports: Sequence[LeaseReport | None] = ()) -> None:
        """Ends the recording, while what the slots are known from is still open.

        Args:
            reports: What came of each lease, where it is known.
        """
        for lease, report in enumerate(reports):
            if report is not None:
                self._slots.ended(lease, report)
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(_GOODBYE)
        end = _now()
        recording = self._recording
        recording.seconds = (end - self._origin) / _NANOSECONDS
        if not self._thread.is_alive():
            self._processes.look(end)
            self._machine.look(recording.seconds)
            with suppress(OSError, JobserverError):
                self._slots.look(end)
        recording.processes = self._processes.found(end)
        if self._processes.can_see:
            recording.processes_sampled_every = recording.seconds / max(self._processes.count, 1)
        if self._slots.source == "samples":
            recording.sampled_every = recording.seconds / max(self._slots.count, 1)
        recording.machine = self._machine.found
        self._slots.fill(recording, self._origin)
        self._slots.close()

    def recording(self, status: int) -> Recording:
        """What was recorded, of a run with this exit status."""
        self._recording.status = status
        return self._recording


def _now() -> int:
    """The time of the clock that the core has, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
