"""Signals: no exception out of a handler loses a token, and Ctrl-C ends every wait."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import jobserver_ffi.ready  # noqa: F401 - an interrupted import leaves its files open
from jobserver_ffi import AcquireTimeout, Client, Pool
from jobserver_ffi.event import Event

from .conftest import LONG, TokenPipe, open_descriptors, wait_until_asleep

pytestmark = [pytest.mark.quick, pytest.mark.needs("signals")]

INTERRUPTIONS = 20_000 if LONG else 4_000
MOST_ACTIONS = 100_000  # before an interruption, which comes within milliseconds
NewPipe = Callable[[bytes], TokenPipe]
T = TypeVar("T")


class Interruption(BaseException):
    """What the handler raises, as Python's own does for Ctrl-C."""


class Alarm:
    """Raises once, soon after it was set.

    Set inside the innermost try, it can only raise where that is caught. The timer goes on until the handler has run,
    since a signal that comes just before a system call sleeps through it (with `os.read` too) and only the next one
    ends the call.
    """

    def __init__(self) -> None:
        self.armed = False
        signal.signal(signal.SIGALRM, self.handle)

    def set(self, seconds: float) -> None:
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.001)

    def handle(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interruption


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    before = signal.getsignal(signal.SIGALRM)
    # Hypothesis leaves one there. Python drops what is raised while it runs, as out of any callback of the collector.
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    yield Alarm()
    gc.callbacks[:] = callbacks
    signal.signal(signal.SIGALRM, before)


def with_statement(client: Client) -> None:
    with client.acquire():
        pass


def with_timeout(client: Client) -> None:
    with client.acquire(120):
        pass


def by_hand(client: Client) -> None:
    token = client.acquire()
    token.release()


def dropped(client: Client) -> None:
    client.acquire()


def tried(client: Client) -> None:
    token = client.try_acquire()
    if token is not None:
        token.release()


def in_a_slot(client: Client) -> None:
    with client.slot():
        pass


def a_slot_or_ready(client: Client) -> None:
    slot, _ = client.slot_or_ready(())
    assert slot is not None
    slot.release()


def many(client: Client) -> None:
    with client.acquire_many(3):
        pass


def many_or_none(client: Client) -> None:
    with client.acquire_many(4, minimum=4, timeout=120):
        pass


def more_than_there_are(client: Client) -> None:
    with client.acquire():
        held = [client.acquire() for _ in range(3)]
        try:
            client.acquire(0.0001)
        except AcquireTimeout:
            held.clear()


def interrupt(action: Callable[[T], None], client: T, alarm: Alarm, times: int) -> int:
    """Runs the action again and again, interrupted at this many instants spread over all of it."""
    hits = 0
    delay = 0
    while hits < times:
        try:
            delay = (delay + 7) % 97
            alarm.set((10 + delay) / 1_000_000)
            for _ in range(MOST_ACTIONS):
                action(client)
            raise AssertionError(f"an exception of the handler got lost after {hits} others")
        except Interruption:
            hits += 1
    return hits


ACTIONS = [
    with_statement,
    with_timeout,
    by_hand,
    dropped,
    tried,
    in_a_slot,
    a_slot_or_ready,
    many,
    many_or_none,
    more_than_there_are,
]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_storm_of_raising_signals_loses_no_token(
    action: Callable[[Client], None], whole: NewPipe, alarm: Alarm
) -> None:
    client = whole(b"abcd").client()
    action(client)
    before = open_descriptors()
    assert interrupt(action, client, alarm, INTERRUPTIONS) == INTERRUPTIONS
    gc.collect()
    assert client.available() == 4
    assert open_descriptors() == before


def made_pipe(_pool: Pool) -> None:
    Client(2).close()


def made_fifo(_pool: Pool) -> None:
    Client(2, style="fifo").close()


def joined(pool: Pool) -> None:
    with Client(2) as client:
        Client.open(client.auth).close()


def held_open(_pool: Pool) -> None:
    with Client(2) as client:
        client.configure()


def made_event(_pool: Pool) -> None:
    Event().close()


def made_lease(pool: Pool) -> None:
    pool.lease("one", style="pipe")._opened()


def made_lease_with_fifo(pool: Pool) -> None:
    pool.lease("one", style="fifo")._opened()


MAKINGS = [made_pipe, made_fifo, joined, held_open, made_event, made_lease, made_lease_with_fifo]


@pytest.mark.needs("fifo", "descriptors that can be counted", "objects that end when they are dropped")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("make", MAKINGS)
def test_a_storm_of_raising_signals_leaves_nothing_half_made(
    make: Callable[[Pool], None], alarm: Alarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_finalisers: list[BaseException] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda failure: in_finalisers.append(failure.exc_value))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Pool(2) as pool:
        make(pool)
        before, files = open_descriptors(), sorted(tmp_path.rglob("*"))
        hits = 0
        for delay in range(INTERRUPTIONS // 2):
            try:
                alarm.set((10 + delay % 97) / 1_000_000)
                for _ in range(MOST_ACTIONS):
                    if not alarm.armed:
                        break
                    make(pool)
            except Interruption:
                hits += 1
        assert hits > INTERRUPTIONS // 4, "most come elsewhere than in a finaliser, in which Python drops an exception"
        gc.collect()
        assert open_descriptors() == before
        assert sorted(tmp_path.rglob("*")) == files
    assert [error for error in in_finalisers if not isinstance(error, Interruption)] == []


def blocked(client: Client) -> None:
    client.acquire()


def blocked_with_timeout(client: Client) -> None:
    client.acquire(60)


def blocked_raw(client: Client) -> None:
    client.acquire_raw()


def blocked_batch(client: Client) -> None:
    client.acquire_many(2)


def blocked_with_tokens_in_hand(client: Client) -> None:
    client.acquire_many(3, minimum=3)


WAITS = [blocked, blocked_with_timeout, blocked_raw, blocked_batch, blocked_with_tokens_in_hand]


@pytest.mark.parametrize("wait", WAITS)
def test_interrupted_waits_lose_no_token(wait: Callable[[Client], None], whole: NewPipe, alarm: Alarm) -> None:
    client = whole(b"abc").client()
    held = client.acquire_many(2 if wait is blocked_with_tokens_in_hand else 3)
    interrupt(wait, client, alarm, 500)
    gc.collect()
    held.release()
    assert client.available() == 3


CTRL_C = """
    import sys
    from jobserver_ffi import Client
    client = Client(3)
    held = client.acquire_many({held})
    print("ready", flush=True)
    try:
        client.{call}
    except KeyboardInterrupt:
        held.release()
        sys.exit(42 if client.available() == 3 else 43)
"""


@pytest.mark.parametrize(
    "call", ["acquire()", "acquire(600)", "slot()", "acquire_raw()", "acquire_many(3)", "acquire_many(3, minimum=3)"]
)
def test_ctrl_c_ends_every_wait(call: str) -> None:
    held = 2 if "minimum" in call else 3
    script = textwrap.dedent(CTRL_C.format(call=call, held=held))
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        wait_until_asleep(child.pid)
        child.send_signal(signal.SIGINT)
        assert child.wait(120) == 42


def test_a_handler_that_does_not_raise_lets_the_wait_go_on(whole: NewPipe) -> None:
    pipe = whole(b"a")
    client, other = pipe.client(), pipe.client()
    held = [other.acquire()]
    calls: list[int] = []

    def handler(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            held.pop().release()
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for timeout in (None, 60):
            calls.clear()
            held[:] = held or [other.acquire()]
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            with client.acquire(timeout):
                assert len(calls) >= 3
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
