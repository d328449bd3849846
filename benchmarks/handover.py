"""How long does a token take from a holder in one process to a waiter that sleeps in another?"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from .harness import Step, either, in_turns, processes, ratio_row
from .native import Worker
from .rows import Row, Times
from .ways import AFTER_TRY, LIMIT, Way, present, workers

TITLE = "A token handed to a waiter in another process; a blocking `read` in C = 1.00"
MOST = {"C: jobserver_token_take": 1.1, "acquire()": 1.1, "acquire(timeout=600)": 1.1, "acquire_raw()": 1.1}
POLLS = "filelock"  # looks every 50 ms; after such a sleep the processor is slow for whoever comes next
TURNS = either(1000, 60)
FIRST_TURNS = either(50, 5)  # not counted
ASLEEP_AFTER = 0.0005  # seconds: a waiter that was told to go sleeps by then


class Waiter:
    """A process with a pool of one token that only it and this process use."""

    def __init__(self, way: Way, worker: Worker) -> None:
        self.place = way.place(0)
        self.way, self.worker = way, worker
        worker.go, self.go = os.pipe()
        self.times, worker.times = os.pipe()

    def wait(self) -> None:
        self.way.wait(self.place, self.worker)

    def hand_over(self) -> float:
        """Nanoseconds from just before the release to just after the waiter has the token."""
        os.write(self.go, b".")
        time.sleep(ASLEEP_AFTER)
        released = time.monotonic_ns()
        self.place.give()
        taken = int.from_bytes(os.read(self.times, 8), "little")
        self.place.take()
        return taken - released

    def close(self) -> None:
        self.place.close()
        for descriptor in (self.worker.go, self.go, self.times, self.worker.times):
            os.close(descriptor)


def rows() -> Iterator[Row]:
    ways = {name: way for name, way in present().items() if not name.startswith(f"acquire() {AFTER_TRY}")}
    with ExitStack() as stack:
        waiters = {}
        for (name, way), worker in zip(ways.items(), stack.enter_context(workers(len(ways))), strict=True):
            waiters[name] = Waiter(way, worker)
            stack.callback(waiters[name].close)
        works: list[Step] = [waiter.wait for waiter in waiters.values()]
        stack.enter_context(processes(works))
        turns = {name: waiter.hand_over for name, waiter in waiters.items() if POLLS not in name}
        latencies = in_turns(turns, TURNS, FIRST_TURNS)
        slow = {name: waiter.hand_over for name, waiter in waiters.items() if POLLS in name}
        by_themselves = in_turns(slow, TURNS // 20, 1)
    for name, samples in latencies.items():
        yield ratio_row(name, samples, latencies[LIMIT], MOST.get(name))
    for name, samples in by_themselves.items():
        yield Row(name, statistics.median(samples) / statistics.median(latencies[LIMIT]), times=Times.of(samples))
