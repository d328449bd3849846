"""What does a token cost when many tasks of an event loop wait for it?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from jobserver_ffi import Client
from jobserver_ffi.aio import AsyncClient

from .rows import Row

TITLE = "CPU of a token with so many asyncio tasks waiting for 8 tokens, beyond a bare pair of read and write"
TOKENS = 8
WAITING = (10, 100, 1_000, 10_000)
MOST = 6.0  # microseconds
BARE = 0.6  # microseconds, as `python -m benchmarks` measures it beside this
TASKS = 50_000  # in all, for each number of waiting ones


def rows() -> Iterator[Row]:
    with Client(TOKENS) as client:
        for number in WAITING:
            yield Row(
                f"AsyncClient, {number:,} waiting",
                asyncio.run(ours(client, number)),
                "us",
                MOST if number == WAITING[-1] else None,
            )
    for number in WAITING:
        note = "no jobserver: what asyncio itself costs"
        yield Row(f"asyncio.Semaphore, {number:,} waiting", asyncio.run(theirs(number)), "us", None, note)


async def ours(client: Client, number: int) -> float:
    async with AsyncClient(client) as tokens:

        async def job() -> None:
            async with await tokens.acquire():
                pass

        costs = []
        for _ in range(max(TASKS // number, 3)):
            held = await tokens.acquire_many(TOKENS, minimum=TOKENS)
            costs.append(await cost([asyncio.create_task(job()) for _ in range(number)], held.release))
        return statistics.median(costs) - BARE


async def theirs(number: int) -> float:
    semaphore = asyncio.Semaphore(0)

    async def job(lock: AbstractAsyncContextManager[None]) -> None:
        async with lock:
            pass

    def release() -> None:
        for _ in range(TOKENS):
            semaphore.release()

    costs = []
    for _ in range(max(TASKS // number, 3)):
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
