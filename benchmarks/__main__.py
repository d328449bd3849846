"""Answers all questions, or those that are named: `python -m benchmarks`, or `python FOLDER/benchmarks` from elsewhere.

The targets are printed with "met" or "NOT MET" and never change the exit status: what is measured depends on the
machine. A question that fails does. The rows that pytest-benchmark runs can be had alone, and compared with earlier
ones: `pytest benchmarks --benchmark-only --benchmark-autosave`, then with `--benchmark-compare`.
"""

from __future__ import annotations

import sys

if not __package__:  # the folder itself was run
    import runpy
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
    sys.exit()

import argparse
import importlib
import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

from . import peers
from .harness import QUICK
from .rows import Row, print_rows

QUESTIONS = (
    "pair",
    "cython_pair",
    "batch",
    "events",
    "handover",
    "herd",
    "throughput",
    "fairness",
    "growth",
    "helper_thread",
    "pending",
    "idle",
    "import_time",
    "size",
    "memory",
    "leases",
    "timings",
    "builds",
    "build_ext",
    "counts",
    "timings_page",
)
"""Modules of this folder, each with a TITLE and a function `rows`."""
LONG = {"build_ext", "timings", "timings_page"}
"""Those that are not asked with --quick."""


def main() -> int:
    options = arguments()
    if options.quick:
        os.environ[QUICK] = "1"
    peers.install()
    environment = peers.environment()
    print("; ".join(f"{name} {text}" for name, text in environment.items()))
    report: dict[str, Any] = {"environment": environment, "quick": options.quick, "questions": []}
    failed = False
    for name in options.questions or [name for name in QUESTIONS if not (options.quick and name in LONG)]:
        report["questions"].append(answer(name))
        failed = failed or report["questions"][-1]["failed"]
        if options.json is not None:  # each time: a run that is interrupted keeps what it has
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plots is not None:
        from .plots import draw

        draw(report["questions"], options.plots)
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"one of: {', '.join(QUESTIONS)}")
    parser.add_argument("--quick", action="store_true", help="all in 40 seconds; the tails are worth nothing then")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="draw some of them there, for light and dark pages"
    )
    options = parser.parse_args()
    unknown = set(options.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    return options


def answer(name: str) -> dict[str, Any]:
    """Asks one question; what it fails with is printed."""
    question = importlib.import_module(f".{name}", __package__)
    start, failed = time.monotonic(), False
    rows: list[Row] = []
    try:
        print_rows(question.TITLE, question.rows(), rows)
    except Exception:
        traceback.print_exc()
        failed = True
    print(f"  ({name}: {time.monotonic() - start:.1f} s)", flush=True)
    return {"name": name, "title": question.TITLE, "failed": failed, "rows": [row.as_json() for row in rows]}


if __name__ == "__main__":
    sys.exit(main())
