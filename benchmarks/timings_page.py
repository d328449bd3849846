"""How large is the page of a large build, and how long does a browser take to open it?"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobserver_ffi.timeline.page import page
from jobserver_ffi.timeline.recording import Machine, RecordedLease, RecordedProcess, Recording

from .harness import either
from .peers import left_out
from .rows import Row

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TITLE = "The page of `run --timings` in a headless Chromium; that of an empty build = 1.00"
TURNS = either(7, 2)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
BUILDS = {"100,000 changes": (100_000, 0), "50,000 starts and ends of processes": (0, 50_000)}
LARGEST, LONGEST = 3000, 2000  # kB and ms


def rows() -> Iterator[Row]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        left_out("playwright")
        return
    if chromium is None:
        left_out("chromium")
        return
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        empty = Path(directory, "empty.html")
        empty.write_text(page(build(0, 0)), encoding="utf-8")
        opened(browser, empty)
        for name, (changes, processes) in BUILDS.items():
            path = Path(directory, "page.html")
            path.write_text(page(build(changes, processes)), encoding="utf-8")
            yield Row(f"{name}: the file", path.stat().st_size / 1000, "kB", LARGEST)
            turns = [(opened(browser, path), opened(browser, empty)) for _ in range(TURNS)]
            yield Row(f"{name}: opened", statistics.median(ours for ours, _ in turns) * 1000, "ms", LONGEST)
            yield Row(f"{name}: opened, to the empty one", statistics.median(ours / least for ours, least in turns))
        browser.close()


def opened(browser: Browser, path: Path) -> float:
    """Seconds from asking for a page to its drawn charts."""
    tab = browser.new_page()
    start = time.perf_counter()
    tab.goto(path.as_uri(), wait_until="commit")
    tab.wait_for_selector("html[data-drawn]")
    seconds = time.perf_counter() - start
    tab.close()
    return seconds


def build(changes: int, processes: int) -> Recording:
    """A build of an hour on eight slots; each process has a command of its own."""
    chance = random.Random(0)
    seconds, samples = 3600.0, 2000
    steps = [(seconds * index / changes, chance.randint(1, 8)) for index in range(changes)] or [(0.0, 1)]
    between = seconds / max(processes, 1)
    return Recording(
        command=["make", "-j8"],
        seconds=seconds,
        cpus=8,
        limits=[(0.0, 8)],
        leases=[RecordedLease("make", ["make", "-j8"], list(steps), seconds, 8, seconds * 4.5)],
        processes=[
            RecordedProcess(
                pid=1000 + index,
                parent=999,
                lease=0,
                name=chance.choice(("cc1", "as", "gcc", "sh", "ld")),
                command=f"/usr/lib/gcc/x86_64-linux-gnu/12/cc1 -quiet -I include -imultiarch x86_64-linux-gnu "
                f"src/{chance.randrange(400)}/file{index}.c -O2 -Wall -o /tmp/cc{chance.getrandbits(30):06x}.s",
                start=between * index,
                end=between * (index + 16 * chance.random()),
                cpu=between * chance.random(),
                memory=chance.randrange(1 << 20, 1 << 28),
            )
            for index in range(processes)
        ],
        machine=Machine(
            times=[seconds * index / samples for index in range(samples)],
            cpu=[chance.random() for _ in range(samples)],
            memory=[chance.randrange(1 << 33) for _ in range(samples)],
            memory_total=1 << 33,
            load=[8 * chance.random() for _ in range(samples)],
        ),
    )
