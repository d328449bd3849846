"""What do leases cost beside a fifo that all builds share, do they share fairly, and do they rest when idle?"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from jobserver_ffi import Client, MaxLoad, Pool

from .harness import either, in_turns, ratio
from .peers import find_make, left_out
from .rows import Row

TITLE = "Leases: real makes in a pool of 8, beside a fifo that they share"
SLOTS = 8
ROUNDS = either(5, 1)
SECONDS_OF_JOBS = either(3.0, 0.5)  # that all jobs of a build take together
JOB_TIMES = either((0.005, 0.02), (0.02,))  # seconds
MAKES = either((1, 2, 4, 16), (2,))
MOST_WALL = 1.05  # times the shared fifo's
MOST_BRIDGED = 1.1  # times that without a bridge
MOST_CPU = 15.0  # microseconds for each token moved; a job takes one and gives it back
LEASES = 1000
MOST_MEMORY = 30.0  # MiB
IDLE_SECONDS = either(10.0, 1.0)


def rows() -> Iterator[Row]:
    make = find_make("4.4")
    if make is None:
        left_out("GNU make 4.4 is not on this machine: no rows of leases beside a fifo")
        return
    with tempfile.TemporaryDirectory() as directory:
        for job_time in JOB_TIMES:
            for makes in MAKES:
                yield from beside_a_fifo([make, "-s", "-C", directory], Path(directory), makes, job_time)
        for style in ("fifo", "pipe"):
            yield from bridged([make, "-s", "-C", directory], Path(directory), style)
        yield fair([make, "-s", "-C", directory], Path(directory))
    yield from idle()
    yield many()


def write(directory: Path, jobs: int, job_time: float) -> None:
    """A makefile of so many jobs."""
    targets = " ".join(f"job{number}" for number in range(jobs))
    (directory / "Makefile").write_text(f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@sleep {job_time}\n")


def at_once(run: Callable[[int], object], count: int) -> float:
    """Seconds that so many threads take."""
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def beside_a_fifo(command: list[str], directory: Path, makes: int, job_time: float) -> Iterator[Row]:
    jobs = max(int(SECONDS_OF_JOBS / job_time / makes), 1)
    write(directory, jobs, job_time)
    cpu: list[float] = []

    def shared() -> float:
        with Client(SLOTS, style="fifo") as client:

            def run(_: int) -> None:
                with client.acquire():
                    client.run(command, check=True)

            return at_once(run, makes)

    def leased() -> float:
        with Pool(SLOTS) as pool:

            def run(number: int) -> None:
                with pool.lease(f"make {number}", style="fifo") as lease:
                    lease.run(command, check=True)

            before = cpu_of_pools()
            seconds = at_once(run, makes)
            cpu.append(cpu_of_pools() - before)
            return seconds

    seconds = in_turns({"leased": leased, "shared": shared}, ROUNDS, warm_up=0)
    name = f"{makes} make{'s' * (makes > 1)}, jobs of {job_time * 1e3:.0f} ms"
    note = f"{median(seconds['leased']):.2f} s and {median(seconds['shared']):.2f} s"
    yield Row(f"{name}: wall time", ratio(seconds["leased"], seconds["shared"]), "", MOST_WALL, note)
    yield Row(f"{name}: CPU of the pool for a token moved", median(cpu) * 1e6 / (2 * jobs * makes), "us", MOST_CPU)


def bridged(command: list[str], directory: Path, style: str) -> Iterator[Row]:
    """A make in a pool whose slots come from an outer jobserver, beside a make that is in that one itself."""
    jobs = int(SECONDS_OF_JOBS / JOB_TIMES[-1])
    write(directory, jobs, JOB_TIMES[-1])
    cpu: list[float] = []

    def joined() -> float:
        with Client(SLOTS) as client, client.acquire():
            return at_once(lambda _: client.run(command, check=True), 1)

    def through() -> float:
        with Client(SLOTS) as client, Pool(client) as pool, pool.lease("make", style=style) as lease:
            before = cpu_of_pools()
            seconds = at_once(lambda _: lease.run(command, check=True), 1)
            cpu.append(cpu_of_pools() - before)
            return seconds

    seconds = in_turns({"through": through, "joined": joined}, ROUNDS, warm_up=0)
    name = f"a make on a {style} bridged to a pipe"
    note = f"{median(seconds['through']):.2f} s and {median(seconds['joined']):.2f} s"
    yield Row(f"{name}: wall time", ratio(seconds["through"], seconds["joined"]), "", MOST_BRIDGED, note)
    yield Row(f"{name}: CPU of pool and bridge for a token moved", median(cpu) * 1e6 / (2 * jobs), "us")


def pool_threads() -> Iterator[Path]:
    """What the system knows of the threads of pools."""
    for thread in threading.enumerate():
        if thread.name in ("jobserver pool", "jobserver bridge", "jobserver gates"):
            yield Path(f"/proc/self/task/{thread.native_id}")


def cpu_of_pools() -> float:
    """CPU seconds of the threads of pools."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in pool_threads()) / 1e9


def fair(command: list[str], directory: Path) -> Row:
    write(directory, 2000, 0.02)
    with Pool(SLOTS) as pool:
        leases = [pool.lease(f"make {number}", style="fifo") for number in range(2)]
        processes = [lease.popen(command, stderr=subprocess.DEVNULL) for lease in leases]
        time.sleep(2 * SECONDS_OF_JOBS)
        used = [lease.report().slot_seconds for lease in leases]
        for process in processes:
            process.terminate()
            process.wait()
        for lease in leases:
            lease.wait()
    return Row("two hungry leases: the larger share by the smaller", max(used) / min(used), "", 1.1)


def idle() -> Iterator[Row]:
    gates = [MaxLoad(1e9)]
    with (
        Pool(SLOTS, gates=gates) as pool,
        pool.lease("fifo", style="fifo") as one,
        pool.lease("pipe", style="pipe") as two,
    ):
        one.configure(), two.configure()
        yield rests("an idle pool with a gate", either(5.0, 2.5))  # looked at once more, a second after the last move
    with Client(SLOTS) as client, Pool(client) as pool, pool.lease("waits") as lease:
        yield rests("a bridge without leases", 0.5)
        with client.acquire_many(SLOTS, minimum=SLOTS):
            waiting = threading.Thread(target=lease.configure)
            waiting.start()
            yield rests("a bridge that waits for the outer jobserver", 0.5)
        waiting.join()


def rests(what: str, at_rest: float) -> Row:
    """Wake-ups from so many seconds after the last move on."""
    time.sleep(at_rest)
    before = wakes()
    time.sleep(IDLE_SECONDS)
    return Row(f"{what}: wake-ups in {IDLE_SECONDS:.0f} s", wakes() - before, "", 0)


def wakes() -> int:
    """How often the threads of pools have gone to sleep."""
    status = [line.split() for thread in pool_threads() for line in (thread / "status").read_text().splitlines()]
    return sum(int(words[1]) for words in status if words[:1] == ["voluntary_ctxt_switches:"])


MANY = f"""\
import os, psutil, resource
from jobserver_ffi import Pool
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
before = psutil.Process().memory_info().rss
with Pool({LEASES}) as pool:
    leases = [pool.lease(f"lease {{number}}", style="fifo") for number in range({LEASES})]
    for lease in leases:
        lease.configure(env={{}})
    print(psutil.Process().memory_info().rss - before)
    for lease in leases:
        lease.close()
"""


def many() -> Row:
    """In a process of its own, whose memory was not used before."""
    done = subprocess.run([sys.executable, "-c", MANY], stdout=subprocess.PIPE, text=True, check=True)
    return Row(f"{LEASES} leases at once: memory", int(done.stdout) / 2**20, "MiB", MOST_MEMORY)
