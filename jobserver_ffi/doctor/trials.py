"""Tiny builds that show whether a tool takes tokens from a pool of some style.

Each has two jobs that do not depend on each other. They wait until a gate opens, so a tool that knows the jobserver
takes a token for the second, and that is seen from outside. The token decides, and not what the tool says.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..client import Client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST = 15.0  # seconds until a tool is ended that does not begin, or does not end
_ALONE = 1.5  # seconds that a first job waits for a second
_PAUSE = 0.01
_JOBS = ("one", "two")
_FOR_ALL = ("MAKEFLAGS", "CARGO_MAKEFLAGS")

# It lets go of itself should nobody open the gate.
_JOB = f"""\
import os, sys, time
open(sys.argv[1] + ".started", "w").close()
end = time.monotonic() + {LONGEST}
while not os.path.exists("gate") and time.monotonic() < end:
    time.sleep({_PAUSE})
"""

# What decides over a tool's jobs, or whether it runs any (`make -n`), and is not of the trial.
DISTURBING = (
    "MAKEFLAGS",
    "CARGO_MAKEFLAGS",
    "MFLAGS",
    "GNUMAKEFLAGS",
    "MAKELEVEL",
    "CMAKE_BUILD_PARALLEL_LEVEL",
    "CTEST_PARALLEL_LEVEL",
)


@dataclass(frozen=True)
class Trial:
    """What a tool did with a pool.

    Attributes:
        outcome: "joins": it took a token for its second job. "ignores": it ran its jobs without one. "stops": it ran
            none of them. "silent": it did not begin in time.
        says: What it printed about it, one line; may be empty.
    """

    outcome: str
    says: str


def try_make(path: str, style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """A makefile with two targets."""
    (directory / "Makefile").write_text(f"all: one two\none two:\n\t@{_recipe(directory)} $@\n")
    return _watch([path, "-f", "Makefile"], style, directory, environ)


def try_ninja(path: str, style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """A build file with two edges."""
    edges = "build one: job\nbuild two: job\n"
    (directory / "build.ninja").write_text(f"rule job\n  command = {_recipe(directory)} $out\n{edges}")
    return _watch([path], style, directory, environ)


def try_cmake(path: str, style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """`cmake --build` with the makefile of `try_make`: it starts the make on PATH, and must let the pool through."""
    (directory / "Makefile").write_text(f"all: one two\none two:\n\t@{_recipe(directory)} $@\n")
    settings = {
        "CMAKE_GENERATOR:INTERNAL": "Unix Makefiles",
        "CMAKE_HOME_DIRECTORY:INTERNAL": directory,
        "CMAKE_MAKE_PROGRAM:FILEPATH": "make",
        "CMAKE_PROJECT_NAME:STATIC": "trial",
    }
    (directory / "CMakeCache.txt").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return _watch([path, "--build", "."], style, directory, environ)


def try_ctest(path: str, style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """Two tests, and leave to run two of them together."""
    words = " ".join(f'"{word}"' for word in _job_words(directory))
    (directory / "CTestTestfile.cmake").write_text("".join(f"add_test({name} {words} {name})\n" for name in _JOBS))
    return _watch([path, "--parallel"], style, directory, environ)


def try_cargo(path: str, style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """Two crates without code; instead of the compiler, cargo starts the jobs, which are then compilers that failed."""
    for name in _JOBS:
        (directory / name).mkdir()
        (directory / name / "lib.rs").touch()
        (directory / name / "Cargo.toml").write_text(
            f'[package]\nname = "{name}"\nversion = "0.0.0"\nedition = "2018"\n[lib]\npath = "lib.rs"\n'
        )
    (directory / "Cargo.toml").write_text(f'[workspace]\nresolver = "1"\nmembers = ["{_JOBS[0]}", "{_JOBS[1]}"]\n')
    cases = "".join(
        f'*"--crate-name {name} "*) cd {shlex.quote(str(directory))}; {_job(directory)} {name}; exit 1;;\n'
        for name in _JOBS
    )
    wrapper = _script(directory / "wrapper", f'case "$*" in\n{cases}esac\nexec "$@"\n')
    own = {name: value for name, value in environ.items() if not name.startswith(("CARGO_", "RUSTC_"))}
    # A home of its own: no settings, and no lock that another cargo has.
    own.update(RUSTC_WRAPPER=str(wrapper), CARGO_HOME=str(directory / "home"))
    return _watch([path, "build", "--offline", "--quiet"], style, directory, own)


def try_gcc(path: str, style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """A program whose link-time optimisation has two parts: gcc starts a make for them, with a -j unless it joins."""
    (directory / "one.c").write_text("int two(void);\nint main(void) { return two(); }\n")
    (directory / "two.c").write_text("int two(void) { return 0; }\n")
    calls = directory / "calls"
    make = _script(directory / "make", f'echo "$*" >> {shlex.quote(str(calls))}\n')
    command = [path, "-O1", "-flto=jobserver", "-flto-partition=max", "one.c", "two.c", "-o", "program"]
    with Client(2, style=style) as client, client.acquire():
        lines = _run(client, command, directory, {**environ, "MAKE": str(make)}).printed()
    called = [line for line in calls.read_text().splitlines() if "-f" in line.split()] if calls.exists() else []
    if called:
        own = next((word for word in called[0].split() if word.startswith("-j")), None)
        return Trial("ignores", f"starts make {own} of its own") if own else Trial("joins", "")
    return Trial("stops", lines[0] if lines else "it starts no make for link-time optimisation")


def _job_words(directory: Path) -> list[str]:
    """The command of a job, without its name, for a tool that runs it in the directory."""
    script = directory / "job.py"
    script.write_text(_JOB)
    return [sys.executable, "-I", "-S", script.name]


def _job(directory: Path) -> str:
    """The command of a job, without its name, as a shell takes it."""
    words = _job_words(directory)
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _recipe(directory: Path) -> str:
    """The same as make and ninja take it."""
    return _job(directory).replace("$", "$$")


def _script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


class _Running:
    """A tool that was started; leaving the context opens the gate for its jobs and ends what does not end then."""

    def __init__(self, client: Client, command: list[str], directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        options: dict[str, Any] = {"cwd": directory, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        if os.name != "nt":
            options["start_new_session"] = True
        with open(directory / "output", "wb") as output:
            self.process = client.popen(command, env=environ, variables=_FOR_ALL, stdout=output, **options)

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        (self._directory / "gate").touch()
        try:
            self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self._kill()
            self.process.wait()

    def _kill(self) -> None:
        if sys.platform == "win32":
            self.process.kill()
        else:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def started(self) -> int:
        """How many jobs have begun."""
        return sum((self._directory / f"{name}.started").exists() for name in _JOBS)

    def printed(self) -> list[str]:
        """The lines of its output that are not empty."""
        text = (self._directory / "output").read_text(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]


def _run(client: Client, command: list[str], directory: Path, environ: Mapping[str, str]) -> _Running:
    """Runs a tool until it has ended."""
    with _Running(client, command, directory, environ) as running:
        pass
    return running


def _watch(command: list[str], style: str, directory: Path, environ: Mapping[str, str]) -> Trial:
    """Starts a tool under a pool with one free token, and sees whether it takes that for its second job."""
    with Client(2, style=style) as client, client.acquire():
        with _Running(client, command, directory, environ) as running:
            outcome = _outcome(client, running)
        lines = [line.replace(client.auth.removeprefix("fifo:"), "…") for line in running.printed()]
    told = [line for line in lines if "jobserver" in line.lower() and outcome != "joins"]
    return Trial(outcome, next(iter(told or (lines if outcome == "stops" else [])), ""))


def _outcome(client: Client, running: _Running) -> str:
    begin = first = time.monotonic()
    while True:
        ended = running.process.poll() is not None
        # In this order: who takes a token does it before the job starts that it is for.
        started = running.started()
        if client.available() == 0:
            return "joins"
        now = time.monotonic()
        first = first if started else now
        if started == len(_JOBS) or now - first > _ALONE:
            return "ignores"
        if ended:
            return "ignores" if started else "stops"
        if now - begin > LONGEST:
            return "silent"
        time.sleep(_PAUSE)
