"""`Pool` and `Lease`: what they promise of any process."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi import AcquireTimeout, Lease, LeaseBusy, Pool, PoolClosed
from jobserver_ffi.create import STYLES
from jobserver_ffi.makeflags import parse

from .command import python
from .overlap import FOR_MAKE, GUARD, KILL, KILLED
from .overlap import python as program
from .test_bridge import wait_for

# What Windows needs in each environment.
SYSTEM = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}

NOTHING = python("")  # the command that does nothing

# Takes tokens, says so, and ends as it is told: a status, or "kill".
HOLDER = f"""\
client = Client.from_env()
held = [client.acquire() for _ in range(int(sys.argv[1]))]
print("held", flush=True)
if sys.stdin.readline() == "kill\\n":
    os.kill(os.getpid(), {KILL})
"""


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(4) as pool:
        yield pool
        assert pool.status().in_use == 0, f"slots were lost: {pool.status()}"


class Holder:
    """A process on a lease that holds so many tokens."""

    def __init__(self, lease: Lease, tokens: int, **popen_kwargs: Any) -> None:
        self.lease = lease
        self.process = lease.popen(
            [*program(HOLDER), str(tokens)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **popen_kwargs
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "held\n"

    def end(self, how: str) -> int:
        with self.process:
            self.process.communicate(how + "\n", timeout=GUARD)
        return self.process.returncode


@pytest.mark.parametrize("style", STYLES)
def test_process_takes_as_many_as_there_are(style: str, pool: Pool) -> None:
    with pool.lease("holder", style=style) as lease:
        holder = Holder(lease, 3)
        assert (lease.report().slots, lease.report().state, pool.status().free) == (4, "started", 0)
        assert holder.end("good") == 0
        report = lease.wait(GUARD)
    assert (report.state, report.slots, report.peak, report.lost, report.orphans) == ("ended", 0, 4, 0, "none")
    assert report.complaints == []
    assert report.command[0] == sys.executable and report.slot_seconds > 0


@pytest.mark.parametrize("style", STYLES)
def test_killed_process_loses_none(style: str, pool: Pool) -> None:
    with pool.lease("killed", style=style) as lease:
        assert Holder(lease, 3).end("kill") == KILLED
        report = lease.wait(GUARD)
    assert report.lost == 3 and report.complaints == ["3 tokens not given back: back in the pool"]
    with pool.lease("next", style=style) as lease:
        Holder(lease, 3).end("good")


def test_process_waits_for_its_slot(pool: Pool) -> None:
    with pool.lease("first") as first, pool.lease("second") as second:
        holder = Holder(first, 3)
        with pytest.raises(AcquireTimeout, match="second"):
            second.run(NOTHING, slot_timeout=0)
        assert second.report().state == "open"
        waiting = threading.Thread(target=second.run, args=(NOTHING,))
        waiting.start()
        wait_for(lambda: second.report().state == "queued")
        assert pool.status().queued == 1
        holder.end("good")
        waiting.join(GUARD)
        assert second.wait(GUARD).queue_seconds > 0


def test_free_slot_is_had_without_waiting(pool: Pool) -> None:
    for name in ("one", "two"):
        with pool.lease(name) as lease:
            assert lease.run(NOTHING, slot_timeout=0).returncode == 0


def test_implicit_slot_of_the_process_and_what_it_sees(pool: Pool, tmp_path: Path) -> None:
    show = [*python("import os; print(os.environ['MAKEFLAGS'], os.environ['X'])")]
    environment = {**SYSTEM, "MAKEFLAGS": "k -j2 --jobserver-auth=7,8", "X": "y", "MFLAGS": "-k -j2", "PATH": ""}
    with pool.lease("show", style=STYLES[-1]) as lease:
        done = lease.run(show, env=environment, cwd=tmp_path, capture_output=True, text=True, **FOR_MAKE)
    flags, _, rest = done.stdout.rpartition(" ")
    assert (parse(flags).jobs, rest) == (4, "y\n")
    assert (parse(flags).auth or "").startswith("fifo:/" if "fifo" in STYLES else "jobserver-ffi-")


def test_command_that_cannot_be_started_gives_its_slot_back(pool: Pool) -> None:
    with pool.lease("missing") as lease:
        with pytest.raises(FileNotFoundError):
            lease.popen(["/no/such/program"])
        assert (lease.report().state, pool.status().in_use) == ("open", 0)
        assert lease.run(NOTHING).returncode == 0


def test_one_process_for_each_lease(pool: Pool) -> None:
    with pool.lease("one") as lease:
        holder = Holder(lease, 0)
        for again in (lambda: lease.run(NOTHING), lease.close, lambda: lease.watch(holder.process.pid)):
            with pytest.raises(LeaseBusy):
                again()
        holder.end("good")
        lease.wait(GUARD)
        with pytest.raises(LeaseBusy):
            lease.run(NOTHING)


def test_configure_and_watch(pool: Pool) -> None:
    with pool.lease("own", style=STYLES[0]) as lease:
        process = subprocess.Popen([*program(HOLDER), "2"], **lease.configure(stdin=subprocess.PIPE))
        with pytest.raises(LeaseBusy):
            lease.wait(0)
        lease.watch(process.pid)
        with process:
            process.kill()
        assert lease.wait(GUARD).state == "ended"


def test_configure_without_watch_ends_when_it_is_closed(pool: Pool) -> None:
    with pool.lease("own") as lease:
        subprocess.run(NOTHING, check=True, **lease.configure())
        assert pool.status().in_use == 1
    assert lease.report().state == "ended"


def test_dropped_lease_gives_everything_back(pool: Pool) -> None:
    lease = pool.lease("dropped")
    lease.configure()
    assert pool.status().in_use == 1
    del lease
    assert pool.status().in_use == 0


@pytest.mark.parametrize("style", STYLES)
def test_orphans_keep_their_slots(style: str, pool: Pool) -> None:
    """Who survives a killed parent runs on, and counts until it has ended."""
    parent = (
        "client = Client.from_env()\n"
        "token = client.acquire()\n"
        "orphan = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], close_fds=False)\n"
        "print('held', flush=True)\n"
        "threading.Event().wait()\n"
    )
    with pool.lease("parent", style=style) as lease:
        process = lease.popen(program(parent), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with pytest.raises(AcquireTimeout):
            lease.wait(0.05)
        report = lease.report()
        assert (report.state, report.slots, report.lost) == ("orphans", 2, 0)
        process.stdin.close()
        report = lease.wait(GUARD)
        assert (report.orphans, report.lost) == ("ended", 1)
        process.stdout.close()


def test_orphans_are_not_waited_for_if_not_wanted(pool: Pool) -> None:
    parent = "subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], close_fds=False)"
    for timeout, orphans in ((0, "none"), (0.01, "left")):
        with (
            pool.lease("parent", orphan_timeout=timeout) as lease,
            lease.popen(program(parent), stdin=subprocess.PIPE) as process,
        ):
            process.wait()
            assert lease.wait(GUARD).orphans == orphans


def test_resize(pool: Pool) -> None:
    with pool.lease("holder") as lease:
        holder = Holder(lease, 3)
        assert pool.resize(2) == 2
        assert (pool.limit, pool.status().limit, pool.status().in_use, pool.status().free) == (2, 2, 4, 0)
        assert pool.resize(6) == 0
        assert pool.status().free == 2
        holder.end("good")


def test_two_leases_share(pool: Pool) -> None:
    with pool.lease("one") as one, pool.lease("two") as two:
        first = Holder(one, 1)
        second = Holder(two, 1)
        assert [report.name for report in pool.status().leases] == ["one", "two"]
        first.end("good")
        second.end("kill")
        assert two.wait(GUARD).lost == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"style": "socket"}, "style='socket'"),
        ({"minimum": 5}, "minimum=5"),
        ({"minimum": -1}, "minimum=-1"),
        ({"maximum": 0}, "maximum=0"),
        ({"minimum": 3, "maximum": 2}, "maximum=2"),
        ({"weight": 0}, "weight=0"),
        ({"orphan_timeout": -1}, "timeout=-1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], named: str, pool: Pool) -> None:
    with pytest.raises(ValueError, match=named):
        pool.lease("wrong", **arguments)
    with pool.lease("x") as lease, pytest.raises(ValueError, match="close_fds"):
        lease.popen(NOTHING, close_fds=False)


def test_wrong_limits(pool: Pool) -> None:
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit={limit}"):
            Pool(limit)
        with pytest.raises(ValueError, match=f"limit={limit}"):
            pool.resize(limit)
    with pytest.raises(TypeError):
        pickle.dumps(pool)


def test_closed_pool() -> None:
    pool = Pool(2)
    lease = pool.lease("left")
    holder = Holder(lease, 1)
    pool.close()
    pool.close()
    assert holder.end("good") == 0
    for use in (lambda: pool.lease("x"), pool.status, lambda: pool.resize(3), lambda: lease.wait(GUARD)):
        with pytest.raises(PoolClosed):
            use()


def test_unclosed_pool_is_told_of() -> None:
    with pytest.warns(ResourceWarning, match="unclosed <jobserver_ffi.Pool 3>"):
        Pool(3).limit  # noqa: B018


@pytest.mark.needs("signals")
def test_ctrl_c_ends_the_wait_for_a_slot(pool: Pool) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pool.lease("first") as first, pool.lease("second") as second:
        holder = Holder(first, 3)
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                second.run(NOTHING)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert (second.report().state, pool.status().queued) == ("open", 0)
        holder.end("good")


@pytest.mark.needs("fork")
def test_forked_child_can_only_drop_it(pool: Pool) -> None:
    with pool.lease("parents") as lease:
        holder = Holder(lease, 1)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for use in (pool.status, lambda: pool.resize(9), lease.close):
                    with pytest.raises(PoolClosed):
                        use()
                pool.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert lease.report().slots == 2
        holder.end("good")


@pytest.mark.needs("fifo")
def test_nothing_is_left_at_exit(tmp_path: Path) -> None:
    """Also of a pool that was not closed, and of a process that died (by the next one)."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}
    text = "from jobserver_ffi import Pool\npool = Pool(2)\nlease = pool.lease('x', style='fifo')\nlease.configure()\n"
    subprocess.run([*program(text + "os.kill(os.getpid(), signal.SIGKILL)")], env=environment, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    subprocess.run([*program(text)], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_client_in_a_process_on_a_lease(pool: Pool) -> None:
    """The library itself is a client as any other: with its implicit slot, and all at once."""
    text = (
        "client = Client.from_env()\n"
        "with client.slot() as own, client.acquire_many(3, minimum=3) as batch:\n"
        "    assert own.implicit and len(batch) == 3\n"
        "    assert client.try_acquire() is None\n"
    )
    with pool.lease("client", style=STYLES[-1]) as lease:
        assert lease.run(program(text)).returncode == 0
        assert lease.wait(GUARD).complaints == []


# A process that breaks the protocol: takes `take` tokens, gives these bytes back, and closes its ends.
OFFENDER = """\
auth = os.environ["CARGO_MAKEFLAGS"].rpartition("=")[2]
if auth.startswith("fifo:"):
    read_fd = write_fd = os.open(auth[5:], os.O_RDWR)
else:
    read_fd, write_fd = map(int, auth.split(","))
for _ in range(int(sys.argv[1])):
    assert os.read(read_fd, 1) == b"+"
print("taken", flush=True)
sys.stdin.readline()
os.write(write_fd, sys.argv[2].encode())
os.closerange(3, 100)
sys.stdin.readline()
"""


@pytest.mark.parametrize("style", ["pipe", "fifo"])
@pytest.mark.parametrize(
    ("take", "give", "complaint"),
    [
        (2, "", "2 tokens not given back: back in the pool"),
        (1, "++++", "3 tokens given back that had not been taken: thrown away"),
        (2, "x+", "1 token given back with another byte than `+`: put right"),
        (1, "+", None),
    ],
)
def test_who_breaks_the_protocol_is_named_and_harms_nobody(
    take: int, give: str, complaint: str | None, style: str, pool: Pool
) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with pool.lease("offender", style=style) as lease, pool.lease("other", style=style) as other:
        process = lease.popen([*program(OFFENDER), str(take), give], **pipes)
        assert process.stdin is not None and process.stdout is not None
        with process:
            assert process.stdout.readline() == "taken\n"
            process.stdin.write("\n")
            process.stdin.flush()
            wait_for(lambda: not give or lease.report().slots == 1)
            left = 4 - 1 - (0 if give else take)
            Holder(other, left - 1).end("good")
            other.wait(GUARD)
            process.stdin.write("\n")
        report = lease.wait(GUARD)
    assert (report.name, report.complaints) == ("offender", [complaint] if complaint else [])
    with pool.lease("all", minimum=4) as lease:
        Holder(lease, 3).end("good")
