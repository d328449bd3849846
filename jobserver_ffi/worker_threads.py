"""`WorkerThreads`: items that run in threads of this process."""

from __future__ import annotations

import itertools
import logging
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from .work_queue import Turn, WorkItem, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client import Client

_count = itertools.count().__next__


class WorkerThreads(WorkQueue):
    """Threads of which one, the leader, waits for a slot. When it has one it lets another lead, and runs an item."""

    def __init__(
        self,
        client: Client,
        max_workers: int | None,
        thread_name_prefix: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        super().__init__(client)
        self.max_workers = float("inf") if max_workers is None else max_workers
        self.prefix = thread_name_prefix or f"JobserverExecutor-{_count()}"
        self.initializer, self.initargs = initializer, initargs
        self.idle = 0  # threads that sleep until they are called
        self.called = False  # a thread was called that has not answered yet
        self.leading = False
        # Wakes one idle thread for each item put; what there is to do it sees from the state above. A lock would not
        # do: a destructor that runs while this thread is in here may put something too.
        self.calls: SimpleQueue[None] = SimpleQueue()

    def staff(self) -> None:
        """Calls an idle thread to lead, or starts one."""
        if not self.items or self.leading or self.called:
            return
        if self.idle:
            self.called = True
            self.calls.put(None)
        elif len(self.threads) < self.max_workers:  # else the first to have finished its item leads
            self.called = True
            try:
                self.start_thread(f"{self.prefix}_{len(self.threads)}", self.max_workers)
            except BaseException:
                self.called = False
                raise

    def serve(self) -> None:
        """Leads and runs items, in turns."""
        initialized = self.initializer is None
        while self.leads():
            initialized = self.take_and_run(initialized)
            if not initialized:
                break
        self.calls.put(None)  # it is the next one's turn to see that there is nothing to do

    def leads(self) -> bool:
        """Sleeps until this thread is to lead; False when there is nothing to do any more."""
        while True:
            with self.lock:
                self.called = False
                if self.items and not self.leading:
                    self.leading = True
                    return True
                if self.closing and not self.items:
                    return False
                self.idle += 1
            self.calls.get()
            with self.lock:
                self.idle -= 1

    def take_and_run(self, initialized: bool) -> bool:
        """Waits for a slot and runs what there is to run on it. Returns whether this thread may go on."""
        taken = self.take()
        with self.lock:
            self.leading = False
            with suppress(RuntimeError):  # no thread can be started: this one leads again when its item is done
                self.staff()
        if taken is None:
            return True
        item: WorkItem | None
        turn, item = taken
        del taken
        if not (initialized or self.initialize(turn, item)):
            return False
        while item is not None:
            keeps = self.run(turn, item)
            item = None  # its future has the result, which must not live as long as the next item runs
            if keeps:
                item = self.first()
                if item is None:
                    turn.give_back()
        return True

    def take(self) -> tuple[Turn, WorkItem] | None:
        """Waits for a slot for the first item; None when no item waits any more."""
        while True:
            self.look_again()
            if not self.wanted():
                self.waiting = False
                return None
            taken = self.wait_for_slot()
            if taken is not None:
                return taken

    def initialize(self, turn: Turn, item: WorkItem) -> bool:
        """Calls the initializer, on the slot of this thread's first item."""
        assert self.initializer is not None
        try:
            self.initializer(*self.initargs)
            return True
        except BaseException:
            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        turn.give_back()
        message = "A thread initializer failed, the thread pool is not usable anymore"
        self.break_down(BrokenThreadPool, message)
        item.future.set_exception(BrokenThreadPool(message))
        return False

    def run(self, turn: Turn, item: WorkItem) -> bool:
        """Runs an item. Returns whether its slot is kept for another one; if not it is back when a result is there."""
        item.call()
        keeps = bool(self.items) and turn.may_go_on()
        if not keeps:
            turn.give_back()
        item.deliver()
        return keeps

    def wake_all(self) -> None:
        """The leader by the event, one of those that sleep by a call: it calls the next one when it ends."""
        super().wake_all()
        self.calls.put(None)
