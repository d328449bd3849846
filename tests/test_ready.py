"""A slot, or a child that exits, or output that comes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from jobserver_ffi import Acquired, AcquireTimeout, Client
from jobserver_ffi.event import Event

from .conftest import open_descriptors, wait_until_asleep

pytestmark = pytest.mark.quick

GUARD = 120
UNTIL_TOLD = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def child() -> subprocess.Popen[bytes]:
    """A child that ends when its standard input does."""
    return subprocess.Popen(UNTIL_TOLD, stdin=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def wait_and_leave(process: subprocess.Popen[bytes]) -> None:
    """Waits until the child has exited, and leaves it to be reaped where there is such a thing."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def soon(action: object) -> threading.Thread:
    """Does this in another thread when the main one sleeps."""

    def run() -> None:
        wait_until_asleep(os.getpid())
        action()  # type: ignore[operator]

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_token_that_is_free() -> None:
    with Client(1) as client, child() as process:
        slot, found = client.slot_or_ready([process])
        assert slot is not None
        assert found == []
        slot.release()
        end(process)


def test_a_child_that_exits() -> None:
    with Client(1) as client, client.acquire(), child() as one, child() as other:
        thread = soon(lambda: end(other))
        assert client.slot_or_ready([one, other]) == (None, [other])
        assert other.returncode is None  # it is the caller's to reap
        assert other.wait() == 0
        assert client.slot_or_ready([one, other]) == (None, [other])
        end(one)
        thread.join()


@pytest.mark.needs("children that are reaped")
def test_a_child_that_somebody_else_reaped() -> None:
    with Client(1) as client, child() as process:
        end(process)
        os.waitpid(process.pid, 0)
        assert client.slot_or_ready([process]) == (None, [process])


def test_what_is_ready_goes_before_a_free_token() -> None:
    with Client(1) as client, child() as process:
        end(process)
        wait_and_leave(process)
        assert client.slot_or_ready([process]) == (None, [process])
        assert client.available() == 1


def test_a_token_that_comes() -> None:
    with Client(1) as client, child() as process:
        held = client.acquire()
        thread = soon(held.release)
        slot, found = client.slot_or_ready([process])
        assert slot is not None
        assert found == []
        slot.release()
        thread.join()
        end(process)


@pytest.mark.needs("descriptors to wait for")
def test_output_that_comes() -> None:
    read_fd, write_fd = os.pipe()
    with Client(1) as client, client.acquire(), open(read_fd, "rb") as reader:
        thread = soon(lambda: os.write(write_fd, b"x"))
        assert client.slot_or_ready([reader]) == (None, [reader])
        assert client.slot_or_ready([read_fd]) == (None, [read_fd])
        thread.join()
    os.close(write_fd)


def test_a_limit_of_time() -> None:
    never = Event()
    with Client(1) as client, client.acquire():
        assert client.slot_or_ready([never.waitable], 0) == (None, [])
        assert client.slot_or_ready([never.waitable], 0.001) == (None, [])
        assert client.slot_or_ready([], 0.001) == (None, [])
    with pytest.raises(ValueError, match="timeout=-1"):
        client.slot_or_ready([], -1)


@pytest.mark.needs("descriptors that can be counted")
def test_nothing_stays_open() -> None:
    with Client(1) as client, client.acquire(), child() as process:
        counts = set()
        for _ in range(10):
            assert client.slot_or_ready([process], 0.001) == (None, [])
            counts.add(open_descriptors())
        assert len(counts) == 1
        end(process)


IMPLICIT = """\
import sys, threading
from jobserver_ffi import Client
from jobserver_ffi.event import Event

client, never = Client.from_env(), Event()
first = client.slot()
assert first.implicit and client.available() == 0
got = []
thread = threading.Thread(target=lambda: got.append({wait}))
thread.start()
{asleep}
first.release()
thread.join(120)
assert not thread.is_alive(), "the free implicit slot woke nobody"
assert got[0].implicit
"""


@pytest.mark.parametrize("wait", ["client.slot()", "client.slot(99)", "client.slot_or_ready([never.waitable], 99)[0]"])
def test_the_implicit_slot_that_becomes_free_ends_the_wait(wait: str) -> None:
    """With no token in the pool the implicit slot is all that there is: who waits for a slot must get it."""
    asleep = "from tests.conftest import wait_until_asleep; import os; wait_until_asleep(os.getpid(), thread.native_id)"
    program = IMPLICIT.format(wait=wait, asleep=asleep)
    with Client(0) as server:
        server.run([sys.executable, "-c", program], check=True, timeout=GUARD)


def test_waiting_for_a_slot_ends_in_time() -> None:
    program = (
        "from jobserver_ffi import *\nclient = Client.from_env()\nfirst = client.slot()\n"
        "try: client.slot(0.01)\nexcept AcquireTimeout as error: print(error)\n"
    )
    with Client(0) as server:
        done = server.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=GUARD)
    assert "no token became free within 0.01 s" in done.stdout


def test_a_scheduler_as_make_has_it() -> None:
    """Forty jobs on three slots: the loop of a build tool, with one wait for both."""
    running: dict[subprocess.Popen[bytes], Acquired] = {}
    left, peak = 40, 0
    deadline = time.monotonic() + GUARD
    with Client(3) as client:
        while left or running:
            assert time.monotonic() < deadline
            slot, exited = None, list(running)
            if left:
                slot, exited = client.slot_or_ready(running)
            if slot is not None:
                running[subprocess.Popen([sys.executable, "-S", "-c", ""])] = slot
                left -= 1
            for process in exited:
                assert process.wait() == 0
                running.pop(process).release()
            peak = max(peak, len(running))
        assert peak == 3


def test_many_waits_lose_no_token() -> None:
    """Waits that end by the token, by something else and by time, all mixed up."""
    other = Event()
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            other.set()
            other.clear()

    def take() -> None:
        for turn in range(300):
            slot, _ = client.slot_or_ready([other.waitable], turn % 3 * 0.0005)
            if slot is not None:
                slot.release()

    with Client(1) as client:
        threads = [threading.Thread(target=take) for _ in range(4)]
        disturber = threading.Thread(target=disturb)
        disturber.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        disturber.join()
        with pytest.raises(AcquireTimeout), client.acquire():
            client.acquire(0)
