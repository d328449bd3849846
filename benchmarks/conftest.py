"""How a loop is timed: in turns with the C limit and the bare loop in Python, so that a slow machine slows all down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .harness import either, ratio, timed
from .pairs import BARE, LIMIT, Missing, Pairs, pool
from .peers import left_out
from .rows import Times

# In one turn: enough that getting warm again does not count, and that the turn is over in less than a millisecond. What
# takes longer than the scheduler's slice is interrupted on a busy machine in every turn, and not only in some.
PAIRS = 500
TURNS = either(500, 25)
FIRST_TURNS = 5  # not counted: the interpreter specialises the loops


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No time limit here: in a process with a second thread, even one that sleeps, every system call takes longer."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(0))


class Against:
    """Times a loop against the limit and against the bare loop in Python, on a pool beside it."""

    def __init__(self, benchmark: BenchmarkFixture, stack: ExitStack) -> None:
        address = stack.enter_context(pool("pipe"))
        self._benchmark = benchmark
        self._stack = stack
        self._loops = [LIMIT.begin(address, stack), BARE.begin(address, stack)]
        self._turns: list[list[float]] = [[], []]

    def __call__(self, contestant: Pairs) -> None:
        """Runs a contestant, and leaves the result to the report."""
        address = self._stack.enter_context(pool(contestant.pool))
        try:
            loop = contestant.begin(address, self._stack)
        except Missing as error:
            left_out(str(error))
            pytest.skip(str(error))
        self.loop(contestant.name, loop, PAIRS // contestant.divisor, most=contestant.most)

    def loop(
        self, name: str, loop: Callable[[int], object], pairs: int, tokens: int = 1, most: float | None = None
    ) -> None:
        """Runs `loop(pairs)`.

        Args:
            name: What the row is called.
            loop: Takes and gives back `pairs` times.
            pairs: How many times in one turn.
            tokens: How many tokens it takes at a time: the figures are for one.
            most: The target, as a multiple of the bare loop.
        """
        self._benchmark.pedantic(  # type: ignore[no-untyped-call]
            loop, (pairs,), setup=self._others, rounds=TURNS, warmup_rounds=FIRST_TURNS
        )
        if self._benchmark.stats is None:
            return
        mine = [turn * 1e9 / (pairs * tokens) for turn in self._benchmark.stats.stats.data]
        limit, bare = (turns[-len(mine) :] for turns in self._turns)
        self._benchmark.extra_info.update(
            name=name, most=most, ratio=ratio(mine, limit), bare=ratio(mine, bare), times=vars(Times.of(mine))
        )

    def _others(self) -> None:
        for loop, turns in zip(self._loops, self._turns, strict=True):
            turns.append(timed(loop, PAIRS) / PAIRS)


@pytest.fixture
def against(benchmark: BenchmarkFixture) -> Iterator[Against]:
    with ExitStack() as stack:
        yield Against(benchmark, stack)
