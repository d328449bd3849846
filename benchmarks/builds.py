"""What does a whole build cost under each jobserver, and what do two at once that share none?"""

from __future__ import annotations

import os
import resource
import runpy
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobserver_ffi import Client, Pool

from . import BUILD, ROOT
from .harness import either
from .peers import find_make, left_out
from .rows import Row

SLOTS = max(os.cpu_count() or 1, 2)
TURNS = either(3, 1)
LOOK_EVERY = 0.02  # seconds: how often memory and compilers are counted
FLAGS = either("-O2", "-O0")
TARGETS = either(("lua",), ("ldo.o", "lgc.o"))
TITLE = f"Lua, a C project, built with {SLOTS} slots ({FLAGS}); one by make alone, and two, = 1.00"
EXAMPLE = ROOT / "docs" / "examples" / "build_lua.py"


@dataclass(frozen=True)
class Cost:
    """What one scenario cost."""

    wall: float  # seconds
    memory: float  # bytes at the most, of all its processes
    compilers: int  # at once at the most
    switches: int


Builds = list[list[str]]
Scenario = Callable[[Builds], object]


def rows() -> Iterator[Row]:
    make, sources = find_make("4.4"), fetched()
    if make is None or sources is None:
        left_out("no GNU make 4.4, or no sources of Lua from the package index: no whole builds")
        return
    folders = [BUILD / f"lua-{number}" for number in range(2)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sources, folder)
    settings = [*TARGETS, f"CFLAGS={FLAGS} -std=c99 -DLUA_USE_POSIX", "MYLDFLAGS=", "MYLIBS="]
    commands = [[make, "--silent", "-C", str(folder), *settings] for folder in folders]
    costs: dict[str, list[Cost]] = {name: [] for name in SCENARIOS}
    for _ in range(TURNS):
        for name, (number, scenario) in SCENARIOS.items():
            for folder in folders:
                subprocess.run([make, "--silent", "-C", str(folder), "clean"], check=True)
            costs[name].append(measure(scenario, commands[:number]))
    yield from table(costs)


def table(costs: dict[str, list[Cost]]) -> Iterator[Row]:
    """Two builds at once are compared with two that share nothing."""
    for name, found in costs.items():
        base = costs[OWN if SCENARIOS[name][0] == 1 else NAIVE]
        ratio = statistics.median(mine.wall / other.wall for mine, other in zip(found, base, strict=True))
        wall, memory = (statistics.median(getattr(one, field) for one in found) for field in ("wall", "memory"))
        note = (
            f"{wall:.2f} s, {memory / 2**20:.0f} MiB, {max(one.compilers for one in found)} compilers at once, "
            f"{statistics.median(one.switches for one in found):,.0f} context switches"
        )
        yield Row(name, ratio, "", None, note)


def fetched() -> Path | None:
    """The sources of Lua, as the example fetches them."""
    kept = BUILD / "lua"
    if not kept.exists():
        (BUILD / "download").mkdir(parents=True, exist_ok=True)
        try:
            runpy.run_path(str(EXAMPLE))["fetch"](BUILD / "download").rename(kept)
        except SystemExit:
            return None
    return kept


def measure(scenario: Scenario, commands: Builds) -> Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with Watch() as watch:
        scenario(commands)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    switches = after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw
    return Cost(wall, watch.memory, watch.compilers, switches)


class Watch(threading.Thread):
    """Looks at all processes below this one, again and again; keeps what was most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.memory = self.compilers = 0
        self._end = threading.Event()

    def run(self) -> None:
        myself = psutil.Process()
        while not self._end.wait(LOOK_EVERY):
            memory = compilers = 0
            for process in myself.children(recursive=True):
                with suppress(psutil.Error):
                    memory += process.memory_info().rss
                    compilers += process.name() == "cc1"
            self.memory, self.compilers = max(self.memory, memory), max(self.compilers, compilers)

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()


def each_by_itself(commands: Builds) -> None:
    started = [subprocess.Popen([*command, f"-j{SLOTS}"]) for command in commands]
    finish(started)


def in_a_pool(style: str) -> Scenario:
    """All share one pool of ours; each make runs on one of its slots."""

    def run(commands: Builds) -> None:
        with Client(SLOTS, style=style) as client:
            tokens = [client.acquire() for _ in commands]
            started = [client.popen(command) for command in commands]
            for process, token in zip(started, tokens, strict=True):
                finish([process])
                token.release()

    return run


def in_leases(commands: Builds) -> None:
    with Pool(SLOTS) as pool:
        leases = [pool.lease(f"build {number}") for number in range(len(commands))]
        finish([lease.popen(command) for lease, command in zip(leases, commands, strict=True)])
        for lease in leases:
            lease.wait()


def finish(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.wait() != 0:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")


OWN = f"one build: make -j{SLOTS}, make's own jobserver"
NAIVE = f"two at once: make -j{SLOTS} twice"
SCENARIOS: dict[str, tuple[int, Scenario]] = {
    OWN: (1, each_by_itself),
    "one build: our pipe": (1, in_a_pool("pipe")),
    "one build: our fifo": (1, in_a_pool("fifo")),
    "one build: a lease": (1, in_leases),
    NAIVE: (2, each_by_itself),
    "two at once: our fifo, shared": (2, in_a_pool("fifo")),
    "two at once: a lease each": (2, in_leases),
}
