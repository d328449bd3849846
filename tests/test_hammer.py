"""Many threads and processes at one pool, checked by two witnesses: the pipe's bytes, and a table of who has which."""

from __future__ import annotations

import mmap
import os
import random
import threading
import traceback
from collections.abc import Callable

import pytest

from jobserver_ffi import Acquired, AcquiredBatch, AcquireTimeout, Client

from .conftest import TokenPipe

pytestmark = pytest.mark.quick

NewPipe = Callable[[bytes], TokenPipe]
TOKENS = b"ABCDE"
WORKERS = 8
ROUNDS = 2000


class Witness:
    """Shared memory with one place for each token: two holders of one token would meet there."""

    def __init__(self) -> None:
        self.table = mmap.mmap(-1, 512)

    def enter(self, byte: int) -> None:
        assert self.table[byte] == 0, f"token {byte} is held twice"
        self.table[byte] = 1

    def leave(self, byte: int) -> None:
        assert self.table[byte] == 1
        self.table[byte] = 0


def hammer(client: Client, witness: Witness, seed: int) -> None:
    """Takes and gives back in every way there is, for a while."""
    choose = random.Random(seed)
    held: list[Acquired | AcquiredBatch] = []
    for _ in range(ROUNDS):
        way = choose.randrange(7)
        if way == 0:
            byte = client.acquire_raw()
            witness.enter(byte)
            witness.leave(byte)
            client.release_raw(byte)
        elif way == 1:
            byte = client.acquire(120).drop_without_releasing()
            witness.enter(byte)
            witness.leave(byte)
            client.release_raw(byte)
        elif way == 2:
            with client.acquire():
                pass
        elif way == 3:
            held += filter(None, [client.try_acquire()])
        elif way == 4:
            try:
                held.append(client.acquire(0.0002))
            except AcquireTimeout:
                held.clear()
        elif way == 5:
            with client.acquire_many(3, minimum=2, timeout=120) as batch:
                assert len(batch) in (2, 3)
        else:
            client.acquire_many(2)
        held.clear()


@pytest.mark.needs("objects that end when they are dropped")
def test_eight_threads(whole: NewPipe) -> None:
    client = whole(TOKENS).client()
    witness = Witness()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            hammer(client, witness, seed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert client.available() == len(TOKENS)


@pytest.mark.needs("objects that end when they are dropped")
@pytest.mark.parametrize("own_client", [False, True], ids=["inherited", "opened"])
def test_eight_processes(own_client: bool, whole: NewPipe) -> None:
    pipe = whole(TOKENS)
    shared = pipe.client()
    witness = Witness()
    children = []
    for seed in range(WORKERS):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                hammer(Client.open(pipe.auth) if own_client else shared, witness, seed)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * WORKERS
    assert shared.available() == len(TOKENS)
