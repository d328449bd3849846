"""`AsyncClient`: tokens for tasks of an asyncio event loop.

async with AsyncClient(client) as tokens:
    async with await tokens.acquire():
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import warnings
from time import monotonic
from typing import TYPE_CHECKING, Any

from .acquired import Acquired, AcquiredBatch, ImplicitSlot
from .arguments import batch_size, nanoseconds
from .background import BackgroundThread
from .errors import AcquireTimeout, HelperClosed, timed_out
from .pending import Order, PendingTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from .client import Client

__all__ = ["AsyncAcquired", "AsyncAcquiredBatch", "AsyncClient"]

# How long a token may go from task to task, in seconds, before it must pass through the pool, where the waiters of all
# processes stand in one queue: so much longer may another process have to wait, and so much of the cost is spared where
# jobs are short.
PASSED_ON_WITHIN = 0.001


class AsyncAcquired(Acquired):
    """One token of an `AsyncClient`: an `Acquired` that is an asynchronous context manager too.

    Released in the loop's thread while tasks wait, a token that left the pool less than a millisecond ago goes to the
    first of them; an older one goes back to the pool, where this process stands in line with all others.
    """

    __slots__ = ("_owner", "_since")

    _owner: AsyncClient
    _since: float  # when the token left the pool, by time.monotonic()

    async def __aenter__(self) -> AsyncAcquired:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._owner._pass_on(self):
            super().__exit__(None, None, None)


class AsyncImplicitSlot(AsyncAcquired, ImplicitSlot):
    """The implicit slot, taken by a task."""

    __slots__ = ()

    implicit = True


class AsyncAcquiredBatch(AcquiredBatch):
    """Several tokens, as an asynchronous context manager too."""

    __slots__ = ("_taken",)

    def __init__(self, batch: AcquiredBatch) -> None:
        super().__init__(batch._client, batch._batch, len(batch))
        self._taken = batch

    def release(self) -> None:
        """As `AcquiredBatch.release`."""
        self._taken.release()
        self._count = len(self._taken)

    async def __aenter__(self) -> AsyncAcquiredBatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class AsyncClient:
    """Takes tokens of a client for the tasks of one event loop, whatever the loop's kind.

    Tasks get tokens in the order in which they asked. For all of them together one thread waits, and only while a task
    does: a descriptor in the loop's own epoll would be woken with those of all other processes for each token. A task
    that is cancelled at any point holds nothing. Use it in the thread of one loop; it does not survive a fork. It is
    closed at the end of `async with`, by `close`, or when the interpreter exits; close it before the client.

    Args:
        client: Where the tokens come from. It stays usable.
    """

    _tasks: PendingTasks | None = None
    _thread: BackgroundThread | None = None
    _loop_thread = 0
    _closed = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def acquire(self, timeout: float | None = None) -> Coroutine[Any, Any, AsyncAcquired]:
        """Takes a token, letting other tasks run while there is none.

        Args:
            timeout: Seconds to wait at most; 0 tries once; None or infinity waits for ever.

        Raises:
            AcquireTimeout: No token came in time.
            HelperClosed: This AsyncClient was closed.
            PoolGone: The maker of the pool is gone (only sockets and devices can tell).
        """
        return self._acquire(timeout, implicit=False)

    def slot(self, timeout: float | None = None) -> Coroutine[Any, Any, AsyncAcquired]:
        """Takes the process's implicit slot if it is free, else a token, see `Client.slot`; whichever comes first.

        Args:
            timeout: As for `acquire`.

        Raises:
            AcquireTimeout: Neither came in time.
        """
        return self._acquire(timeout, implicit=True)

    async def acquire_many(self, maximum: int, *, minimum: int = 1, timeout: float | None = None) -> AsyncAcquiredBatch:
        """Takes between `minimum` and `maximum` tokens at once, see `Client.acquire_many`.

        Tasks that ask later wait until this one is served.

        Args:
            maximum: Most tokens to take.
            minimum: Fewest tokens to come back with.
            timeout: As for `acquire`.

        Raises:
            ValueError: The minimum is below 1, above the maximum, or more than the pool has.
            AcquireTimeout: The minimum was not there in time; nothing is held.
        """
        nanoseconds(timeout)
        maximum, minimum = batch_size(maximum, minimum, self._client.limit)
        tasks = self._bind()
        batch: AcquiredBatch | None = None
        if not tasks.anybody():
            with contextlib.suppress(AcquireTimeout):
                batch = self._client.acquire_many(maximum, minimum=minimum, timeout=0)
        if batch is None:
            batch = await self._wait(tasks, Order(batch=(maximum, minimum)), timeout)
        return AsyncAcquiredBatch(batch)

    async def _acquire(self, timeout: float | None, *, implicit: bool) -> AsyncAcquired:
        nanoseconds(timeout)
        tasks = self._bind()
        token: Acquired | None = None
        if not tasks.anybody():
            token = (self._client._implicit_slot() if implicit else None) or self._client.try_acquire()
        if token is None:
            token = await self._wait(tasks, tasks.singles(), timeout, implicit=implicit)
        return token if isinstance(token, AsyncAcquired) else self._own(token)

    def _own(self, token: Acquired) -> AsyncAcquired:
        """The same token, for a task."""
        own = AsyncImplicitSlot() if token.implicit else AsyncAcquired()
        own._client, own._held, own._owner, own._since = token._client, token._held, self, monotonic()
        token._held = []
        return own

    async def _wait(self, tasks: PendingTasks, order: Order, timeout: float | None, *, implicit: bool = False) -> Any:
        """Waits until the thread, or another task, has served this one."""
        if timeout == 0:
            raise timed_out(timeout)
        self._start(tasks)  # first: if no thread can be started, nothing is in the queue
        future = tasks.loop.create_future()
        tasks.ask(order, future, implicit)
        timer = None
        try:
            self._check_open()  # a finaliser may have closed it since the queue was looked at
            if timeout is not None and timeout != float("inf"):
                timer = tasks.loop.call_later(timeout, tasks.expire, order, future, timed_out(timeout))
            return await future
        except BaseException:
            if future.cancelled() or not future.done():  # cancelled, or the coroutine is closed
                tasks.withdraw(order, future)
            elif future.exception() is None:
                future.result().release()  # it came together with the cancellation
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _pass_on(self, token: AsyncAcquired) -> bool:
        """Hands the token to the first task that waits, if that is fair to other processes. Whether it did."""
        tasks = self._tasks
        if tasks is None or not tasks.orders or token.implicit or threading.get_ident() != self._loop_thread:
            return False
        if monotonic() - token._since > PASSED_ON_WITHIN or not token._held:
            return False
        own = AsyncAcquired()
        own._client, own._owner, own._since, own._held = token._client, self, token._since, token._held
        if not tasks.pass_on(own):
            return False
        token._held = []
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise HelperClosed("this AsyncClient was closed: make a new one")

    def _bind(self) -> PendingTasks:
        """What waits in the running loop."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._tasks is None:
            self._tasks = PendingTasks(self._client, loop)
            self._loop_thread = threading.get_ident()
        elif self._tasks.loop is not loop:
            raise RuntimeError(f"{self!r} is bound to another event loop: make one AsyncClient for each loop")
        return self._tasks

    def _start(self, tasks: PendingTasks) -> None:
        if self._thread is None:
            self._thread = BackgroundThread("jobserver-asyncio", tasks.wait_for_tasks, tasks.stop)
        elif not self._thread.is_alive():
            raise HelperClosed("the thread that waits for tokens stayed in the process that forked this one")

    def close(self) -> None:
        """Ends the waiting; tasks that wait get `HelperClosed`. Idempotent. Tokens that are out stay valid.

        It may be called in any thread: a finaliser runs in whichever the garbage collector does.
        """
        self._closed = True
        if self._tasks is None:
            return
        self._tasks.stop()  # also for a thread that is just being started
        if self._thread is not None:
            self._thread.close()
        error = HelperClosed("this AsyncClient was closed while a task waited for a token")
        if threading.get_ident() == self._loop_thread:
            self._tasks.fail_all(error)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed: no task waits
                self._tasks.loop.call_soon_threadsafe(self._tasks.fail_all, error)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not finalizing() and not self._closed and self._thread is not None and self._thread.is_alive():
            assert self._tasks is not None
            self._tasks.stop()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._client!r}{' closed' if self._closed else ''}>"
