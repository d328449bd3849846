"""CPython's own tests of `ThreadPoolExecutor` and `ProcessPoolExecutor` pass with `JobserverExecutor`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from .conftest import CAPABILITIES, missing

MODULE = "test_concurrent_futures"
ROOT = Path(__file__).parents[1]
GUARD = 800

LATER = "expects that an item runs or has its thread or process as soon as submit returns; ours waits for a slot first"
THREADS = {
    "test_cancel_futures": LATER,
    "test_cancel_futures_wait_false": LATER,
    "test_threads_terminate": LATER,
    "test_saturation": LATER,
    "test_idle_thread_reuse": "counts threads right after a result, when the thread that made it may not be idle yet",
    "test_default_workers": "reads a default number of threads; ours has no limit but the slots",
    "test_thread_names_default": "wants the name of the standard library's class in the names of threads",
}
COUNTED = "lets the second thread fail to start; with ours that is another thread than with the standard library's"
FORKED = {"test_cancel_futures": LATER, "test_python_finalization_error": COUNTED}
STARTED = {**FORKED, "test_processes_terminate": LATER, "test_saturation": LATER}


class Running(NamedTuple):
    """A program that runs the tests of some classes."""

    process: subprocess.Popen[bytes]
    out: IO[str]
    err: IO[str]


def has_tests(place: Path) -> bool:
    return (place / MODULE).is_dir() or (place / f"{MODULE}.py").is_file()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to import the package `test` from: Python's own if it has the tests, else Debian's."""
    own = importlib.util.find_spec("test")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for place in map(Path, (own and own.submodule_search_locations) or ()):
        if has_tests(place):
            return place.parent
    debian = Path(f"/usr/lib/python{version}/test")
    if has_tests(debian) and os.name == "posix":
        parent = tmp_path_factory.mktemp("stdlib")
        (parent / "test").symlink_to(debian)
        return parent
    if os.name == "nt":  # no package has them there, only the installer
        pytest.skip("needs the standard library's own tests")
    return missing(f"CPython's own tests of executors: libpython{version}-testsuite")


CASES = {
    "ThreadPool": THREADS,
    **({"ProcessPoolFork": FORKED, "ProcessPoolForkserver": STARTED} if CAPABILITIES["fork"] else {}),
    "ProcessPoolSpawn": STARTED,
}
FEWEST = {"ThreadPool": 35}


@pytest.fixture(scope="module")
def running(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """All of them at once, since they mostly sleep: the process, what it prints, and what it complains of."""
    place = tmp_path_factory.mktemp("running")
    environment = {**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}
    with ExitStack() as stack:
        started = {}
        for prefix, excluded in CASES.items():
            out, err = (stack.enter_context(open(place / f"{prefix}.{name}", "w+")) for name in ("out", "err"))
            command = [sys.executable, "-m", "tests.stdlib_executors", prefix, *excluded]
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err))
            stack.callback(process.kill)
            started[prefix] = Running(process, out, err)
        yield started


@pytest.mark.timeout(GUARD + 60)
@pytest.mark.parametrize("prefix", CASES)
def test_the_standard_library_s_tests_pass(prefix: str, running: dict[str, Running]) -> None:
    process, out, err = running[prefix]
    status = process.wait(GUARD)
    out.seek(0)
    err.seek(0)
    printed, complaints = out.read(), err.read()
    assert status == 0, complaints
    # The tests print too; the last thing is the summary.
    found = json.loads(printed[printed.index('{"ran"') :])
    assert found["failed"] == [], complaints
    assert found["ran"] - len(found["skipped"]) >= FEWEST.get(prefix, 45), found
