"""What a finaliser calls may come in the middle of any method, in any thread: nothing hangs, nothing is lost.

Each test runs a scenario again and again, and calls one method at another instant of it each time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest

import jobserver_ffi.acquired
import jobserver_ffi.aio
import jobserver_ffi.client
import jobserver_ffi.helper
import jobserver_ffi.lease
import jobserver_ffi.lease_events
import jobserver_ffi.observed
import jobserver_ffi.pending
import jobserver_ffi.pool
import jobserver_ffi.pool_threads
import jobserver_ffi.work_queue
import jobserver_ffi.worker_processes
import jobserver_ffi.worker_threads
from jobserver_ffi import (
    Acquired,
    AcquiredBatch,
    Client,
    EventKind,
    HelperClosed,
    HelperThread,
    JobserverError,
    JobserverEvent,
    JobserverExecutor,
    Lease,
    Pool,
)
from jobserver_ffi.aio import AsyncAcquired, AsyncClient
from jobserver_ffi.create import STYLES

from .conftest import LONG
from .instants import Instant, at_each_instant

pytestmark = [
    pytest.mark.quick,
    pytest.mark.needs("objects that end when they are dropped"),
    pytest.mark.thread_unsafe(reason="traces all threads"),
]

GUARD = 60

CLIENT_CALLS: dict[str, Callable[[Client], Acquired | AcquiredBatch | None]] = {
    "try_acquire": lambda client: client.try_acquire(),
    "acquire_many": lambda client: client.acquire_many(2, timeout=0),
    "slot": lambda client: client.slot(timeout=0),
    "close": lambda client: client.close(),
}


@pytest.mark.parametrize("call", CLIENT_CALLS)
@pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])
def test_in_a_client(observed: bool, call: str) -> None:
    modules = jobserver_ffi.client, jobserver_ffi.acquired, jobserver_ffi.observed

    def use(client: Client) -> None:
        with client.acquire(), client.slot(0.1):
            client.acquire_many(2, timeout=0).release()
        token = client.try_acquire()
        assert token is not None
        client.release_raw(token.drop_without_releasing())
        client.acquire_many(3, minimum=2, timeout=0.1)

    def scenario(number: int) -> bool:
        told: list[JobserverEvent] = []
        client = Client(4, on_event=told.append if observed else None)
        count = client.configure()  # keeps the pipe open
        kept: list[Acquired | AcquiredBatch | None] = []
        instant = Instant(number, lambda: kept.append(CLIENT_CALLS[call](client)), *modules)
        with instant.traced():
            try:
                use(client)
            except JobserverError:
                assert instant.reached, "an error for no reason"
        for holder in kept:
            if holder is not None:
                holder.release()
        with Client.open(client.auth) as witness:
            assert witness.available() == 4, instant.where
        client.close()
        del count
        return instant.reached

    at_each_instant(scenario)


POOL_CALLS: dict[str, Callable[[Pool, Lease], object]] = {
    "close": lambda pool, _lease: pool.close(),
    "drop": lambda pool, _lease: pool._threads.stop(),  # as __del__ does
    "status": lambda pool, _lease: pool.status(),
    "resize": lambda pool, _lease: pool.resize(3),
    "another lease": lambda pool, _lease: pool.lease("other", style=STYLES[0]).configure(slot_timeout=0),
    "close the lease": lambda _pool, lease: lease.close(),
    "start the lease": lambda _pool, lease: lease.configure(slot_timeout=0),
}


@pytest.mark.parametrize("call", POOL_CALLS)
def test_in_a_pool(call: str) -> None:
    modules = jobserver_ffi.pool, jobserver_ffi.pool_threads, jobserver_ffi.lease, jobserver_ffi.lease_events

    def scenario(number: int) -> bool:
        told: list[JobserverEvent] = []
        made: list[tuple[Pool, Lease]] = []
        instant = Instant(number, lambda: made and POOL_CALLS[call](*made[0]), *modules)
        with instant.traced():
            pool = Pool(2, on_event=told.append)
            made.append((pool, pool.lease("one", style=STYLES[0])))
            try:
                made[0][1].configure(slot_timeout=GUARD)
                pool.lease("two", style=STYLES[0])._opened()
                made[0][1].close()
                pool.status()
            except JobserverError:
                assert instant.reached, "an error for no reason"
            pool.close()
        opened, ended = ([event.lease for event in told if event.kind is kind] for kind in OPENED_AND_ENDED)
        assert sorted(opened) == sorted(ended), instant.where
        return instant.reached

    at_each_instant(scenario, step=1 if LONG else 5)


OPENED_AND_ENDED = EventKind.LEASE_OPENED, EventKind.LEASE_ENDED

HELPER_CALLS: dict[str, Callable[[HelperThread], object]] = {
    "request_token": lambda helper: helper.request_token(),
    "cancel": lambda helper: helper.request_token().cancel(),
    "close": lambda helper: helper.close(),
    "drop": lambda helper: helper._queue.close(),  # as __del__ does
}


@pytest.mark.parametrize("call", HELPER_CALLS)
def test_in_a_helper_thread(call: str) -> None:
    def scenario(number: int) -> bool:
        with Client(2) as client:
            helpers: list[HelperThread] = []
            futures: list[Future[Acquired]] = []

            def finaliser() -> None:
                for helper in helpers:
                    made = HELPER_CALLS[call](helper)
                    if isinstance(made, Future):
                        futures.append(made)

            instant = Instant(number, finaliser, jobserver_ffi.helper)
            with instant.traced():
                helpers.append(client.into_helper_thread(lambda future: future.result().release()))
                with suppress(HelperClosed):
                    futures += [helpers[0].request_token() for _ in range(3)]
                    futures[0].cancel()
                    futures.append(helpers[0].request_token())
                if call in ("request_token", "cancel"):
                    futures[-1].exception(GUARD)
                helpers[0].close()
            assert all(future.done() for future in futures), "a request was forgotten"
            del helpers[:], futures[:]
            assert client.available() == 2, instant.where
            return instant.reached

    at_each_instant(scenario)


EXECUTOR_CALLS: dict[str, Callable[[JobserverExecutor], object]] = {
    "submit": lambda executor: executor.submit(abs, -7),
    "shutdown": lambda executor: executor.shutdown(),
    "shutdown without waiting": lambda executor: executor.shutdown(wait=False, cancel_futures=True),
    "drop": lambda executor: executor.__del__(),
}


@pytest.mark.parametrize("call", EXECUTOR_CALLS)
@pytest.mark.parametrize("workers", [1, 2])
def test_in_an_executor(workers: int, call: str) -> None:
    modules = jobserver_ffi.work_queue, jobserver_ffi.worker_threads

    def scenario(number: int) -> bool:
        with Client(2) as client:
            executor = JobserverExecutor(client, workers)
            more: list[Any] = []
            instant = Instant(number, lambda: more.append(EXECUTOR_CALLS[call](executor)), *modules)
            futures: list[Future[int]] = []
            with instant.traced():
                with suppress(RuntimeError):  # it was shut down
                    futures += [executor.submit(abs, -number) for number in range(3)]
                    futures[1].cancel()
                executor.shutdown()
            for future in (*futures, *(one for one in more if isinstance(one, Future))):
                assert future.cancelled() or future.exception(GUARD) is None, instant.where
            assert executor._queue is not None
            assert len(executor._queue.threads) <= workers
            assert not executor._queue.alive, instant.where
            assert client.available() == 2, instant.where
            return instant.reached

    at_each_instant(scenario)


@pytest.mark.needs("fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork of a process with threads
@pytest.mark.parametrize("call", EXECUTOR_CALLS)
def test_in_an_executor_of_processes(call: str) -> None:
    """Only in the thread that submits: the standard library's own threads have locks that a finaliser must not want."""
    modules = jobserver_ffi.work_queue, jobserver_ffi.worker_processes, concurrent.futures.process

    def scenario(number: int) -> bool:
        with Client(2) as client:
            executor = JobserverExecutor(client, 1, kind="process", mp_context=multiprocessing.get_context("fork"))
            futures: list[Future[int]] = []

            def finaliser() -> None:
                made = EXECUTOR_CALLS[call](executor)
                if isinstance(made, Future):
                    futures.append(made)

            instant = Instant(number, finaliser, *modules)
            with instant.traced(threads=False), suppress(RuntimeError):  # it was shut down
                futures.append(executor.submit(abs, -1))
            executor.shutdown()
            for future in futures:
                assert future.cancelled() or future.result(GUARD) >= 0
            assert client.available() == 2, instant.where
            return instant.reached

    at_each_instant(scenario, step=1 if LONG else 11)


LOOP_CALLS: dict[str, Callable[[AsyncClient, AsyncAcquired, asyncio.Task[None]], object]] = {
    "release": lambda _tokens, held, _task: held.release(),
    "close": lambda tokens, _held, _task: tokens.close(),
    "drop": lambda tokens, _held, _task: tokens.__del__(),
    "cancel": lambda tokens, _held, task: tokens._tasks and tokens._tasks.loop.call_soon_threadsafe(task.cancel),
}


@pytest.mark.parametrize("call", LOOP_CALLS)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_in_an_event_loop(call: str) -> None:
    modules = jobserver_ffi.aio, jobserver_ffi.pending

    async def job(tokens: AsyncClient) -> None:
        async with await tokens.acquire():
            await asyncio.sleep(0)

    async def run(number: int, client: Client) -> Instant:
        async with AsyncClient(client) as tokens:
            held = [await tokens.acquire(), await tokens.acquire()]
            jobs: list[asyncio.Task[None]] = []
            instant = Instant(number, lambda: jobs and LOOP_CALLS[call](tokens, held[0], jobs[0]), *modules)
            with instant.traced():
                jobs += [asyncio.ensure_future(job(tokens)) for _ in range(3)]
                many = asyncio.ensure_future(tokens.acquire_many(2))
                await asyncio.sleep(0)
                for token in held:
                    token.release()
                if call in ("release", "cancel"):
                    assert not (await asyncio.wait([*jobs, many], timeout=GUARD))[1], "a task was forgotten"
                for task in (*jobs, many):
                    task.cancel()
                done = await asyncio.gather(*jobs, many, return_exceptions=True)
            for result in done:
                if isinstance(result, BaseException):
                    assert isinstance(result, (HelperClosed, asyncio.CancelledError)), instant.where
                    assert call != "release"
                elif result is not None:
                    result.release()
            return instant

    def scenario(number: int) -> bool:
        with Client(2) as client:
            instant = asyncio.run(run(number, client))
            assert client.available() == 2, instant.where
            return instant.reached

    at_each_instant(scenario)
