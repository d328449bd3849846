"""The ways to wait for a token, each as a loop that never ends, and processes that run them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeAlias

from jobserver_ffi import Acquired, Client
from jobserver_ffi.aio import AsyncClient

Step: TypeAlias = Callable[[], object]
Way: TypeAlias = Callable[[Client, Step, Step], object]
"""Takes tokens of a client one after the other, for ever: calls the first step before each wait, with no token in its
hands, and the second one with the token."""


def acquire(client: Client, before: Step, held: Step, timeout: float | None = None) -> NoReturn:
    while True:
        before()
        with client.acquire(timeout):
            held()


def acquire_timeout(client: Client, before: Step, held: Step) -> NoReturn:
    acquire(client, before, held, timeout=600)


def acquire_after_try(client: Client, before: Step, held: Step) -> NoReturn:
    client.try_acquire()
    acquire(client, before, held)


def acquire_many(client: Client, before: Step, held: Step) -> NoReturn:
    while True:
        before()
        with client.acquire_many(2, minimum=1):
            held()


def slot_or_ready(client: Client, before: Step, held: Step) -> NoReturn:
    never, _ = os.pipe()
    while True:
        before()
        slot, _ = client.slot_or_ready([never])
        assert slot is not None
        with slot:
            held()


def helper_thread(client: Client, before: Step, held: Step) -> None:
    def callback(future: Future[Acquired]) -> None:
        with future.result():
            held()
        before()
        helper.request_token()

    with client.into_helper_thread(callback) as helper:
        before()
        helper.request_token()
        signal.pause()


def async_client(client: Client, before: Step, held: Step) -> None:
    async def loop() -> NoReturn:
        async with AsyncClient(client) as tokens:
            while True:
                before()
                async with await tokens.acquire():
                    held()

    asyncio.run(loop())


WAYS: dict[str, Way] = {
    "acquire()": acquire,
    "acquire(timeout=600)": acquire_timeout,
    "acquire() after a try_acquire()": acquire_after_try,
    "acquire_many(2, minimum=1)": acquire_many,
    "slot_or_ready([descriptor])": slot_or_ready,
    "HelperThread": helper_thread,
    "AsyncClient": async_client,
}


def nothing() -> None:
    pass


@contextmanager
def processes(works: list[Step]) -> Iterator[list[int]]:
    """Forks a process for each piece of work, and kills them all at the end.

    A fork is the one start that is quick enough for hundreds; this process must have no other thread.
    """
    started: list[int] = []
    try:
        for work in works:
            started.append(start(work))
        yield started
    finally:
        for process in started:
            os.kill(process, signal.SIGKILL)
        for process in started:
            os.waitpid(process, 0)


def start(work: Step) -> int:
    sys.stdout.flush()
    process = os.fork()
    if process != 0:
        return process
    try:
        work()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def switches(process: int) -> tuple[int, int]:
    """How often the threads of a process went to sleep, and how often they were made to stop: all of them so far."""
    voluntary = involuntary = 0
    for status in Path(f"/proc/{process}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                voluntary += int(line.split()[1])
            elif line.startswith("nonvoluntary_ctxt_switches:"):
                involuntary += int(line.split()[1])
    return voluntary, involuntary
