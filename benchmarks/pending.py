"""What does a token cost when many tasks of an event loop wait for it?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from typing import Any

from jobserver_ffi import Client
from jobserver_ffi.aio import AsyncClient

from .harness import either, in_turns
from .pairs import BARE, pool
from .rows import Row

TITLE = "CPU of a token with so many asyncio tasks waiting for 8 tokens, beyond a bare pair of read and write"
TOKENS = 8
WAITING = either((10, 100, 1_000, 10_000), (10, 1_000))
MOST = 6.0  # microseconds
BARE_PAIRS = 20_000
ROUNDS = either(5, 1)
TASKS = either(10_000, 5_000)  # in each round, for each number of waiting ones


def rows() -> Iterator[Row]:
    with Client(TOKENS) as client:
        for number in WAITING:
            costs = in_turns(
                {
                    "AsyncClient": partial(our_cost, client, number),
                    "asyncio.Semaphore": partial(their_cost, number),
                },
                ROUNDS,
                warm_up=0,
            )
            most = MOST if number == 10_000 else None
            yield Row(f"AsyncClient, {number:,} waiting", statistics.median(costs["AsyncClient"]), "us", most)
            note = "no jobserver: what asyncio itself costs"
            middle = statistics.median(costs["asyncio.Semaphore"])
            yield Row(f"asyncio.Semaphore, {number:,} waiting", middle, "us", None, note)


def our_cost(client: Client, number: int) -> float:
    return asyncio.run(ours(client, number)) - bare_pair()


def their_cost(number: int) -> float:
    return asyncio.run(theirs(number))


def bare_pair() -> float:
    """Microseconds of CPU for `os.write(w, os.read(r, 1))`."""
    with ExitStack() as stack:
        loop = BARE.begin(stack.enter_context(pool("pipe")), stack)
        start = time.process_time()
        loop(BARE_PAIRS)
        return (time.process_time() - start) / BARE_PAIRS * 1e6


async def ours(client: Client, number: int) -> float:
    async with AsyncClient(client) as tokens:

        async def job() -> None:
            async with await tokens.acquire():
                pass

        costs = []
        for _ in range(max(TASKS // number, 1)):
            held = await tokens.acquire_many(TOKENS, minimum=TOKENS)
            costs.append(await cost([asyncio.create_task(job()) for _ in range(number)], held.release))
        return statistics.median(costs)


async def theirs(number: int) -> float:
    semaphore = asyncio.Semaphore(0)

    async def job(lock: AbstractAsyncContextManager[None]) -> None:
        async with lock:
            pass

    def release() -> None:
        for _ in range(TOKENS):
            semaphore.release()

    costs = []
    for _ in range(max(TASKS // number, 1)):
        costs.append(await cost([asyncio.create_task(job(semaphore)) for _ in range(number)], release))
        for _ in range(TOKENS):
            await semaphore.acquire()
    return statistics.median(costs)


async def cost(tasks: list[asyncio.Task[None]], release: Any) -> float:
    """Microseconds of CPU for each task, from the release of the tokens to the end of the last task."""
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    start = time.process_time()
    release()
    await asyncio.wait(tasks)
    return (time.process_time() - start) / len(tasks) * 1e6
