"""The tasks of an event loop that wait for tokens, and what the one thread does that waits for them all."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from .event import Event

if TYPE_CHECKING:
    import asyncio

    from .acquired import Acquired, AcquiredBatch
    from .client import Client


class Order:
    """Tasks that stand next to each other in the queue: any number that want one token each, or one that wants many.

    `wanted` counts tokens that are still to be taken: tasks that wait, less tokens on their way to the loop. It is
    negative when tasks were cancelled meanwhile. The thread changes it, and the loop, under the lock of PendingTasks;
    `futures` is the loop's alone.
    """

    __slots__ = ("batch", "futures", "implicit", "wanted")

    def __init__(self, batch: tuple[int, int] | None = None) -> None:
        self.batch = batch  # maximum and minimum
        self.futures: OrderedDict[asyncio.Future[Any], bool] = OrderedDict()  # and whether the implicit slot will do
        self.implicit = 0  # how many of these
        self.wanted = 0


class PendingTasks:
    """The queue, first come first served."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self.loop = loop
        self.event = Event(when_implicit_slot_is_free=True)
        self.lock = threading.Lock()
        self.orders: deque[Order] = deque()
        self.idle = False  # the thread sleeps, or is about to, until the event is set
        self.stopped = False

    # In the loop's thread:

    def anybody(self) -> bool:
        """Whether a task waits."""
        return any(order.futures for order in self.orders)

    def singles(self) -> Order:
        """The order that another task which wants one token is added to."""
        if self.orders and self.orders[-1].batch is None:
            return self.orders[-1]
        return Order()

    def ask(self, order: Order, future: asyncio.Future[Any], implicit: bool) -> None:
        """Puts a task at the end of the queue."""
        order.futures[future] = implicit
        with self.lock:
            order.wanted += 1
            order.implicit += implicit
            if not self.orders or self.orders[-1] is not order:
                self.orders.append(order)
            idle = self.idle
        if idle:
            self.event.set()

    def withdraw(self, order: Order, future: asyncio.Future[Any]) -> None:
        """Takes a task out of the queue."""
        with self.lock:
            order.implicit -= order.futures.pop(future)
            order.wanted -= 1
            in_vain = order.wanted <= 0 and not self.idle
            self.forget_empty()
        if in_vain:
            self.event.set()

    def forget_empty(self) -> None:
        """Lets the next order be the first when nobody of the first one waits any more. Under the lock."""
        while self.orders and not self.orders[0].futures:
            self.orders.popleft()

    def expire(self, order: Order, future: asyncio.Future[Any], error: Exception) -> None:
        """Ends a task's wait with this error, if it still waits."""
        if not future.done():
            self.withdraw(order, future)
            future.set_exception(error)

    def next_future(self, order: Order, *, implicit: bool = False) -> asyncio.Future[Any] | None:
        """The first task of the order that waits, or the first that the implicit slot will do for.

        Those that were just cancelled are passed over: they withdraw themselves as soon as they run.
        """
        for future, takes_implicit in order.futures.items():
            if not future.done() and (takes_implicit or not implicit):
                return future
        return None

    def serve_directly(self) -> asyncio.Future[Any] | None:
        """Takes the first task out of the queue, for the token of another one; None if it wants many."""
        order = self.orders[0]
        future = self.next_future(order) if order.batch is None else None
        if future is not None:
            self.withdraw(order, future)
        return future

    def deliver(self, order: Order, result: Acquired | AcquiredBatch | Exception) -> None:
        """Serves a task with what the thread has for it."""
        implicit = getattr(result, "implicit", False)
        future = self.next_future(order, implicit=implicit)
        if future is not None:
            self.withdraw(order, future)
        with self.lock:
            order.wanted += 1  # what the thread took is here
            more = order.wanted > 0 and self.idle
        if more:
            self.event.set()
        if future is None:
            if not isinstance(result, Exception):
                result.release()
        elif isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def fail_all(self, error: Exception) -> None:
        """Ends the waiting of all tasks."""
        for order in list(self.orders):
            for future in list(order.futures):
                self.expire(order, future, error)

    # In the thread:

    def stop(self) -> None:
        """From any thread: ends `serve`."""
        with self.lock:
            self.stopped = True
        self.event.set()

    def serve(self) -> None:
        """What the thread does: it waits while tasks do, and sleeps otherwise."""
        there_is_a_loop = True
        while there_is_a_loop:
            self.event.clear()  # first: who stops, asks or withdraws after this sets it again
            if self.stopped:
                return
            order = self.current()
            if order is None:
                self.event.wait()
            else:
                there_is_a_loop = self.serve_one(order)

    def current(self) -> Order | None:
        """The first order with tasks that wait."""
        with self.lock:
            order = next((order for order in self.orders if order.wanted > 0), None)
            self.idle = order is None
            return order

    def serve_one(self, order: Order) -> bool:
        """Waits for what the order wants, or for the event. False if the loop is not there any more."""
        result = self.take(order)
        if result is None:
            return True
        with self.lock:
            order.wanted -= 1
        try:
            self.loop.call_soon_threadsafe(self.deliver, order, result)
        except RuntimeError:  # the loop was closed; what was taken goes back when it is dropped
            return False
        return True

    def take(self, order: Order) -> Acquired | AcquiredBatch | Exception | None:
        """A token, a batch, an error, or None if the event came first."""
        try:
            if order.batch is not None:
                return self.client._acquire_many_or(self.event.others, *order.batch)
            implicit = self.client._implicit_slot() if order.implicit > 0 else None
            return implicit or self.client._acquire_or(self.event.others)
        except Exception as error:
            return error
