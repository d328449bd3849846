"""The process whose instructions, system calls or allocations are counted: `python -m benchmarks.counted WHAT WHO`.

Each contestant loops twice, one time longer than the other: the difference is the loop's alone.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress

from .events import EVENTS
from .native import LOOPS, build
from .pairs import BARE, LIMIT, OTHER_THINGS, OURS, PEERS, Pairs, begin

LOOPS_OF = (50, 250)  # pairs; Python allocates the integers beyond 256
WARM_UP = 50  # the interpreter specialises the loop, and lists get their size

THREADS = ("JobserverExecutor", "ThreadPoolExecutor", "filelock")  # whose counts are different each time


def countable(contestants: Iterable[Pairs]) -> tuple[Pairs, ...]:
    return tuple(one for one in contestants if one.pool == "pipe" and not any(word in one.name for word in THREADS))


WE = countable((LIMIT, BARE, *OURS))
EVERYBODY = WE + countable((*EVENTS, *PEERS, *OTHER_THINGS))
GROUPS = {"ourselves": WE, "everybody": EVERYBODY}

Measure = Callable[[Callable[[int], object], str, int], None]
"""Runs a loop of so many pairs, and lets what counts from outside know that it does."""


def instructions() -> Measure:
    library = ctypes.CDLL(str(build("instructions", [LOOPS / "instructions.c"])))

    def measure(loop: Callable[[int], object], name: str, pairs: int) -> None:
        label = f"{name}|{pairs}".encode()
        library.counting_begin()
        loop(pairs)
        library.counting_end(label)

    return measure


def system_calls() -> Measure:
    """A write to no descriptor is what strace shows of the names."""

    def mark(text: str) -> None:
        with suppress(OSError):
            os.write(-1, text.encode())

    def measure(loop: Callable[[int], object], name: str, pairs: int) -> None:
        mark(f"BEGIN|{name}|{pairs}")
        loop(pairs)
        mark("END")

    return measure


def allocations(found: dict[str, int]) -> Measure:
    counted = ctypes.CDLL(None).allocations
    counted.restype = ctypes.c_long

    def measure(loop: Callable[[int], object], name: str, pairs: int) -> None:
        before = counted()
        loop(pairs)
        found[f"{name}|{pairs}"] = counted() - before

    return measure


def run(contestant: Pairs, measure: Measure) -> None:
    with ExitStack() as stack:
        loop = begin(contestant, stack)
        if loop is not None:
            loop(WARM_UP)
            for pairs in LOOPS_OF:
                measure(loop, contestant.name, pairs)


def main(what: str, who: str) -> None:
    found: dict[str, int] = {}
    measures: dict[str, Callable[[], Measure]] = {
        "instructions": instructions,
        "system calls": system_calls,
        "allocations": lambda: allocations(found),
    }
    measure: Measure = measures[what]()
    gc.disable()  # or it runs in one of the loops
    for contestant in (LIMIT, *GROUPS[who]):  # the first one twice: some things are done once, and count then
        run(contestant, measure)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
