"""`jobserver status` for tests: builds that stand still to be looked at, and what is said of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from .command import Done, Lines, Running

GOLDEN = Path(__file__).parent / "status"

# A job, for a shell: it says that it has begun, and waits until the build is ended.
JOB = "echo began > told; read end < gate"


def makefile(directory: Path, jobs: int, prefix: str = "") -> None:
    """A makefile with so many jobs that do not depend on each other."""
    targets = " ".join(f"job{number}" for number in range(jobs))
    (directory / "Makefile").write_text(f"all: {targets}\n{targets}:\n\t{prefix}@{JOB}\n")


def ninja_file(directory: Path, jobs: int) -> None:
    """The same for ninja."""
    edges = "".join(f"build job{number}: job\n" for number in range(jobs))
    (directory / "build.ninja").write_text(f"rule job\n  command = {JOB}\n{edges}")


@contextmanager
def standing(command: list[str], directory: Path, jobs: int, **popen_kwargs: Any) -> Iterator[Running]:
    """A build in the directory of which so many jobs have begun, and stand still."""
    for name in ("told", "gate"):
        os.mkfifo(directory / name)
    descriptor = os.open(directory / "told", os.O_RDWR)
    environ = popen_kwargs.pop("env", os.environ)
    try:
        with Running(command, cwd=directory, env={**environ, "TMPDIR": str(directory)}, **popen_kwargs) as running:
            told = Lines(descriptor)
            assert [told.next() for _ in range(jobs)] == ["began"] * jobs
            yield running
    finally:
        os.close(descriptor)
        for name in ("told", "gate"):
            os.unlink(directory / name)


def child_of(process: int, program: str) -> int:
    """The process below another one that runs a program of this name."""
    below = psutil.Process(process).children(recursive=True)
    return next(child.pid for child in below if Path(child.cmdline()[0]).name == program)


def pool_in(done: Done) -> dict[str, Any]:
    """The one pool that is told of in JSON."""
    assert done.returncode == 0, done.stderr
    (pool,) = json.loads(done.stdout)["pools"]
    assert isinstance(pool, dict)
    return pool


def check(golden: str, done: Done, as_json: Done, *names: Path | str) -> None:
    """Compares text and JSON with the files of that name; with JOBSERVER_FFI_GOLDEN=write it makes them.

    Args:
        golden: The name of the files.
        done: What printed the text.
        as_json: What printed the JSON.
        names: Paths that differ each time.
    """
    assert (done.returncode, done.stderr, as_json.returncode, as_json.stderr) == (0, "", 0, "")
    found = json.dumps(_fixed(json.loads(as_json.stdout)), indent=2) + "\n"
    for suffix, text in (("txt", done.stdout), ("json", found)):
        path = GOLDEN / f"{golden}.{suffix}"
        if suffix == "txt":  # how much of a command is shown depends on how long the path of its program is
            text = re.sub(r"(?m)^( *\d+  .*?)/\S.*?(  \(made it\))?$", r"\1/...\2", text)
        for name in sorted(map(str, names), key=len, reverse=True):
            text = text.replace(name, "PATH")
        for pattern, fixed in (
            (r"process \d+", "process N"),
            (r"(?m)^ *(PID|\d+)  ", r"\1  "),
            (r"(?m)^\d+  ", "N  "),
            (r"GMfifo\d+", "GMfifoN"),
            (r"jobserver-ffi-\w+", "jobserver-ffi-X"),
            (r"\b\d+(\.\d+|(\.\d+)?e-\d+)\b", "N.N"),
            (r'(?<="value": )\d+', "N"),
            (r" +N\.N", "  N.N"),
            (r" +SECONDS", "  SECONDS"),
            (r"\b\d+,\d+\b", "R,W"),
            (r"\S*/python[\d.]*", "PYTHON"),
        ):
            text = re.sub(pattern, fixed, text)
        if os.environ.get("JOBSERVER_FFI_GOLDEN") == "write":
            path.write_text(text)
        assert text == path.read_text()


def _fixed(value: Any) -> Any:
    """JSON without the numbers of processes."""
    if isinstance(value, list):
        return [_fixed(item) for item in value]
    if isinstance(value, dict):
        return {
            name: "N" if name == "process" and isinstance(item, int) else _fixed(item) for name, item in value.items()
        }
    return value
