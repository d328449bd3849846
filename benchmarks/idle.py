"""What does a wait cost while there is no token: does the waiter wake up, does it use CPU?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from jobserver_ffi import Client

from .harness import Step, cpu, either, processes, switches
from .native import Worker
from .rows import Row
from .ways import OURS, Place, Pool, Steps, Way, joined, present, workers

SECONDS = either(10, 1)
TITLE = f"Context switches of all threads of a waiter in {SECONDS} s without a token"


def lock_holder(client: Client, steps: Steps) -> None:
    """Waits with a token in its hands, and so with the lock, or for the lock."""
    client.acquire_many(2, minimum=2, timeout=600)


def rows() -> Iterator[Row]:
    many = Way(joined(lock_holder))
    ways = {**present(), "acquire_many(2, minimum=2), for a token": many}
    last = "acquire_many(2, minimum=2), for the lock"
    with ExitStack() as stack:
        one = Pool(1)
        stack.callback(one.close)
        made = stack.enter_context(workers(len(ways) + 1))
        works: list[Step] = []
        for way, worker in zip(ways.values(), made, strict=False):
            place: Place = one
            if way is not many:
                place = way.place(0)
                stack.callback(place.close)
            works.append(partial(way.wait, place, worker))
        started = list(stack.enter_context(processes(works)))
        settle(made[:-2], one)
        started += stack.enter_context(processes([partial(many.wait, one, made[-1])]))
        time.sleep(1)  # until all have fallen asleep
        before = [(sum(switches(process)), cpu(process)) for process in started]
        time.sleep(SECONDS)
        after = [(sum(switches(process)), cpu(process)) for process in started]
    for name, was, now in zip([*ways, last], before, after, strict=True):
        most = 0 if name in OURS or name == last or ways[name] is many else None
        yield Row(name, now[0] - was[0], "", most, f"CPU {(now[1] - was[1]) / 1e3:.0f} us")


def settle(made: list[Worker], one: Pool) -> None:
    """Returns when every worker has begun its wait and the one token is taken."""
    with Client.open(one.auth) as looker:
        while any(worker.began == 0 for worker in made) or looker.available() > 0:
            time.sleep(0.01)
