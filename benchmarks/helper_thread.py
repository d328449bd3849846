"""How long does it take from a request to the callback, beside the helper thread of the Rust crate?"""

from __future__ import annotations

import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack

from jobserver_ffi import Acquired, Client

from . import native
from .harness import either, in_turns, processes, ratio_row
from .pairs import CRATE
from .rows import Row, Times

TITLE = "From a request to the callback of the helper thread; the Rust crate = 1.00"
TURNS = either(500, 30)
BLOCK = 20  # requests in one turn
MOST = 1.0
LEAST = "os.read() in a thread, with SimpleQueue and Future"  # the least that a thread of Python can do
CLOSES = either(1000, 100)
MOST_CLOSE = 5.0  # milliseconds


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        contestants = {"HelperThread": stack.enter_context(Answers(ours)), LEAST: stack.enter_context(Answers(least))}
        if native.crate() is not None:
            contestants[f"{CRATE}: HelperThread"] = stack.enter_context(Answers(theirs))
        samples = in_turns({name: answers.next for name, answers in contestants.items()}, TURNS)
    crates = samples.get(f"{CRATE}: HelperThread")
    for name, found in samples.items():
        if crates is None:
            yield Row(name, float("nan"), note="there is no crate to compare it with", times=Times.of(found))
        else:
            yield ratio_row(name, found, crates, MOST if name == "HelperThread" else None)
    yield closing()


class Answers(ExitStack):
    """A process that answers each byte with the median of a block of requests.

    The crate takes SIGUSR1 over, and so needs one.
    """

    def __init__(self, begin: Callable[[], Callable[[], int]]) -> None:
        super().__init__()
        self._begin = begin
        self._read, self._write = os.pipe(), os.pipe()

    def __enter__(self) -> Answers:
        self.enter_context(processes([self._serve]))
        return self

    def _serve(self) -> None:
        measure = self._begin()
        while os.read(self._read[0], 1):
            middle = sorted(measure() for _ in range(BLOCK))[BLOCK // 2]
            os.write(self._write[1], middle.to_bytes(8, "little"))

    def next(self) -> float:
        os.write(self._read[1], b".")
        return int.from_bytes(os.read(self._write[0], 8), "little")


def ours() -> Callable[[], int]:
    came: queue.SimpleQueue[tuple[int, Future[Acquired]]] = queue.SimpleQueue()
    helper = Client(1).into_helper_thread(lambda future: came.put((time.perf_counter_ns(), future)))

    def measure() -> int:
        start = time.perf_counter_ns()
        helper.request_token()
        at, future = came.get()
        future.result().release()
        return at - start

    return measure


def least() -> Callable[[], int]:
    """A thread that waits for requests in a queue, reads the token, and answers with a future."""
    pool, release = os.pipe()
    os.write(release, b"+")
    asked: queue.SimpleQueue[Future[bytes]] = queue.SimpleQueue()
    came: queue.SimpleQueue[tuple[int, Future[bytes]]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            future = asked.get()
            future.set_running_or_notify_cancel()
            future.set_result(os.read(pool, 1))
            came.put((time.perf_counter_ns(), future))

    threading.Thread(target=serve, daemon=True).start()

    def measure() -> int:
        start = time.perf_counter_ns()
        asked.put(Future())
        at, future = came.get()
        os.write(release, future.result())
        return at - start

    return measure


def closing() -> Row:
    """How long `close` takes with a request that cannot be met."""
    took = []
    with Client(1) as client, client.acquire():
        for _ in range(CLOSES):
            helper = client.into_helper_thread(lambda future: None)
            helper.request_token()
            start = time.perf_counter_ns()
            helper.close()
            took.append(float(time.perf_counter_ns() - start))
    slowest = statistics.quantiles(took, n=100)[-1] / 1e6
    return Row("close() with a request pending, p99", slowest, "ms", MOST_CLOSE, times=Times.of(took))


def theirs() -> Callable[[], int]:
    library = native.crate()
    assert library is not None
    helper = library.crate_helper()
    return lambda: int(library.crate_helper_ask(helper))
