"""`on_event` of a pool: what is told of its leases, and that a pool without one has no thread for it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from jobserver_ffi import EventKind, JobserverEvent, LeaseReport, Pool

from .overlap import GUARD
from .overlap import python as program

PIPES = ["pipe", "fifo"]
STYLES = [*PIPES, "semaphore"]
TRUE = [sys.executable, "-c", ""]
CAT = [sys.executable, "-c", "import sys; sys.stdin.read()"]
OPENED, STARTED, ENDED, LOST, OVER_RELEASED = (
    EventKind.LEASE_OPENED,
    EventKind.LEASE_STARTED,
    EventKind.LEASE_ENDED,
    EventKind.LOST,
    EventKind.OVER_RELEASED,
)


class Told:
    """A hook that remembers what it was told, and by which thread; others wait until it was told enough."""

    def __init__(self) -> None:
        self.events: list[JobserverEvent] = []
        self.threads: list[threading.Thread] = []
        self.more = threading.Condition()

    def __call__(self, event: JobserverEvent) -> None:
        with self.more:
            self.events.append(event)
            self.threads.append(threading.current_thread())
            self.more.notify_all()

    def kinds(self, name: str) -> list[EventKind]:
        return [event.kind for event in self.events if event.name == name]

    def wait_for(self, name: str, *kinds: EventKind) -> list[JobserverEvent]:
        """The events of a lease, once they are these."""
        with self.more:
            found = self.more.wait_for(lambda: self.kinds(name) == list(kinds), GUARD)
        assert found, f"{name}: {self.kinds(name)}"
        return [event for event in self.events if event.name == name]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def pool(told: Told) -> Iterator[Pool]:
    with Pool(4, on_event=told) as pool:
        yield pool
        assert pool.status().in_use == 0, f"slots were lost: {pool.status()}"


def report_of(event: JobserverEvent) -> LeaseReport:
    assert event.report is not None
    return event.report


def test_a_pool_without_a_hook_has_no_thread_for_it() -> None:
    before = threading.active_count()
    with Pool(2) as pool:
        assert threading.active_count() == before + 1
        assert pool.lease("one").run(TRUE).returncode == 0
    script = (
        "import sys; from jobserver_ffi import Pool\n"
        "with Pool(2) as pool: pool.lease('one').run([sys.executable, '-c', ''])\n"
        "sys.exit(any(name in sys.modules for name in ('jobserver_ffi.hooks', 'jobserver_ffi.lease_events')))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=GUARD).returncode == 0


@pytest.mark.parametrize("style", STYLES)
def test_the_life_of_a_lease(style: str, pool: Pool, told: Told) -> None:
    with pool.lease("life", style=style) as lease:
        lease.run(TRUE)
    opened, started, ended = told.wait_for("life", OPENED, STARTED, ENDED)
    assert opened.lease == started.lease == ended.lease > 0
    assert opened.time <= started.time <= ended.time and started.waited >= 0
    assert (report_of(opened).state, report_of(ended).state) == ("open", "ended")
    assert report_of(ended) == lease.report() and report_of(ended).peak == 1
    assert told.threads[0] is threading.current_thread()
    assert {thread.name for thread in told.threads[1:]} == {"jobserver events"}


@pytest.mark.parametrize("style", STYLES)
def test_lost_tokens(style: str, pool: Pool, told: Told) -> None:
    with pool.lease("killed", style=style) as lease:
        killed = "client = Client.from_env(); held = [client.acquire() for _ in range(3)]; os.kill(os.getpid(), 9)"
        assert lease.run(program(killed)).returncode in (9, -9)
    *_, lost, _ = told.wait_for("killed", OPENED, STARTED, LOST, ENDED)
    assert lost.tokens == 3 and report_of(lost).lost == 3


@pytest.mark.parametrize("style", PIPES)
def test_too_many_given_back(style: str, pool: Pool, told: Told) -> None:
    flood = (
        "client = Client.from_env()\n"
        "auth = client.auth\n"
        "number = os.open(auth[5:], os.O_RDWR) if auth[4:5] == ':' else int(auth.split(',')[1])\n"
        "os.write(number, b'++')\n"
    )
    with pool.lease("flood", style=style) as lease:
        lease.run(program(flood))
    events = told.wait_for("flood", OPENED, STARTED, OVER_RELEASED, ENDED)
    assert events[2].tokens == 2


def test_a_lease_that_is_dropped(pool: Pool, told: Told) -> None:
    """Dropping takes everything back at once, and what came of it is told all the same."""
    pool.lease("ran").run(TRUE)
    told.wait_for("ran", OPENED, STARTED, ENDED)
    arguments = pool.lease("kept").configure()
    told.wait_for("kept", OPENED, STARTED)
    gc.collect()
    assert pool.status().in_use == 1, "the arguments keep it"
    del arguments
    gc.collect()
    assert pool.status().in_use == 0
    assert report_of(told.wait_for("kept", OPENED, STARTED, ENDED)[2]).state == "ended"


def test_one_that_never_ran_tells_nothing(pool: Pool, told: Told) -> None:
    pool.lease("never").close()
    with pytest.raises(FileNotFoundError):
        pool.lease("cannot").run(["/nothing/here"])
    gc.collect()
    told.wait_for("cannot", OPENED, STARTED, ENDED)
    assert told.kinds("never") == []


def test_the_queue(told: Told) -> None:
    with Pool(1, on_event=told) as pool, pool.lease("first") as first:
        first.configure()
        with pool.lease("second") as second:
            child: list[int] = []
            thread = threading.Thread(target=lambda: child.append(second.run(TRUE).returncode))
            thread.start()
            told.wait_for("second", OPENED)
            while pool.status().queued == 0:
                pass
            first.close()
            thread.join(GUARD)
            assert child == [0]
    _, started, _ = told.wait_for("second", OPENED, STARTED, ENDED)
    assert started.waited == report_of(started).queue_seconds > 0


def test_a_process_that_can_be_started_the_second_time_only(pool: Pool, told: Told) -> None:
    lease = pool.lease("again")
    with pytest.raises(FileNotFoundError):
        lease.run(["/nothing/here"])
    told.wait_for("again", OPENED, STARTED)
    assert lease.run(TRUE).returncode == 0
    lease.close()
    told.wait_for("again", OPENED, STARTED, STARTED, ENDED)


def test_what_goes_on_when_the_pool_is_closed_is_told(told: Told) -> None:
    pool = Pool(2, on_event=told)
    lease = pool.lease("goes on")
    child = lease.popen(CAT, stdin=subprocess.PIPE)
    told.wait_for("goes on", OPENED, STARTED)
    pool.close()
    events = told.wait_for("goes on", OPENED, STARTED, ENDED)
    assert report_of(events[2]).state == "started"
    with child:
        child.communicate(timeout=GUARD)


def test_a_hook_that_closes_the_pool() -> None:
    closed = threading.Event()

    def hook(event: JobserverEvent) -> None:
        if event.kind is ENDED:
            mine.close()
            closed.set()

    mine = Pool(2, on_event=hook)
    mine.lease("last").run(TRUE)
    assert closed.wait(GUARD)
    for thread in threading.enumerate():
        if thread.name == "jobserver events":
            thread.join(GUARD)
            assert not thread.is_alive()


def test_what_a_hook_raises_is_shown_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(str(args.exc_value)))

    def hook(event: JobserverEvent) -> None:
        raise RuntimeError(event.kind.name)

    with Pool(2, on_event=hook) as pool:
        for _ in range(2):
            assert pool.lease("one").run(TRUE).returncode == 0
    assert shown.count("LEASE_ENDED") == shown.count("LEASE_OPENED") == 2


def test_many_leases_at_once(told: Told) -> None:
    with Pool(3, on_event=told) as pool:
        leases = [pool.lease(f"lease {number}") for number in range(30)]
        threads = [threading.Thread(target=lease.run, args=(TRUE,)) for lease in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
    for number in range(30):
        assert told.kinds(f"lease {number}") == [OPENED, STARTED, ENDED]
    assert len({event.lease for event in told.events}) == 30
