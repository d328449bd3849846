"""Everybody who waits for a token, each as a loop that never ends: ourselves through every door, and the peers."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from jobserver_ffi import Acquired, Client, JobserverExecutor
from jobserver_ffi.aio import AsyncClient

from . import native
from .harness import Step, shared_memory
from .native import Shared, Worker
from .pairs import CRATE, TOKENPOOL, Missing, makeflags, tokenpool_take, wanted
from .peers import left_out


class Place(Protocol):
    """What the processes wait for, made before they are forked."""

    def give(self) -> object:
        """Adds a token."""

    def take(self) -> object:
        """Takes one, waiting for it."""

    def close(self) -> None:
        """Frees it."""


class Pool:
    """A pool as make would make it."""

    def __init__(self, tokens: int) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.auth = f"{self.read_fd},{self.write_fd}"
        for _ in range(tokens):
            self.give()

    def give(self) -> None:
        os.write(self.write_fd, b"+")

    def take(self) -> None:
        os.read(self.read_fd, 1)

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


class Semaphore:
    """A semaphore of another kind."""

    def __init__(self, semaphore: Any) -> None:
        self.semaphore = semaphore
        self.give, self.take = semaphore.release, semaphore.acquire

    def close(self) -> None:
        pass


class Lock:
    """A lock on a file: one token at the most. It cannot be given by one who has not taken it."""

    def __init__(self, tokens: int) -> None:
        if tokens > 1:
            raise Missing("filelock has one token only")
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name, "lock")
        self.mine = wanted("filelock").FileLock(self.path)
        self.give, self.take = self.mine.release, self.mine.acquire
        if tokens == 0:
            self.take()

    def close(self) -> None:
        self.mine.release()
        self.directory.cleanup()


def of_multiprocessing(tokens: int) -> Semaphore:
    return Semaphore(multiprocessing.get_context("fork").Semaphore(tokens))


def of_posix(tokens: int) -> Semaphore:
    package = wanted("posix_ipc")
    semaphore = package.Semaphore(None, package.O_CREX, initial_value=tokens)
    semaphore.unlink()
    return Semaphore(semaphore)


class Steps:
    """What a worker does around each token, as calls from Python; see worker.h."""

    def __init__(self, worker: Worker) -> None:
        library, self.worker = native.limit(), ctypes.byref(worker)
        step, held = library.worker_before, library.worker_held
        self.before: Step = lambda: step(self.worker)
        self.held: Step = lambda: held(self.worker)


# The limit, and what Python alone adds.


def c_read(place: Pool, worker: Worker) -> None:
    native.limit().limit_wait(place.read_fd, place.write_fd, ctypes.byref(worker))


def os_read(place: Pool, worker: Worker) -> NoReturn:
    steps = Steps(worker)
    while True:
        steps.before()
        byte = os.read(place.read_fd, 1)
        steps.held()
        os.write(place.write_fd, byte)


# Ourselves.


def core(place: Pool, worker: Worker) -> None:
    library, limit = native.core(), native.limit()
    client = library.core_open(place.read_fd, place.write_fd)
    library.core_wait(
        client, ctypes.byref(worker), native.address(limit.worker_before), native.address(limit.worker_held)
    )


def joined(loop: Callable[[Client, Steps], object]) -> Callable[[Pool, Worker], object]:
    """A loop over a client that joins the pool."""
    return lambda place, worker: loop(Client.open(place.auth), Steps(worker))


def acquire(client: Client, steps: Steps, timeout: float | None = None) -> NoReturn:
    while True:
        steps.before()
        with client.acquire(timeout):
            steps.held()


def acquire_timeout(client: Client, steps: Steps) -> NoReturn:
    acquire(client, steps, timeout=600)


def acquire_after_try(client: Client, steps: Steps) -> NoReturn:
    token = client.try_acquire()
    if token is not None:
        token.release()
    acquire(client, steps)


def raw(client: Client, steps: Steps) -> NoReturn:
    while True:
        steps.before()
        byte = client.acquire_raw()
        steps.held()
        client.release_raw(byte)


def acquire_many(client: Client, steps: Steps) -> NoReturn:
    while True:
        steps.before()
        with client.acquire_many(2, minimum=1):
            steps.held()


def slot_or_ready(client: Client, steps: Steps) -> NoReturn:
    never, _ = os.pipe()
    while True:
        steps.before()
        slot, _ = client.slot_or_ready([never])
        assert slot is not None
        with slot:
            steps.held()


def helper_thread(client: Client, steps: Steps) -> None:
    def callback(future: Future[Acquired]) -> None:
        with future.result():
            steps.held()
        steps.before()
        helper.request_token()

    with client.into_helper_thread(callback) as helper:
        steps.before()
        helper.request_token()
        signal.pause()


def event_loop(client: Client, steps: Steps) -> None:
    async def loop() -> NoReturn:
        async with AsyncClient(client) as tokens:
            while True:
                steps.before()
                async with await tokens.acquire():
                    steps.held()

    asyncio.run(loop())


def executor(client: Client, steps: Steps) -> NoReturn:
    with JobserverExecutor(client) as items:
        while True:
            steps.before()
            items.submit(steps.held).result()


# The peers.


def crate(after_try: bool) -> Callable[[Pool, Worker], object]:
    def wait(place: Pool, worker: Worker) -> None:
        library, limit = native.crate(), native.limit()
        assert library is not None
        with makeflags(place.auth):
            client = library.crate_open()
        before, held = native.address(limit.worker_before), native.address(limit.worker_held)
        library.crate_wait(client, after_try, ctypes.byref(worker), before, held)

    return wait


def tokenpool(place: Pool, worker: Worker) -> NoReturn:
    with makeflags(place.auth):
        client, steps = wanted("gnumake_tokenpool").JobClient(), Steps(worker)
    while True:
        steps.before()
        token = tokenpool_take(client, place.read_fd)
        steps.held()
        client.release(token)


def semaphore(place: Semaphore, worker: Worker) -> NoReturn:
    steps = Steps(worker)
    while True:
        steps.before()
        with place.semaphore:
            steps.held()


def file_lock(place: Lock, worker: Worker) -> NoReturn:
    steps = Steps(worker)
    lock = wanted("filelock").FileLock(place.path)
    while True:
        steps.before()
        with lock:
            steps.held()


@dataclass(frozen=True)
class Way:
    """One contestant.

    Args:
        wait: Takes tokens of a place one after the other, for ever, with the worker's steps around each.
        place: What is waited for, with so many tokens.
        needs: Who must be on this machine, besides us: the crate, or a Python package.
    """

    wait: Callable[[Any, Worker], object]
    place: Callable[[int], Place] = Pool
    needs: str = ""


LIMIT = "C: read (the limit)"
AFTER_TRY = "after a try_acquire()"

LIMITS = {LIMIT: Way(c_read), "os.read()": Way(os_read)}
OURS = {
    "C: jobserver_token_take": Way(core),
    "acquire()": Way(joined(acquire)),
    "acquire(timeout=600)": Way(joined(acquire_timeout)),
    f"acquire() {AFTER_TRY}": Way(joined(acquire_after_try)),
    "acquire_raw()": Way(joined(raw)),
    "acquire_many(2, minimum=1)": Way(joined(acquire_many)),
    "slot_or_ready([descriptor])": Way(joined(slot_or_ready)),
    "HelperThread": Way(joined(helper_thread)),
    "AsyncClient": Way(joined(event_loop)),
    "JobserverExecutor": Way(joined(executor)),
}
PEERS = {
    f"{CRATE}: acquire": Way(crate(False), needs=CRATE),
    f"{CRATE}: acquire {AFTER_TRY}": Way(crate(True), needs=CRATE),
    f"{TOKENPOOL} and select": Way(tokenpool, needs="gnumake_tokenpool"),
    "not the protocol: multiprocessing.Semaphore": Way(semaphore, of_multiprocessing),
    "not the protocol: posix_ipc.Semaphore": Way(semaphore, of_posix, needs="posix_ipc"),
    "one token only: filelock": Way(file_lock, Lock, needs="filelock"),
}


def present() -> dict[str, Way]:
    """All who are on this machine; built and loaded here, so that no process has to do that after its fork."""
    native.limit(), native.core()
    return {name: way for name, way in {**LIMITS, **OURS, **PEERS}.items() if is_here(way.needs)}


def is_here(needs: str) -> bool:
    if needs == CRATE:
        return native.crate() is not None
    try:
        return not needs or wanted(needs) is not None
    except Missing as error:
        left_out(str(error))
        return False


@contextmanager
def workers(number: int, *, hold: float = 0.0, recorded: bool = False) -> Iterator[list[Worker]]:
    """So many workers in shared memory; with `recorded` they also have the latencies of one token in common."""
    shared = Shared.from_buffer(shared_memory(ctypes.sizeof(Shared)))
    made = (Worker * number).from_buffer(shared_memory(ctypes.sizeof(Worker) * number))
    for worker in made:
        worker.hold = int(hold * 1e9)
        worker.go = worker.times = -1
        if recorded:
            worker.shared = ctypes.pointer(shared)
    yield list(made)
