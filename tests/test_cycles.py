"""Reference cycles: whatever finalisers do, in any order, no freed memory is used, and no token lost or made up."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from .conftest import LONG, missing

pytestmark = [pytest.mark.quick, pytest.mark.needs("pipe", "objects that end when they are dropped")]

PROGRAMS = Path(__file__).with_name("cycles.py")
SOURCES = Path(__file__).parent.parent
GUARD = 500  # seconds

# For each kind of handle programs that always failed when the garbage collector could free what a handle stands for
# (CPython 3.11). AddressSanitizer reported a use of freed memory; with holds, descriptors were closed too early.
SEEDS = {
    "client": (0, 1),
    "cell": (0, 2),
    "batch": (5,),
    "hold": (2, 4),
    "event": (24, 27),
    "lease": (0, 6),
    "broker": (1, 3),
}


def run(*arguments: object, environ: Mapping[str, str] | None = None) -> None:
    """Runs programs; on a failure it shows what they printed: the seeds, and what was wrong."""
    command = [sys.executable, str(PROGRAMS), *map(str, arguments)]
    environment = {**os.environ, **(environ or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GUARD, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-20000:]}{done.stderr[-5000:]}"


def first_seed() -> int:
    """The first program of a row: in the long form one that was not run before."""
    return random.SystemRandom().randrange(1 << 30) if LONG else 0


@pytest.mark.needs("fork")
@pytest.mark.parametrize("kind", SEEDS)
def test_programs_that_failed_once(kind: str) -> None:
    for seed in SEEDS[kind]:
        run("--kind", kind, "--seed", seed, "--count", 1)


@pytest.mark.needs("fork")
@pytest.mark.parametrize(
    "way, count",
    [((), 300), (("--at-exit",), 150), (("--fresh",), 50), (("--fresh", "--at-exit"), 25)],
    ids=["collected", "at exit", "with an implicit slot", "with an implicit slot, at exit"],
)
def test_programs_of_all_kinds(way: tuple[str, ...], count: int) -> None:
    run("--seed", first_seed(), "--count", 20 * count if LONG else count, *way)


def test_programs_in_one_process() -> None:
    run("--seed", first_seed(), "--count", 4000 if LONG else 100, "--no-fork")


@pytest.fixture(scope="module")
def with_sanitizer(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a Python that imports a build with AddressSanitizer."""
    if sys.platform != "linux" or not shutil.which("gcc"):
        missing("gcc")
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    if not os.path.isabs(found):
        missing("libasan of gcc")
    place = tmp_path_factory.mktemp("sanitizer")
    flags = "-fsanitize=address -fno-omit-frame-pointer -g -O1"
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(place / "lib")]
    built = subprocess.run(
        [*command, "--build-temp", str(place / "objects")],
        cwd=SOURCES,
        env={**os.environ, "JOBSERVER_FFI_CFLAGS": flags, "CC": "gcc"},
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(SOURCES / "jobserver_ffi", place / "lib/jobserver_ffi", ignore=ignored, dirs_exist_ok=True)
    return {
        "PYTHONPATH": str(place / "lib"),
        "LD_PRELOAD": found.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    }


@pytest.mark.needs("fork", "the repository", "the sources")
def test_no_freed_memory_is_used(with_sanitizer: Mapping[str, str]) -> None:
    for kind, seeds in SEEDS.items():
        for seed in seeds:
            run("--kind", kind, "--seed", seed, "--count", 1, environ=with_sanitizer)
    run("--seed", first_seed(), "--count", 5000 if LONG else 150, environ=with_sanitizer)
    run("--seed", first_seed(), "--count", 2000 if LONG else 50, "--at-exit", environ=with_sanitizer)
