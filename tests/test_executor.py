"""`JobserverExecutor`: slots are held while items run, and never otherwise."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool

import pytest

from jobserver_ffi import Client, ClientClosed, JobserverExecutor

from .conftest import TokenPipe, in_pipe, wait_until_asleep

pytestmark = pytest.mark.quick

NewPipe = Callable[[bytes], TokenPipe]
KINDS = ["thread", "process"]
GUARD = 120


def all_back(client: Client, slots: int) -> None:
    """All slots are free, or will be at once: an item's result may be seen a moment before its slot is back."""
    with client.acquire_many(slots, minimum=slots, timeout=GUARD):
        pass


def square(number: int) -> int:
    return number * number


def auth_seen() -> tuple[str, bool]:
    return os.environ.get("MAKEFLAGS", ""), Client.from_env() is None


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def fail() -> None:
    raise ValueError("of the initializer")


@pytest.mark.parametrize("kind", KINDS)
def test_results_in_order_and_nothing_held_afterwards(kind: str) -> None:
    with Client(2) as client, JobserverExecutor(client, 3, kind=kind) as executor:
        assert executor.submit(square, 7).result(GUARD) == 49
        all_back(client, 2)
        assert list(executor.map(square, range(100), chunksize=7)) == [square(n) for n in range(100)]
        all_back(client, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_no_item_runs_without_a_slot(kind: str) -> None:
    with Client(1) as client, JobserverExecutor(client, 3, kind=kind) as executor:
        with client.acquire():
            future = executor.submit(square, 2)
            assert not wait([future], 0.05).done
        assert future.result(GUARD) == 4


def test_never_more_items_than_slots() -> None:
    lock, running, most = threading.Lock(), 0, 0
    full = threading.Event()

    def item() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
        assert full.wait(GUARD)
        with lock:
            running -= 1

    with Client(3) as client, JobserverExecutor(client) as executor:
        for future in [executor.submit(item) for _ in range(50)]:
            future.result(GUARD)
    assert most == 3


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_items_never_take_a_slot(kind: str) -> None:
    with Client(1) as client, JobserverExecutor(client, 2, kind=kind) as executor:
        with client.acquire():
            futures = [executor.submit(square, n) for n in range(10)]
            assert all(future.cancel() for future in futures)
            assert len(wait(futures, GUARD).done) == 10
        all_back(client, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_is_prompt_while_a_token_is_waited_for(kind: str) -> None:
    with Client(0) as client:
        executor = JobserverExecutor(client, 2, kind=kind)
        futures = [executor.submit(square, n) for n in range(3)]
        executor.shutdown(cancel_futures=True)
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(GUARD)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(square, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_executor_still_runs_what_was_queued(kind: str) -> None:
    with Client(1) as client:
        executor = JobserverExecutor(client, 2, kind=kind)
        futures = [executor.submit(square, n) for n in range(5)]
        threads = executor._queue.threads  # type: ignore[union-attr]
        del executor
        gc.collect()  # PyPy ends what was dropped when it collects
        assert [future.result(GUARD) for future in futures] == [0, 1, 4, 9, 16]
        for thread in threads:
            thread.join(GUARD)
            assert not thread.is_alive()
        all_back(client, 1)


@pytest.mark.parametrize(("kind", "error"), [("thread", BrokenThreadPool), ("process", BrokenProcessPool)])
def test_an_initializer_that_fails_breaks_the_executor(kind: str, error: type[Exception]) -> None:
    with Client(1) as client, JobserverExecutor(client, 2, kind=kind, initializer=fail) as executor:
        futures = [executor.submit(square, 0)]
        with contextlib.suppress(error):  # it may be broken by now
            futures += [executor.submit(square, n) for n in range(2)]
        for future in futures:
            with pytest.raises(error):
                future.result(GUARD)
        with pytest.raises(error):
            executor.submit(square, 1)
        all_back(client, 1)


def test_a_killed_worker_gives_its_slot_back() -> None:
    with Client(1) as client, JobserverExecutor(client, 1, kind="process") as executor:
        future = executor.submit(os._exit, 3)
        with pytest.raises(BrokenProcessPool):
            future.result(GUARD)
        all_back(client, 1)
        with pytest.raises(BrokenProcessPool):
            executor.submit(square, 1)


def tell_and_sleep(descriptor: int) -> None:
    os.write(descriptor, str(os.getpid()).encode())
    signal.pause()


@pytest.mark.needs("fork")
def test_a_worker_killed_from_outside_gives_its_slot_back() -> None:
    read_end, write_end = os.pipe()
    fork = multiprocessing.get_context("fork")
    with Client(1) as client, JobserverExecutor(client, 1, kind="process", mp_context=fork) as executor:
        future = executor.submit(tell_and_sleep, write_end)
        assert select.select([read_end], [], [], GUARD)[0], "the item never ran"
        assert client.available() == 0
        os.kill(int(os.read(read_end, 20)), signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            future.result(GUARD)
        all_back(client, 1)
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("kind", KINDS)
def test_two_executors_share_the_slots_of_one_pool(kind: str, whole: NewPipe) -> None:
    pipe = whole(b"ab")
    entered, enter = os.pipe()
    leave, let_go = os.pipe()
    script = f"""
        import multiprocessing, os
        from jobserver_ffi import Client, JobserverExecutor
        def item():
            os.write({enter}, b"x")
            os.read({leave}, 1)
        context = multiprocessing.get_context("fork") if {kind!r} == "process" else None
        with Client.open({pipe.auth!r}) as client, JobserverExecutor(client, 4, kind={kind!r}, mp_context=context) as e:
            for future in [e.submit(item) for _ in range(10)]:
                future.result()
    """
    descriptors = (pipe.read_fd, pipe.write_fd, enter, leave)
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    programs = [subprocess.Popen(command, pass_fds=descriptors, start_new_session=True) for _ in range(2)]
    try:
        for left in range(20, 0, -1):
            for _ in range({20: 2, 1: 0}.get(left, 1)):
                assert select.select([entered], [], [], GUARD)[0], "a slot is free, and no item runs"
                os.read(entered, 1)
            # As many items run as there are slots, or are left; they leave one by one.
            assert in_pipe(entered) == 0, "more items run than there are slots"
            assert left == 1 or in_pipe(pipe.read_fd) == 0
            os.write(let_go, b"x")
        assert [program.wait(GUARD) for program in programs] == [0, 0]
    finally:
        for program in programs:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()
        for descriptor in (entered, enter, leave, let_go):
            os.close(descriptor)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_know_nothing_of_the_jobserver(method: str, whole: NewPipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = whole(b"ab")
    monkeypatch.setenv("MAKEFLAGS", pipe.environ["MAKEFLAGS"])
    client = pipe.client()
    with JobserverExecutor(client, 1, kind="process", mp_context=multiprocessing.get_context(method)) as executor:
        assert executor.submit(auth_seen).result(GUARD)[1]
        if method == "fork":
            assert not any(executor.map(is_open, (pipe.read_fd, pipe.write_fd)))
    assert is_open(pipe.read_fd) and is_open(pipe.write_fd)


def test_errors_of_the_wait_go_to_the_items() -> None:
    client = Client(1)
    with JobserverExecutor(client) as executor:
        client.close()
        with pytest.raises(ClientClosed):
            executor.submit(square, 1).result(GUARD)


@pytest.mark.needs("fork")
def test_not_after_a_fork() -> None:
    with Client(1) as client, JobserverExecutor(client) as executor:
        assert executor.submit(square, 1).result(GUARD) == 1
        child = os.fork()
        if child == 0:
            try:
                executor.submit(square, 1)
            except RuntimeError:
                executor.shutdown()
                os._exit(7)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 7 << 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise KeyError"])
def test_what_is_queued_runs_at_exit(kind: str, ending: str, whole: NewPipe) -> None:
    pipe = whole(b"abc")
    script = f"""
        import os, sys
        from jobserver_ffi import Client, JobserverExecutor
        client = Client.from_env()
        executor = JobserverExecutor(client, 2, kind={kind!r})
        for number in range(5):
            executor.submit(os.write, 1, b"x")
        {ending}
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={**os.environ, **pipe.environ},
        pass_fds=(pipe.read_fd, pipe.write_fd),
        capture_output=True,
        timeout=GUARD,
        check=False,
    )
    assert done.stdout == b"xxxxx", done.stderr
    assert pipe.content() == b"abc"


def test_the_first_item_runs_on_the_implicit_slot(whole: NewPipe) -> None:
    pipe = whole(b"")
    script = """
        import threading
        from jobserver_ffi import Client, JobserverExecutor
        client = Client.from_env()
        with JobserverExecutor(client) as executor:
            assert list(executor.map(abs, range(-5, 5)))[0] == 5
            with client.slot():
                future = executor.submit(abs, -1)
            assert future.result(120) == 1
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **pipe.environ},
        pass_fds=(pipe.read_fd, pipe.write_fd),
        capture_output=True,
        timeout=GUARD,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_thread_keeps_no_result_while_it_runs_the_next_item(whole: NewPipe) -> None:
    go_on, runs, end = threading.Event(), threading.Event(), threading.Event()

    def first() -> set[int]:
        assert go_on.wait(GUARD)
        return set()

    def second() -> None:
        runs.set()
        assert end.wait(GUARD)

    client = Client.from_env(whole(b"").environ)
    assert client is not None
    with client, JobserverExecutor(client, 1) as executor:
        made, last = executor.submit(first), executor.submit(second)
        go_on.set()
        result = weakref.ref(made.result(GUARD))
        del made
        assert runs.wait(GUARD)
        gc.collect()
        kept = result()
        end.set()
        last.result(GUARD)
    assert kept is None


def test_a_slot_that_was_long_out_goes_to_who_waited_first() -> None:
    """And not to the executor's next item: that would pass over whoever waits in the pool's queue."""
    go_on = threading.Event()
    order: list[str] = []

    def other() -> None:
        with client.acquire(GUARD):
            order.append("other")

    def first() -> None:
        assert go_on.wait(GUARD)
        time.sleep(0.002)  # a job that is longer than a turn

    with Client(1) as client, JobserverExecutor(client, 2) as executor:
        items: list[Future[None]] = [executor.submit(first)]
        while client.available():
            time.sleep(0)
        waiter = threading.Thread(target=other)
        waiter.start()
        assert waiter.native_id is not None
        wait_until_asleep(os.getpid(), waiter.native_id)
        threads = set(threading.enumerate())
        items.append(executor.submit(order.append, "item"))
        (serving,) = set(threading.enumerate()) - threads
        wait_until_asleep(os.getpid(), serving.native_id)  # or it might find the token before anybody was woken
        go_on.set()
        assert len(wait(items, GUARD).done) == 2
        waiter.join(GUARD)
        assert order == ["other", "item"]
