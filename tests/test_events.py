"""`on_event` of a client: what is told, that no hook can lose a token, and that a client without one has none of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from jobserver_ffi import (
    Acquired,
    AcquiredBatch,
    AcquireTimeout,
    Client,
    EventKind,
    JobserverEvent,
    JobserverExecutor,
    log_events,
)
from jobserver_ffi.acquired import FREE_THREADED, FreeCells
from jobserver_ffi.aio import AsyncClient

from .conftest import TokenPipe, wait_until_asleep
from .test_fork_and_exit import in_child
from .test_signals import ACTIONS, Alarm, alarm, interrupt  # noqa: F401 - a fixture

pytestmark = pytest.mark.quick

GUARD = 60
NewPipe = Callable[[bytes], TokenPipe]
BEGAN, ENDED, ACQUIRED, RELEASED = (
    EventKind.WAIT_BEGAN,
    EventKind.WAIT_ENDED,
    EventKind.ACQUIRED,
    EventKind.RELEASED,
)


class Told(list[JobserverEvent]):
    """A hook that remembers what it was told."""

    def __call__(self, event: JobserverEvent) -> None:
        self.append(event)

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self]


@pytest.fixture
def told() -> Told:
    return Told()


@contextmanager
def waiting(client: Client, wait: Callable[[], object]) -> Iterator[threading.Thread]:
    """A thread that waits for a token; it has got one, and ended, when the context does."""
    thread = threading.Thread(target=wait)
    thread.start()
    assert thread.native_id is not None
    wait_until_asleep(os.getpid(), thread.native_id)
    yield thread
    thread.join(GUARD)
    assert not thread.is_alive()


# Off.


def test_a_client_without_a_hook_is_none_that_could_have_one() -> None:
    with Client(2) as client:
        assert type(client) is Client
        assert type(client._cells) is (FreeCells if FREE_THREADED else list)


def test_nothing_of_it_is_imported_without_a_hook() -> None:
    program = (
        "import sys; from jobserver_ffi import Client\n"
        "with Client(2) as client, client.acquire(), client.acquire_many(1): pass\n"
        "sys.exit(any(name in sys.modules for name in ('jobserver_ffi.hooks', 'jobserver_ffi.observed', 'logging')))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=GUARD).returncode == 0


# What is told.


def once(client: Client) -> None:
    with client.acquire():
        pass


def once_or_not(client: Client) -> None:
    with client.acquire(0):
        pass


def tried(client: Client) -> None:
    token = client.try_acquire()
    assert token is not None
    token.release()
    token.release()


def in_a_slot(client: Client) -> None:
    with client.slot():
        pass


def raw(client: Client) -> None:
    client.release_raw(client.acquire_raw())


def made_raw(client: Client) -> None:
    client.release_raw(client.acquire().drop_without_releasing())


def batch(client: Client) -> None:
    with client.acquire_many(1):
        pass


def helper_thread(client: Client) -> None:
    done = threading.Event()

    def use(future: Future[Acquired]) -> None:
        future.result().release()
        done.set()

    with client.into_helper_thread(use) as helper:
        helper.request_token()
        assert done.wait(GUARD)


def event_loop(client: Client) -> None:
    async def loop() -> None:
        async with AsyncClient(client) as tokens, await tokens.acquire():
            pass

    asyncio.run(loop())


def batch_in_event_loop(client: Client) -> None:
    async def loop() -> None:
        async with AsyncClient(client) as tokens, await tokens.acquire_many(1):
            pass

    asyncio.run(loop())


def executor(client: Client) -> None:
    with JobserverExecutor(client) as items:
        assert items.submit(int).result(GUARD) == 0


DOORS = [
    once,
    once_or_not,
    tried,
    in_a_slot,
    raw,
    made_raw,
    batch,
    helper_thread,
    event_loop,
    batch_in_event_loop,
    executor,
]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_tells_of_taking_and_giving_back(door: Callable[[Client], None], told: Told) -> None:
    before = time.monotonic()
    with Client(2, on_event=told) as client:
        door(client)
        assert [(event.kind, event.tokens, event.name) for event in told] == [
            (ACQUIRED, 1, client.auth),
            (RELEASED, 1, client.auth),
        ]
    acquired, released = told
    assert before <= acquired.time <= released.time <= time.monotonic()
    assert acquired.waited == 0 and not released.dropped
    if "raw" not in door.__name__:
        assert released.held is not None and 0 <= released.held <= released.time - before


def test_a_batch_is_one_event(told: Told) -> None:
    with Client(5, on_event=told) as client, client.acquire_many(3):
        assert [(event.kind, event.tokens) for event in told] == [(ACQUIRED, 3)]
    assert [(event.kind, event.tokens) for event in told[1:]] == [(RELEASED, 3)]


@pytest.mark.needs("pipe")
def test_joined_clients_and_the_implicit_slot(whole: NewPipe) -> None:
    pipe = whole(b"a")
    program = (
        "import sys; from jobserver_ffi import Client\n"
        "told = []; client = Client.from_env(on_event=told.append)\n"
        "with client.slot(), client.slot(): pass\n"
        "print([(event.kind.name, event.implicit) for event in told]); client.close()"
    )
    environment = {**os.environ, **pipe.environ}
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        pass_fds=(pipe.read_fd, pipe.write_fd),
        stdout=subprocess.PIPE,
        check=True,
        timeout=GUARD,
    ).stdout
    slots = [("ACQUIRED", True), ("ACQUIRED", False), ("RELEASED", False), ("RELEASED", True)]
    assert printed.decode().strip() == str(slots)


@pytest.mark.parametrize("wait", [once, in_a_slot, raw, batch, executor])
def test_a_wait_is_told_where_it_is(wait: Callable[[Client], None], told: Told, whole: NewPipe) -> None:
    pipe = whole(b"a")
    threads: list[threading.Thread] = []
    ours = Client.open(pipe.auth)

    def hook(event: JobserverEvent) -> None:
        told(event)
        threads.append(threading.current_thread())

    with Client.open(pipe.auth, on_event=hook) as client, ours:
        held = ours.acquire()
        thread = threading.Thread(target=wait, args=(client,))
        thread.start()
        deadline = time.monotonic() + GUARD
        while not told and time.monotonic() < deadline:
            time.sleep(0)
        assert told.kinds() == [BEGAN]
        held.release()
        thread.join(GUARD)
        assert not thread.is_alive()
    assert told.kinds() == [BEGAN, ENDED, ACQUIRED, RELEASED]
    began, ended, acquired, _ = told
    assert 0 < ended.waited <= ended.time - began.time and (ended.tokens, ended.error) == (1, "")
    assert acquired.waited == ended.waited
    if wait is not executor:
        assert set(threads) == {thread}


def test_a_wait_that_brings_nothing(told: Told) -> None:
    with Client(1, on_event=told) as client, client.acquire():
        for wait in (client.acquire, client.acquire_raw, client.slot, partial(client.acquire_many, 1)):
            told.clear()
            with pytest.raises(AcquireTimeout):
                wait(timeout=0.1)
            assert told.kinds() == [BEGAN, ENDED]
            # Where the clock ticks in 16 ms what is measured may be less than the timeout.
            assert (told[1].tokens, told[1].error) == (0, "AcquireTimeout") and told[1].waited > 0.05
        told.clear()
        for wait in (client.acquire, client.acquire_raw, client.slot, partial(client.acquire_many, 1)):
            with pytest.raises(AcquireTimeout):
                wait(timeout=0)
        assert client.try_acquire() is None
        assert told == [], "who does not wait tells of no wait"
        with pytest.raises(ValueError):
            client.acquire(-1)
        with pytest.raises(ValueError):
            client.acquire_many(0)


@pytest.mark.needs("descriptors to wait for")
def test_a_wait_that_something_else_ends(told: Told) -> None:
    read_fd, write_fd = os.pipe()
    with Client(0, on_event=told) as client, waiting(client, lambda: client.slot_or_ready([read_fd])):
        os.write(write_fd, b"x")
    os.close(read_fd)
    os.close(write_fd)
    assert [(event.kind, event.tokens, event.error) for event in told] == [(BEGAN, 0, ""), (ENDED, 0, "")]


@pytest.mark.needs("objects that any thread can end")
def test_what_is_dropped_is_told_by_the_next_call(told: Told) -> None:
    client = Client(5, on_event=told)
    held = [client.acquire(), client.acquire_many(3)]
    while held:
        held.pop(0)
    gc.collect()
    assert told.kinds() == [ACQUIRED, ACQUIRED], "a destructor runs anywhere, so it calls nobody"
    assert client.available() == 5
    client.try_acquire()
    gc.collect()
    assert [(event.kind, event.tokens, event.dropped) for event in told[2:]] == [
        (RELEASED, 1, True),
        (RELEASED, 3, True),
        (ACQUIRED, 1, False),
    ]
    client.close()
    assert told[-1].dropped and told[-1].held is None


def test_a_class_of_clients_of_ones_own(told: Told) -> None:
    class Counting(Client):
        __slots__ = ("calls",)
        calls: int

        def acquire(self, timeout: float | None = None) -> Any:
            self.calls += 1
            return super().acquire(timeout)

    with Counting(1, on_event=told) as client, Counting(1) as silent:
        for each in (client, silent):
            assert isinstance(each, Counting)
            each.calls = 0
            with each.acquire():
                assert each.calls == 1
    assert told.kinds() == [ACQUIRED, RELEASED]


@pytest.mark.needs("fork", "objects that any thread can end")
def test_a_forked_child_tells_nothing_of_its_parents_tokens(told: Told) -> None:
    with Client(3, on_event=told) as client:
        mine: list[Acquired | AcquiredBatch] = [client.acquire(), client.acquire_many(1)]

        def child() -> None:
            told.clear()
            mine.pop(0).release()
            mine.clear()
            gc.collect()
            with client.acquire():
                pass
            assert told.kinds() == [ACQUIRED, RELEASED], told

        in_child(child)
        told.clear()
        for holder in mine:
            holder.release()
        assert told.kinds() == [RELEASED, RELEASED]


# What the hook does wrong.


@pytest.mark.parametrize("door", DOORS)
def test_what_a_hook_raises_is_shown_and_ends_nothing(
    door: Callable[[Client], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)

    def hook(event: JobserverEvent) -> None:
        raise RuntimeError(event.kind.name)

    with Client(2, on_event=hook) as client:
        door(client)
        assert client.available() == 2
    assert [str(args.exc_value) for args in shown] == ["ACQUIRED", "RELEASED"]


def wait_once(client: Client) -> None:
    with client.acquire(GUARD):
        pass


def wait_batch(client: Client) -> None:
    with client.acquire_many(1, timeout=GUARD):
        pass


@pytest.mark.parametrize("kind", [BEGAN, ENDED, ACQUIRED, RELEASED])
@pytest.mark.parametrize("wait", [wait_once, wait_batch])
def test_ctrl_c_in_a_hook_gives_the_token_back_at_once(
    wait: Callable[[Client], None], kind: EventKind, whole: NewPipe
) -> None:
    pipe = whole(b"a")
    other = pipe.client()
    held = [other.acquire()]

    def hook(event: JobserverEvent) -> None:
        if event.kind is BEGAN:
            held.pop().release()  # what it waits for comes at once
        if event.kind is kind:
            raise KeyboardInterrupt

    with Client.open(pipe.auth, on_event=hook) as client:
        with pytest.raises(KeyboardInterrupt) as caught:
            wait(client)
        assert other.available() == 1, "the traceback keeps nothing that is held"
        del caught


@pytest.mark.needs("signals")
@pytest.mark.parametrize("action", ACTIONS)
def test_a_storm_of_raising_signals_loses_no_token(
    action: Callable[[Client], None],
    whole: NewPipe,
    alarm: Alarm,  # noqa: F811
    told: Told,
) -> None:
    with Client.open(whole(b"abcd").auth, on_event=told) as client:
        assert interrupt(action, client, alarm, 1_000) == 1_000
        gc.collect()
        assert client.available() == 4


def test_a_hook_may_use_another_client_and_its_own() -> None:
    """It is called outside of every lock, and what it takes itself is told too."""
    told = Told()

    def hook(event: JobserverEvent) -> None:
        told(event)
        if len(told) == 1:
            with client.acquire(GUARD), other.acquire(GUARD):
                pass

    with Client(2, on_event=hook) as client, Client(1, on_event=told) as other, client.acquire():
        pass
    assert told.kinds() == [ACQUIRED] * 3 + [RELEASED] * 3


# Logging.


def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "jobserver_ffi")
    with Client(1, on_event=log_events()) as client, client.acquire(), pytest.raises(AcquireTimeout):
        client.acquire(0.001)
    lines = [record.getMessage() for record in caplog.records]
    assert {(record.name, record.levelname) for record in caplog.records} == {("jobserver_ffi", "DEBUG")}
    assert lines[:2] == [f"{client.auth}: took 1 token", f"{client.auth}: waits"]
    assert re.fullmatch(rf"{re.escape(client.auth)}: waited for \d+\.\d+ s: AcquireTimeout", lines[2])
    assert re.match(rf"{re.escape(client.auth)}: gave back 1 token after \d+\.\d+", lines[3])


def test_the_log_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    hook = log_events(logging.getLogger("mine"), logging.INFO)
    with caplog.at_level(logging.INFO, "mine"):
        hook(JobserverEvent(ACQUIRED, 0.0, "3,4", tokens=2))
        hook(JobserverEvent(EventKind.LOST, 0.0, "build", tokens=1, lease=7))
    assert caplog.record_tuples == [
        ("mine", logging.INFO, "3,4: took 2 tokens"),
        ("mine", logging.WARNING, "build: 1 token not given back: back in the pool"),
    ]
