"""How long does a token take from a holder in one process to a waiter that sleeps in another?"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from jobserver_ffi import Client

from .rows import Row
from .ways import WAYS, Step, Way, processes

TITLE = "A token handed to a waiter in another process; a bare blocking `read` in C = 1.00"
MOST = {"acquire()": 1.15, "acquire(timeout=600)": 1.15}
NOT_ASKED = ("acquire() after a try_acquire()",)  # the same system calls as without
TURNS = 1000
FIRST_TURNS = 50  # not counted
ASLEEP_AFTER = 0.0005  # seconds: a waiter that was told to go sleeps by then


class Waiter:
    """A process with a pool of one token that only it and this process use."""

    def __init__(self) -> None:
        self.pool = Client(1)
        self.token = self.pool.acquire()
        self.go_read, self.go = os.pipe()
        self.times, self.times_write = os.pipe()

    def wait(self, way: Way) -> None:
        """What the process does: tells when it had the token, after giving it back."""
        taken = b""

        def before() -> None:
            os.write(self.times_write, taken)
            os.read(self.go_read, 1)

        def held() -> None:
            nonlocal taken
            taken = time.monotonic_ns().to_bytes(8, "little")

        read_fd, write_fd = self.pool.auth.split(",")
        with Client.open(f"{read_fd},{write_fd}") as client:
            way(client, before, held)

    def wait_in_c(self, program: Path) -> None:
        descriptors = [*map(int, self.pool.auth.split(",")), self.go_read, self.times_write]
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        os.execv(program, [str(program), *map(str, descriptors)])

    def hand_over(self) -> int:
        """Nanoseconds from just before the release to just after the waiter has the token."""
        os.write(self.go, b".")
        time.sleep(ASLEEP_AFTER)
        released = time.monotonic_ns()
        self.token.release()
        taken = int.from_bytes(os.read(self.times, 8), "little")
        self.token = self.pool.acquire()
        return taken - released

    def close(self) -> None:
        self.token.release()
        self.pool.close()
        for descriptor in (self.go_read, self.go, self.times, self.times_write):
            os.close(descriptor)


def os_read(client: Client, before: Step, held: Step) -> None:
    """What Python alone adds to the bare read."""
    read_fd, write_fd = map(int, client.auth.split(","))
    while True:
        before()
        byte = os.read(read_fd, 1)
        held()
        os.write(write_fd, byte)


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        program = build(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        ways: dict[str, Way] = {"os.read() in Python": os_read}
        ways |= {name: way for name, way in WAYS.items() if name not in NOT_ASKED}
        waiters = {name: Waiter() for name in ("read", *ways)}
        for waiter in waiters.values():
            stack.callback(waiter.close)
        works: list[Step] = [lambda: waiters["read"].wait_in_c(program)]
        works += [lambda name=name: waiters[name].wait(ways[name]) for name in ways]  # type: ignore[misc]
        stack.enter_context(processes(works))
        latencies = measure(waiters)
    bare = statistics.median(latencies["read"])
    for name, all_turns in latencies.items():
        low, middle, high = (nanoseconds / 1e3 for nanoseconds in statistics.quantiles(all_turns, n=4))
        note = f"{middle:.1f} us, half of all turns {low:.1f} to {high:.1f}"
        yield Row(name, statistics.median(all_turns) / bare, "", MOST.get(name), note)


def build(directory: Path) -> Path:
    program = directory / "handover"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", str(source), "-o", str(program)], check=True)
    return program


def measure(waiters: dict[str, Waiter]) -> dict[str, list[int]]:
    """Nanoseconds of each turn, for each waiter; they take turns, so that what slows one down slows all."""
    latencies: dict[str, list[int]] = {name: [] for name in waiters}
    for turn in range(FIRST_TURNS + TURNS):
        for name, waiter in waiters.items():
            latency = waiter.hand_over()
            if turn >= FIRST_TURNS:
                latencies[name].append(latency)
    return latencies
