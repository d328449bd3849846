"""How long does a build with `jobserver_ffi.build` take on two cores, beside the serial command?

The project is brotli's source distribution: 35 C sources in one extension, which need nothing but Python. One extension
is what `build_ext -j` of setuptools cannot speed up, and its setup.py has a `build_ext` of its own, as many have. The
two ways take turns. On a machine that others use too, the wall clock says more of them than of us; beside it stands the
number of CPUs that each build had.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jobserver_ffi

from .rows import Row

SOURCES = "brotli==1.2.0"
TITLE = f"Building {SOURCES}, 35 C files in one extension, on two slots; the serial command = 1.00"
TURNS = int(os.environ.get("JOBSERVER_FFI_BUILD_TURNS", "1"))
UNITS = 30  # compilers that must have run at least

# Lets the project's own class be derived from ours, as it is here from that of distutils.
BUILD = """\
import runpy, sys
import setuptools
import distutils.command.build_ext as command
from jobserver_ffi.build import ParallelBuild
if sys.argv.pop(1) == "ours":
    command.build_ext = type("build_ext", (ParallelBuild, command.build_ext), {})
sys.argv[0] = "setup.py"
runpy.run_path("setup.py", run_name="__main__")
"""


class Build(NamedTuple):
    """Seconds on the clock, seconds of CPU, and the content of what was built."""

    wall: float
    cpu: float
    result: bytes

    @property
    def cpus(self) -> float:
        return self.cpu / self.wall


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        python = environment(directory / "venv")
        source = fetch(directory, python)
        turns = [(build(source, python, "serial"), build(source, python, "ours")) for _ in range(TURNS)]
    assert all(serial.result == ours.result for serial, ours in turns), "the two extensions differ"
    serial, ours = turns[-1]
    note = f"{ours.wall:.1f} s with {ours.cpus:.2f} CPUs, serial {serial.wall:.1f} s with {serial.cpus:.2f}"
    yield Row("build_ext, wall clock", statistics.median(b.wall / a.wall for a, b in turns), "", 0.60, note)
    cpus = statistics.median(a.cpus / b.cpus for a, b in turns)
    yield Row("build_ext, by the CPUs that each build had", cpus, "", None, "what others use too is left out")
    work = statistics.median(b.cpu / a.cpu for a, b in turns)
    yield Row("build_ext, CPU time", work, "", None, "with the processes that it needs")


def environment(place: Path) -> str:
    """A fresh virtual environment with a setuptools that still has what the project imports."""
    venv.create(place, with_pip=True, symlinks=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "setuptools==80.9.0", "cffi"], check=True)
    (library,) = place.glob("lib/python*/site-packages")
    (library / "jobserver_ffi").symlink_to(Path(jobserver_ffi.__file__).parent, target_is_directory=True)
    return python


def fetch(directory: Path, python: str) -> Path:
    options = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", str(directory)]
    subprocess.run([python, "-m", "pip", "download", "--quiet", *options, SOURCES], check=True)
    with tarfile.open(next(directory.glob("*.tar.gz"))) as archive:
        archive.extractall(directory, filter="data")
    return next(path for path in directory.glob("[bB]rotli-*") if path.is_dir())


def build(source: Path, python: str, way: str) -> Build:
    (source / "build.py").write_text(BUILD)
    variables = {name: value for name, value in os.environ.items() if not name.endswith("MAKEFLAGS")}
    before, start = os.times(), time.monotonic()
    done = subprocess.run(
        [python, "-W", "ignore", "build.py", way, "build_ext", "--force"],
        cwd=source,
        env={**variables, "JOBSERVER_FFI_JOBS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, after = time.monotonic() - start, os.times()
    assert done.stdout.count(" -c ") >= UNITS, f"{done.stdout.count(' -c ')} sources were compiled"
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    (library,) = source.glob("bin/lib*/*.so")
    return Build(wall, cpu, library.read_bytes())


if __name__ == "__main__":
    from .rows import print_rows

    print_rows(TITLE, rows(), [])
    sys.exit(0)
