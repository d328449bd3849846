"""Does a waiter that gets no token wake up?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from jobserver_ffi import Client

from .rows import Row
from .ways import WAYS, Step, Way, processes, switches

SECONDS = 10
TITLE = f"Context switches of all threads of a waiter in {SECONDS} s without a token"


def many(client: Client, before: Step, held: Step) -> None:
    """Waits with a token in its hands, and so with the lock."""
    client.acquire_many(2, minimum=2, timeout=600)


def rows() -> Iterator[Row]:
    ways: dict[str, Way] = {**WAYS, "acquire_many(2, minimum=2), for a token": many}
    with Client(0) as empty, Client(1) as one:
        pools = [empty] * len(WAYS) + [one]
        works = [waiter(pool, way) for pool, way in zip(pools, ways.values(), strict=True)]
        with processes(works) as first, processes([waiter(one, many)]) as last:
            names = [*ways, "acquire_many(2, minimum=2), for the lock"]
            started = [*first, *last]
            time.sleep(1)  # until all have fallen asleep
            before = [sum(switches(process)) for process in started]
            time.sleep(SECONDS)
            after = [sum(switches(process)) for process in started]
    for name, was, now in zip(names, before, after, strict=True):
        yield Row(name, now - was, "", 0)


def waiter(pool: Client, way: Way) -> Step:
    """What one process does."""
    return lambda: way(Client.open(pool.auth), os.getpid, os.getpid)
