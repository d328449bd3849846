"""`JobserverExecutor`: a `concurrent.futures.Executor` whose items run on slots of a jobserver."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .arguments import whole_number
from .worker_threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from multiprocessing.context import BaseContext
    from typing import ParamSpec

    from .client import Client
    from .work_queue import WorkQueue

    P = ParamSpec("P")
T = TypeVar("T")


class JobserverExecutor(Executor):
    """Runs items in threads or processes, each on a slot of a jobserver: the implicit slot, else a token.

    A drop-in for `ThreadPoolExecutor` and `ProcessPoolExecutor` that never runs more than the jobserver allows. An
    item gets its slot (as by `Client.slot`) before it starts, and the slot is back before its result is there; an
    executor with nothing to do holds none. Whatever the number of items, one thread waits for a token, in the same
    queue as all other processes, and uses no CPU meanwhile. A token serves several items only within its first
    millisecond; the implicit slot for as long as there are items.

    An item that waits for another item of the same executor holds a slot meanwhile: where there is only one slot, it
    waits for ever. An item may start children under the jobserver (`Client.run`): they run on its slot.

    Errors of the wait (`PoolGone`, `ClientClosed`, `Unsupported`) become the exception of the item that would have run.
    Close the client after the executor. Thread-safe. It does not survive a fork: in a child `submit` raises
    RuntimeError. When the interpreter exits, what is queued runs first, as with the standard library's executors.

    Args:
        client: Whose slots to use.
        max_workers: The most items that run at the same time. None: for threads there is no other limit than the
            slots; for processes it is the number of CPUs that this process may use.
        kind: "thread", or "process": items run in a `ProcessPoolExecutor`, whose processes have neither descriptors
            nor an implicit slot of the jobserver, and do not see it in their environment. With the start method "fork"
            they have a copy of the client that is closed.
        thread_name_prefix: What the names of the executor's threads begin with.
        mp_context: For processes, as in `ProcessPoolExecutor`.
        initializer: Is called in each thread, on the slot of its first item, or in each process.
        initargs: Its arguments.
        max_tasks_per_child: For processes, as in `ProcessPoolExecutor`; Python 3.11 and newer.

    Raises:
        ValueError: `max_workers` is below 1, the kind is unknown, or an argument is not for this kind.
    """

    _queue: WorkQueue | None = None

    def __init__(
        self,
        client: Client,
        max_workers: int | None = None,
        *,
        kind: str = "thread",
        thread_name_prefix: str = "",
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is not None and whole_number("max_workers", max_workers) <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer={initializer!r}: the initializer must be a callable")
        self._chunks = kind == "process"
        if kind == "thread":
            for name, value in (("mp_context", mp_context), ("max_tasks_per_child", max_tasks_per_child)):
                if value is not None:
                    raise ValueError(f"{name}={value!r}: this is for kind='process', not for threads")
            self._queue = WorkerThreads(client, max_workers, thread_name_prefix, initializer, initargs)
        elif kind == "process":
            from .worker_processes import WorkerProcesses

            self._queue = WorkerProcesses(
                client, max_workers, thread_name_prefix, initializer, initargs, mp_context, max_tasks_per_child
            )
        else:
            raise ValueError(f"kind={kind!r}: 'thread' or 'process' is wanted")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Has `fn(*args, **kwargs)` called on the next slot that is free. Does not block.

        `cancel()` on the future works until the item has its slot. Callbacks of the future are called by a thread of
        the executor, which holds no slot then.

        Raises:
            RuntimeError: The executor was shut down, belongs to the parent of this forked process, or the interpreter
                exits.
            BrokenExecutor: An initializer failed (`BrokenThreadPool`, `BrokenProcessPool`), or a process died.
        """
        assert self._queue is not None, "the constructor has ended"
        return self._queue.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """As `Executor.map`.

        Args:
            fn: What to call.
            *iterables: Its arguments.
            timeout: Seconds to wait at most for the results.
            chunksize: For processes: how many calls make one item, which runs on one slot.
            **options: `buffersize` where the standard library has it (Python 3.14).
        """
        if self._chunks and chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, not {chunksize}")
        if not self._chunks or chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **options)
        chunks = batched(zip(*iterables), chunksize)  # noqa: B905 - as in the standard library
        return itertools.chain.from_iterable(super().map(partial(call_all, fn), chunks, timeout=timeout, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets no more items come; again: harmless. Those that are queued still run, on slots as they come.

        Args:
            wait: Return when the last item is done and the threads and processes have ended. In one of these threads
                (an item of kind "thread", a finaliser) it does not wait.
            cancel_futures: Cancel the items that have no slot yet.
        """
        if self._queue is not None:
            self._queue.close(cancel=cancel_futures)
            if wait:
                self._queue.join()

    def __del__(self) -> None:
        if self._queue is not None:
            self._queue.drop()


def batched(iterable: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """The same in tuples of `size`, the last one shorter; `itertools.batched` is there from Python 3.12 on."""
    iterator = iter(iterable)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


def call_all(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    """Several calls as one item."""
    return [fn(*args) for args in chunk]
