"""HelperThread: tokens that another thread waits for."""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager

import pytest

from jobserver_ffi import Acquired, Client, ClientClosed, HelperClosed, HelperThread, PoolGone

from .conftest import TokenPipe, open_descriptors, wait_until_asleep
from .test_fork_and_exit import in_child

pytestmark = pytest.mark.quick

GUARD = 120
NewPipe = Callable[[bytes], TokenPipe]


@contextmanager
def helper_of(client: Client) -> Iterator[tuple[HelperThread, queue.Queue[Future[Acquired]]]]:
    """A helper, and the futures that its callback got."""
    delivered: queue.Queue[Future[Acquired]] = queue.Queue()
    with client.into_helper_thread(delivered.put) as helper:
        yield helper, delivered


def native_id(helper: HelperThread) -> int:
    number = helper._thread._thread.native_id
    assert number is not None
    return number


def test_each_request_gets_one_token_in_order(whole: NewPipe) -> None:
    client = whole(b"abc").client()
    with helper_of(client) as (helper, delivered):
        asked = [helper.request_token() for _ in range(5)]
        for future in asked[:3]:
            assert delivered.get(timeout=GUARD) is future
        assert client.available() == 0
        assert not asked[3].done()
        asked[1].result().release()
        assert delivered.get(timeout=GUARD) is asked[3]
        for future in (asked[0], asked[2], asked[3]):
            future.result().release()
        delivered.get(timeout=GUARD).result().release()
    assert all(future.done() for future in asked)


def test_the_callback_runs_in_the_helpers_thread() -> None:
    threads: queue.Queue[int] = queue.Queue()
    with Client(1) as client, client.into_helper_thread(lambda _: threads.put(threading.get_native_id())) as helper:
        helper.request_token()
        assert threads.get(timeout=GUARD) == native_id(helper) != threading.get_native_id()


@pytest.mark.needs("objects that end when they are dropped")
@pytest.mark.needs("objects that any thread can end")
def test_a_token_that_nobody_keeps_goes_back() -> None:
    with Client(1) as client, helper_of(client) as (helper, delivered):
        for _ in range(3):
            helper.request_token()
        for _ in range(3):
            delivered.get(timeout=GUARD)


def test_a_withdrawn_request_takes_no_token() -> None:
    with Client(1) as client, helper_of(client) as (helper, delivered):
        held = client.acquire()
        first, second = helper.request_token(), helper.request_token()
        wait_until_asleep(os.getpid(), native_id(helper))
        assert first.cancel()
        held.release()
        assert delivered.get(timeout=GUARD) is second
        assert not second.cancel()
        with pytest.raises(CancelledError):
            first.result()
        second.result().release()
        assert delivered.empty()


def test_the_helper_stops_waiting_when_nobody_wants_a_token() -> None:
    with Client(1) as client, helper_of(client) as (helper, delivered):
        held = client.acquire()
        requests = [helper.request_token() for _ in range(3)]
        wait_until_asleep(os.getpid(), native_id(helper))
        for request in requests:
            request.cancel()
        deadline = time.monotonic() + GUARD
        while not helper._queue.idle:
            assert time.monotonic() < deadline, "it still waits for a token"
            time.sleep(0)
        held.release()
        with client.acquire(GUARD):  # the helper does not take it
            wait_until_asleep(os.getpid(), native_id(helper))
        assert delivered.empty()


def test_an_error_of_the_wait_reaches_the_callback() -> None:
    client = Client(1)
    with helper_of(client) as (helper, delivered):
        client.close()
        helper.request_token()
        with pytest.raises(ClientClosed):
            delivered.get(timeout=GUARD).result()


@pytest.mark.needs("pipe")
def test_the_end_of_the_pool_reaches_the_callback() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with Client.open(f"{ours.fileno()},{ours.fileno()}") as client, helper_of(client) as (helper, delivered):
        helper.request_token()
        wait_until_asleep(os.getpid(), native_id(helper))
        theirs.close()
        with pytest.raises(PoolGone):
            delivered.get(timeout=GUARD).result()
    ours.close()


def test_close_gives_back_and_cancels_what_was_not_delivered() -> None:
    with Client(1) as client:
        held = client.acquire()
        helper = client.into_helper_thread(lambda _: None)
        asked = [helper.request_token() for _ in range(3)]
        wait_until_asleep(os.getpid(), native_id(helper))
        helper.close()
        helper.close()
        assert not helper._thread.is_alive()
        assert all(future.cancelled() for future in asked)
        assert wait(asked, GUARD).done == set(asked)
        held.release()
        with pytest.raises(HelperClosed):
            helper.request_token()


def test_close_waits_for_the_callback_that_runs_and_for_no_other() -> None:
    began, go_on = threading.Event(), threading.Event()
    calls = []

    def callback(future: Future[Acquired]) -> None:
        calls.append(future)
        began.set()
        assert go_on.wait(GUARD)

    with Client(3) as client:
        helper = client.into_helper_thread(callback)
        for _ in range(3):
            helper.request_token()
        assert began.wait(GUARD)
        closing = threading.Thread(target=helper.close)
        closing.start()
        while not helper._queue.closed:
            time.sleep(0)
        assert closing.is_alive()
        go_on.set()
        closing.join(GUARD)
        assert not closing.is_alive()
        assert len(calls) == 1
        calls.clear()


def test_the_callback_may_close_the_helper() -> None:
    done = threading.Event()

    def callback(future: Future[Acquired]) -> None:
        helper.close()
        future.result().release()
        done.set()

    with Client(2) as client:
        helper = client.into_helper_thread(callback)
        helper.request_token()
        assert done.wait(GUARD)
        helper.close()


def test_an_exception_in_the_callback_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: queue.Queue[type[BaseException]] = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.put(args.exc_type))

    def callback(future: Future[Acquired]) -> None:
        future.result().release()
        raise ZeroDivisionError

    with Client(1) as client, client.into_helper_thread(callback) as helper:
        for _ in range(2):
            helper.request_token()
            assert shown.get(timeout=GUARD) is ZeroDivisionError


def test_several_helpers_and_the_client_itself() -> None:
    with Client(3) as client, helper_of(client) as (one, first), helper_of(client) as (other, second):
        one.request_token()
        other.request_token()
        with client.acquire(GUARD):
            tokens = [first.get(timeout=GUARD).result(), second.get(timeout=GUARD).result()]
        for token in tokens:
            token.release()


@pytest.mark.needs("objects that end when they are dropped")
@pytest.mark.needs("descriptors that can be counted")
def test_a_thousand_helpers() -> None:
    descriptors, threads = open_descriptors(), threading.active_count()
    with Client(1) as client:
        held = client.acquire()
        for turn in range(1000):
            helper = client.into_helper_thread(lambda _: None)
            if turn % 2:
                helper.request_token()
            helper.close()
        held.release()
    del helper
    gc.collect()
    assert (open_descriptors(), threading.active_count()) == (descriptors, threads)


def test_dropping_a_helper_warns_and_ends_it() -> None:
    with Client(1) as client:
        helper = client.into_helper_thread(lambda _: None)
        thread = helper._thread
        with pytest.warns(ResourceWarning, match="unclosed <HelperThread"):
            del helper
            gc.collect()
        thread.close()


@pytest.mark.needs("signals")
@pytest.mark.parametrize("handling", ["handled", "blocked"])
def test_signals_are_the_programs(handling: str) -> None:
    """The helper neither uses nor disturbs any signal: it closes with each one handled, or blocked."""
    numbers = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP}
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers if handling == "blocked" else ())
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        with Client(1) as client:
            held = client.acquire()
            with helper_of(client) as (helper, _):
                helper.request_token()
                wait_until_asleep(os.getpid(), native_id(helper))
                for number in numbers:
                    os.kill(os.getpid(), number)
            assert {number: signal.getsignal(number) for number in numbers} == handlers
            held.release()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        deadline = time.monotonic() + GUARD
        while set(came) != numbers and time.monotonic() < deadline:
            time.sleep(0)  # a thread of pytest's, which blocks none, may be about to take them
        assert set(came) == numbers
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.needs("fork")
def test_a_forked_child_is_told() -> None:
    with Client(2) as client, helper_of(client) as (helper, delivered):
        held = client.acquire_many(2)
        asked = helper.request_token()
        wait_until_asleep(os.getpid(), native_id(helper))

        def child() -> None:
            with pytest.raises(HelperClosed, match="forked"):
                helper.request_token()
            helper.close()
            with helper_of(client) as (own, _):
                own.request_token()

        in_child(child)
        held.release()
        assert delivered.get(timeout=GUARD) is asked
        asked.result().release()


PROGRAM = """\
import os, sys, threading
from jobserver_ffi import Client

client = Client.open(sys.argv[1])
got = threading.Event()
tokens = []

def callback(future):
    tokens.append(future)
    got.set()

helper = client.into_helper_thread(callback)
for _ in range({requests}):
    helper.request_token()
assert got.wait(120)
{end}
"""


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "raise KeyboardInterrupt", "del helper, client", "helper.close(); client.close()"]
)
@pytest.mark.parametrize("requests", [2, 9])
def test_a_program_that_ends_gives_all_back(whole: NewPipe, end: str, requests: int) -> None:
    pipe = whole(b"abcd")
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM).format(end=end, requests=requests), pipe.auth]
    done = subprocess.run(command, pass_fds=(pipe.read_fd, pipe.write_fd), stderr=subprocess.PIPE, timeout=GUARD)
    assert done.returncode in (0, 1, 3, -signal.SIGINT), done.stderr
    assert b"Fatal" not in done.stderr
