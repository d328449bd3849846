"""`Crew`: jobs that take turns, and the calls that they hand out, which run at the same time, each on a slot.

A job is Python code that was written to run alone, such as `build_ext.build_extension`. So only one job of a crew has
the turn; it has it until it ends or hands out calls (compilers to run), and again when these are done. What runs, a job
or a call, has a slot of the jobserver; what waits has none.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import Unsupported
from ..event import Event
from .batch import Batch, Stopped

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

    from ..acquired import Acquired
    from .jobs import Jobs

GRACE = 5.0  # seconds that compilers have to tidy up before they are killed

# What this thread runs: a job, or a call of a batch.
_current = threading.local()


class Job:
    """One of a crew's jobs, in a thread of its own, which sleeps while it is another's turn.

    Attributes:
        place: Its place among the jobs; what belongs to an earlier one goes first.
        after: The places of the jobs that must have ended before.
        batch: The calls that it waits for.
    """

    def __init__(self, crew: Crew, place: int, function: Callable[[], object], after: frozenset[int]) -> None:
        self.crew, self.place, self.after = crew, place, after
        self.batch: Batch | None = None
        self._function = function
        # Locked while it is not this job's turn. Not a Semaphore, which an interrupt could leave locked inside.
        self._turn = threading.Lock()
        self._turn.acquire()
        self._slot: Acquired | None = None
        self.thread = threading.Thread(target=self._run, name=f"jobserver_ffi_build_{place}", daemon=True)

    def go_on(self, slot: Acquired) -> None:
        """Gives it the turn, and a slot to run on."""
        self._slot = slot
        if self.batch is None:
            self.thread.start()
        else:
            self._turn.release()

    def unwind(self) -> None:
        """Ends it, if it has begun; its crew was stopped. Again, or while it runs: harmless."""
        with suppress(RuntimeError):  # it has the turn already
            self._turn.release()
        join(self.thread)
        self._give_back()

    def _run(self) -> None:
        _current.job = self
        try:
            try:
                if not self.crew.stopped:
                    self._function()
            finally:
                self._give_back()
        except Stopped:
            self.crew.ended(self, None)
        except BaseException as error:
            self.crew.ended(self, error)
        else:
            self.crew.ended(self, None)

    def hand_out(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Lets calls run and others have the turn. Returns what they returned, or raises what the first raised."""
        self._give_back()
        batch = Batch(calls)
        self.crew.parked(self, batch)
        if not self.crew.stopped:
            self._turn.acquire()
        if self.crew.stopped:
            raise Stopped
        if batch.error is not None:
            raise batch.error
        return batch.results

    def _give_back(self) -> None:
        if self._slot is not None:
            self._slot.release()


class Crew:
    """Runs jobs, and the calls that they hand out, on the slots of a build. For one use, by one thread.

    Args:
        jobs: The slots.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.stopped = False
        self._client, self._most = jobs
        self._changed = Event()
        self._lock = threading.Lock()
        self._new: deque[Job] = deque()
        self._parked: list[Job] = []
        self._ended: set[int] = set()
        self._turn_taken = False
        self._running = 0
        self._error: BaseException | None = None
        self._jobs: list[Job] = []
        self._calls: dict[threading.Thread, Acquired] = {}

    def run(self, functions: Sequence[Callable[[], object]], after: Sequence[frozenset[int]] | None = None) -> None:
        """Runs jobs until the last has ended.

        Ctrl-C ends the processes that run, and then this, with every slot given back; so does the first error of a job.

        Args:
            functions: The jobs. Those that come first go first where not all can.
            after: For each the places of the jobs that must have ended before it starts.

        Raises:
            BaseException: What the first job that failed raised; or the wait for a slot (PoolGone …).
        """
        places = range(len(functions))
        self._jobs = [Job(self, place, functions[place], after[place] if after else frozenset()) for place in places]
        self._new.extend(self._jobs)
        try:
            # Before each look at the state, so that no change goes unnoticed.
            while self._look_again() and len(self._ended) < len(functions) and self._error is None:
                if not self._is_ready():
                    self._changed.wait()
                    continue
                slot = self._wait_for_slot()
                if slot is not None:
                    self._start_next(slot)
        finally:
            if len(self._ended) < len(functions) or self._error is not None:
                self._stop()
        if self._error is not None:
            raise self._error

    def _look_again(self) -> bool:
        self._changed.clear()
        return True

    def _wait_for_slot(self) -> Acquired | None:
        """A slot; None when it may not be wanted any more."""
        try:
            return self._client.slot_or_ready([self._changed.waitable])[0]
        except Unsupported:
            return self._client.slot()

    def _is_ready(self) -> bool:
        with self._lock:
            return self._next() is not None

    def _next(self) -> Job | Batch | None:
        """What would run on the next slot: the turn of a job, or a call of a batch. Earlier jobs first, new ones last.

        So what was begun is finished first, as it would be one after the other. When a call has failed nothing starts
        until its job has said whether it can do without.
        """
        if self._most is not None and self._running >= self._most:
            return None
        failed = [(job, job.batch) for job in self._parked if job.batch is not None and job.batch.error is not None]
        if failed:
            return next((job for job, batch in failed if not self._turn_taken and not batch.left), None)
        for job in self._parked:
            assert job.batch is not None, "it is parked for its batch"
            if job.batch.waiting:
                return job.batch
            if not job.batch.left and not self._turn_taken:
                return job
        if self._turn_taken:
            return None
        return next((job for job in self._new if job.after <= self._ended), None)

    def _start_next(self, slot: Acquired) -> None:
        """Starts what is to run on this slot; if there is nothing any more the slot is given back."""
        with self._lock:
            found = self._next()
            if found is None:
                slot.release()
                return
            self._running += 1
            if isinstance(found, Job):
                self._turn_taken = True
                (self._parked if found.batch is not None else self._new).remove(found)
            else:
                call = found.waiting.popleft()
        if isinstance(found, Job):
            found.go_on(slot)
            return
        thread = threading.Thread(
            target=self._run_call, args=(found, *call, slot), name="jobserver_ffi_build_call", daemon=True
        )
        self._calls[thread] = slot
        thread.start()

    def _run_call(self, batch: Batch, place: int, function: Callable[[], Any], slot: Acquired) -> None:
        """Makes a call, in a thread of its own."""
        _current.batch = batch
        batch.call(place, function)
        try:
            slot.release()
        except BaseException as error:
            batch.fail(error)
        batch.one_is_done()
        with self._lock:
            self._running -= 1
            self._calls.pop(threading.current_thread(), None)
        self._changed.set()

    def parked(self, job: Job, batch: Batch) -> None:
        """A job waits for calls that it handed out, and has given up the turn and its slot."""
        with self._lock:
            job.batch = batch
            if self.stopped:
                batch.stop()
                return
            self._parked.append(job)
            self._parked.sort(key=lambda parked: parked.place)
            self._turn_taken = False
            self._running -= 1
        self._changed.set()

    def ended(self, job: Job, error: BaseException | None) -> None:
        """A job has ended, and has given up the turn and its slot."""
        with self._lock:
            self._ended.add(job.place)
            self._turn_taken = False
            self._running -= 1
            if error is not None and self._error is None:
                self._error = error
        self._changed.set()

    def _stop(self) -> None:
        """Ends the processes, then the calls, then the jobs, each of which unwinds."""
        import signal

        self._signal(signal.SIGTERM)
        try:
            self._join(monotonic() + GRACE)
        finally:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            self._join(None)
            for job in self._jobs:
                job.unwind()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            self.stopped = True
            self._new.clear()
            for job in self._jobs:
                if job.batch is not None:
                    job.batch.stop(number)

    def _join(self, end: float | None) -> None:
        """Waits for the calls. Gives back the slot of one whose thread was not started, as it was interrupted there."""
        for thread, slot in self._calls.copy().items():
            if not join(thread, None if end is None else max(end - monotonic(), 0)):
                slot.release()


def join(thread: threading.Thread, seconds: float | None = None) -> bool:
    """Waits for a thread. Returns False if its start was interrupted: it never runs, or finds that all was stopped."""
    try:
        thread.join(seconds)
    except RuntimeError:
        return False
    return True


def hand_out(jobs: Jobs, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Makes calls at the same time, each on a slot.

    Called by a job it lets others have the turn meanwhile. A call that hands out calls makes them by itself, on its
    slot. Anybody else waits here for slots, on which the calls are made.

    Args:
        jobs: The slots of the build.
        calls: What to call.

    Returns:
        What they returned, in their order.

    Raises:
        BaseException: What the first that failed raised.
    """
    if getattr(_current, "batch", None) is not None:
        return [call() for call in calls]
    job: Job | None = getattr(_current, "job", None)
    if job is not None:
        return job.hand_out(calls)
    results: list[Any] = []

    def only_job() -> None:
        results.extend(hand_out(jobs, calls))

    Crew(jobs).run([only_job])
    return results


def current_batch() -> Batch:
    """The batch whose call this thread makes."""
    batch: Batch = _current.batch
    return batch
