"""`WorkerProcesses`: items that run in processes, each on a slot that this process holds meanwhile."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from .children import without_jobserver
from .cpus import usable_cpus
from .work_queue import Turn, WorkItem, WorkQueue, end_all_at_exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext

    from .client import Client

# Again, although the queue's module did so: the standard library's pool asked for the same when it was imported above,
# and after its turn it takes no more items.
end_all_at_exit()


# What became of an item: its slot if it was kept for the next one; its future if the pool may be broken, and the error.
Returned: TypeAlias = "tuple[Turn | None, tuple[Future[Any], BrokenProcessPool] | None]"


class WorkerProcesses(WorkQueue):
    """A pool of the standard library's, and one thread that hands it an item whenever it has a slot for it."""

    def __init__(
        self,
        client: Client,
        max_workers: int | None,
        thread_name_prefix: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        mp_context: BaseContext | None,
        max_tasks_per_child: int | None,
    ) -> None:
        super().__init__(client)
        self.max_workers = usable_cpus() if max_workers is None else max_workers
        self.prefix = thread_name_prefix or "JobserverExecutor"
        context = mp_context or multiprocessing.get_context(None if max_tasks_per_child is None else "spawn")
        self.forks = context.get_start_method() == "fork"
        options = {} if max_tasks_per_child is None else {"max_tasks_per_child": max_tasks_per_child}
        self.pool = ProcessPoolExecutor(
            self.max_workers,
            context,
            initializer=begin_worker,
            initargs=(client if self.forks else None, initializer, initargs),
            **options,
        )
        self.begun = False  # the pool has its first item, or is about to
        self.beginning = False  # it is just about to, so there must be no thread yet
        self.running = 0  # items that the pool has
        self.returned: deque[Returned] = deque()
        self.kept: list[Turn] = []  # slots of items that are done, for the next ones
        self.sleeping = False  # the thread waits for no slot, but for something to do

    def accept(self, item: WorkItem) -> None:
        """Starts the processes first, if they are forked: by the thread that submits, as in the standard library.

        A thread of ours would copy whatever the others are at in that instant. The item that it takes does nothing.
        """
        if self.forks and not self.begun and not self.closing:
            self.begun = self.beginning = True  # first: a finaliser in the middle of this may submit an item, too
            try:
                self.pool.submit(nothing)
            finally:
                self.beginning = False
                self.staff()
        super().accept(item)

    def staff(self) -> None:
        """One thread is enough. It sleeps when there is nothing to do."""
        if self.beginning:
            return
        if not self.threads and self.items:
            self.start_thread(f"{self.prefix}_slots", 1)
        elif self.sleeping:
            self.event.set()

    def serve(self) -> None:
        """Hands items over until there will be no more, and waits for the last."""
        while True:
            self.sleeping = True
            self.look_again()
            self.take_returned()
            if self.running < self.max_workers and self.wanted():
                self.sleeping = False
                self.take_and_hand_over()
                continue
            while self.kept:
                self.kept.pop().give_back()
            if self.closing and not self.running and not self.items:
                break
            self.event.wait()
        self.pool.shutdown()

    def take_and_hand_over(self) -> None:
        """Waits for a slot, unless one was kept, and hands the first item over."""
        if not self.kept:
            taken = self.wait_for_slot()
            if taken is not None:
                self.hand_over(*taken)
            return
        turn, item = self.kept.pop(), self.first()
        if item is None:
            turn.give_back()
        else:
            self.hand_over(turn, item)

    def hand_over(self, turn: Turn, item: WorkItem) -> None:
        """Gives the item to the pool. The slot is held until the pool is done with it."""
        try:
            inner = self.pool.submit(item.fn, *item.args, **item.kwargs)
        except BaseException as error:
            turn.give_back()
            if isinstance(error, BrokenProcessPool):
                self.break_down(BrokenProcessPool, str(error))
            item.future.set_exception(error)
            return
        self.running += 1
        inner.add_done_callback(partial(self.finish, turn, item.future))

    def finish(self, turn: Turn, future: Future[Any], inner: Future[Any]) -> None:
        """Gives a slot back in the instant in which the pool is done with its item, unless it is for the next one.

        Called by the pool's thread, which may have the pool's lock: so nothing is submitted here.
        """
        kept = turn if self.items and turn.may_go_on() else None
        if kept is None:
            turn.give_back()
        error = inner.exception()
        broken = isinstance(error, BrokenProcessPool)
        self.returned.append((kept, (future, error) if isinstance(error, BrokenProcessPool) else None))
        if kept is not None or broken or self.sleeping:
            self.event.set()
        if error is None:
            future.set_result(inner.result())
        elif not broken:
            future.set_exception(error)

    def take_returned(self) -> None:
        """Keeps account of the items that are done."""
        while self.returned:
            kept, failed = self.returned.popleft()
            self.running -= 1
            if kept is not None:
                self.kept.append(kept)
            if failed is not None:
                future, error = failed
                self.break_down_if_broken(error)
                future.set_exception(error)

    def break_down_if_broken(self, error: BrokenProcessPool) -> None:
        """An item may have raised this itself, about a pool of its own. Only a pool that is broken takes no more."""
        try:
            self.pool.submit(nothing)
        except BrokenProcessPool:
            self.break_down(BrokenProcessPool, str(error))

    def close(self, *, cancel: bool = False) -> None:
        """Ends the pool too if no thread does it. A finaliser in the middle of `submit` leaves it to that."""
        super().close(cancel=cancel)
        if self.process == os.getpid() and not self.threads and not self.lock._is_owned():  # type: ignore[attr-defined]
            self.pool.shutdown()


def nothing() -> None:
    """An item that does nothing."""


def begin_worker(client: Client | None, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Takes a new worker process out of the jobserver, then calls the user's initializer in it.

    A worker runs on a slot that its parent holds for it; what it starts must not believe that it has another.

    Args:
        client: In a process that was forked, the parent's client, whose descriptors were copied.
        initializer: The user's.
        initargs: Its arguments.
    """
    if client is not None:
        leave_pool(client)
    for name, value in without_jobserver(os.environ).items():
        if os.environ[name] != value:
            os.environ[name] = value
    if initializer is not None:
        initializer(*initargs)


def leave_pool(client: Client) -> None:
    """Closes this process's copies of the pool's descriptors, also those that belong to who made the pool."""
    client.close()
    if client.limit is None:
        for descriptor in client._descriptors:
            with suppress(OSError):  # the program has closed it
                os.close(descriptor)
