"""Event loops whose tasks hold tokens or wait for them, and that nobody runs any more."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from jobserver_ffi.aio import AsyncClient

from .finalisers import pick, some, spring
from .program import Program, Thing, documented
from .witness import Witness


async def hold(program: Program, client: AsyncClient, witness: Witness | None, things: list[Thing], seed: int) -> None:
    """A task that takes something, waits for ever, and uses things when it is ended."""
    random = Random(seed)
    timeout = random.choice((0, 0, None, 60.0))
    ways = {"cell": (0, 1, 2), "batch": (3,)}.get(program.kind or "", (0, 1, 2, 3, 3))
    way = random.choice(ways)
    for_ever = asyncio.get_running_loop().create_future()
    try:
        if way == 3:
            async with await client.acquire_many(2, timeout=timeout) as batch:
                things.append(program.thing("batch", batch))
                await for_ever
        elif way == 2:
            token = await client.acquire(timeout)
            things.append(program.thing("token", token, None, witness))
            try:
                await for_ever
            finally:
                token.release()
        else:
            async with await (client.slot if way else client.acquire)(timeout) as held:
                things.append(program.thing("token", held, None, witness))
                await (asyncio.sleep(0) if random.random() < 0.3 else for_ever)
    except Exception as error:
        program.judge(error, "a task")
    finally:
        if random.random() < 0.5:
            spring(program, random, things)


def make_session(program: Program, things: list[Thing]) -> Thing | None:
    """A loop with tasks, left as it is: closed or not, with tasks that wait, were cancelled, or hold tokens.

    An AsyncClient whose tasks wait has a thread that refers to them: it lives until it is closed.
    """
    client = pick(program, things, "client")
    if client is None:
        return None
    random = program.random
    witness = client.witness
    loop = asyncio.new_event_loop()

    def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not documented(error):
            program.judge(error, f"a loop: {context['message']}")

    loop.set_exception_handler(on_error)
    made = program.thing("async client", AsyncClient(client.value), client)

    def seed() -> int:
        return random.randrange(1 << 30)

    async def main() -> None:
        for _ in range(random.randint(1, 4)):
            task = loop.create_task(hold(program, made.value, witness, some(program, things), seed()))
            if random.random() < 0.7:
                made.links.append(program.thing("task", task, client))
            await asyncio.sleep(0)
            if random.random() < 0.2:
                task.cancel()
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)

    with program.occupied():
        loop.run_until_complete(main())
        if random.random() < 0.3:
            made.value.close()
        if random.random() < 0.4:
            loop.close()
        else:
            made.links.append(program.thing("loop", loop))
    return made
