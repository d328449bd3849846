"""Answers all questions, in one table: `python -m benchmarks`, from the root of the repository.

The targets are printed with "met" or "NOT MET" and never change the exit status: what is measured depends on the
machine. The rows that pytest-benchmark runs can be had alone, and compared with earlier ones:
`pytest benchmarks --benchmark-only --benchmark-autosave`, `--benchmark-compare`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import cython_pair, handover, import_time, leases, memory, size, waiting
from .rows import Row, print_rows

QUESTIONS = (cython_pair, handover, import_time, leases, memory, size, waiting)
PACKAGES = ("jobserver-ffi", "cffi", "pytest-benchmark")


def main() -> int:
    report = timed()
    if report is None:
        return 1
    print(environment(report["machine_info"]))
    print_rows("A token taken and given back; `os.write(w, os.read(r, 1))` = 1.00", timed_rows(report["benchmarks"]))
    for question in QUESTIONS:
        print_rows(question.TITLE, question.rows())
    return 0


def timed() -> dict[str, Any] | None:
    """The report of pytest-benchmark; None if it failed, and then pytest has said why."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "report.json")
        options = ["--benchmark-only", f"--benchmark-json={file}", "-q"]
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout)
            return None
        report: dict[str, Any] = json.loads(file.read_bytes())
        return report


def timed_rows(benchmarks: list[dict[str, Any]]) -> Iterator[Row]:
    for result in benchmarks:
        info = result["extra_info"]
        note = f"{info['nanoseconds']:.0f} ns, half of all turns {info['low']:.2f} to {info['high']:.2f}"
        yield Row(info["name"], info["ratio"], "", info["most"], note)


def environment(machine: dict[str, Any]) -> str:
    """The line that says where the figures come from."""
    processor = machine["cpu"].get("brand_raw", machine["processor"])
    python = f"{machine['python_implementation']} {machine['python_version']}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{processor}, {os.cpu_count()} CPUs; {machine['system']} {machine['release']}; {python}, {packages}"


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
