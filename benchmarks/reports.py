"""What pytest-benchmark measured, as rows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .rows import Row, Times


def rows_of(test_file: str) -> Iterator[Row]:
    """Runs a file of this folder under pytest-benchmark; the target is for the ratio to the bare loop in Python."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.json")
        options = ["--benchmark-only", f"--benchmark-json={report}", "-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", str(Path(__file__).with_name(test_file)), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}")
        results = json.loads(report.read_bytes())["benchmarks"]
    for result in results:
        info = result["extra_info"]
        note = f"{info['bare']:.2f} x os.read + os.write"
        yield Row(info["name"], info["ratio"], "", info["most"], note, Times(**info["times"]), info["bare"])
