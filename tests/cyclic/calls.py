"""The public methods that programs call, also in finalisers: all of them with timeouts, where they wait."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import os
import subprocess
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from jobserver_ffi import Acquired, AcquiredBatch, Client, JobserverExecutor
from jobserver_ffi.aio import AsyncClient

from .program import GUARD, Call, Program, Thing

COMMAND = ["true"]
QUIET = subprocess.DEVNULL


def token_of(thing: Thing, program: Program, value: Acquired | None) -> Thing | None:
    """A token of a client as a thing."""
    return None if value is None else program.thing("token", value, thing)


def acquire(thing: Thing, program: Program, random: Random) -> Thing | None:
    return token_of(thing, program, thing.value.acquire(random.choice((0, 0, 0.0002))))


def try_acquire(thing: Thing, program: Program, random: Random) -> Thing | None:
    return token_of(thing, program, thing.value.try_acquire())


def slot(thing: Thing, program: Program, random: Random) -> Thing | None:
    return token_of(thing, program, thing.value.slot(timeout=0))


def acquire_many(thing: Thing, program: Program, random: Random) -> Thing:
    value: AcquiredBatch = thing.value.acquire_many(2, minimum=random.choice((1, 1, 2)), timeout=0)
    return program.thing("batch", value, thing)


def slot_or_ready(thing: Thing, program: Program, random: Random) -> Thing | None:
    assert thing.witness is not None
    children = [link.value for link in thing.links if isinstance(link, Thing) and link.name == "child"]
    others = random.choice(((), thing.witness.ends[:1], children))
    return token_of(thing, program, thing.value.slot_or_ready(others, random.choice((0, 0.0002)))[0])


def acquire_raw(thing: Thing, program: Program, random: Random) -> None:
    byte = thing.value.acquire_raw(timeout=0)
    assert thing.witness is not None
    thing.witness.count(-1)
    thing.raw.append(byte)


def release_raw(thing: Thing, program: Program, random: Random) -> None:
    """Gives back a token that is out. Without one, a client of an inherited pool lends the implicit slot, once."""
    assert thing.witness is not None
    if not thing.raw and thing.witness is program.inherited and not program.forked:
        return  # the process has one slot for all its programs
    byte = thing.raw.pop() if thing.raw else None
    try:
        thing.value.release_raw(byte)
    except BaseException:
        if byte is not None:
            thing.raw.append(byte)
        raise
    if byte is None:
        program.lent = True
    thing.witness.count(1)


def configure(thing: Thing, program: Program, random: Random) -> Thing:
    return program.thing("arguments", thing.value.configure(stdout=QUIET, stderr=QUIET), thing)


def popen(thing: Thing, program: Program, random: Random) -> Thing:
    return program.thing("child", thing.value.popen(COMMAND), thing)


def run(thing: Thing, program: Program, random: Random) -> None:
    thing.value.run(COMMAND, stdout=QUIET, timeout=GUARD)


def copied(thing: Thing, program: Program, random: Random) -> None:
    with suppress(TypeError):  # it is refused
        copy.copy(thing.value)


def client_facts(thing: Thing, program: Program, random: Random) -> None:
    client: Client = thing.value
    client.auth, client.limit, repr(client)
    assert client.handle


def opened_again(thing: Thing, program: Program, random: Random) -> Thing:
    """Another client of the pool, by an address that stays open when the first one is closed."""
    assert thing.witness is not None
    return program.thing("client", Client.open(thing.witness.auth), thing)


def new_users(thing: Thing, program: Program, random: Random) -> Thing:
    """Users of a client whose threads begin later."""
    if random.random() < 0.5 and not program.at_exit:
        return program.thing("executor", JobserverExecutor(thing.value, random.choice((None, 1))), thing)
    return program.thing("async client", AsyncClient(thing.value), thing)


def drop_without_releasing(thing: Thing, program: Program, random: Random) -> None:
    byte = thing.value.drop_without_releasing()
    assert thing.witness is not None
    thing.witness.count(-1)
    if thing.owner is not None:
        thing.owner.raw.append(byte)


def within(thing: Thing, program: Program, random: Random) -> None:
    with thing.value:
        gc.collect()


def result_of(thing: Thing, program: Program, random: Random) -> None:
    """What a future has. A token in it stays its own."""
    future: concurrent.futures.Future[Any] = thing.value
    found = future.result(timeout=0)
    if isinstance(found, Acquired) and random.random() < 0.5:
        found.release()


def request_token(thing: Thing, program: Program, random: Random) -> Thing:
    return program.thing("future", thing.value.request_token(), thing)


def item(program: Program, client: Client, seed: int) -> object:
    """What an executor's item does: it uses the client, leaves garbage, fails, or hands out a token.

    At exit no token may stay away for long, since items that are queued then still run.
    """
    what = seed % 5
    keeps = not program.at_exit and program.kind != "event"
    if what == 0:
        raise ValueError("an item that fails")
    if what == 1 and keeps:
        return client.try_acquire()
    if what == 2 and keeps:
        box: list[object] = [client.try_acquire()]
        box.append(box)
    if what == 3:
        gc.collect()
    return None


def submit(thing: Thing, program: Program, random: Random) -> Thing | None:
    executor: JobserverExecutor = thing.value
    assert thing.owner is not None
    work = partial(item, program, thing.owner.value, random.randrange(1 << 30))
    if random.random() < 0.2:
        executor.map(lambda _: work(), range(2), timeout=0)
        return None
    return program.thing("future", executor.submit(work), thing)


def lease(thing: Thing, program: Program, random: Random) -> Thing:
    terms: dict[str, Any] = {
        "style": random.choice(("pipe", "pipe", "fifo")) if os.name == "posix" else "auto",
        "minimum": random.choice((0, 0, 1)),
        "maximum": random.choice((None, 1, 3)),
        "orphan_timeout": random.choice((60.0, 0, None)),
    }
    return program.thing("lease", thing.value.lease(f"lease {random.randrange(100)}", **terms), thing)


def configure_lease(thing: Thing, program: Program, random: Random) -> Thing:
    made = thing.value.configure(slot_timeout=random.choice((0, 0.001)), stdout=QUIET)
    return program.thing("lease arguments", made, thing)


def popen_lease(thing: Thing, program: Program, random: Random) -> Thing:
    return program.thing("child", thing.value.popen(COMMAND, slot_timeout=0.001), thing)


def run_lease(thing: Thing, program: Program, random: Random) -> None:
    thing.value.run(COMMAND, slot_timeout=0.001, timeout=GUARD)


def watch(thing: Thing, program: Program, random: Random) -> Thing:
    """A child that the lease is told of."""
    assert thing.owner is not None
    child = subprocess.Popen(COMMAND, **thing.value)
    try:
        thing.owner.value.watch(child.pid)
    finally:
        child.wait()
    return program.thing("child", child, thing.owner)


def resize(thing: Thing, program: Program, random: Random) -> None:
    thing.value.resize(random.randint(1, 4))


def look_at_descriptors(thing: Thing, program: Program, random: Random) -> None:
    """What `configure` returned keeps the pool open, also when the client was closed."""
    witness = thing.witness
    assert witness is not None
    wrong = [number for number in thing.value["pass_fds"] if not witness.is_open_at(number)]
    if wrong:
        program.report.fault(f"the descriptors {wrong} of configure() lead elsewhere while its result lives")
    if witness.path and not os.path.exists(witness.path):
        program.report.fault("the fifo is gone while what configure() returned lives")


def start_on(thing: Thing, program: Program, random: Random) -> Thing:
    return program.thing("child", subprocess.Popen(COMMAND, **thing.value), thing.owner, thing.witness)


def begin(thing: Thing, program: Program, random: Random) -> None:
    """Lets a coroutine run until it first waits."""
    with suppress(StopIteration):
        thing.value.send(None)


def coroutine(thing: Thing, program: Program, random: Random) -> Thing:
    client: AsyncClient = thing.value
    made = random.choice((client.acquire, client.slot, partial(client.acquire_many, 2)))(timeout=0)
    return program.thing("coroutine", made, thing)


def plain(function: Callable[[Any], object]) -> Callable[[Thing, Program, Random], None]:
    """A method without arguments, whose result nobody wants."""

    def do(thing: Thing, program: Program, random: Random) -> None:
        function(thing.value)

    return do


# What is used by several kinds of handles is an argument of several words.
CALLS: dict[str, list[Call]] = {
    "client": [
        Call(acquire, "cell"),
        Call(try_acquire, "cell", weight=6),
        Call(slot, "cell"),
        Call(slot_or_ready, "cell event", weight=2),
        Call(acquire_many, "batch", weight=6),
        Call(acquire_raw, "client"),
        Call(release_raw, "client", weight=6),
        Call(plain(lambda client: client.available()), "client"),
        Call(configure, "client hold"),
        Call(popen, "client hold", weight=0),
        Call(run, "client hold", weight=0),
        Call(client_facts, "client", weight=2),
        Call(copied, "client", weight=1),
        Call(opened_again, "client", weight=1),
        Call(new_users, "event", weight=2),
        Call(plain(lambda client: client.close()), "client", weight=1),
    ],
    "token": [
        Call(plain(lambda token: token.release()), "cell", weight=6),
        Call(within, "cell", weight=2),
        Call(plain(lambda token: token.byte), "cell"),
        Call(drop_without_releasing, "cell"),
        Call(plain(repr), "cell", weight=2),
    ],
    "batch": [
        Call(plain(lambda batch: batch.release()), "batch", weight=6),
        Call(within, "batch", weight=2),
        Call(plain(lambda batch: (len(batch), bool(batch), repr(batch))), "batch", weight=2),
    ],
    "future": [
        Call(plain(lambda future: future.cancel()), "event"),
        Call(result_of, "event cell"),
        Call(plain(lambda future: future.exception(timeout=0)), "event"),
    ],
    "helper": [
        Call(request_token, "event", weight=6),
        Call(plain(lambda helper: helper.close()), "event", weight=2, waits=True),
        Call(plain(repr), "event", weight=2),
    ],
    "executor": [
        Call(submit, "event", weight=6),
        Call(plain(lambda executor: executor.shutdown(wait=False)), "event", weight=1),
        Call(plain(lambda executor: executor.shutdown(cancel_futures=True)), "event", weight=1, waits=True),
        Call(plain(repr), "event", weight=1),
    ],
    "async client": [
        Call(coroutine, "event cell batch"),
        Call(plain(lambda client: client.close()), "event", weight=2, waits=True),
        Call(plain(repr), "event", weight=2),
    ],
    "coroutine": [
        Call(begin, "event cell batch", waits=True),
        Call(plain(lambda coroutine: coroutine.close()), "event cell batch", waits=True),
    ],
    "task": [
        Call(plain(lambda task: task.cancel()), "event cell batch", waits=True),
        Call(plain(repr), "event", weight=2),
    ],
    "loop": [Call(plain(lambda loop: loop.close()), "event cell batch", waits=True)],
    "generator": [
        Call(plain(lambda generator: generator.close()), "cell batch"),
        Call(plain(lambda generator: next(generator, None)), "cell batch"),
    ],
    "error": [Call(plain(lambda error: traceback.clear_frames(error.__traceback__)), "client cell batch hold lease")],
    "pool": [
        Call(plain(lambda pool: pool.status()), "broker lease", weight=6),
        Call(lease, "broker lease", weight=6),
        Call(resize, "broker"),
        Call(copied, "broker", weight=1),
        Call(plain(lambda pool: (pool.limit, repr(pool))), "broker", weight=2),
        Call(plain(lambda pool: pool.close()), "broker", weight=1, waits=True),
    ],
    "lease": [
        Call(plain(lambda lease: lease.report()), "lease", weight=6),
        Call(plain(lambda lease: lease.close()), "lease"),
        Call(plain(lambda lease: lease.wait(timeout=0)), "lease"),
        Call(plain(lambda lease: (lease.name, repr(lease))), "lease"),
        Call(configure_lease, "lease", weight=6),
        Call(popen_lease, "lease", weight=0),
        Call(run_lease, "lease", weight=0),
    ],
    "arguments": [
        Call(look_at_descriptors, "client hold", weight=6),
        Call(start_on, "hold", weight=0),
    ],
    "lease arguments": [Call(watch, "lease", weight=0)],
    "child": [
        Call(plain(lambda child: child.poll()), "hold lease"),
        Call(plain(lambda child: child.wait(timeout=GUARD)), "hold lease", waits=True),
        Call(plain(lambda child: child.returncode), "hold lease", weight=2),
    ],
}
