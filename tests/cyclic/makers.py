"""Makes every public object of the library, as things of a program."""

from __future__ import annotations

import os
from concurrent.futures import Future
from random import Random
from typing import Any

from jobserver_ffi import Client, JobserverExecutor, MinMemory, Pool, log_events
from jobserver_ffi.hooks import OnEvent

from . import calls
from .finalisers import Hook, Trap, pick, some
from .program import Program, Thing
from .witness import Witness

TOKENS = b"ABCDE"


def hook(program: Program, things: list[Thing]) -> OnEvent:
    """A hook for events."""
    way = program.random.randrange(4)
    if way < 2:
        return (way and program.telemetry) or log_events()  # where there is none the choices stay the same
    return Hook(program, some(program, things) if things and not program.threads else [])


def make_client(program: Program, things: list[Thing], *, anchored: bool = False, apart: bool = False) -> Thing:
    """A client: of a pool of its own (`apart`: always), or of one that the program was started under."""
    random = program.random
    limit = random.randint(1, 5)
    # The hook of an anchored client is no garbage either.
    on_event = hook(program, [] if anchored else things) if random.random() < 0.3 else None
    way = random.choice(("pipe", "pipe", "fifo", "environment", "descriptors")) if os.name == "posix" else "semaphore"
    if apart and way == "environment":
        way = "pipe"
    if way in ("pipe", "fifo", "semaphore"):
        value = Client(limit, style=way, on_event=on_event)
        witness = Witness(program.report, value.auth, limit, made_here=True)
        program.witnesses.append(witness)
    else:
        value, witness = join(program, limit, way, on_event)
    made = program.thing("client", value, None, witness)
    if random.random() < 0.7:  # so that it has cells to use again
        for token in [value.try_acquire() for _ in range(random.randint(1, limit))]:
            if token is not None:
                token.release()
    return made


def join(program: Program, limit: int, way: str, on_event: OnEvent | None) -> tuple[Client, Witness]:
    """A client of a pool that somebody else made. There is one that the process was started under."""
    witness = program.inherited if way == "environment" else None
    if witness is None:
        ends = os.pipe()
        os.write(ends[1], TOKENS[:limit])
        program.pipes += ends
        witness = Witness(program.report, f"{ends[0]},{ends[1]}", limit, made_here=False)
        program.witnesses.append(witness)
        program.auths[witness.number] = f"{ends[0]},{ends[1]}"
    auth = program.auths[witness.number]
    if way == "descriptors":
        return Client.open(auth, on_event=on_event), witness
    program.inherited = witness
    value = Client.from_env({"MAKEFLAGS": f" -j{limit} --jobserver-auth={auth}"}, on_event=on_event)
    assert value is not None
    return value, witness


def make_token(program: Program, things: list[Thing]) -> Thing | None:
    """A token or the implicit slot."""
    client = pick(program, things, "client")
    if client is None:
        return None
    take = program.random.choice((calls.try_acquire, calls.slot, calls.acquire, calls.slot_or_ready))
    return take(client, program, program.random)


def make_batch(program: Program, things: list[Thing]) -> Thing | None:
    """Several tokens."""
    client = pick(program, things, "client")
    return client and calls.acquire_many(client, program, program.random)


def make_arguments(program: Program, things: list[Thing]) -> Thing | None:
    """What a child is started with. The client may be closed before that."""
    client = pick(program, things, "client")
    made = client and calls.configure(client, program, program.random)
    if client is not None and program.kind == "hold" and program.random.random() < 0.7:
        client.value.close()
    return made


def make_child(program: Program, things: list[Thing]) -> Thing | None:
    """A child, in one program of some."""
    client = pick(program, things, "client")
    if client is None or program.random.random() < 0.8:
        return None
    return calls.popen(client, program, program.random)


class Deliveries:
    """The callback of a helper: it releases, drops or keeps the tokens, or leaves them in a cycle."""

    def __init__(self, program: Program, witness: Witness | None) -> None:
        self.program = program
        self.witness = witness
        self.random = Random(program.random.randrange(1 << 30))

    def __call__(self, future: Future[Any]) -> None:
        if self.program.ended or future.exception(timeout=0) is not None:
            return
        token = self.program.thing("token", future.result(timeout=0), None, self.witness)
        way = self.random.randrange(4)
        if way == 0 or self.program.kind == "event":
            token.value.release()
        elif way == 1:
            self.program.kept.append(token)
        elif way == 2:
            token.links.append(token)
            token.links.append(Trap(self.program, [token]))


def make_helper(program: Program, things: list[Thing]) -> Thing | None:
    """A helper with requests, some of which are served. Its thread knows the callback, so that knows no things."""
    client = pick(program, things, "client")
    if client is None:
        return None
    with program.occupied():
        value = client.value.into_helper_thread(Deliveries(program, client.witness))
        made = program.thing("helper", value, client)
        for _ in range(program.random.randrange(4)):
            future = calls.request_token(made, program, program.random)
            made.links.append(future)
            if program.random.random() < 0.3:
                future.value.cancel()
        if program.random.random() < 0.4:
            made.value.close()
    return made


def make_executor(program: Program, things: list[Thing]) -> Thing | None:
    """An executor: unused, or with items that wait, run or are done. At exit its items need slots that are free."""
    client = pick(program, things, "client")
    if program.at_exit:
        client = make_client(program, [], anchored=True, apart=True)
    if client is None:
        return None
    with program.occupied():
        value = JobserverExecutor(client.value, program.random.choice((None, 1, 2)))
        made = program.thing("executor", value, client)
        for _ in range(program.random.choice((0, 0, 1, 3))):
            future = calls.submit(made, program, program.random)
            if future is not None:
                made.links.append(future)
    return made


def make_pool(program: Program, things: list[Thing], *, anchored: bool = False) -> Thing:
    """A pool of slots of its own, or of a client's."""
    random = program.random
    client = None if anchored else pick(program, things, "client")
    options: dict[str, Any] = {}
    if random.random() < 0.3:
        options["gates"] = [MinMemory(1)]
    if random.random() < 0.4:
        options["on_event"] = hook(program, [])
    with program.occupied():
        if client is not None and random.random() < 0.3 and not program.at_exit:
            return program.thing("pool", Pool(client.value, **options), client)
        return program.thing("pool", Pool(random.randint(1, 4), **options))


def make_lease(program: Program, things: list[Thing]) -> Thing | None:
    """A lease: not used, or with a slot."""
    pool = pick(program, things, "pool")
    if pool is None:
        return None
    made = calls.lease(pool, program, program.random)
    if program.random.random() < 0.6:
        made.links.append(calls.configure_lease(made, program, program.random))
    elif program.random.random() < 0.1:
        made.links.append(calls.popen_lease(made, program, program.random))
    return made
