"""The crew of a build: who has the turn, who runs at the same time, and what is left after an error or Ctrl-C."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from jobserver_ffi import Client
from jobserver_ffi.build.crew import Crew, hand_out, join
from jobserver_ffi.build.jobs import Jobs

from .conftest import TokenPipe
from .overlap import GUARD

pytestmark = pytest.mark.needs("pipe", "signals")

JOBS = 60


class Most:
    """How many were inside at once at the most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1


def test_jobs_take_turns() -> None:
    """Also that no change goes unnoticed, in hundreds of changes without any work between them."""
    turns, slots, results = Most(), Most(), {}
    with Client(3) as client:
        jobs = Jobs(client, None)

        def call(number: int) -> int:
            with slots.inside():
                return number

        def job(place: int) -> None:
            with turns.inside(), slots.inside():
                pass
            first = hand_out(jobs, [partial(call, place), partial(call, place + 1), partial(call, place + 2)])
            with turns.inside(), slots.inside():
                first = [*first]
            results[place] = first + hand_out(jobs, [partial(call, 0)])

        Crew(jobs).run([partial(job, place) for place in range(JOBS)])
        assert client.available() == 3
    assert results == {place: [place, place + 1, place + 2, 0] for place in range(JOBS)}
    assert turns.most == 1
    assert slots.most <= 3


def test_calls_fill_the_slots() -> None:
    """Three that end only when all three are there, of two jobs."""
    with Client(3) as client:
        jobs = Jobs(client, None)
        together = threading.Barrier(3)
        calls = [partial(together.wait, GUARD)]
        Crew(jobs).run([partial(hand_out, jobs, calls), partial(hand_out, jobs, calls * 2)])
        assert client.available() == 3


def test_call_that_fails_stops_the_others_of_its_job() -> None:
    """And only those: the job may go on, as one does for an extension that may fail."""
    caught = []
    with Client(4) as client:
        jobs = Jobs(client, None)

        def fail(place: int) -> None:
            raise ValueError(place)

        def job(place: int) -> None:
            calls: list[Any] = [partial(str, place)] * 3
            calls.insert(place % 4, partial(fail, place))
            with pytest.raises(ValueError) as error:
                hand_out(jobs, calls)
            caught.append(error.value.args[0])

        Crew(jobs).run([partial(job, place) for place in range(JOBS)])
        assert client.available() == 4
    assert sorted(caught) == list(range(JOBS))


def test_job_waits_for_those_that_must_have_ended() -> None:
    order = []
    with Client(4) as client:
        jobs = Jobs(client, None)

        def job(place: int) -> None:
            order.append(place)
            hand_out(jobs, [partial(str, place)])
            order.append(place)

        Crew(jobs).run([partial(job, place) for place in range(4)], [frozenset(range(place)) for place in range(4)])
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]


def test_calls_of_nobody_and_calls_of_calls() -> None:
    with Client(2) as client:
        jobs = Jobs(client, None)
        assert hand_out(jobs, [partial(hand_out, jobs, [partial(str, 1)]), partial(str, 2)]) == [["1"], "2"]
        assert client.available() == 2


def test_first_slot_is_the_implicit_one(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool: TokenPipe = whole(b"")
    for name, value in pool.environ.items():
        monkeypatch.setenv(name, value)
    client = Client.from_env()
    assert client is not None
    pool.clients.append(client)
    assert hand_out(Jobs(client, None), [partial(str, number) for number in range(5)]) == list("01234")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# Python itself may be at a weak reference's callback, out of which it lets no exception.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(3))
def test_interrupt_at_any_instruction_leaves_the_pool_whole(seed: int) -> None:
    moments = random.Random(seed)
    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        with Client(3) as client:
            jobs = Jobs(client, None)

            def job(place: int) -> None:
                hand_out(jobs, [partial(str, place)] * 3)

            for _ in range(60):
                try:
                    signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0005, 0.02))
                    Crew(jobs).run([partial(job, place) for place in range(8)])
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                except RuntimeError as error:  # Python may leave a `with lock` twice, if the second time is interrupted
                    assert (str(error), type(error.__context__)) == ("release unlocked lock", KeyboardInterrupt)
                assert client.available() == 3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    # One whose start was interrupted is listed for ever, although there is no such thread; others may be at their end.
    left = [thread for thread in threading.enumerate() if thread.name.startswith("jobserver_ffi_build")]
    for thread in left:
        assert not join(thread, GUARD) or not thread.is_alive()
