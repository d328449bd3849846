"""`jobserver run` around real builds."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from jobserver_ffi.makeflags import parse

from .command import JOBSERVER, Done, Running, run, start
from .conftest import PATH, Tool
from .overlap import GUARD, MAKE_SERVERS, JobCounter, server_command

pytestmark = pytest.mark.needs("sh")

every_server = pytest.mark.parametrize("server", MAKE_SERVERS)
NESTED = shlex.join([*JOBSERVER, "run"])


def flat(jobs: int, command: str) -> str:
    """A makefile with that many jobs that do not depend on each other."""
    targets = " ".join(map(str, range(jobs)))
    return f"all: {targets}\n{targets}:\n\t@{command}\n"


def build(words: list[str], write: Callable[[str], object], jobs: int, full: int) -> Done:
    """Runs a build that must have `full` of its jobs at once, and never more; `write` writes it for a job's command."""
    running: Future[Running] = Future()
    with JobCounter(jobs, full, lambda: running.result(GUARD).free()) as counter:
        write(counter.command)
        with start(*words) as started:
            running.set_result(started)
            done = started.finish()
    counter.check()
    return done


def make_of(server: str, directory: Path) -> tuple[list[str], list[str]]:
    """Options for the style of an entry of MAKE_SERVERS, and the make."""
    return ["--style", server.split()[1]], [server_command(server)[0].path, "-s", "-C", str(directory)]


@every_server
def test_jobs_fill_the_slots(server: str, tmp_path: Path) -> None:
    options, make = make_of(server, tmp_path)
    write = (tmp_path / "Makefile").write_text
    done = build(["-j4", *options, "--check", *make], lambda job: write(flat(9, job)), jobs=9, full=4)
    assert (done.returncode, done.stderr) == (0, "")


@every_server
def test_one_slot_is_one_job_at_a_time(server: str, tmp_path: Path) -> None:
    options, make = make_of(server, tmp_path)
    write = (tmp_path / "Makefile").write_text
    done = build(["-j1", *options, "--check", *make], lambda job: write(flat(3, job)), jobs=3, full=1)
    assert (done.returncode, done.stderr) == (0, "")


def test_style_is_one_that_the_make_knows(gnu_make: Tool, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text('all:\n\t+@echo "$$MAKEFLAGS"\n')
    done = run("-j3", "--check", gnu_make.path, "-s", "-C", str(tmp_path), env={**os.environ, "PATH": PATH})
    assert (done.returncode, done.stderr) == (0, "")
    assert (parse(done.stdout.strip()).auth or "").startswith("fifo:") == (gnu_make.version >= (4, 4))


@every_server
def test_run_inside_run_shares_the_slots(server: str, tmp_path: Path) -> None:
    options, make = make_of(server, tmp_path)
    (tmp_path / "Makefile").write_text(f"all: left right\nleft right:\n\t+@{NESTED} $(MAKE) -s -f part.mk\n")
    write = (tmp_path / "part.mk").write_text
    done = build(["-j4", *options, "--check", *make], lambda job: write(flat(6, job)), jobs=12, full=4)
    assert done.returncode == 0
    joining = done.stderr.splitlines()
    assert len(joining) == 2 and all(line.startswith("jobserver: joining the jobserver of ") for line in joining)


def test_ninja_fills_the_slots(ninja: Tool, tmp_path: Path) -> None:
    def write(job: str) -> None:
        edges = "".join(f"build {number}: job\n" for number in range(9))
        (tmp_path / "build.ninja").write_text(f"rule job\n command = {job}\n{edges}")

    done = build(["-j4", "--style", "fifo", "--check", ninja.path, "-C", str(tmp_path)], write, jobs=9, full=4)
    assert (done.returncode, done.stderr) == (0, "")


def test_recipe_that_make_keeps_out_of_its_jobserver(gnu_make: Tool, tmp_path: Path) -> None:
    """Without `+` a recipe gets no descriptors; make 4.4 says so with negative ones."""
    style = ["--jobserver-style=pipe"] if gnu_make.version >= (4, 4) else []
    (tmp_path / "Makefile").write_text(f"all:\n\t@{NESTED} sh -c 'echo \"[$$MAKEFLAGS]\"'\n")
    with Running([gnu_make.path, "-s", "-j3", *style, "-C", str(tmp_path)]) as running:
        done = running.finish()
    assert (done.returncode, parse(done.stdout.strip("[]\n")).auth) == (0, None)
    assert done.stderr.startswith("jobserver: running `sh` without a jobserver: MAKEFLAGS has --jobserver-auth=")
    assert "mark " in done.stderr and "with `+`" in done.stderr and done.stderr.count("\n") == 1


def test_make_with_jobs_of_its_own_is_warned_of(gnu_make: Tool, tmp_path: Path) -> None:
    """It runs all the same; and where it finds no jobserver it leaves none."""
    (tmp_path / "Makefile").write_text("all:;@:\n")
    make = [gnu_make.path, "-s", "-C", str(tmp_path)]
    left = f"jobserver: `{gnu_make.path} %s` leaves this jobserver and %s: call {gnu_make.path} without -j\n"
    done = run("-j3", *make, "-kj2")
    assert (done.returncode, done.stderr.splitlines(True)[0]) == (0, left % ("-j2", "counts its jobs by itself"))
    done = run("-j3", *make, "-j")
    assert (done.returncode, done.stderr.splitlines(True)[0]) == (0, left % ("-j", "runs jobs without a limit"))
    done = run(*make, "-j2", env={**os.environ, "MAKEFLAGS": "--jobserver-auth=61,62"})
    assert (done.returncode, "leaves" in done.stderr) == (0, False)


def test_joined_make_with_jobs_of_its_own_is_warned_of(gnu_make: Tool, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"all:\n\t+@{NESTED} $(MAKE) -s -j2 --version\n")
    with Running([gnu_make.path, "-s", "-j3", "-C", str(tmp_path)]) as running:
        done = running.finish()
    assert (done.returncode, done.stdout.startswith("GNU Make")) == (0, True)
    assert "joining the jobserver" in done.stderr and "-j2` leaves this jobserver" in done.stderr


def test_ninja_with_jobs_of_its_own_is_warned_of(ninja: Tool) -> None:
    done = run("-j3", ninja.path, "-j8", "--version")
    assert done.returncode == 0
    assert done.stderr == (
        f"jobserver: `{ninja.path} -j8` leaves this jobserver and counts its jobs by itself: call {ninja.path} without "
        f"-j\n"
    )


def test_failed_build_gives_its_tokens_back(gnu_make: Tool, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all: 1 2 3 4\n1 2 3 4:\n\t@exit $@\n")
    done = run("-j3", "--check", gnu_make.path, "-s", "-k", "-C", str(tmp_path))
    assert (done.returncode, "tokens" in done.stderr) == (2, False)
