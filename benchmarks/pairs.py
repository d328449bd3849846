"""Everybody who takes a token and gives it back, as loops: ourselves through every door, and the peers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any, TypeAlias

from jobserver_ffi import Client, JobserverExecutor
from jobserver_ffi.aio import AsyncClient

from . import native
from .peers import left_out, peer, version

TOKENS = 64

Loop: TypeAlias = Callable[[int], object]
"""Takes a token and gives it back, so many times."""


class Missing(Exception):
    """Somebody is not on this machine; the message says who and why."""


@dataclass(frozen=True)
class Pairs:
    """One contestant.

    Args:
        name: What its row is called.
        begin: Joins the pool with an address, and returns the loop. What is to be closed goes onto the stack.
        most: The target, as a multiple of `os.write(w, os.read(r, 1))`.
        pool: The kind of pool: "pipe" or "fifo".
        divisor: By how much fewer pairs fit into one turn than of the bare ones.
    """

    name: str
    begin: Callable[[str, ExitStack], Loop]
    most: float | None = None
    pool: str = "pipe"
    divisor: int = 1


@contextmanager
def pool(kind: str) -> Iterator[str]:
    """The address of a pool as make would make it, with nobody else in it."""
    with ExitStack() as stack:
        if kind == "fifo":
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "fifo")
            os.mkfifo(path)
            read_fd = write_fd = os.open(path, os.O_RDWR)
            address = f"fifo:{path}"
        else:
            read_fd, write_fd = os.pipe()
            address = f"{read_fd},{write_fd}"
        for descriptor in {read_fd, write_fd}:
            stack.callback(os.close, descriptor)
        os.write(write_fd, b"+" * TOKENS)
        yield address


def descriptors(address: str, stack: ExitStack) -> tuple[int, int]:
    """The two ends of a pool."""
    if address.startswith("fifo:"):
        descriptor = os.open(address.removeprefix("fifo:"), os.O_RDWR)
        stack.callback(os.close, descriptor)
        return descriptor, descriptor
    read_fd, write_fd = map(int, address.split(","))
    return read_fd, write_fd


# The limit, and the same in Python.


def limit(address: str, stack: ExitStack) -> Loop:
    read_fd, write_fd = descriptors(address, stack)
    loop = native.limit().limit_pairs
    return lambda pairs: loop(read_fd, write_fd, pairs)


def bare(address: str, stack: ExitStack) -> Loop:
    read_fd, write_fd = descriptors(address, stack)

    def loop(pairs: int) -> None:
        for _ in range(pairs):
            os.write(write_fd, os.read(read_fd, 1))

    return loop


# Ourselves. A door is a loop over a client.

Door: TypeAlias = Callable[[Client, int], object]


def joined(door: Door) -> Callable[[str, ExitStack], Loop]:
    """The door of a client that joins the pool."""

    def begin(address: str, stack: ExitStack) -> Loop:
        client = stack.enter_context(Client.open(address))
        return lambda pairs: door(client, pairs)

    return begin


def made(door: Door, style: str) -> Callable[[str, ExitStack], Loop]:
    """The door of a client with a pool of its own."""

    def begin(_: str, stack: ExitStack) -> Loop:
        client = stack.enter_context(Client(TOKENS, style=style))
        return lambda pairs: door(client, pairs)

    return begin


def acquire(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        with client.acquire():
            pass


def raw(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        client.release_raw(client.acquire_raw())


def acquire_timeout(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        with client.acquire(timeout=60):
            pass


def try_acquire(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        token = client.try_acquire()
        if token is not None:
            token.release()


def slot(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        with client.slot():
            pass


def implicit_slot(address: str, stack: ExitStack) -> Loop:
    client = Client.from_env({"MAKEFLAGS": f"--jobserver-auth={address}"})
    assert client is not None
    stack.enter_context(client)
    with client.slot() as taken:
        assert taken.implicit
    return lambda pairs: slot(client, pairs)


def on_a_shared_description(address: str, stack: ExitStack) -> Loop:
    """Another user's pipe cannot be opened anew, so no description is private, and none may be made non-blocking."""
    if os.geteuid() != 0:
        raise Missing("only root can make another user's pipe: no row of a shared description")
    os.seteuid(65534)
    try:
        client = stack.enter_context(Client.open(address))
    finally:
        os.seteuid(0)
    return lambda pairs: acquire(client, pairs)


def event_loop(address: str, stack: ExitStack) -> Loop:
    client = stack.enter_context(Client.open(address))
    runner = asyncio.new_event_loop()
    stack.callback(runner.close)
    tokens = AsyncClient(client)
    runner.run_until_complete(tokens.__aenter__())
    stack.callback(lambda: runner.run_until_complete(tokens.__aexit__(None, None, None)))

    async def loop(pairs: int) -> None:
        for _ in range(pairs):
            async with await tokens.acquire():
                pass

    return lambda pairs: runner.run_until_complete(loop(pairs))


def nothing() -> None:
    pass


def executor(address: str, stack: ExitStack) -> Loop:
    client = stack.enter_context(Client.open(address))
    items = stack.enter_context(JobserverExecutor(client))
    return lambda pairs: [items.submit(nothing).result() for _ in range(pairs)]


def core(name: str) -> Callable[[str, ExitStack], Loop]:
    def begin(address: str, stack: ExitStack) -> Loop:
        library = native.core()
        client = library.core_open(*descriptors(address, stack))
        stack.callback(library.core_close, client)
        loop = getattr(library, name)
        return lambda pairs: loop(client, pairs)

    return begin


# The peers.


def crate(name: str) -> Callable[[str, ExitStack], Loop]:
    def begin(address: str, stack: ExitStack) -> Loop:
        library = native.crate()
        if library is None:
            raise Missing("the Rust crate was not built")
        with makeflags(address):
            client = library.crate_open()
        stack.callback(library.crate_close, client)
        loop = getattr(library, name)
        return lambda pairs: loop(client, pairs)

    return begin


@contextmanager
def makeflags(address: str) -> Iterator[None]:
    """For clients that read nothing else than the environment."""
    os.environ["MAKEFLAGS"] = f"-j{TOKENS + 1} --jobserver-auth={address}"
    try:
        yield
    finally:
        del os.environ["MAKEFLAGS"]


def wanted(package: str) -> Any:
    module = peer(package)
    if module is None:
        raise Missing(f"{package} is not installed: `python -m benchmarks` does that")
    return module


def tokenpool(address: str, stack: ExitStack) -> Loop:
    with makeflags(address):
        client = wanted("gnumake_tokenpool").JobClient()
    read_fd, _ = descriptors(address, stack)

    def loop(pairs: int) -> None:
        for _ in range(pairs):
            client.release(tokenpool_take(client, read_fd))

    return loop


def tokenpool_take(client: Any, read_fd: int) -> Any:
    """It never waits by itself: where there is no token, its user has to.

    On a busy machine its timer of 0.1 s fires now and then before its read, and takes the descriptor away: a TypeError.
    """
    while True:
        try:
            token = client.acquire()
        except TypeError:
            continue
        if token is not None:
            return token
        select([read_fd], [], [])


def semaphore_loop(semaphore: Any) -> Loop:
    def loop(pairs: int) -> None:
        for _ in range(pairs):
            with semaphore:
                pass

    return loop


def of_multiprocessing(_: str, stack: ExitStack) -> Loop:
    return semaphore_loop(multiprocessing.get_context("fork").Semaphore(TOKENS))


def of_posix(_: str, stack: ExitStack) -> Loop:
    package = wanted("posix_ipc")
    semaphore = package.Semaphore(None, package.O_CREX, initial_value=TOKENS)
    stack.callback(semaphore.close)
    semaphore.unlink()
    return semaphore_loop(semaphore)


def of_threading(_: str, stack: ExitStack) -> Loop:
    return semaphore_loop(threading.Semaphore(TOKENS))


def of_filelock(_: str, stack: ExitStack) -> Loop:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    return semaphore_loop(wanted("filelock").FileLock(Path(directory, "lock")))


def thread_pool(_: str, stack: ExitStack) -> Loop:
    items = stack.enter_context(ThreadPoolExecutor(1))
    return lambda pairs: [items.submit(nothing).result() for _ in range(pairs)]


LIMIT = Pairs("C: read, write (the limit)", limit)
BARE = Pairs("os.write(w, os.read(r, 1))", bare)
CRATE = "Rust: jobserver"
TOKENPOOL = f"gnumake-tokenpool {version('gnumake-tokenpool')}"

OURS = (
    Pairs("C: jobserver_token_take, _give", core("core_pairs")),
    Pairs("C: jobserver_take_raw, jobserver_release_raw", core("core_raw_pairs")),
    Pairs("client.release_raw(client.acquire_raw())", joined(raw), most=1.25),
    Pairs("with client.acquire()", joined(acquire), most=2.0),
    Pairs("with client.acquire(timeout=60)", joined(acquire_timeout), divisor=2),
    Pairs("client.try_acquire(), .release()", joined(try_acquire)),
    Pairs("with client.slot(), no implicit slot", joined(slot)),
    Pairs("with client.slot(), the implicit one: no system call", implicit_slot),
    Pairs("async with await tokens.acquire()", event_loop, divisor=3),
    Pairs("JobserverExecutor.submit().result()", executor, divisor=50),
    Pairs("own pipe: with client.acquire()", made(acquire, "pipe")),
    Pairs("shared description: with client.acquire()", on_a_shared_description),
    Pairs("fifo: with client.acquire()", joined(acquire), pool="fifo"),
    Pairs("fifo: client.release_raw(client.acquire_raw())", joined(raw), pool="fifo"),
    Pairs("own fifo: with client.acquire()", made(acquire, "fifo")),
)
PEERS = (
    Pairs("fifo: C: read, write", limit, pool="fifo"),
    Pairs("fifo: os.write(w, os.read(r, 1))", bare, pool="fifo"),
    Pairs(f"{CRATE}: acquire, drop", crate("crate_pairs")),
    Pairs(f"{CRATE}: acquire_raw, release_raw", crate("crate_raw_pairs")),
    Pairs(f"{TOKENPOOL}: release(acquire())", tokenpool, divisor=10),
)
OTHER_THINGS = (
    Pairs("not the protocol: multiprocessing.Semaphore", of_multiprocessing),
    Pairs("not the protocol: posix_ipc.Semaphore", of_posix),
    Pairs("one process only: threading.Semaphore", of_threading),
    Pairs("one token only: filelock", of_filelock, divisor=100),
    Pairs("no jobserver: ThreadPoolExecutor.submit().result()", thread_pool, divisor=50),
)


def begin(contestant: Pairs, stack: ExitStack) -> Loop | None:
    """The loop of a contestant, with a pool of its own; None, with a left_out, where it is missing."""
    try:
        return contestant.begin(stack.enter_context(pool(contestant.pool)), stack)
    except Missing as error:
        left_out(str(error))
        return None
