"""Handles of the core: reference counts end them, not the garbage collector; and what was closed is not used again."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi import Client, EventKind, JobserverEvent, Lease, LeaseBusy, MinMemory, Pool, PoolClosed
from jobserver_ffi.aio import AsyncClient
from jobserver_ffi.create import STYLES
from jobserver_ffi.event import Event
from jobserver_ffi.handles import Place, observer

from .conftest import open_descriptors

pytestmark = pytest.mark.quick

GUARD = 120


def all_handles() -> Iterator[tuple[str, Any]]:
    """One of each kind, as the package's own objects have them."""
    with Client(4) as client, client.acquire() as token, client.acquire_many(2) as batch:
        yield "client", client._handle
        yield "cell", token._held[0]
        yield "free cell", client._cells[0] if client._cells else client._new_cell()
        yield "batch", batch._batch
        yield "hold", client.configure()["pass_fds"].hold[0]
        yield "event", Event()._handle
        yield "place", Place("client")._place
    with Pool(2) as pool, pool.lease("one") as lease:
        yield "broker", pool._handle
        lease._opened()
        yield "lease", lease._handle
        yield "observer", observer(lease._handle)


@pytest.mark.needs("objects that end when they are dropped")
def test_the_garbage_collector_knows_of_no_handle() -> None:
    found = {kind: gc.is_tracked(handle) for kind, handle in all_handles()}
    assert len(found) == 10
    assert found == dict.fromkeys(found, False)


@pytest.mark.needs("objects that end when they are dropped", "descriptors that can be counted", "pipe")
def test_a_handle_ends_with_its_last_reference() -> None:
    def make_and_drop() -> None:
        client = Client(3)
        held = [client.acquire(), client.acquire_many(2), client.configure(), Event()]
        client.close()
        del client, held
        pool = Pool(2)
        lease = pool.lease("one")
        lease._opened()
        pool.close()
        del lease, pool

    gc.collect()
    gc.disable()
    try:
        make_and_drop()  # what is imported on first use
        before = open_descriptors()
        for _ in range(20):
            make_and_drop()
        assert open_descriptors() == before
    finally:
        gc.enable()


@pytest.mark.needs("objects that end when they are dropped")
def test_a_cell_is_still_there_for_what_the_collector_finalises() -> None:
    """The example by which the fault was found: it handed out 20 of 16 tokens."""
    client = Client(16)
    for token in [client.acquire() for _ in range(12)]:
        token.release()
    kept: list[Any] = []

    class Other:
        def __del__(self) -> None:
            kept.extend(client.try_acquire() for _ in range(4))

    def job() -> Any:
        with client.acquire():
            yield

    def start() -> None:
        box: list[Any] = [Other()]
        for _ in range(12):
            generator = job()
            next(generator)
            box.append(generator)
        box.append(box)

    start()
    gc.collect()
    more = [token for token in (client.try_acquire() for _ in range(17)) if token]
    assert len(kept) + len(more) == 16
    for token in [*kept, *more]:
        token.release()
    assert client.available() == 16
    client.close()


@pytest.mark.needs("objects that end when they are dropped")
def test_a_task_that_nobody_refers_to_gives_its_token_back() -> None:
    with Client(4) as client:

        async def job(tokens: AsyncClient) -> None:
            async with await tokens.acquire():
                await asyncio.get_running_loop().create_future()

        async def main() -> None:
            async with AsyncClient(client) as tokens:
                waiting = asyncio.ensure_future(job(tokens))
                while client.available() == 4:
                    await asyncio.sleep(0)
                waiting._log_destroy_pending = False  # type: ignore[attr-defined]
                del waiting
                gc.collect()
                assert client.available() == 4

        asyncio.run(main())


CALLS_OF_POOL: dict[str, Callable[[Pool], object]] = {
    "lease": lambda pool: pool.lease("two"),
    "resize": lambda pool: pool.resize(3),
    "status": lambda pool: pool.status(),
}

CALLS_OF_LEASE: dict[str, Callable[[Lease], object]] = {
    "configure": lambda lease: lease.configure(slot_timeout=0),
    "popen": lambda lease: lease.popen(["true"], slot_timeout=0),
    "run": lambda lease: lease.run(["true"], slot_timeout=0),
    "watch": lambda lease: lease.watch(1),
    "wait": lambda lease: lease.wait(0),
}


@pytest.mark.parametrize("opened", [False, True], ids=["unused", "opened"])
def test_a_closed_pool_and_its_leases_answer(opened: bool) -> None:
    pool = Pool(2, gates=[MinMemory(1)] if sys.platform == "linux" else [])
    lease = pool.lease("one")
    if opened:
        lease._opened()
    pool.close()
    for call_of_pool in CALLS_OF_POOL.values():
        with pytest.raises(PoolClosed):
            call_of_pool(pool)
    for call in CALLS_OF_LEASE.values():
        with pytest.raises((PoolClosed, LeaseBusy)):
            call(lease)
    assert lease.report().slots == 0
    assert "closed" in repr(pool)
    pool.close()
    lease.close()
    assert lease.report().state == ("ended" if opened else "open")


def test_a_pool_is_closed_while_others_ask_it() -> None:
    """Threads that are inside of it when it is closed end with PoolClosed."""

    def ask(pool: Pool, begun: threading.Barrier, failures: list[BaseException]) -> None:
        begun.wait(GUARD)
        try:
            while True:
                pool.status()
                pool.lease("one", style=STYLES[-1])._opened()
        except BaseException as failure:
            failures.append(failure)

    for _ in range(20):
        pool = Pool(2)
        failures: list[BaseException] = []
        begun = threading.Barrier(4)
        threads = [threading.Thread(target=ask, args=(pool, begun, failures)) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait(GUARD)
        pool.close()
        for thread in threads:
            thread.join(GUARD)
        assert [type(error) for error in failures] == [PoolClosed] * 3


@pytest.mark.parametrize("call", [Event.set, Event.clear, Event.wait], ids=lambda call: call.__name__)
def test_a_closed_event_is_refused(call: Callable[[Event], object]) -> None:
    event = Event(when_implicit_slot_is_free=True)
    event.close()
    with pytest.raises(TypeError):
        call(event)


def test_a_pool_that_is_dropped_waits_for_nobody() -> None:
    """Whoever drops it may have the very lock that the hook wants."""
    lock, told = threading.Lock(), threading.Event()

    def hook(event: JobserverEvent) -> None:
        with lock:
            if event.kind is EventKind.LEASE_ENDED:
                told.set()

    pool = Pool(1, on_event=hook)
    lease = pool.lease("one")
    lease._opened()
    cycle: list[Any] = [pool]
    cycle.append(cycle)
    with lock, pytest.warns(ResourceWarning, match="unclosed"):
        del pool, lease, cycle
        gc.collect()
    assert told.wait(GUARD)


# In a process of its own: what is not closed at its end.
DROPPED_AT_EXIT = """
    import sys
    from pathlib import Path
    from jobserver_ffi import Client, Pool

    outer = Client(4)
    pool = Pool(outer, directory=sys.argv[1])
    lease = pool.lease("one", style="fifo")
    lease.configure(slot_timeout=60)
    assert list(Path(sys.argv[1]).iterdir()), "this is where its fifos are"
    if sys.argv[2] == "dropped":
        del lease, pool
    elif sys.argv[2] == "in a cycle":
        cycle = [pool, lease]
        cycle.append(cycle)
        del cycle, pool, lease
"""


@pytest.mark.needs("fifo", "objects that end when they are dropped")
@pytest.mark.parametrize("how", ["alive", "dropped", "in a cycle"])
def test_the_end_of_the_process_leaves_no_directory(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(DROPPED_AT_EXIT), str(tmp_path), how]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=GUARD, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert list(tmp_path.iterdir()) == []
