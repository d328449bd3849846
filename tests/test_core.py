"""The C core on its own, without Python: every program of tests/core, built in each way and run under each tool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from .conftest import long_form, missing

pytestmark = pytest.mark.needs("fork")  # what Windows can do is tested by tests/core/windows, in .ci/windows

HERE = Path(__file__).parent
CORE = HERE.parent / "csrc"
SOURCES = sorted((HERE / "core").glob("*.c"))
PROGRAMS = [path.stem for path in SOURCES if path.stem.startswith("test_")]
SHARED = ["check", "pools"]

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wmissing-prototypes"]
WARNINGS += ["-Wundef", "-Werror"]

# The newest form that valgrind 3.19 can read.
DEBUG = ["-g", "-gdwarf-4"]

# What JOBSERVER_PORTABLE builds is the code that other systems than Linux run.
BUILDS = {"native": [], "portable": ["-DJOBSERVER_PORTABLE"]}

# In a child of a process with threads their memory belongs to nobody.
LEAKY = {"test_exit", "test_foreign", "test_fork", "test_lease"}


@dataclass(frozen=True)
class Tool:
    """What a program is run under.

    Args:
        flags: For the compiler and the linker.
        command: What stands before the program on the command line.
        divisor: By how much the tests are made smaller.
        environment: For the program.
    """

    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    divisor: int = 1
    environment: tuple[tuple[str, str], ...] = ()


VALGRIND = ("valgrind", "--quiet", "--error-exitcode=99", "--errors-for-leak-kinds=definite", "--fair-sched=try")

TOOLS = {
    "plain": Tool(),
    "address": Tool(("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), divisor=4),
    "thread": Tool(
        ("-fsanitize=thread",),
        divisor=10,
        environment=(("TSAN_OPTIONS", "halt_on_error=1 die_after_fork=0 atexit_sleep_ms=0 report_thread_leaks=0"),),
    ),
    "valgrind": Tool(command=VALGRIND, divisor=20),
}

Programs = Callable[[str, str, tuple[str, ...]], Path]


def run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a command, which must end well. What it prints is shown."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Builds all the programs with a compiler, in a build, with flags. Returns the directory that they are in."""

    @cache
    def build(compiler: str, build: str, flags: tuple[str, ...]) -> Path:
        if shutil.which(compiler) is None:
            missing(compiler)
        directory = tmp_path_factory.mktemp(build)
        sources = [str(path) for path in [*sorted(CORE.glob("*.c")), *SOURCES]]
        common = [compiler, "-std=c11", *DEBUG, "-O1", *WARNINGS, *flags, *BUILDS[build], "-I", str(CORE)]
        run([*common, "-c", *sources], cwd=directory)
        objects = [f"{path.stem}.o" for path in CORE.glob("*.c")] + [f"{name}.o" for name in SHARED]
        for program in PROGRAMS:
            run([compiler, *flags, f"{program}.o", *objects, "-o", program, "-lpthread"], cwd=directory)
        return directory

    return build


def run_under(tool: Tool, program: Path, directory: Path) -> None:
    """Runs a program under a tool, with a directory for what it makes, which it must leave empty."""
    leaks = program.name not in LEAKY and sys.platform == "linux"
    environment = {**os.environ, "TMPDIR": str(directory), **dict(tool.environment)}
    environment["CORE_TEST_DIVISOR"] = str(tool.divisor)
    environment["ASAN_OPTIONS"] = f"detect_leaks={int(leaks)}"
    command = [*tool.command, f"--leak-check={'full' if leaks else 'no'}"] if tool.command else []
    run([*command, str(program)], env=environment)
    assert list(directory.iterdir()) == [], "files were left behind"


# What other systems run differs from Linux in the waits only: their races and leaks are looked for once a week.
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("build", "name"),
    [
        pytest.param(build, name, marks=long_form if build == "portable" and name in ("thread", "valgrind") else ())
        for build in BUILDS
        for name in TOOLS
    ],
)
def test_core(build: str, name: str, program: str, programs: Programs, tmp_path: Path) -> None:
    tool = TOOLS[name]
    if tool.command and shutil.which(tool.command[0]) is None:
        missing(tool.command[0])
    run_under(tool, programs("gcc", build, tool.flags) / program, tmp_path)


@pytest.mark.parametrize("build", BUILDS)
def test_core_built_by_clang(build: str, programs: Programs, tmp_path: Path) -> None:
    directory = programs("clang", build, ())
    for program in PROGRAMS:
        run_under(Tool(divisor=10), directory / program, tmp_path)
