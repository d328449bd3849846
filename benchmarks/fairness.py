"""Are those who wait served alike?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from .harness import either, processes
from .native import WAITS
from .rows import Row, Times
from .ways import Way, present, workers

WAITERS = either(16, 4)
TOKENS = either(4, 2)
HELD = 0.002  # seconds
WINDOW = either(3.0, 0.1)  # seconds
NOT_ASKED = ("acquire_many", "filelock")  # takes two, has one
TITLE = (
    f"Fairness: {WAITERS} processes, {TOKENS} tokens, each held for {HELD * 1e3:g} ms; "
    "the most that one had by the fewest, times of a wait"
)


def rows() -> Iterator[Row]:
    for name, way in present().items():
        if not any(word in name for word in NOT_ASKED):
            yield measure(name, way)


def measure(name: str, way: Way) -> Row:
    with ExitStack() as stack:
        place = way.place(TOKENS)
        stack.callback(place.close)
        made = stack.enter_context(workers(WAITERS, hold=HELD))
        stack.enter_context(processes([lambda worker=worker: way.wait(place, worker) for worker in made]))  # type: ignore[misc]
        end = time.monotonic() + 5
        while min(worker.tokens for worker in made) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        before = [worker.tokens for worker in made]
        time.sleep(WINDOW)
        had = [worker.tokens - was for worker, was in zip(made, before, strict=True)]
        waits = [wait for worker, count in zip(made, had, strict=True) for wait in last(list(worker.waits), worker.tokens, count)]
    ideal = HELD * 1e9 * (WAITERS / TOKENS - 1)
    jain = sum(had) ** 2 / (len(had) * sum(count * count for count in had))
    note = f"Jain {jain:.3f}, longest wait {max(waits) / ideal:.1f} x the ideal of {ideal / 1e6:.0f} ms"
    return Row(name, max(had) / max(min(had), 1), "", None, note, Times.of(waits) if len(waits) > 1 else None)


def last(ring: list[int], written: int, count: int) -> list[int]:
    """The last `count` of what was written into a ring."""
    count = min(count, WAITS, written)
    return [ring[index % WAITS] for index in range(written - count, written)]
