"""How everything is timed: all contestants in turn, so that whatever slows the machine down slows them all."""

from __future__ import annotations

import mmap
import os
import random
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

from .rows import Row, Times

Step: TypeAlias = Callable[[], object]
T = TypeVar("T")

QUICK = "JOBSERVER_FFI_BENCHMARKS_QUICK"
"""The variable that makes everything short: enough to see that it runs, too short for the tails."""

# What is measured must not depend on a jobserver that happens to be around.
for _name in ("MAKEFLAGS", "CARGO_MAKEFLAGS", "MFLAGS"):
    os.environ.pop(_name, None)


def quick() -> bool:
    return QUICK in os.environ


def either(full: T, short: T) -> T:
    """One value for a full run, another for a quick one."""
    return short if quick() else full


def in_turns(contestants: Mapping[str, Callable[[], T]], turns: int, warm_up: int = 5) -> dict[str, list[T]]:
    """What each contestant measures in each turn; the first turns are not counted.

    Each turn has an order of its own: whoever follows one that sleeps long finds the processor in a deeper sleep.
    """
    samples: dict[str, list[T]] = {name: [] for name in contestants}
    order = list(contestants)
    for turn in range(warm_up + turns):
        random.Random(turn).shuffle(order)
        for name in order:
            sample = contestants[name]()
            if turn >= warm_up:
                samples[name].append(sample)
    return samples


def timed(work: Callable[..., object], *arguments: object) -> float:
    """Nanoseconds that a call takes."""
    start = time.perf_counter_ns()
    work(*arguments)
    return time.perf_counter_ns() - start


def ratio(samples: Sequence[float], limit: Sequence[float]) -> float:
    """The median over all turns of the ratio of two neighbours."""
    return statistics.median(mine / other for mine, other in zip(samples, limit, strict=True))


def ratio_row(name: str, samples: Sequence[float], limit: Sequence[float], most: float | None = None) -> Row:
    """The row of one contestant beside the limit, which had as many turns."""
    return Row(name, ratio(samples, limit), "", most, "", Times.of(samples))


def shared_memory(size: int) -> mmap.mmap:
    """Memory that forked processes share."""
    return mmap.mmap(-1, size)


@contextmanager
def processes(works: list[Step]) -> Iterator[list[int]]:
    """Forks a process for each piece of work, and kills them all at the end.

    A fork is the one start that is quick enough for hundreds; this process must have no other thread.
    """
    started: list[int] = []
    try:
        for work in works:
            started.append(start(work))
        yield started
    finally:
        for process in started:
            os.kill(process, signal.SIGKILL)
        for process in started:
            os.waitpid(process, 0)


def start(work: Step) -> int:
    sys.stdout.flush()
    process = os.fork()
    if process != 0:
        return process
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os.kill(os.getppid(), signal.SIGINT)  # or it would wait for this process for ever
    os._exit(1)


def switches(process: int) -> tuple[int, int]:
    """How often the threads of a process went to sleep, and how often they were made to stop: all of them so far."""
    voluntary = involuntary = 0
    for status in Path(f"/proc/{process}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                voluntary += int(line.split()[1])
            elif line.startswith("nonvoluntary_ctxt_switches:"):
                involuntary += int(line.split()[1])
    return voluntary, involuntary


def cpu(process: int) -> int:
    """Nanoseconds of CPU that the threads of a process have used so far."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{process}/task").glob("*/schedstat"))
