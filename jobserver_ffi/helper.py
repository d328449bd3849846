"""`HelperThread`: a thread that waits for tokens, so that others need not."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .acquired import Acquired
from .background import BackgroundThread
from .errors import HelperClosed
from .event import Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .client import Client


class HelperThread:
    """A thread that waits for tokens and hands each to a callback; made by `Client.into_helper_thread`.

    While nobody wants a token it sleeps. It installs no signal handler and is woken by none. Thread-safe. It does not
    survive a fork: in a child every request raises `HelperClosed`. When the interpreter exits it is closed.
    """

    __slots__ = ("_queue", "_thread")

    def __init__(self, client: Client, callback: Callable[[Future[Acquired]], object]) -> None:
        self._queue = _Queue(client, callback)
        self._thread = BackgroundThread("jobserver-helper", self._queue.serve, self._queue.close)

    def request_token(self) -> Future[Acquired]:
        """Asks for one token. Does not block.

        The callback is called, in the helper's thread, with the very future that this returns, once it is done: with
        the token (`Acquired`), or with the error that `Client.acquire` would have raised. Requests are served in the
        order in which they were made. `cancel()` on the future withdraws the request, as long as no token was handed
        over; the callback is not called for it.

        Release each token. In a free-threaded Python one that is only dropped, by another thread than the helper's,
        stays out as long as the helper sleeps: for ever, if that is the one it waits for.

        Raises:
            HelperClosed: The helper was closed, or belongs to the parent of this forked process.
        """
        if not self._thread.is_alive():
            raise HelperClosed("this HelperThread is closed, or its thread stayed in the process that forked this one")
        return self._queue.request()

    def close(self) -> None:
        """Ends the thread and waits until it has ended; again: harmless.

        It waits for a callback that runs at this moment, and for no other: requests that are still open are cancelled,
        and a token that was not handed over goes back into the pool. Called by the callback itself it does not wait.
        """
        self._thread.close()

    def __enter__(self) -> HelperThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, finalizing: Any = sys.is_finalizing) -> None:
        thread = getattr(self, "_thread", None)  # Ctrl-C may come before there is one
        if not finalizing() and thread is not None and thread.is_alive() and not self._queue.closed:
            self._queue.close()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<HelperThread of {self._queue.client!r}{' closed' if self._queue.closed else ''}>"


class _Queue:
    """The requests, and the thread's work on them. It does not know the HelperThread, which may be dropped.

    There is no lock: a finaliser may run in the middle of any of these methods, and call any of them. Requests go
    through the deque, each call on which is atomic; the flags are set before the deque is looked at.
    """

    def __init__(self, client: Client, callback: Callable[[Future[Acquired]], object]) -> None:
        self.client = client
        self.callback = callback
        self.event = Event()
        self.waiting: deque[Future[Acquired]] = deque()
        self.idle = False  # the thread sleeps, or is about to, until the event is set
        self.closed = False

    def request(self) -> Future[Acquired]:
        future: Future[Acquired] = Future()
        future.add_done_callback(self.wake_if_withdrawn)
        self.waiting.append(future)
        if self.closed:
            self.cancel_all()  # the thread may have done so before
            if future.cancelled():
                raise HelperClosed("this HelperThread was closed: make a new one")
        elif self.idle:
            self.event.set()
        return future

    def wake_if_withdrawn(self, future: Future[Acquired]) -> None:
        """The thread may be waiting for a token that nobody wants any more."""
        if future.cancelled():
            self.event.set()

    def close(self) -> None:
        self.closed = True
        self.event.set()

    def serve(self) -> None:
        """What the thread does until it is closed."""
        while True:
            self.event.clear()  # first: who closes, asks or withdraws after this sets it again
            if self.closed:
                break
            if self.falls_idle():
                self.event.wait()
            else:
                self.wait_and_deliver()
        self.cancel_all()

    def take(self) -> Future[Acquired] | None:
        """Takes the oldest request out of the queue."""
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def cancel_all(self) -> None:
        """Withdraws what is in the queue."""
        while (future := self.take()) is not None:
            future.cancel()
            future.set_running_or_notify_cancel()  # or concurrent.futures.wait would not see it

    def falls_idle(self) -> bool:
        """Whether nobody wants a token."""
        self.idle = True
        while (future := self.take()) is not None:
            if not future.cancelled():
                self.waiting.appendleft(future)
                self.idle = False
                return False
            future.set_running_or_notify_cancel()
        return True

    def first(self) -> Future[Acquired] | None:
        """Takes the oldest request that was not withdrawn out of the queue; from now on it cannot be."""
        while not self.closed and (future := self.take()) is not None:
            if future.set_running_or_notify_cancel():
                return future
        return None

    def wait_and_deliver(self) -> None:
        """Waits for one token or for the event. A token that nobody wants any more goes back when it is dropped."""
        token = error = None
        try:
            token = self.client._acquire_or(self.event.others)
        except Exception as failure:
            error = failure
        if token is None and error is None:
            return
        future = self.first()
        if future is None:
            return
        if token is not None:
            future.set_result(token)
        else:
            future.set_exception(error)
        del token, error  # who gets the future decides how long they live
        self.call_back(future)

    def call_back(self, future: Future[Acquired]) -> None:
        """What the callback raises is shown as that of any thread, and ends nothing."""
        try:
            self.callback(future)
        except Exception:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
