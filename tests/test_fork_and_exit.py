"""Fork and exit: no token is doubled in a child, none is lost at the end of a process."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from jobserver_ffi import Client, OverRelease

from .conftest import TokenPipe, in_pipe

pytestmark = [pytest.mark.quick, pytest.mark.needs("fork")]

NewPipe = Callable[[bytes], TokenPipe]


def in_child(action: Callable[[], object]) -> None:
    """Runs the action in a forked child that ends normally, with Python's and C's clean-up."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            # What sys.exit leads to, without pytest's own frames in between: the C library's exit.
            sys.stdout.flush()
            _exit_with_clean_up(status)
    assert os.waitpid(child, 0)[1] == 0


def _exit_with_clean_up(status: int) -> None:
    import ctypes

    ctypes.CDLL(None).exit(status)


def test_a_child_holds_nothing_of_its_parent_s(whole: NewPipe) -> None:
    pipe = whole(b"abcdef")
    client = pipe.client()
    token, batch, raw = client.acquire(), client.acquire_many(2), client.acquire_raw()

    def child() -> None:
        token.release()
        batch.release()
        with pytest.raises(OverRelease):
            client.release_raw(raw)
        with pytest.raises(OverRelease):
            client.release_raw()
        assert in_pipe(pipe.read_fd) == 2
        with client.acquire(), client.acquire(5):
            assert client.try_acquire() is None
        client.close()
        assert in_pipe(pipe.read_fd) == 2

    in_child(child)
    assert in_pipe(pipe.read_fd) == 2
    token.release()
    batch.release()
    client.release_raw(raw)


def test_a_child_that_ends_with_tokens_gives_them_back(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    client = pipe.client()
    kept: list[object] = []

    def child() -> None:
        kept.extend([client.acquire(), client.acquire_many(2)])

    in_child(child)
    assert in_pipe(pipe.read_fd) == 3


def test_a_child_does_not_remove_its_parent_s_fifo() -> None:
    with Client(2, style="fifo") as client:
        path = Path(client.auth.removeprefix("fifo:"))

        def child() -> None:
            client.close()

        in_child(child)
        assert path.exists()
        in_child(lambda: None)
        assert path.exists()
        other = Client.open(client.auth)
        with other.acquire():
            assert client.available() == 1
        other.close()


def test_the_implicit_slot_stays_with_the_parent(whole: NewPipe) -> None:
    pipe = whole(b"ab")
    script = """
        import os, sys
        from jobserver_ffi import Client, OverRelease
        client = Client.from_env()
        again = Client.from_env()
        free = client.available()
        with client.slot() as slot, again.slot() as token:
            assert slot.implicit and not token.implicit
            assert client.available() == free - 1
        with again.slot() as slot:
            assert slot.implicit
        pid = os.fork()
        if pid == 0:
            with client.slot() as slot:
                assert not slot.implicit
            with Client.from_env().slot() as slot:
                assert not slot.implicit
            try:
                client.release_raw()
            except OverRelease:
                os._exit(7)
            os._exit(8)
        assert os.waitpid(pid, 0)[1] == 7 << 8
        client.release_raw()
        assert client.available() == free + 1
        with client.slot() as slot:
            assert not slot.implicit
        try:
            again.release_raw()
        except OverRelease:
            pass
        else:
            sys.exit("lent twice")
        taken = [client.acquire_raw() for _ in range(free + 1)]
        taken.remove(ord("+"))
        for byte in taken:
            client.release_raw(byte)
    """
    run_script(script, pipe, {**os.environ, **pipe.environ})


def run_script(script: str, pipe: TokenPipe, environ: dict[str, str], status: int = 0) -> None:
    """Runs a program that inherits the pipe."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env=environ,
        pass_fds=(pipe.read_fd, pipe.write_fd),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stderr


def test_who_made_the_pool_has_no_implicit_slot() -> None:
    with Client(2) as client:
        own = Client.from_env({"MAKEFLAGS": f" -j2 --jobserver-auth={client.auth}"})
        assert own is not None
        with own, own.slot() as slot:
            assert not slot.implicit
            with pytest.raises(OverRelease):
                own.release_raw()


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError", 1),
        ("held.append(held)", 0),
        ("import threading; threading.Thread(target=client.acquire, daemon=True).start()", 0),
        pytest.param(
            "import signal; os.kill(os.getpid(), signal.SIGINT)",
            -2,
            marks=pytest.mark.needs("objects that end with the process"),
        ),
    ],
)
def test_the_end_of_a_process_gives_back_what_it_holds(ending: str, status: int, whole: NewPipe) -> None:
    pipe = whole(b"abcd")
    script = f"""
        import os, sys
        from jobserver_ffi import Client
        client = Client.from_env()
        held = [client.acquire(), client.acquire_many(3), client.slot()]
        sys.modules["kept"] = held
        {ending}
    """
    run_script(script, pipe, {**os.environ, **pipe.environ}, status)
    assert pipe.content() == b"abcd"


def worker(auth: str, rounds: int) -> int:
    """Takes and gives back in a process of multiprocessing's."""
    with Client.open(auth) as client:
        for _ in range(rounds):
            with client.acquire():
                pass
            with client.acquire_many(2, timeout=120):
                pass
        return client.available()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    context = multiprocessing.get_context(method)
    with Client(3, style="fifo") as client, client.acquire(), context.Pool(2) as pool:
        results = [pool.apply_async(worker, (client.auth, 200)) for _ in range(4)]
        for result in results:
            assert result.get(120) <= 2
        pool.close()
        pool.join()
        assert client.available() == 2
