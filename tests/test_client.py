"""One client in one process: what each method does, and how it refuses."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from jobserver_ffi import (
    Acquired,
    AcquireTimeout,
    Client,
    ClientBusy,
    ClientClosed,
    JobserverError,
    OverRelease,
    PoolFull,
    PoolGone,
    Unsupported,
)
from jobserver_ffi.create import STYLES

from .conftest import TokenPipe, in_pipe, wait_until_asleep

pytestmark = pytest.mark.quick

NewPipe = Callable[[bytes], TokenPipe]
GUARD = 120
CAPACITY = 65536


@pytest.mark.parametrize("style", STYLES)
def test_a_new_pool_has_its_tokens(style: str) -> None:
    with Client(3, style=style) as client:
        held = [client.acquire() for _ in range(3)]
        assert client.available() == 0
        assert client.try_acquire() is None
        for token in held:
            token.release()
        assert client.available() == 3


def test_an_empty_pool_is_legal() -> None:
    with Client(0) as client:
        assert client.try_acquire() is None
        assert client.available() == 0


@pytest.mark.parametrize("limit", [-1, 2**31, pytest.param(2**31 - 1, marks=pytest.mark.needs("pipe")), 10**30])
def test_a_limit_that_cannot_be(limit: int) -> None:
    with pytest.raises(ValueError, match=str(limit)):
        Client(limit)


@pytest.mark.parametrize("limit", ["4", 4.0, None, True])
def test_a_limit_that_is_no_number(limit: object) -> None:
    with pytest.raises(TypeError, match="whole number"):
        Client(limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("style", STYLES)
def test_a_pool_as_large_as_a_pipe_can_be_drained_and_filled_again(style: str) -> None:
    limit = CAPACITY - 4095
    with Client(limit, style=style) as client:
        first = client.acquire_raw()
        batch = client.acquire_many(limit)
        assert (len(batch), client.available()) == (limit - 1, 0)
        batch.release()
        client.release_raw(first)
        assert client.available() == limit


def test_a_larger_pool_grows_its_pipe() -> None:
    with Client(200_000) as client:
        assert client.available() == 200_000


def test_style_and_path_are_checked(tmp_path: Path) -> None:
    for style in {"socket", "semaphore", "pipe", "fifo", ""} - set(STYLES):
        with pytest.raises(ValueError, match="style="):
            Client(1, style=style)
    with pytest.raises(ValueError, match="path="):
        Client(1, path=tmp_path / "fifo")
    if "fifo" not in STYLES:
        return
    with pytest.raises(FileExistsError, match=tmp_path.name):
        Client(1, style="fifo", path=tmp_path)
    with pytest.raises(FileNotFoundError):
        Client(1, style="fifo", path=tmp_path / "no" / "fifo")


@pytest.mark.needs("fifo")
def test_a_fifo_is_private_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Client(1, style="fifo") as client:
        path = Path(client.auth.removeprefix("fifo:"))
        assert path.parent.parent == tmp_path
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("fifo")
@pytest.mark.parametrize("name", ["a b", "a\tb", "a$b", "a\\b"])
def test_no_fifo_where_make_would_escape_its_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / name))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Client(1, style="fifo") as client:
        assert client.auth.startswith(f"fifo:{tmp_path}/jobserver-ffi-")


@pytest.mark.needs("fifo")
def test_a_fifo_lives_until_the_last_token_is_back(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    client = Client(1, style="fifo", path=path)
    token = client.acquire()
    client.close()
    assert path.exists()
    token.release()
    assert not path.exists()


def test_the_byte_that_was_taken_is_given_back(whole: NewPipe) -> None:
    pipe = whole(b"abcdef")
    client = pipe.client()
    with client.acquire(), client.acquire(1), client.acquire(0):
        assert pipe.content() == b"def"
    with client.acquire_many(4) as batch:
        assert len(batch) == 4
    byte = client.acquire_raw()
    client.release_raw(byte)
    dropped = client.acquire().drop_without_releasing()
    client.release_raw(dropped)
    client.close()


def test_releasing_again_is_harmless(whole: NewPipe) -> None:
    client = whole(b"ab").client()
    stale = client.acquire()
    stale.release()
    holder = client.acquire()
    for _ in range(3):
        stale.release()
        stale.__exit__(None, None, None)
    assert client.available() == 1
    holder.release()
    assert repr(stale) == "<Acquired released, implicit=False>"


@pytest.mark.needs("objects that end when they are dropped")
def test_a_dropped_token_goes_back_while_the_thread_sleeps_that_made_the_client(whole: NewPipe) -> None:
    client = whole(b"a").client()
    taken = threading.Event()
    sleeper = threading.get_native_id()

    def take_and_drop() -> None:
        token = client.acquire()
        taken.set()
        wait_until_asleep(os.getpid(), sleeper)
        del token

    thread = threading.Thread(target=take_and_drop)
    thread.start()
    taken.wait()
    client.acquire(GUARD).release()
    thread.join()


def test_a_dropped_token_is_given_back_although_a_stale_one_had_its_cell(whole: NewPipe) -> None:
    client = whole(b"ab").client()
    stale = client.acquire()
    stale.release()
    holder = client.acquire()
    del holder
    gc.collect()
    assert client.available() == 2
    stale.release()


def test_two_threads_that_release_one_token(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    client = pipe.client()
    for _ in range(300):
        token = client.acquire()
        barrier = threading.Barrier(3)

        def release(token: Acquired = token, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            token.release()

        threads = [threading.Thread(target=release) for _ in range(2)]
        for thread in threads:
            thread.start()
        barrier.wait()
        with client.acquire():
            for thread in threads:
                thread.join()
        assert in_pipe(pipe.read_fd) == 3


def test_timeouts() -> None:
    with Client(1) as client, client.acquire():
        for timeout in (0, 0.0, 0.01, 1e-12):
            with pytest.raises(AcquireTimeout, match="no token became free within") as caught:
                client.acquire(timeout)
            assert isinstance(caught.value, TimeoutError)
            with pytest.raises(AcquireTimeout):
                client.slot(timeout)
            with pytest.raises(AcquireTimeout):
                client.acquire_raw(timeout)
            with pytest.raises(AcquireTimeout):
                client.acquire_many(3, timeout=timeout)


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), float("-inf")])
def test_a_timeout_that_cannot_be(timeout: float) -> None:
    with Client(1) as client:
        for method in (client.acquire, client.slot, client.acquire_raw, lambda t: client.acquire_many(1, timeout=t)):
            with pytest.raises(ValueError, match="timeout="):
                method(timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**400, 2**62])
def test_a_timeout_beyond_the_clock(timeout: float) -> None:
    with Client(1) as client, client.acquire(timeout), pytest.raises(AcquireTimeout):
        client.acquire(0)


def test_a_timeout_that_is_no_number() -> None:
    with Client(1) as client, pytest.raises(TypeError, match="timeout="):
        client.acquire("1")  # type: ignore[arg-type]


@pytest.mark.needs("objects that end when they are dropped")
def test_a_batch() -> None:
    with Client(8) as client:
        with client.acquire_many(100) as batch:
            assert len(batch) == 8
            assert client.available() == 0
            batch.release()
            assert len(batch) == 0
            assert client.available() == 8
            batch.release()
        assert client.available() == 8
        with client.acquire_many(5, minimum=5), pytest.raises(AcquireTimeout):
            client.acquire_many(5, minimum=5, timeout=0)
        assert client.available() == 8
        dropped = client.acquire_many(8)
        del dropped
        assert client.available() == 8


@pytest.mark.parametrize(("maximum", "minimum"), [(0, 0), (0, 1), (-1, 1), (1, 2), (9, 9)])
def test_a_batch_that_can_never_be(maximum: int, minimum: int) -> None:
    with Client(8) as client, pytest.raises(ValueError, match="minimum="):
        client.acquire_many(maximum, minimum=minimum)


def test_a_batch_waits_for_its_minimum(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    client, other = pipe.client(), pipe.client()
    held = [other.acquire(), other.acquire()]
    counts: list[int] = []

    def take() -> None:
        with client.acquire_many(3, minimum=3, timeout=GUARD) as batch:
            counts.append(len(batch))

    thread = threading.Thread(target=take)
    thread.start()
    while in_pipe(pipe.read_fd):  # until it holds the one that is free
        pass
    for token in held:
        token.release()
    thread.join(GUARD)
    assert counts == [3]


@pytest.mark.needs("pipe")
def test_a_minimum_needs_a_pool_that_can_be_locked() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"abc")
        client = Client.open(f"{ours.fileno()},{ours.fileno()}")
        with pytest.raises(Unsupported):
            client.acquire_many(3, minimum=2)
        with client.acquire_many(3) as batch:
            assert len(batch) == 3
        client.close()


def test_raw_tokens_are_counted(whole: NewPipe) -> None:
    client = whole(b"ab").client()
    with pytest.raises(OverRelease, match="no token of this process is out"):
        client.release_raw()
    with client.acquire(), pytest.raises(OverRelease):
        client.release_raw()
    byte = client.acquire_raw()
    other = next(b for b in b"abc" if b != byte)
    with pytest.raises(OverRelease, match="has not taken a token with that byte"):
        client.release_raw(other)
    client.release_raw(byte)
    with pytest.raises(OverRelease):
        client.release_raw(byte)
    for wrong in (-1, 256):
        with pytest.raises(ValueError, match="one byte"):
            client.release_raw(wrong)
    with pytest.raises(TypeError):
        client.release_raw(b"a")  # type: ignore[arg-type]


def test_dropping_without_releasing() -> None:
    with Client(2) as client:
        token = client.acquire()
        byte = token.drop_without_releasing()
        token.release()
        assert client.available() == 1
        with pytest.raises(JobserverError, match="was released before"):
            token.drop_without_releasing()
        client.release_raw(byte)


def fill(pipe: TokenPipe) -> None:
    """Fills the pipe to the last byte, as a client that releases too much might."""
    os.set_blocking(pipe.write_fd, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(pipe.write_fd, b"x" * 4096)


def empty(pipe: TokenPipe) -> None:
    """Takes all out again; what the test put in at first it puts in once more."""
    taken = os.read(pipe.read_fd, CAPACITY)
    os.write(pipe.write_fd, taken.replace(b"x", b""))


def test_a_full_pipe_refuses_a_token_which_stays_held(whole: NewPipe) -> None:
    pipe = whole(b"ab")
    client = pipe.client()
    token, batch = client.acquire(), client.acquire_many(2)
    fill(pipe)
    for held in (token, batch):
        with pytest.raises(PoolFull, match=r"full.*still held"):
            held.release()
    assert repr(token) == "<Acquired held, implicit=False>"
    empty(pipe)
    token.release()
    batch.release()
    assert pipe.content() == b"ab"
    raw = client.acquire_raw()
    fill(pipe)
    with pytest.raises(PoolFull):
        client.release_raw(raw)
    empty(pipe)
    client.release_raw(raw)
    client.close()


def test_a_destructor_s_failure_is_told_by_the_next_call(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    client = pipe.client()
    token, batch = client.acquire(), client.acquire_many(2)
    fill(pipe)
    del token, batch
    gc.collect()
    with pytest.raises(PoolFull, match="2 still held"):
        client.try_acquire()
    empty(pipe)
    client.acquire().release()
    client.close()
    assert pipe.content() == b"abc"


def test_a_destructor_s_failure_is_told_by_close(whole: NewPipe) -> None:
    pipe = whole(b"a")
    client = pipe.client()
    token = client.acquire()
    fill(pipe)
    del token
    gc.collect()
    with pytest.raises(PoolFull, match="1 still held"):
        client.close()
    empty(pipe)
    client.close()
    assert pipe.content() == b"a"


@pytest.mark.needs("objects that end when they are dropped")
@pytest.mark.needs("pipe")
def test_the_far_end_of_a_socket_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.send(b"ab")
        client = Client.open(f"{ours.fileno()},{ours.fileno()}")
        token = client.acquire()
        batch = client.acquire_many(1)
        theirs.close()
        for call in (client.acquire, client.try_acquire, client.acquire_raw, lambda: client.acquire(5)):
            with pytest.raises(PoolGone, match="gone"):
                call()
        for held in (token, batch):
            with pytest.raises(BrokenPipeError):
                held.release()
        del token, batch, held
        with pytest.raises(PoolGone, match="2 still held"):
            client.close()


def test_use_after_close() -> None:
    client = Client(2)
    token, batch = client.acquire(), client.acquire_many(1)
    client.close()
    client.close()
    for call in (
        client.acquire,
        client.try_acquire,
        client.slot,
        client.acquire_raw,
        client.available,
        client.release_raw,
        client.configure,
        lambda: client.acquire(0),
        lambda: client.acquire_many(1),
        lambda: client.run(["true"]),
    ):
        with pytest.raises(ClientClosed, match="closed"):
            call()
    token.release()
    batch.release()


def test_closing_while_a_thread_waits() -> None:
    with Client(1) as client:
        held = client.acquire()
        thread = threading.Thread(target=lambda: client.acquire().release())
        thread.start()
        wait_until_asleep("self", thread.native_id)
        with pytest.raises(ClientBusy, match="another thread"):
            client.close()
        held.release()
        thread.join(GUARD)
        assert client.available() == 1


def test_a_client_that_was_never_closed_warns() -> None:
    client = Client(1)
    with pytest.warns(ResourceWarning, match=r"unclosed <jobserver_ffi.Client .+>"):
        del client
        gc.collect()
    with warnings.catch_warnings(), Client(1) as quiet:
        warnings.simplefilter("error")
        token = quiet.acquire()
        del token


def test_a_client_is_not_pickled() -> None:
    with Client(1) as client, pytest.raises(TypeError, match=r"client\.auth"):
        pickle.dumps(client)


@pytest.mark.needs("/proc")
@pytest.mark.thread_unsafe(reason="counts the process's descriptors")
def test_descriptors_are_closed_and_not_inherited() -> None:
    before = os.listdir("/proc/self/fd")
    for style in STYLES:
        with Client(2, style=style) as client:
            ours = {int(fd) for fd in os.listdir("/proc/self/fd")} - {int(fd) for fd in before}
            assert not any(os.get_inheritable(fd) for fd in ours if os.path.exists(f"/proc/self/fd/{fd}"))
            with client.acquire(), pytest.raises(AcquireTimeout):
                client.acquire_many(2, minimum=2, timeout=0.001)
    assert os.listdir("/proc/self/fd") == before


def test_import_loads_only_what_is_needed() -> None:
    script = "import sys; had = set(sys.modules); import jobserver_ffi; print(*sorted(set(sys.modules) - had))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    needed = {"__future__", "_cffi_backend", "cpyext", "errno", "time"}  # cpyext: what PyPy loads extensions with
    assert {name for name in done.stdout.split() if not name.startswith("jobserver_ffi")} <= needed
    assert not {"jobserver_ffi.environment", "jobserver_ffi.children"} & set(done.stdout.split())
