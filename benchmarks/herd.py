"""How many sleeps does it cost to hand one token over, with many processes waiting for it?"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator

from jobserver_ffi import Client

from .rows import Row
from .ways import WAYS, Step, Way, processes, switches

WAITERS = 256
TITLE = f"Voluntary context switches for each token handed over: {WAITERS} processes wait, one token, held for 0.3 ms"
HELD = 0.0003  # seconds
WINDOW = 1.0  # seconds that are counted
MOST = {"AsyncClient": 5.0}


def rows() -> Iterator[Row]:
    for name, way in WAYS.items():
        yield Row(name, sleeps_for_each(way), "", MOST.get(name, 2.5))


def sleeps_for_each(way: Way) -> float:
    """All that the threads of all waiters sleep, the holder's own sleep included."""
    handed = mmap.mmap(-1, 8 * WAITERS)
    with Client(1) as pool, processes([waiter(pool, way, handed, number) for number in range(WAITERS)]) as started:
        while min(counts(handed)) < 2:  # each has had its turn twice: nobody starts any more
            time.sleep(HELD)
        before = sum(switches(process)[0] for process in started), sum(counts(handed))
        time.sleep(WINDOW)
        after = sum(switches(process)[0] for process in started), sum(counts(handed))
    return (after[0] - before[0]) / (after[1] - before[1])


def counts(handed: mmap.mmap) -> memoryview:
    """How many tokens each waiter has had."""
    return memoryview(handed).cast("q")


def waiter(pool: Client, way: Way, handed: mmap.mmap, number: int) -> Step:
    """What one process does."""

    def work() -> None:
        mine = counts(handed)

        def held() -> None:
            mine[number] += 1
            time.sleep(HELD)

        way(Client.open(pool.auth), os.getpid, held)

    return work
