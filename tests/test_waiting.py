"""All ways to wait at once: in many processes, under fork, signals and exit, the pool stays whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobserver_ffi import Client

from .conftest import LONG, TokenPipe, wait_until_asleep

GUARD = 120
NewPipe = Callable[[bytes], TokenPipe]

# How long all kinds of waiters are at it; a minute in the weekly run.
SOAK_SECONDS = 60.0 if LONG else 3.0

SOAK = """\
import asyncio, os, queue, random, subprocess, sys, threading, time
from concurrent.futures import wait
from jobserver_ffi import AcquireTimeout, Client, JobserverExecutor
from jobserver_ffi.aio import AsyncClient

client = Client.open(sys.argv[1])
end = time.monotonic() + float(sys.argv[2])
random.seed(int(sys.argv[3]))
counts = {}

def going(kind):
    counts[kind] = counts.get(kind, 0) + 1
    return time.monotonic() < end

def hold():
    time.sleep(random.random() / 2000)

def plain():
    while going("plain"):
        with client.acquire():
            hold()

def timed():
    while going("timed"):
        try:
            with client.acquire(random.random() / 200):
                hold()
        except AcquireTimeout:
            pass

def many():
    while going("many"):
        try:
            with client.acquire_many(3, minimum=random.choice((1, 2)), timeout=random.random() / 20):
                hold()
        except AcquireTimeout:
            pass

def helper():
    got = queue.Queue()
    while going("helper"):
        with client.into_helper_thread(lambda future: got.put(future.result())) as thread:
            asked = [thread.request_token() for _ in range(4)]
            random.choice(asked).cancel()
            hold()
        asked.clear()
        while not got.empty():
            got.get().release()

def ready():
    while going("ready"):
        child = subprocess.Popen(["/bin/true"])
        found = []
        while not found:
            slot, found = client.slot_or_ready([child])
            if slot is not None:
                slot.release()
        child.wait()

def executor():
    while going("executor"):
        with JobserverExecutor(client, 4) as pool:
            wait([pool.submit(hold) for _ in range(8)])

async def tasks():
    async with AsyncClient(client) as tokens:
        async def one():
            async with await tokens.acquire():
                await asyncio.sleep(random.random() / 2000)
        while going("tasks"):
            all_tasks = [asyncio.create_task(one()) for _ in range(8)]
            asyncio.get_running_loop().call_later(random.random() / 200, random.choice(all_tasks).cancel)
            await asyncio.gather(*all_tasks, return_exceptions=True)

threads = [threading.Thread(target=kind) for kind in (plain, timed, many, helper, ready, executor)]
threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(counts) == 7 and all(count > 1 for count in counts.values()), counts
"""


@pytest.mark.timeout(SOAK_SECONDS + 2 * GUARD)
def test_all_kinds_of_waiters_in_eight_processes(whole: NewPipe) -> None:
    pipe = whole(b"abcdefgh")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SOAK, pipe.auth, str(SOAK_SECONDS), str(number)],
            pass_fds=(pipe.read_fd, pipe.write_fd),
        )
        for number in range(8)
    ]
    try:
        deadline = time.monotonic() + SOAK_SECONDS + GUARD
        for process in processes:
            assert process.wait(deadline - time.monotonic()) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


# One program for each kind: it waits for a token, and never gets one.
BLOCKED = {
    "acquire": "client.acquire()",
    "timeout": "client.acquire(600)",
    "many": "client.acquire_many(2, minimum=2)",
    "many with timeout": "client.acquire_many(2, minimum=2, timeout=600)",
    "after a try": "client.try_acquire(); client.acquire()",
    "ready": "client.slot_or_ready([], 600)",
    "helper": "h = client.into_helper_thread(print); h.request_token(); threading.Event().wait()",
    "asyncio": "asyncio.run(wait())",
    "executor": """\
executor = JobserverExecutor(client)
try:
    executor.submit(print).result()
finally:
    executor.shutdown(cancel_futures=True)
""",
}

PROGRAM = """\
import asyncio, os, sys, threading
from jobserver_ffi import Client, JobserverExecutor
from jobserver_ffi.aio import AsyncClient

client = Client.open(sys.argv[1])

async def wait():
    async with AsyncClient(client) as tokens:
        await tokens.acquire()

print("here", flush=True)
{wait}
"""


def wait_until_all_sleep(process: int) -> None:
    """Returns when all threads of the process sleep, and have not been awake in between."""

    def switches() -> list[str]:
        lines = []
        for thread in sorted(Path(f"/proc/{process}/task").iterdir()):
            status = (thread / "status").read_text().splitlines()
            lines += [line for line in status if "ctxt_switches" in line or line.startswith("State")]
        return lines

    end = time.monotonic() + GUARD
    before: list[str] = []
    while True:
        now = switches()
        if now == before and all("S (sleeping)" in line for line in now if line.startswith("State")):
            return
        before = now
        assert time.monotonic() < end
        threading.Event().wait(0.2)  # not to wait for something, but to see that nothing moves


@pytest.mark.parametrize("kind", BLOCKED)
def test_ctrl_c_ends_every_wait(whole: NewPipe, kind: str) -> None:
    """And a blocked waiter of any kind sleeps: no thread of it wakes up."""
    pipe = whole(b"")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(wait=BLOCKED[kind]), pipe.auth],
        pass_fds=(pipe.read_fd, pipe.write_fd),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        wait_until_all_sleep(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=GUARD)
        assert b"KeyboardInterrupt" in errors
        assert process.returncode in (1, -signal.SIGINT, 130)


@pytest.mark.parametrize("kind", ["helper", "asyncio", "executor", "ready", "many with timeout"])
def test_killed_in_the_middle_of_a_wait(whole: NewPipe, kind: str) -> None:
    """Who waits holds nothing, so nothing is lost; and the others go on to be woken."""
    pipe = whole(b"")
    command = [sys.executable, "-c", PROGRAM.format(wait=BLOCKED[kind]), pipe.auth]
    with subprocess.Popen(command, pass_fds=(pipe.read_fd, pipe.write_fd), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        wait_until_all_sleep(process.pid)
        process.kill()
        process.wait()
    os.write(pipe.write_fd, b"a")
    with pipe.client().acquire(GUARD):
        pass
    os.read(pipe.read_fd, 1)


@pytest.mark.needs("fork", "fifo")
def test_forks_in_the_middle_of_waits() -> None:
    """Children of a process whose threads wait in every way: each child uses the pool itself, and ends."""
    from jobserver_ffi import JobserverExecutor

    with Client(2, style="fifo") as client:
        held = client.acquire_many(2)
        helper = client.into_helper_thread(lambda future: future.result().release())
        executor = JobserverExecutor(client, 2)
        helper.request_token()
        item = executor.submit(int)
        threads = [
            threading.Thread(target=lambda: client.acquire().release()),
            threading.Thread(target=lambda: client.acquire(GUARD).release()),
            threading.Thread(target=lambda: client.acquire_many(2, minimum=2).release()),
            threading.Thread(target=lambda: client.acquire_many(2, minimum=2, timeout=GUARD).release()),
        ]
        for thread in threads:
            thread.start()
            assert thread.native_id is not None
        wait_until_asleep(os.getpid(), threads[0].native_id)
        children = []
        for _ in range(10):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    with client.acquire(GUARD):
                        time.sleep(random.random() / 1000)
                    with client.acquire_many(2, minimum=2, timeout=GUARD):
                        status = 0
                finally:
                    os._exit(status)
            children.append(child)
        held.release()
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        for thread in threads:
            thread.join(GUARD)
            assert not thread.is_alive()
        assert item.result(GUARD) == 0
        executor.shutdown()
        helper.close()
