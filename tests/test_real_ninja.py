"""Ninja as a client of our jobserver, alone and beside make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobserver_ffi import Client
from jobserver_ffi.create import STYLES

from .conftest import TokenPipe, Tool, missing
from .overlap import FOR_MAKE, JobCounter, Recipe, captured, server_command

NewPipe = Callable[[bytes], TokenPipe]
DETECTED = "Jobserver mode detected"
NEWEST = "fifo" if "fifo" in STYLES else "semaphore"


@pytest.fixture(params=[style for style in ("fifo", "pipe", "semaphore") if style in STYLES])
def style(request: pytest.FixtureRequest, ninja: Tool) -> str:
    """Both styles; upstream's ninja reads fifos only, the one on PyPI pipes too."""
    said = subprocess.run([ninja.path, "--version"], capture_output=True, text=True, check=True).stdout
    if request.param == "pipe" and "jobserver-pipe" not in said:
        missing("a ninja that reads pipes (PyPI has one)")
    return str(request.param)


def edges(jobs: int, command: str) -> str:
    """A build file with that many jobs that do not depend on each other."""
    builds = "".join(f"build job{number}: job\n" for number in range(jobs))
    return f"rule job\n  command = {command}\n{builds}"


def ninja_in(directory: Path, ninja: Tool) -> list[str]:
    """The command; without -j, with which ninja would leave the jobserver."""
    return [ninja.path, "-C", str(directory)]


# More slots than ninja would use of itself on a machine with few processors, and fewer.
@pytest.mark.parametrize("limit", [9, 2])
def test_jobs_fill_the_slots(limit: int, style: str, ninja: Tool, tmp_path: Path) -> None:
    with Client(limit, style=style) as client, JobCounter(limit + 3, limit, client.available) as counter:
        (tmp_path / "build.ninja").write_text(edges(limit + 3, counter.command))
        with client.acquire():
            done = client.run(ninja_in(tmp_path, ninja), **FOR_MAKE, **captured({}))
        assert (done.returncode, DETECTED in done.stdout) == (0, True)
        assert client.available() == limit
    counter.check()


def test_the_last_slot_runs_one_job_after_the_other(style: str, ninja: Tool, tmp_path: Path) -> None:
    with Client(1, style=style) as client, JobCounter(3, 1, client.available) as counter:
        (tmp_path / "build.ninja").write_text(edges(3, counter.command))
        with client.acquire():
            assert client.run(ninja_in(tmp_path, ninja), **FOR_MAKE, **captured({})).returncode == 0
    counter.check()


def test_the_bytes_in_a_pipe_come_back(ninja: Tool, tmp_path: Path, whole: NewPipe) -> None:
    pipe = whole(b"abc")
    with pipe.client() as client, JobCounter(6, 4, client.available) as counter:
        (tmp_path / "build.ninja").write_text(edges(6, counter.command))
        assert client.run(ninja_in(tmp_path, ninja), **FOR_MAKE, **captured({})).returncode == 0
        assert pipe.content() == b"abc"
    counter.check()


@pytest.mark.needs("fifo")
def test_the_bytes_in_a_fifo_come_back(ninja: Tool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pool")
    pool = os.open(tmp_path / "pool", os.O_RDWR)
    os.write(pool, b"abc")
    with Client.open(f"fifo:{tmp_path / 'pool'}") as client, JobCounter(6, 4, client.available) as counter:
        (tmp_path / "build.ninja").write_text(edges(6, counter.command))
        assert client.run(ninja_in(tmp_path, ninja), **FOR_MAKE, **captured({})).returncode == 0
    counter.check()
    assert sorted(os.read(pool, 9)) == sorted(b"abc")
    os.close(pool)


@pytest.mark.needs("sh")
def test_a_build_that_fails_gives_all_back(style: str, ninja: Tool, tmp_path: Path) -> None:
    with Client(3, style=style) as client, JobCounter(3, 3, client.available) as counter:
        (tmp_path / "build.ninja").write_text(edges(3, f"{counter.command}; false"))
        with client.acquire():
            assert client.run([*ninja_in(tmp_path, ninja), "-k", "0"], **FOR_MAKE, **captured({})).returncode == 1
        assert client.available() == 3
    counter.check()


def test_ninja_and_make_share_one_pool(ninja: Tool, make441: Tool, tmp_path: Path) -> None:
    with Client(5, style=NEWEST) as client, JobCounter(12, 5, client.available, once=True) as counter:
        (tmp_path / "build.ninja").write_text(edges(6, counter.command))
        (tmp_path / "Makefile").write_text(f"all: 0 1 2 3 4 5\n0 1 2 3 4 5:\n\t{counter.command}\n")

        def build(command: list[str]) -> int:
            with client.acquire():
                return client.run(command, **FOR_MAKE, **captured({})).returncode

        with ThreadPoolExecutor(2) as threads:
            commands = [ninja_in(tmp_path, ninja), [make441.path, "-C", str(tmp_path)]]
            assert list(threads.map(build, commands)) == [0, 0]
        assert client.available() == 5
    counter.check()


def test_a_recipe_of_make_hands_the_pool_on_to_ninja(ninja: Tool, tmp_path: Path) -> None:
    arguments = f"{ninja_in(tmp_path, ninja)}, **{FOR_MAKE}, stdout=subprocess.DEVNULL, check=True"
    program = f"with client.slot():\n    client.run({arguments})"
    recipe = Recipe(tmp_path, ("+", program), ("+", "tell(free=client.available())"))
    with JobCounter(6, 4, lambda: 0) as counter:
        (tmp_path / "build.ninja").write_text(edges(6, counter.command))
        assert recipe.run([*server_command(f"4.4.1 {NEWEST}")[1], "-j4"]) == [{"free": 3}]
    counter.check()
