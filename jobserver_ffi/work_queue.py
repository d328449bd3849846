"""`WorkQueue`: items of work that wait for a slot of the jobserver, each to run on one."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from .event import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from .acquired import Acquired
    from .client import Client

# How long a token may serve one item after the other, in seconds. It bounds how long the other processes that wait are
# passed over, to a fraction of what the shortest job of a build takes; and it lets thousands of items of a few
# microseconds share the cost of one wait.
LONGEST_TURN = 0.001


class WorkItem:
    """A call that was submitted, and its future."""

    __slots__ = ("args", "error", "fn", "future", "kwargs", "result")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.future: Future[Any] = Future()
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.result: Any = None
        self.error: BaseException | None = None

    def call(self) -> None:
        """Runs it, and keeps what comes of it."""
        try:
            self.result = self.fn(*self.args, **self.kwargs)
        except BaseException as error:
            self.error = error
            del self  # the error's traceback refers to this frame

    def deliver(self) -> None:
        """Hands what came of it to the future."""
        if self.error is not None:
            self.future.set_exception(self.error)
            self.error = None
        else:
            self.future.set_result(self.result)

    def cancel(self) -> None:
        """Cancels it while it is in no queue; wakes those who wait for it."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()


class Turn:
    """A slot that was taken for an item, and that may serve the next ones too."""

    __slots__ = ("_end", "_slot")

    def __init__(self, slot: Acquired) -> None:
        self._slot: Acquired | None = slot
        self._end = float("inf") if slot.implicit else monotonic() + LONGEST_TURN

    def may_go_on(self) -> bool:
        """Whether the slot may serve another item. The implicit one may always: nobody else can use it."""
        return monotonic() < self._end

    def give_back(self) -> None:
        """Gives the slot back. If that fails it is dropped: the client tries again, and its next call tells."""
        slot, self._slot = self._slot, None
        if slot is not None:
            with suppress(Exception):
                slot.release()


class WorkQueue(ABC):
    """The items that wait, in the order in which they came, and the threads that serve them.

    At any time one of those threads waits for a slot, however many items there are. An item gets no slot, and is out
    of the queue, before it runs; one that is cancelled never gets one. The threads know this object but not the
    executor, which may be dropped. Everything is thread-safe. A finaliser may run in the middle of any method here,
    submit an item or shut the executor down. So the lock is one that its own thread can take again, and nothing is
    called between a look at the state and the change that follows from it.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.event = Event(when_implicit_slot_is_free=True)  # ends the wait for a slot
        self.waiting = False  # a thread waits for a slot, or is about to, and must be told when no item is left
        self.lock = threading.RLock()
        self.items: deque[WorkItem] = deque()
        self.closing = False  # is set without the lock too: by a destructor, which runs anywhere
        self.broken: tuple[type[BrokenExecutor], str] | None = None
        self.threads: list[threading.Thread] = []
        self.alive = 0  # threads that have not ended
        self.process = os.getpid()

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """See `JobserverExecutor.submit`."""
        if self.process != os.getpid():  # the lock may have been copied while it was locked
            raise RuntimeError(
                "this JobserverExecutor belongs to the process that forked this one: make a new one here"
            )
        item = WorkItem(fn, args, kwargs)
        item.future.add_done_callback(self.wake_if_withdrawn)
        with self.lock:
            _served.add(self)
            try:
                self.accept(item)
            finally:
                if not self.alive:
                    _served.discard(self)
        return item.future

    def accept(self, item: WorkItem) -> None:
        """Queues an item, and sees that it is served. Under the lock."""
        if self.broken is not None:
            kind, message = self.broken
            raise kind(message)
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:  # is looked at after this queue was added to those that are ended at exit
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        self.items.append(item)
        try:
            self.staff()
        except RuntimeError:  # no thread can be started
            if not self.alive:
                self.items.pop()
                raise

    @abstractmethod
    def staff(self) -> None:
        """Sees that a thread waits for the first item's slot, if one can. Under the lock.

        Raises:
            RuntimeError: No thread can be started; nothing is changed.
        """

    @abstractmethod
    def serve(self) -> None:
        """What a thread does until there is nothing to do any more."""

    def start_thread(self, name: str, most: float) -> None:
        """Starts a thread, unless there are `most` of them. Under the lock."""
        thread = threading.Thread(target=self.serve_and_end, name=name)
        if len(self.threads) >= most:  # only now: a finaliser may have started one meanwhile
            return
        self.threads.append(thread)
        self.alive += 1
        try:
            thread.start()
        except RuntimeError:
            self.threads.remove(thread)
            self.alive -= 1
            raise

    def serve_and_end(self) -> None:
        """The life of a thread."""
        try:
            self.serve()
        finally:
            with self.lock:
                self.alive -= 1
                if not self.alive:
                    _served.discard(self)

    def wake_if_withdrawn(self, future: Future[Any]) -> None:
        """Whoever waits for a slot loses its place among the waiters when it is woken: so only if need be.

        As long as the first item is wanted, so is its slot.
        """
        if future.cancelled() and self.waiting:
            try:
                wake = self.items[0].future.cancelled()
            except IndexError:  # another thread took it
                wake = False
            if wake:
                self.event.set()

    def look_again(self) -> None:
        """Makes the event tell of what changes from here on."""
        self.waiting = True
        self.event.clear()

    def wanted(self) -> bool:
        """Whether an item waits that was not cancelled."""
        with self.lock:
            while self.items:
                item = self.items[0]
                if not item.future.cancelled():
                    return True
                if self.items and self.items[0] is item:  # a finaliser may have cancelled all that wait
                    self.items.popleft()
                    item.future.set_running_or_notify_cancel()
            return False

    def first(self) -> WorkItem | None:
        """Takes the oldest item that was not cancelled out of the queue; from now on it cannot be."""
        item = None
        with self.lock:
            while item is None:
                try:
                    first = self.items.popleft()
                except IndexError:
                    break
                item = first if first.future.set_running_or_notify_cancel() else None
            if self.waiting and not self.first_is_wanted():
                self.event.set()  # for the thread that waits for its slot
        return item

    def first_is_wanted(self) -> bool:
        """Whether there is a first item that was not cancelled."""
        try:
            return not self.items[0].future.cancelled()
        except IndexError:
            return False

    def wait_for_slot(self) -> tuple[Turn, WorkItem] | None:
        """Waits for a slot for the first item; None if the event was set. An error goes to the item."""
        try:
            slot = self.client._implicit_slot() or self.client._acquire_or(self.event.others)
        except Exception as error:
            self.waiting = False
            item = self.first()
            if item is not None:
                item.future.set_exception(error)
            return None
        finally:
            self.waiting = False
        if slot is None:
            return None
        turn = Turn(slot)
        item = self.first()
        if item is None:
            turn.give_back()
            return None
        return turn, item

    def break_down(self, kind: type[BrokenExecutor], message: str) -> None:
        """Fails all items that wait, and all that will come."""
        with self.lock:
            self.broken = kind, message
            failed, self.items = self.items, deque()
        for item in failed:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(kind(message))

    def close(self, *, cancel: bool = False) -> None:
        """Lets no more items come, and cancels those that wait if that is wanted. Does not block."""
        if self.process != os.getpid():
            return
        cancelled: deque[WorkItem] = deque()
        with self.lock:
            self.closing = True
            if cancel:
                cancelled, self.items = self.items, cancelled
            with suppress(RuntimeError):
                self.staff()  # a Ctrl-C may have come between an item and its thread
        for item in cancelled:
            item.cancel()
        self.wake_all()

    def join(self) -> None:
        """Waits until all threads have ended, unless they may be waiting for this one.

        A finaliser may call it in one of the threads, or in the middle of another method, which has the lock.
        """
        if self.process != os.getpid() or self.lock._is_owned():  # type: ignore[attr-defined]
            return
        if threading.current_thread() not in self.threads:
            while alive := self.alive_threads():
                alive[0].join()

    def alive_threads(self) -> list[threading.Thread]:
        """The threads that have not ended. Each of them may start another before it ends."""
        with self.lock:  # or one that is just being started would not count
            return [thread for thread in self.threads if thread.is_alive()]

    def drop(self) -> None:
        """The same as `close` for a destructor, which may run while this thread has the lock."""
        self.closing = True
        self.wake_all()

    def wake_all(self) -> None:
        """Lets every thread look whether there is still something to do. Takes no lock."""
        self.event.set()


_served: set[WorkQueue] = set()
"""The queues that have threads. Each call on it is atomic."""

_exiting = False


def end_all() -> None:
    """Runs what is queued when the interpreter exits, and lets nothing more come."""
    global _exiting
    _exiting = True
    queues = [queue for queue in list(_served) if queue.process == os.getpid()]
    for queue in queues:
        queue.close()
    for queue in queues:
        queue.join()


def end_all_at_exit() -> None:
    """Has `end_all` called before those who asked for it earlier.

    `atexit` is too late: by then the executors of the standard library, one of which has our processes, take no more
    items, and threads are waited for that wait for items. The standard library's own executors use the same call.
    """
    threading._register_atexit(end_all)  # type: ignore[attr-defined]


end_all_at_exit()
