"""Are those who wait served alike?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from .harness import either, in_turns, processes
from .native import WAITS
from .rows import Row, Times
from .ways import Way, present, workers

WAITERS = either(16, 4)
TOKENS = either(4, 2)
HELD = 0.002  # seconds
ROUNDS = either(3, 1)
WINDOW = either(1.0, 0.1)  # seconds, in each
IDEAL = HELD * 1e9 * (WAITERS / TOKENS - 1)  # nanoseconds of a wait
NOT_ASKED = ("acquire_many", "filelock")  # takes two, has one
TITLE = (
    f"Fairness: {WAITERS} processes, {TOKENS} tokens, each held for {HELD * 1e3:g} ms; "
    "the most that one had by the fewest, times of a wait"
)


@dataclass(frozen=True)
class Shares:
    """What one window showed."""

    had: list[int]  # tokens of each process
    waits: list[int]  # nanoseconds


def rows() -> Iterator[Row]:
    ways = {name: way for name, way in present().items() if not any(word in name for word in NOT_ASKED)}
    for name, found in in_turns({name: partial(measure, way) for name, way in ways.items()}, ROUNDS, warm_up=0).items():
        waits = [wait for shares in found for wait in shares.waits]
        spread = median(max(shares.had) / max(min(shares.had), 1) for shares in found)
        jain = median(sum(s.had) ** 2 / (len(s.had) * sum(count**2 for count in s.had)) for s in found)
        note = f"Jain {jain:.3f}, longest wait {max(waits, default=0) / IDEAL:.1f} x the ideal of {IDEAL / 1e6:.0f} ms"
        yield Row(name, spread, "", None, note, Times.of(waits) if len(waits) > 1 else None)


def measure(way: Way) -> Shares:
    with ExitStack() as stack:
        place = way.place(TOKENS)
        stack.callback(place.close)
        made = stack.enter_context(workers(WAITERS, hold=HELD))
        stack.enter_context(processes([partial(way.wait, place, worker) for worker in made]))
        end = time.monotonic() + 5
        while min(worker.tokens for worker in made) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        before = [worker.tokens for worker in made]
        time.sleep(WINDOW)
        had = [worker.tokens - was for worker, was in zip(made, before, strict=True)]
        waits = [wait for worker, n in zip(made, had, strict=True) for wait in last(worker.waits[:], worker.tokens, n)]
    return Shares(had, waits)


def last(ring: list[int], written: int, count: int) -> list[int]:
    """The last `count` of what was written into a ring."""
    count = min(count, WAITS, written)
    return [ring[index % WAITS] for index in range(written - count, written)]
