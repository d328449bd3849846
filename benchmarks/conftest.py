"""How a loop is timed: in turns with the bare one, so that whatever slows the machine down slows both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from jobserver_ffi import Client

TOKENS = 64
PAIRS = 1000  # in one turn: enough that getting warm again does not count, and half a millisecond of the bare loop
TURNS = 300
FIRST_TURNS = 5  # not counted: the interpreter specialises the loops

# The rows must not depend on a jobserver that happens to be around.
for name in ("MAKEFLAGS", "CARGO_MAKEFLAGS", "MFLAGS"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No time limit here: in a process with a second thread, even one that sleeps, every system call takes longer."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(0))


def bare_loop(read_fd: int, write_fd: int, pairs: int) -> None:
    """What counts as 1.00: the system calls, as one would write them in Python."""
    for _ in range(pairs):
        os.write(write_fd, os.read(read_fd, 1))


class Ratio:
    """Times a loop against the bare one: the median over all turns of the ratio of two neighbours."""

    def __init__(self, benchmark: BenchmarkFixture, pipe: tuple[int, int]) -> None:
        self._benchmark = benchmark
        self._pipe = pipe
        self._bare: list[float] = []

    def __call__(
        self,
        name: str,
        loop: Callable[..., None],
        *arguments: object,
        pairs: int = PAIRS,
        tokens: int = 1,
        most: float | None = None,
    ) -> None:
        """Runs `loop(*arguments, pairs)`, and leaves the result to the report.

        Args:
            name: What the row is called.
            loop: Takes and gives back `pairs` times.
            *arguments: What the loop needs.
            pairs: How many times in one turn, fewer for what is slow.
            tokens: How many tokens it takes at a time: the ratio is for one.
            most: The target.
        """
        self._benchmark.pedantic(  # type: ignore[no-untyped-call]
            loop, (*arguments, pairs), setup=self._bare_turn, rounds=TURNS, warmup_rounds=FIRST_TURNS
        )
        if self._benchmark.stats is not None:
            turns = [turn / (pairs * tokens) for turn in self._benchmark.stats.stats.data]
            self._benchmark.extra_info.update(name=name, most=most, **self._compare(turns))

    def _bare_turn(self) -> None:
        start = time.perf_counter()
        bare_loop(*self._pipe, PAIRS)
        self._bare.append((time.perf_counter() - start) / PAIRS)

    def _compare(self, turns: list[float]) -> dict[str, float]:
        ratios = [turn / bare for turn, bare in zip(turns, self._bare[-len(turns) :], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return {"ratio": middle, "low": low, "high": high, "nanoseconds": statistics.median(turns) * 1e9}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pool as make would make it, with nobody else in it."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"+" * TOKENS)
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


@pytest.fixture
def ratio(benchmark: BenchmarkFixture, pipe: tuple[int, int]) -> Ratio:
    return Ratio(benchmark, pipe)


@pytest.fixture
def own_pipe() -> Iterator[Client]:
    with Client(TOKENS) as client:
        yield client


@pytest.fixture
def own_fifo() -> Iterator[Client]:
    with Client(TOKENS, style="fifo") as client:
        yield client


@pytest.fixture
def inherited_pipe(pipe: tuple[int, int]) -> Iterator[Client]:
    read_fd, write_fd = pipe
    with Client.open(f"{read_fd},{write_fd}") as client:
        yield client
