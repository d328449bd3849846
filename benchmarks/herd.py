"""What does it cost to hand one token over, with many processes waiting for it?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from .harness import cpu, either, in_turns, processes, switches
from .native import LATENCIES, Worker
from .rows import Row, Times
from .ways import LIMIT, OURS, Way, present, workers

HELD = 0.0003  # seconds
TITLE = (
    f"Voluntary context switches for each token handed over: one token, held for {HELD * 1e3:g} ms; "
    "times from release to the next holder"
)
WAITERS = either((8, 64, 256), (8,))
ROUNDS = either(2, 1)
WINDOW = either(0.4, 0.1)  # seconds that are counted in each
MOST = {"AsyncClient": 5.0, "JobserverExecutor": None}
OURS_AT_MOST = 2.5
SLOWEST = 10.0  # seconds: whoever has not served everybody by then is counted as it is


@dataclass(frozen=True)
class Cost:
    """What one window cost all waiters together."""

    sleeps: float  # for each token
    cpu: float  # nanoseconds for each token
    latencies: list[int]


def rows() -> Iterator[Row]:
    ways = present()
    for number in WAITERS:
        costs = in_turns({name: partial(measure, way, number) for name, way in ways.items()}, ROUNDS, warm_up=0)
        limit = median(cost.cpu for cost in costs[LIMIT])
        for name, found in costs.items():
            latencies = [latency for cost in found for latency in cost.latencies]
            used = median(cost.cpu for cost in found)
            note = f"CPU {used / 1e3:.1f} us a token, {used / limit:.2f} x the limit's"
            sleeps = median(cost.sleeps for cost in found)
            times = Times.of(latencies) if len(latencies) > 1 else None
            yield Row(f"{number} waiters, {name}", sleeps, "", most(name), note, times)


def most(name: str) -> float | None:
    """The target: for ourselves only."""
    return MOST.get(name, OURS_AT_MOST) if name in OURS else None


def measure(way: Way, number: int) -> Cost:
    """One token and so many waiters."""
    with ExitStack() as stack:
        place = way.place(1)
        stack.callback(place.close)
        made = stack.enter_context(workers(number, hold=HELD, recorded=True))
        started = stack.enter_context(processes([partial(way.wait, place, worker) for worker in made]))
        settle(made)
        before = seen(made, started)
        time.sleep(WINDOW)
        after = seen(made, started)
        tokens, sleeps, nanoseconds = (now - then for now, then in zip(after, before, strict=True))
        newest = made[0].shared.contents.latencies[: min(tokens, LATENCIES)]
    return Cost(sleeps / max(tokens, 1), nanoseconds / max(tokens, 1), list(newest))


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
