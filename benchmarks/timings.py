"""What does `jobserver run --timings` cost a build of many short jobs, and how much can a journal take?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from jobserver_ffi import Pool
from jobserver_ffi.timeline.recorder import Recorder

from .harness import either, in_turns
from .peers import find_make, left_out
from .rows import Row

SLOTS = max(os.cpu_count() or 1, 2)
JOBS = either(5000, 200)
TURNS = either(15, 1)
MOVES = either(100_000, 2_000)  # tokens taken and given back, so fast that the pool sees some of them only
MOST_WALL = 1.01
TITLE = f"Timings: a build of {JOBS} short jobs on {SLOTS} slots, recorded and not; {MOVES} tokens taken and given back"


def rows() -> Iterator[Row]:
    make = find_make("4.4")
    if make is None:
        left_out("GNU make 4.4 is not on this machine: no rows of a build that is recorded")
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield from build(make, Path(directory))
    yield from journal()


def build(make: str, directory: Path) -> Iterator[Row]:
    """Whole builds in turns, from the start of `jobserver run` to its end, with all that is written."""
    targets = " ".join(f"job{number}" for number in range(JOBS))
    (directory / "Makefile").write_text(f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@/bin/true $@\n")
    command = [sys.executable, "-m", "jobserver_ffi.cli", "run", f"-j{SLOTS}"]
    out = directory / "timings.json"

    def run(*options: str) -> tuple[float, float]:
        """Seconds that pass, and of the CPU time of `jobserver run` itself, without the build's."""
        words = [*command, *options, make, "-s", "-C", str(directory)]
        start = time.perf_counter()
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            passed, own = time.perf_counter() - start, own_cpu(process.pid)
        assert process.returncode == 0, words
        return passed, own

    contestants = {
        "without": run,
        "with": lambda: run(f"--timings={out}", "--trace", str(directory / "trace.json")),
    }
    found = in_turns(contestants, TURNS, warm_up=1)
    walls, cpus = ([pair[which] for pair in found["without"]] for which in (0, 1))
    recorded_walls, recorded_cpus = ([pair[which] for pair in found["with"]] for which in (0, 1))
    seen = json.loads(out.read_text())
    changes, processes = len(seen["leases"][0]["changes"]), len(seen["processes"])
    note = f"{changes} changes, {processes} processes seen, {seen['dropped']} dropped"
    yield Row("wall time, with --timings and --trace", paired(recorded_walls, walls), most=MOST_WALL, note=note)
    share = 100 * (median(recorded_cpus) - median(cpus)) / median(walls)
    note = f"of one CPU; {median(cpus):.2f} s become {median(recorded_cpus):.2f} s in {median(walls):.1f} s"
    yield Row(
        "CPU time of `jobserver run` itself, more than without", share, "%", most=100 * (MOST_WALL - 1), note=note
    )
    yield Row("a look at the processes every", 1e3 * seen["processes_sampled_every"], "ms")


def paired(ones: list[float], others: list[float]) -> float:
    """The median of the ratios, turn by turn: what else the machine does changes slowly."""
    return median(one / other for one, other in zip(ones, others, strict=True))


def own_cpu(process: int) -> float:
    """Seconds of CPU time of all threads of a process that has ended and not been waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


CLIENT = """\
import sys
from jobserver_ffi import Client
client = Client.from_env()
for _ in range(int(sys.argv[1])):
    with client.acquire():
        pass
"""


def journal() -> Iterator[Row]:
    """As many changes as a client can make: each token is taken and given back through the pool."""
    with Pool(2) as pool, pool.lease("client", style="pipe") as lease:
        recorder = Recorder([["client"]])
        recorder.use_pool(pool)
        recorder.add_lease("client", ["client"], lease)
        process = lease.popen([sys.executable, "-c", CLIENT, str(MOVES)])
        recorder.follow(process.pid, 0)
        start = time.perf_counter()
        process.wait()
        moved = time.perf_counter() - start
        report = lease.wait()
        start = time.perf_counter()
        recorder.end([report])
        text = json.dumps(recorder.recording(0).as_json(), separators=(",", ":"))
        wrote = time.perf_counter() - start
    found = recorder.recording(0)
    changes = len(found.leases[0].changes)
    note = f"of {changes} that were recorded, {changes / moved:,.0f} a second"
    yield Row("changes that were dropped", found.dropped, most=0, note=note)
    yield Row("the recording of them, as JSON", len(text) / 2**20, "MiB")
    yield Row("reading them and making the JSON", 1e3 * wrote, "ms")
