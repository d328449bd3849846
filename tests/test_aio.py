"""AsyncClient, under asyncio's own loop and under uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from jobserver_ffi import AcquireTimeout, Client, ClientClosed, HelperClosed
from jobserver_ffi.aio import AsyncAcquired, AsyncClient

from .conftest import TokenPipe, missing, wait_until_asleep
from .test_fork_and_exit import in_child

pytestmark = pytest.mark.quick

GUARD = 120
NewPipe = Callable[[bytes], TokenPipe]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.needs("uvloop"))])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in a loop of this kind, with a guard."""
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if request.param == "uvloop":
        try:
            import uvloop
        except ImportError:
            missing("uvloop")
        new_loop = uvloop.new_event_loop

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop = new_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(coroutine, GUARD))
        finally:
            loop.close()

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Lets other tasks run until it is so."""
    while not condition():
        await asyncio.sleep(0)


async def thread_asleep(tokens: AsyncClient) -> None:
    """Returns when the thread of this client sleeps."""
    thread = tokens._thread
    assert thread is not None
    wait_until_asleep(os.getpid(), thread._thread.native_id)


def waiting(tokens: AsyncClient) -> int:
    return 0 if tokens._tasks is None else sum(len(order.futures) for order in tokens._tasks.orders)


def test_a_token_and_its_way_back(run: Run) -> None:
    async def main() -> None:
        with Client(1) as client:
            async with AsyncClient(client) as tokens:
                async with await tokens.acquire() as token:
                    assert client.available() == 0
                    assert not token.implicit
                assert client.available() == 1
                with await tokens.acquire():
                    assert client.available() == 0
                token = await tokens.acquire(5)
                token.release()
                token.release()
                assert client.available() == 1
                assert tokens._thread is None, "a thread where nobody waited"

    run(main())


def test_first_come_first_served(run: Run) -> None:
    served = []

    async def job(tokens: AsyncClient, number: int) -> None:
        async with await tokens.acquire():
            served.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        with Client(3) as client:
            async with AsyncClient(client) as tokens:
                await asyncio.gather(*(job(tokens, number) for number in range(2000)))

    run(main())
    assert served == list(range(2000))


def test_never_more_than_the_pool_has(run: Run) -> None:
    running = peak = 0

    async def job(tokens: AsyncClient) -> None:
        nonlocal running, peak
        async with await tokens.acquire():
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(random.random() / 300)  # longer and shorter than a token may be passed on
            running -= 1

    async def main() -> None:
        with Client(4) as client:
            async with AsyncClient(client) as one, AsyncClient(client) as other:
                await asyncio.gather(*(job(one if number % 2 else other) for number in range(300)))

    run(main())
    assert peak == 4


def test_a_token_that_comes_from_outside(run: Run) -> None:
    async def main() -> None:
        with Client(1) as client:
            held = client.acquire()
            async with AsyncClient(client) as tokens:
                task = asyncio.create_task(tokens.acquire())
                await until(lambda: waiting(tokens) == 1)
                await thread_asleep(tokens)
                held.release()
                async with await task:
                    assert client.available() == 0

    run(main())


def test_a_token_that_was_long_out_goes_through_the_pool(run: Run) -> None:
    """Another process's waiter, that came first, gets it; a young one is passed on."""

    async def main() -> None:
        with Client(1) as client:
            async with AsyncClient(client) as tokens:
                token = await tokens.acquire()
                task = asyncio.create_task(tokens.acquire())
                await until(lambda: waiting(tokens) == 1)
                token._since = float("inf")  # just now
                token.release()
                assert waiting(tokens) == 0
                token = await task
                task = asyncio.create_task(tokens.acquire())
                await until(lambda: waiting(tokens) == 1)
                token._since = float("-inf")
                token.release()
                assert waiting(tokens) == 1
                (await task).release()

    run(main())


def test_limits_of_time(run: Run) -> None:
    async def main() -> None:
        with Client(1) as client, client.acquire():
            async with AsyncClient(client) as tokens:
                for timeout in (0, 0.001):
                    with pytest.raises(AcquireTimeout, match=f"within {timeout} s"):
                        await tokens.acquire(timeout)
                    with pytest.raises(AcquireTimeout):
                        await tokens.acquire_many(3, timeout=timeout)
                with pytest.raises(ValueError, match="timeout=-1"):
                    await tokens.acquire(-1)
                assert waiting(tokens) == 0

    run(main())


def test_many_at_once(run: Run) -> None:
    async def main() -> None:
        with Client(8) as client:
            async with AsyncClient(client) as tokens:

                async def job(minimum: int) -> None:
                    async with await tokens.acquire_many(8, minimum=minimum) as batch:
                        assert minimum <= len(batch) <= 8
                        await asyncio.sleep(0.001)

                await asyncio.gather(*(job(number % 8 + 1) for number in range(60)))
                with pytest.raises(ValueError, match="minimum=9"):
                    await tokens.acquire_many(9, minimum=9)
                held = client.acquire_many(5)
                task = asyncio.create_task(tokens.acquire_many(8, minimum=5))
                later = asyncio.create_task(tokens.acquire())
                await until(lambda: waiting(tokens) == 2)
                await thread_asleep(tokens)
                assert not later.done(), "it came after one that still waits"
                task.cancel()
                (await later).release()
                held.release()

    run(main())


IMPLICIT = """\
import asyncio, sys
from jobserver_ffi import Client
from jobserver_ffi.aio import AsyncClient

async def job(tokens, log):
    async with await tokens.slot() as slot:
        log.append(slot.implicit)
        await asyncio.sleep(0.002)

async def main():
    client = Client.from_env()
    log = []
    async with AsyncClient(client) as tokens:
        await asyncio.gather(*(job(tokens, log) for _ in range(20)))
    assert len(log) == 20 and log[0], log
    assert client.available() or all(log), log

asyncio.run(asyncio.wait_for(main(), 60))
"""


@pytest.mark.parametrize("content", [b"", b"a"])
def test_the_implicit_slot(whole: NewPipe, content: bytes) -> None:
    pipe = whole(content)
    command = [sys.executable, "-c", IMPLICIT]
    environment = {**os.environ, **pipe.environ}
    subprocess.run(command, env=environment, pass_fds=(pipe.read_fd, pipe.write_fd), check=True, timeout=GUARD)


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_a_storm_of_cancellations(run: Run, style: str) -> None:
    async def job(tokens: AsyncClient, turn: int) -> None:
        if turn % 5 == 0:
            async with await tokens.acquire_many(3, minimum=1 + turn % 2):
                await asyncio.sleep(random.random() / 1000)
        elif turn % 7 == 0:
            with pytest.raises(AcquireTimeout):
                while True:
                    async with await tokens.acquire(random.random() / 2000):
                        await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    if random.random() < 0.1:
                        raise AcquireTimeout
        else:
            async with await tokens.acquire():
                await asyncio.sleep(random.random() / 1000)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with Client(3, style=style) as client:
            async with AsyncClient(client) as tokens:
                for _ in range(60):
                    tasks = [asyncio.create_task(job(tokens, turn)) for turn in range(25)]
                    for task in tasks:
                        if random.random() < 0.6:
                            loop.call_later(random.random() / 500, task.cancel)
                    done = await asyncio.gather(*tasks, return_exceptions=True)
                    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in done), done
                assert waiting(tokens) == 0
                batch = await tokens.acquire_many(3, minimum=3)
                batch.release()

    run(main())


def test_cancelled_together_with_the_token(run: Run) -> None:
    """The token is there, but the task was cancelled before it could run: the next one gets it."""

    async def main() -> None:
        with Client(1) as client:
            async with AsyncClient(client) as tokens:
                held = await tokens.acquire()
                held._since = float("inf")
                first = asyncio.create_task(tokens.acquire())
                second = asyncio.create_task(tokens.acquire())
                await until(lambda: waiting(tokens) == 2)
                held.release()
                first.cancel()
                (await second).release()
                assert first.cancelled() or (await asyncio.gather(first, return_exceptions=True))

    run(main())


def test_close_tells_those_who_wait(run: Run) -> None:
    async def main() -> None:
        with Client(1) as client, client.acquire():
            tokens = AsyncClient(client)
            tasks = [asyncio.create_task(tokens.acquire()) for _ in range(3)]
            await until(lambda: waiting(tokens) == 3)
            tokens.close()
            tokens.close()
            for task in tasks:
                with pytest.raises(HelperClosed):
                    await task
            with pytest.raises(HelperClosed):
                await tokens.acquire()

    run(main())


@pytest.mark.needs("pipe")
def test_an_error_of_the_wait_reaches_each_task(run: Run) -> None:
    import socket

    from jobserver_ffi import PoolGone

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with Client.open(f"{ours.fileno()},{ours.fileno()}") as client:
            async with AsyncClient(client) as tokens:
                tasks = [asyncio.create_task(tokens.acquire()) for _ in range(3)]
                await until(lambda: waiting(tokens) == 3)
                theirs.close()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert isinstance(result, PoolGone)
        ours.close()
        with pytest.raises(ClientClosed):
            await AsyncClient(client).acquire()

    run(main())


def test_one_loop_only() -> None:
    with Client(1) as client:
        tokens = AsyncClient(client)
        asyncio.run(use(tokens))
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(use(tokens))


async def use(tokens: AsyncClient) -> None:
    async with await tokens.acquire():
        pass


def test_released_in_another_thread(run: Run) -> None:
    async def main() -> None:
        with Client(1) as client:
            async with AsyncClient(client) as tokens:
                token = await tokens.acquire()
                task = asyncio.create_task(tokens.acquire())
                await until(lambda: waiting(tokens) == 1)
                thread = threading.Thread(target=token.release)
                thread.start()
                (await task).release()
                thread.join()

    run(main())


def test_the_loop_is_closed_while_tasks_wait() -> None:
    """Nobody closed the client: its thread ends when it has a token for a loop that is not there."""
    with Client(1) as client:
        held = client.acquire()
        tokens = AsyncClient(client)
        loop = asyncio.new_event_loop()
        task = loop.create_task(tokens.acquire())
        loop.run_until_complete(until(lambda: waiting(tokens) == 1))
        thread = tokens._thread
        assert thread is not None
        wait_until_asleep(os.getpid(), thread._thread.native_id)
        loop.close()
        held.release()
        thread._thread.join(GUARD)
        assert not thread.is_alive()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        tokens._tasks.orders.clear()  # type: ignore[union-attr]
        del task
        tokens._closed = True
        gc.collect()


@pytest.mark.needs("objects that end when they are dropped")
def test_dropping_a_client_warns_and_ends_its_thread() -> None:
    async def main() -> None:
        with Client(1) as client:
            tokens = AsyncClient(client)
            # No pytest.raises: it would keep the traceback, and with it the client; as does the loop for a turn.
            with client.acquire(), contextlib.suppress(AcquireTimeout):
                await tokens.acquire(0.001)
            await asyncio.sleep(0)
            thread = tokens._thread
            assert thread is not None
            with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):
                del tokens
                gc.collect()
            thread.close()

    asyncio.run(main())


@pytest.mark.needs("fork")
def test_a_forked_child_is_told() -> None:
    async def main() -> None:
        with Client(1) as client:
            async with AsyncClient(client) as tokens, await tokens.acquire():
                with pytest.raises(AcquireTimeout):
                    await tokens.acquire(0.001)
                in_child(lambda: drive(tokens))

    def drive(tokens: AsyncClient) -> None:
        with pytest.raises(HelperClosed, match="forked"):
            tokens._start(tokens._tasks)  # type: ignore[arg-type]

    asyncio.run(main())


PROGRAM = """\
import asyncio, sys
from jobserver_ffi import Client
from jobserver_ffi.aio import AsyncClient

async def main():
    tokens = AsyncClient(Client.open(sys.argv[1]))
    tasks = [asyncio.create_task(tokens.acquire()) for _ in range(9)]
    while sum(task.done() for task in tasks) < 4:
        await asyncio.sleep(0)
    {end}

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise KeyboardInterrupt", "tokens.close()"])
def test_a_program_that_ends_gives_all_back(whole: NewPipe, end: str) -> None:
    pipe = whole(b"abcd")
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM).format(end=end), pipe.auth]
    done = subprocess.run(command, pass_fds=(pipe.read_fd, pipe.write_fd), stderr=subprocess.PIPE, timeout=GUARD)
    assert b"Fatal" not in done.stderr


def test_types_of_what_comes(run: Run) -> None:
    async def main() -> AsyncAcquired:
        with Client(1) as client:
            async with AsyncClient(client) as tokens:
                awaitable: Awaitable[AsyncAcquired] = tokens.acquire()
                token = await awaitable
                token.release()
                return token

    assert isinstance(run(main()), AsyncAcquired)
