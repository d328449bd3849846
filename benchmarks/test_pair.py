"""What does it cost to take a token and give it back, when there is one?"""

from __future__ import annotations

import importlib.metadata
import os

import pytest

from jobserver_ffi import Client

from .conftest import PAIRS, TOKENS, Ratio, bare_loop


def raw_loop(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        client.release_raw(client.acquire_raw())


def acquire_loop(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        with client.acquire():
            pass


def timeout_loop(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        with client.acquire(timeout=60):
            pass


def try_loop(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        token = client.try_acquire()
        if token is not None:
            token.release()


def slot_loop(client: Client, pairs: int) -> None:
    for _ in range(pairs):
        with client.slot():
            pass


def test_bare(ratio: Ratio, pipe: tuple[int, int]) -> None:
    """The bare loop against itself: how far from 1.00 it is shows what the other rows are worth."""
    ratio("os.write(w, os.read(r, 1))", bare_loop, *pipe)


def test_raw(ratio: Ratio, own_pipe: Client) -> None:
    ratio("client.release_raw(client.acquire_raw())", raw_loop, own_pipe, most=1.30)


def test_acquire(ratio: Ratio, own_pipe: Client) -> None:
    ratio("with client.acquire()", acquire_loop, own_pipe, most=2.10)


@pytest.mark.parametrize(("count", "most"), [(TOKENS, 0.10), (8, None)])
def test_acquire_many(ratio: Ratio, own_pipe: Client, count: int, most: float | None) -> None:
    def loop(pairs: int) -> None:
        for _ in range(pairs):
            with own_pipe.acquire_many(count):
                pass

    name = f"with client.acquire_many({count}), each token"
    ratio(name, loop, pairs=PAIRS // 10, tokens=count, most=most)


def test_acquire_timeout(ratio: Ratio, own_pipe: Client) -> None:
    ratio("with client.acquire(timeout=60)", timeout_loop, own_pipe)


def test_try_acquire(ratio: Ratio, own_pipe: Client) -> None:
    ratio("client.try_acquire(), .release()", try_loop, own_pipe)


def test_slot(ratio: Ratio, own_pipe: Client) -> None:
    ratio("with client.slot(), no implicit slot", slot_loop, own_pipe)


def test_implicit_slot(ratio: Ratio, pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    client = Client.from_env({"MAKEFLAGS": f"--jobserver-auth={read_fd},{write_fd}"})
    assert client is not None
    with client:
        assert client.slot().implicit
        ratio("with client.slot(), the implicit one", slot_loop, client)


def test_bare_fifo(ratio: Ratio, own_fifo: Client) -> None:
    """A fifo costs the kernel more than an anonymous pipe: it keeps the times of the file."""
    descriptor = os.open(own_fifo.auth.removeprefix("fifo:"), os.O_RDWR)
    ratio("fifo: os.write(w, os.read(r, 1))", bare_loop, descriptor, descriptor)
    os.close(descriptor)


def test_raw_fifo(ratio: Ratio, own_fifo: Client) -> None:
    ratio("fifo: client.release_raw(client.acquire_raw())", raw_loop, own_fifo)


def test_acquire_fifo(ratio: Ratio, own_fifo: Client) -> None:
    ratio("fifo: with client.acquire()", acquire_loop, own_fifo)


def test_raw_inherited(ratio: Ratio, inherited_pipe: Client) -> None:
    ratio("inherited: client.release_raw(client.acquire_raw())", raw_loop, inherited_pipe)


def test_acquire_inherited(ratio: Ratio, inherited_pipe: Client) -> None:
    ratio("inherited: with client.acquire()", acquire_loop, inherited_pipe)


def test_gnumake_tokenpool(ratio: Ratio, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("gnumake_tokenpool", exc_type=ImportError)
    read_fd, write_fd = pipe
    monkeypatch.setenv("MAKEFLAGS", f"-j{TOKENS} --jobserver-auth={read_fd},{write_fd}")
    client = package.JobClient()

    def loop(pairs: int) -> None:
        for _ in range(pairs):
            client.release(client.acquire())

    version = importlib.metadata.version("gnumake-tokenpool")
    ratio(f"gnumake-tokenpool {version}: release(acquire())", loop, pairs=PAIRS // 20)
