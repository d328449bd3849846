"""Real builds on leases, killed at random moments: no token is lost, and never more jobs run than there are slots.

JOBSERVER_FFI_LONG=true pytest tests/test_lease_kills.py
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from jobserver_ffi import LeaseReport, Pool

from .conftest import LONG, Tool, need_make
from .overlap import GUARD, JobCounter, quiet, server_command
from .test_real_cargo import cargo_in, counted, crates

pytestmark = pytest.mark.needs("signals")

SLOTS = 5
BUILDS_AT_ONCE = 3
SIGNALS = [number for number in signal.Signals if number.name in ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")]
LATEST_KILL = 0.25  # seconds after the start; a build has more jobs than fit into them
SLOWEST = 10  # times the patience, for a machine that is too busy to fill the slots so soon
JOBS = 1000


class Builds:
    """Commands that run many jobs, by the name of the tool and the style that it reads."""

    def __init__(self, directory: Path, job: str, jobs: int, ninja: Tool) -> None:
        targets = " ".join(f"job{number}" for number in range(jobs))
        (directory / "Makefile").write_text(f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@{job}\n")
        edges = "".join(f"build job{number}: job\n" for number in range(jobs))
        (directory / "build.ninja").write_text(f"rule job\n  command = {job}\n{edges}")
        self.commands = {
            ("make 4.3", "pipe"): [need_make("4.3").path, "-s", "-C", str(directory)],
            ("make 4.4.1", "pipe"): [need_make("4.4.1").path, "-s", "-C", str(directory)],
            ("make 4.4.1", "fifo"): [need_make("4.4.1").path, "-s", "-C", str(directory)],
            ("ninja", "fifo"): [ninja.path, "--quiet", "-C", str(directory)],
        }


def kill_one(pool: Pool, builds: Builds, chance: random.Random, latest: float) -> LeaseReport:
    """Starts a build and kills it at a random moment."""
    (tool, style), command = chance.choice(list(builds.commands.items()))
    number = chance.choice(SIGNALS)
    with pool.lease(f"{tool} {style}", style=style) as lease:
        process = lease.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, latest))  # the moment, not a synchronisation
        process.send_signal(number)
        process.wait(GUARD)
        return lease.wait(GUARD)


def kill_many(pool: Pool, builds: Builds, kills: int, chance: random.Random, latest: float) -> list[LeaseReport]:
    """Kills so many builds, some at a time."""
    reports: list[LeaseReport] = []

    def kill(chance: random.Random, count: int) -> None:
        reports.extend(kill_one(pool, builds, chance, latest) for _ in range(count))

    shares = [kills // BUILDS_AT_ONCE + (number < kills % BUILDS_AT_ONCE) for number in range(BUILDS_AT_ONCE)]
    threads = [threading.Thread(target=kill, args=(random.Random(chance.random()), share)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reports


@pytest.mark.timeout(3600)
def test_killed_at_random_moments(ninja: Tool, tmp_path: Path) -> None:
    left = 1000 if LONG else 50
    chance = random.Random(left)
    peak = lost = jobs = 0
    patience = 1
    with Pool(SLOTS) as pool:
        while left > 0 or (peak < SLOTS and patience < SLOWEST):
            round_of = min(left, 50) if left > 0 else 10
            patience += left <= 0
            left -= round_of
            with JobCounter(JOBS * JOBS, 1, lambda: 0) as counter:
                builds = Builds(tmp_path, f"{counter.command} sleep 0.05", JOBS, ninja)
                reports = kill_many(pool, builds, round_of, chance, patience * LATEST_KILL)
            peak, jobs = max(peak, counter.peak), jobs + counter.jobs
            assert not counter.stuck
            assert len(reports) == round_of
            assert counter.peak <= SLOTS, f"{counter.peak} jobs ran at once"
            assert pool.status().in_use == 0
            assert [report for report in reports if report.over_released or report.foreign] == []
            assert [report for report in reports if report.orphans == "left"] == []
            lost += sum(report.lost for report in reports)
        print(f"{jobs} jobs, {peak} at once; {lost} tokens lost by their holders, and all back")
        assert peak == SLOTS, "the builds never filled the slots, so nothing was tried"
        assert lost > 0, "no build was killed with a token in its hands, so nothing was tried"
        check_full(pool, tmp_path, ninja)


def check_full(pool: Pool, directory: Path, ninja: Tool) -> None:
    """Each tool can still use every slot, and no more."""
    for at in range(4):
        with JobCounter(4 * SLOTS, SLOTS, lambda: 0) as counter:
            (name, style), command = list(Builds(directory, counter.command, 4 * SLOTS, ninja).commands.items())[at]
            with pool.lease(name, style=style) as lease:
                quiet(lease.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        counter.check()


@pytest.mark.parametrize("server", ["4.3 pipe", "4.4.1 pipe", "4.4.1 fifo", "ninja"])
@pytest.mark.parametrize("number", [None, *SIGNALS])
def test_every_token_comes_back(server: str, number: int | None, ninja: Tool, tmp_path: Path) -> None:
    """A client that holds every token is signalled: all are back, whatever it does about the signal."""
    style = "fifo" if server == "ninja" else server.split()[1]
    with Pool(8) as pool:
        with JobCounter(8 if number is None else 1000, 8, lambda: 0, once=True) as counter:
            builds = Builds(tmp_path, counter.command, 8, ninja)
            command = builds.commands["ninja", "fifo"] if server == "ninja" else server_command(server)[1]
            with pool.lease(server, style=style) as lease:
                process = lease.popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                end = time.monotonic() + GUARD
                while counter.jobs < 8:
                    assert time.monotonic() < end
                    time.sleep(0.001)
                if number is not None:
                    process.send_signal(number)
                process.wait(GUARD)
                report = lease.wait(GUARD)
        assert report.peak == 8
        assert pool.status().in_use == 0
        with pool.lease("next", minimum=8) as lease:
            assert lease.run(["true"], slot_timeout=GUARD).returncode == 0


def test_ten_builds_while_the_pool_is_resized(ninja: Tool, tmp_path: Path) -> None:
    """After a smaller limit no job starts until there are fewer; at no time are there more than the largest."""
    chance = random.Random(10)
    done: list[int] = []
    with JobCounter(10 * 40, 1, lambda: 0) as counter, Pool(SLOTS) as pool:
        commands = list(Builds(tmp_path, f"{counter.command} sleep 0.01", 40, ninja).commands.items())

        def build(number: int) -> None:
            (tool, style), command = commands[number % len(commands)]
            with pool.lease(f"{number} {tool}", style=style) as lease:
                done.append(lease.run(command, stdout=subprocess.DEVNULL).returncode)

        threads = [threading.Thread(target=build, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            pool.resize(chance.randint(1, SLOTS))
            time.sleep(0.02)  # between two changes, not a synchronisation
        for thread in threads:
            thread.join()
        assert pool.status().in_use == 0
    assert done == [0] * 10
    assert counter.jobs == 10 * 40
    assert counter.peak <= SLOTS


@pytest.mark.parametrize(
    ("style", "number"), [("pipe", None), ("fifo", None), *(("fifo", number) for number in SIGNALS)]
)
def test_every_token_comes_back_from_cargo(style: str, number: int | None, cargo: Tool, tmp_path: Path) -> None:
    """cargo and its compilers fill the slots; signalled then, it loses none."""
    crates(tmp_path, 6)
    with Pool(4) as pool:
        with JobCounter(6, 4, lambda: 0, once=number is not None) as counter, pool.lease("cargo", style=style) as lease:
            process = lease.popen(
                cargo_in(tmp_path, cargo), env=counted(tmp_path, counter), stderr=subprocess.PIPE, text=True
            )
            if number is not None:
                end = time.monotonic() + GUARD
                while counter.jobs < 4:
                    assert time.monotonic() < end
                    time.sleep(0.001)
                process.send_signal(number)
            said = process.communicate(timeout=GUARD)[1]
            report = lease.wait(GUARD)
        assert (process.returncode == 0) is (number is None), said
        assert report.orphans != "left" and report.peak == 4
        if number is None:
            counter.check()
            assert report.complaints == []
        assert pool.status().in_use == 0
        with pool.lease("next", minimum=4) as lease:
            assert lease.run(["true"], slot_timeout=GUARD).returncode == 0
