"""Real builds of several tools on one served pool: never more jobs than slots, whatever happens to the server."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from .command import JOBSERVER, Running
from .conftest import Tool, missing
from .overlap import JobCounter
from .served import new_place
from .test_lease_kills import Builds

pytestmark = pytest.mark.needs("signals")

BUILDS = SLOTS = 10
JOBS = 24


def test_ten_builds_while_the_pool_is_resized_and_its_server_killed(ninja: Tool, tmp_path: Path) -> None:
    chance = random.Random(10)
    with new_place() as place, JobCounter(BUILDS * JOBS, 1, lambda: 0) as counter, ExitStack() as stack:
        server = stack.enter_context(place.serve("-j", str(SLOTS)))
        # The builds wait for each other: so all of them have their first slots when the server is killed.
        gate = tmp_path / "gate"
        wait = ["sh", "-c", f'until test -e {gate}; do sleep 0.05; done; exec "$@"', "sh"]
        commands = list(Builds(tmp_path, f"{counter.command} sleep 0.02", JOBS, ninja).commands.items())
        builds = []
        for number in range(BUILDS):
            (_, style), command = commands[number % len(commands)]
            words = ["run", "--pool", "default", "--style", style, "--", *wait, *command]
            builds.append(stack.enter_context(place.begin(*words)))
        place.until(lambda status: [lease["state"] for lease in status["leases"]] == ["started"] * BUILDS)
        gate.touch()
        before = 0
        while counter.jobs < BUILDS * JOBS // 2:
            with place.connect() as connection:
                connection.resize(chance.randint(1, SLOTS))
            before = counter.jobs
            time.sleep(0.02)  # between two changes, not a synchronisation
        assert before > BUILDS, "it was never resized while jobs ran"
        server.process.kill()
        done = [build.finish() for build in builds]
    assert [one.returncode for one in done] == [0] * BUILDS
    gone = [one for one in done if "the server of pool `default` is gone" in one.stderr]
    assert gone, "no build was left when the server was killed"
    assert [one.stderr for one in done if one.stderr and one not in gone] == []
    assert counter.jobs == BUILDS * JOBS
    assert counter.peak <= SLOTS


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_killed_runs_and_commands_lose_nothing(style: str, make441: Tool, tmp_path: Path) -> None:
    """`jobserver run` or its make is killed, in turns; what a killed one leaves behind counts until it is gone."""
    slots = 4
    with new_place() as place, place.serve("-j", str(slots)), JobCounter(10_000, 1, lambda: 0) as counter:
        targets = " ".join(f"job{number}" for number in range(1000))
        rule = f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@{counter.command} sleep 0.05\n"
        (tmp_path / "Makefile").write_text(rule)
        words = ["run", "--pool", "default", "--style", style, "--", make441.path, "-s", "-C", str(tmp_path)]
        for number in range(4):
            with place.begin(*words) as one, place.begin(*words) as other:
                place.until(lambda status: sum(lease["taken"] for lease in status["leases"]) > 4)
                if number % 2:
                    one.process.kill()
                os.killpg(other.pid, signal.SIGKILL)
                if number % 2:
                    place.until(lambda status: [lease["state"] for lease in status["leases"]] == ["orphans"])
                os.killpg(one.pid, signal.SIGKILL)
            place.until(lambda status: not status["leases"])
        found = place.status()
        assert (found["in_use"], found["limit"], found["ended"]["leases"]) == (0, slots, 8)
        assert (found["ended"]["over_released"], found["ended"]["foreign"]) == (0, 0)
        assert found["ended"]["lost"] > 0, "nobody was killed with a token in its hands, so nothing was tried"
    assert counter.peak <= slots


def in_other_namespaces() -> list[str]:
    """What stands in for a container: process numbers, mounts, network and host name of its own."""
    unshare = shutil.which("unshare") or missing("unshare")
    command = [unshare, "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net", "--uts", "--ipc"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        missing("the right to make name spaces")
    return command


@pytest.mark.needs("name spaces")
@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_build_in_a_container(style: str, make441: Tool, tmp_path: Path) -> None:
    """The socket is mounted elsewhere; for a fifo the directory is there too, and for pipes nothing else."""
    with new_place() as place, place.serve("-j4"), JobCounter(12, 4, lambda: 0) as counter:
        targets = " ".join(f"job{number}" for number in range(12))
        rule = f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@{counter.command}\n"
        (tmp_path / "Makefile").write_text(rule)
        there = place.runtime / "there"
        there.touch()
        run = [*JOBSERVER, "run", "--pool", str(there), "--style", style, "--check", "--"]
        hide = f"mount -t tmpfs none {place.directory}" if style == "pipe" else "true"
        inside = f'mount --bind {place.socket} {there} && {hide} && exec "$@"'
        words = [*in_other_namespaces(), "sh", "-c", inside, "sh", *run, make441.path, "-s", "-C", str(tmp_path)]
        with Running(words) as container:
            done = container.finish()
        assert (done.returncode, done.stderr) == (0, "")
        assert place.status()["ended"]["leases"] == 1
    counter.check()


@pytest.mark.needs("name spaces")
def test_fifo_mounted_into_a_container(make441: Tool, tmp_path: Path) -> None:
    """Nothing else of the pool is there: make finds the lease of who started the container."""
    with new_place() as place, place.serve("-j4"), JobCounter(12, 4, lambda: 0) as counter:
        targets = " ".join(f"job{number}" for number in range(12))
        rule = f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@{counter.command}\n"
        (tmp_path / "Makefile").write_text(rule)
        inside = (
            "fifo=${MAKEFLAGS##*fifo:} && touch $0 && mount --bind $fifo $0 && "
            f"mount -t tmpfs none {place.directory} && mkdir -p $(dirname $fifo) && touch $fifo && "
            'mount --bind $0 $fifo && exec "$@"'
        )
        container = [*in_other_namespaces(), "sh", "-c", inside, str(place.runtime / "elsewhere")]
        words = ["run", "--pool", "default", "--style", "fifo", "--check", "--"]
        done = place.call(*words, *container, make441.path, "-s", "-C", str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
    counter.check()


@pytest.mark.needs("name spaces")
def test_fifo_that_a_container_does_not_have(tmp_path: Path) -> None:
    with new_place() as place, place.serve("-j4"):
        there = place.runtime / "there"
        there.touch()
        run = [*JOBSERVER, "run", "--pool", str(there), "--style", "fifo", "--", "true"]
        inside = f'mount --bind {place.socket} {there} && mount -t tmpfs none {place.directory} && exec "$@"'
        with Running([*in_other_namespaces(), "sh", "-c", inside, "sh", *run]) as container:
            done = container.finish()
        assert done.returncode == 125
        assert "in a container mount its directory at the same path, or use --style pipe" in done.stderr
        assert place.until(lambda status: not status["leases"])["in_use"] == 0
