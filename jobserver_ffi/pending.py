"""The tasks of an event loop that wait for tokens, and what the one thread does that waits for them all."""

from __future__ import annotations

from asyncio import InvalidStateError
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from .event import Event

if TYPE_CHECKING:
    import asyncio

    from .acquired import Acquired, AcquiredBatch
    from .client import Client


class Order:
    """Tasks that stand next to each other in the queue: any number that want one token each, or one that wants many."""

    __slots__ = ("batch", "delivered", "futures", "implicit", "taken")

    def __init__(self, batch: tuple[int, int] | None = None) -> None:
        self.batch = batch  # maximum and minimum
        self.futures: OrderedDict[asyncio.Future[Any], None] = OrderedDict()  # only the loop changes it
        self.implicit: set[asyncio.Future[Any]] = set()  # those that the implicit slot will do for
        self.taken = 0  # by the thread, which alone changes it
        self.delivered = 0  # of these, to the loop, which alone changes it

    def wanted(self) -> int:
        """Tokens that are still to be taken: tasks that wait, less tokens on their way to the loop.

        It is negative when tasks were cancelled meanwhile.
        """
        return len(self.futures) - (self.taken - self.delivered)


class PendingTasks:
    """The queue, first come first served.

    There is no lock: a finaliser may run in the middle of any of these methods, give back what a task held, and close
    the AsyncClient. Each field is changed by one thread only, or by calls that are atomic.
    """

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self.loop = loop
        self.event = Event(when_implicit_slot_is_free=True)
        self.orders: deque[Order] = deque()
        self.idle = False  # the thread sleeps, or is about to, until the event is set
        self.stopped = False

    # In the loop's thread:

    def anybody(self) -> bool:
        """Whether a task waits."""
        return bool(self.orders) and any(order.futures for order in tuple(self.orders))

    def singles(self) -> Order:
        """The order that another task which wants one token is added to."""
        last = self.last()
        return last if last is not None and last.batch is None else Order()

    def last(self) -> Order | None:
        """The order at the end of the queue."""
        try:
            return self.orders[-1]
        except IndexError:
            return None

    def ask(self, order: Order, future: asyncio.Future[Any], implicit: bool) -> None:
        """Puts a task at the end of the queue."""
        if implicit:
            order.implicit.add(future)
        order.futures[future] = None
        if self.last() is not order:
            self.orders.append(order)
        if self.idle:
            self.event.set()

    def withdraw(self, order: Order, future: asyncio.Future[Any]) -> bool:
        """Takes a task out of the queue. False if it was not in there any more."""
        order.implicit.discard(future)
        found = order.futures.pop(future, self) is None
        if found and order.wanted() <= 0 and not self.idle:
            self.event.set()  # the thread waits in vain
        self.forget_empty()
        return found

    def forget_empty(self) -> None:
        """Lets the next order be the first when nobody of the first one waits any more."""
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
        while True:
            try:
                for future in order.futures:
                    if not future.done() and (not implicit or future in order.implicit):
                        return future
                return None
            except RuntimeError:  # a finaliser that ran in here took one out
                continue

    def serve(self, order: Order, result: Acquired | AcquiredBatch | Exception) -> bool:
        """Ends the wait of the order's first task with this result. False if no task waits for it."""
        implicit = getattr(result, "implicit", False)
        while (future := self.next_future(order, implicit=implicit)) is not None:
            if not self.withdraw(order, future):
                continue
            try:
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
                return True
            except InvalidStateError:  # a finaliser has just cancelled it
                continue
        return False

    def pass_on(self, token: Acquired) -> bool:
        """Serves the first task with the token of another one. False if it wants many."""
        order = self.orders[0] if self.orders else None
        return order is not None and order.batch is None and self.serve(order, token)

    def deliver(self, order: Order, result: Acquired | AcquiredBatch | Exception) -> None:
        """Serves a task with what the thread has for it, or gives it back."""
        order.delivered += 1
        served = self.serve(order, result)
        if order.wanted() > 0 and self.idle:
            self.event.set()
        if not served and not isinstance(result, Exception):
            result.release()

    def fail_all(self, error: Exception) -> None:
        """Ends the waiting of all tasks. In a loop that was closed none does."""
        for order in () if self.loop.is_closed() else tuple(self.orders):
            for future in tuple(order.futures):
                self.expire(order, future, error)

    # In the thread:

    def stop(self) -> None:
        """From any thread: ends `wait_for_tasks`."""
        self.stopped = True
        self.event.set()

    def wait_for_tasks(self) -> None:
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
                there_is_a_loop = self.take_one(order)

    def current(self) -> Order | None:
        """The first order with tasks that wait."""
        self.idle = True
        order = next((order for order in tuple(self.orders) if order.wanted() > 0), None)
        if order is not None:
            self.idle = False
        return order

    def take_one(self, order: Order) -> bool:
        """Waits for what the order wants, or for the event. False if the loop is not there any more."""
        result = self.take(order)
        if result is None:
            return True
        order.taken += 1
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
            implicit = self.client._implicit_slot() if order.implicit else None
            return implicit or self.client._acquire_or(self.event.others)
        except Exception as error:
            return error
