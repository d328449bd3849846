"""What does it cost to hand one token over, with many processes waiting for it?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from .harness import cpu, either, processes, switches
from .native import LATENCIES, Worker
from .rows import Row, Times
from .ways import OURS, Way, present, workers

HELD = 0.0003  # seconds
TITLE = (
    f"Voluntary context switches for each token handed over: one token, held for {HELD * 1e3:g} ms; "
    "times from release to the next holder"
)
WAITERS = either((8, 64, 256), (8,))
WINDOW = either(1.0, 0.1)  # seconds that are counted
MOST = {"AsyncClient": 5.0, "JobserverExecutor": None}
OURS_AT_MOST = 2.5
SLOWEST = 10.0  # seconds: whoever has not served everybody by then is counted as it is


@dataclass(frozen=True)
class Cost:
    """What one window cost all waiters together, for each token."""

    sleeps: float
    cpu: float
    times: Times | None


def rows() -> Iterator[Row]:
    ways = present()
    for number in WAITERS:
        limit = None
        for name, way in ways.items():
            cost = measure(way, number)
            limit = limit or cost
            note = f"CPU {cost.cpu / 1e3:.1f} us a token, {cost.cpu / limit.cpu:.2f} x the limit's"
            yield Row(f"{number} waiters, {name}", cost.sleeps, "", most(name, way), note, cost.times)


def most(name: str, way: Way) -> float | None:
    """The target: for ourselves only."""
    return MOST.get(name, OURS_AT_MOST) if name in OURS else None


def measure(way: Way, number: int) -> Cost:
    """One token and so many waiters."""
    with ExitStack() as stack:
        place = way.place(1)
        stack.callback(place.close)
        made = stack.enter_context(workers(number, hold=HELD, recorded=True))
        started = stack.enter_context(processes([lambda worker=worker: way.wait(place, worker) for worker in made]))
        settle(made)
        before = seen(made, started)
        time.sleep(WINDOW)
        after = seen(made, started)
        tokens, sleeps, nanoseconds = (now - then for now, then in zip(after, before, strict=True))
        newest = made[0].shared.contents.latencies[: min(tokens, LATENCIES)]
    if tokens == 0:
        return Cost(float("nan"), float("nan"), None)
    return Cost(sleeps / tokens, nanoseconds / tokens, Times.of(newest) if tokens > 1 else None)


def settle(made: list[Worker]) -> None:
    """Returns when each has had its turn twice, so that nobody starts any more, and begins the latencies anew."""
    end = time.monotonic() + SLOWEST
    while min(worker.tokens for worker in made) < 2 and time.monotonic() < end:
        time.sleep(HELD)
    made[0].shared.contents.count = 0


def seen(made: list[Worker], started: list[int]) -> tuple[int, int, int]:
    """So far: tokens handed over, times that somebody slept (the holder's own sleep included), nanoseconds of CPU."""
    tokens = sum(worker.tokens for worker in made)
    return tokens, sum(switches(process)[0] for process in started), sum(map(cpu, started))
