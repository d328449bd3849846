"""CPython's own tests of `ThreadPoolExecutor` and `ProcessPoolExecutor` pass with `JobserverExecutor`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import missing

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


@pytest.mark.timeout(GUARD + 60)
@pytest.mark.parametrize(
    ("prefix", "excluded", "fewest"),
    [
        ("ThreadPool", THREADS, 35),
        pytest.param("ProcessPoolFork", FORKED, 45, marks=pytest.mark.needs("fork")),
        pytest.param("ProcessPoolForkserver", STARTED, 45, marks=pytest.mark.needs("fork")),
        ("ProcessPoolSpawn", STARTED, 45),
    ],
)
def test_the_standard_library_s_tests_pass(prefix: str, excluded: dict[str, str], fewest: int, directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.stdlib_executors", prefix, *excluded],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=True,
    )
    # The tests print too; the last thing is the summary.
    found = json.loads(done.stdout[done.stdout.index('{"ran"') :])
    assert found["failed"] == [], done.stderr
    assert found["ran"] - len(found["skipped"]) >= fewest, found
