"""Draws results for the README and the docs: `python -m benchmarks.plots RESULTS.json FOLDER`, or `--plots FOLDER`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

THEMES = {
    "light": {"text": "#1f2328", "grid": "#d1d9e0", "ours": "#0969da", "peers": "#8c959f", "limit": "#1a7f37"},
    "dark": {"text": "#f0f6fc", "grid": "#3d444d", "ours": "#58a6ff", "peers": "#8b949e", "limit": "#3fb950"},
}
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jobserver-ffi",
    "font.family": "sans-serif",
    "font.size": 10.0,
}
PEERS = ("Rust", "gnumake-tokenpool", "not the protocol", "one process", "one token", "no jobserver", "os.")
LEAST_LABELLED = 2.5  # sleeps; below lie the limit and all who wake one waiter for one token
LIMIT = re.compile(r"C: read\b|fifo: C: read")

Colours = dict[str, str]
Result = dict[str, Any]


def colour(name: str, colours: Colours) -> str:
    if LIMIT.match(name):
        return colours["limit"]
    return colours["peers"] if name.removeprefix("fifo: ").startswith(PEERS) else colours["ours"]


def bars(axes: Axes, rows: list[Result], colours: Colours, label: str) -> None:
    """One bar for each row, the shortest at the top, with its figure behind it."""
    rows = sorted(rows, key=lambda row: -row["value"])
    values = [row["value"] for row in rows]
    axes.barh([row["name"] for row in rows], values, color=[colour(row["name"], colours) for row in rows], height=0.7)
    axes.set_xscale("log")
    axes.set_xlim(min(values) * 0.8, max(values) * 2)
    for index, value in enumerate(values):
        axes.text(value * 1.06, index, f"{value:,.2f}", va="center", color=colours["text"])
    axes.axvline(1, color=colours["limit"], linewidth=1)
    axes.set_xlabel(label)


def pair(axes: Axes, rows: list[Result], colours: Colours) -> None:
    shown = [row for row in rows if not row["name"].startswith(("own ", "fifo: ", "shared "))]
    bars(axes, shown, colours, "one token taken and given back, in times of read and write in C (log scale)")


def handover(axes: Axes, rows: list[Result], colours: Colours) -> None:
    shown = [row for row in rows if "filelock" not in row["name"]]
    bars(axes, shown, colours, "from the release to the sleeping waiter, in times of a blocking read in C (log scale)")


def herd(axes: Axes, rows: list[Result], colours: Colours) -> None:
    """One line for each contestant, over the number of waiters."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        number, _, name = row["name"].partition(" waiters, ")
        lines.setdefault(name, []).append((int(number), row["value"]))
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), color=colour(name, colours), marker="o", markersize=3)
        if points[-1][1] > LEAST_LABELLED:
            place: Any = {"textcoords": "offset points", "ha": "right", "va": "bottom"}
            axes.annotate(name, points[-1], (-4, 3), color=colours["text"], **place)
    end = max(number for points in lines.values() for number, _ in points)
    axes.annotate("all others", (end, 2), (-4, -12), color=colours["text"], textcoords="offset points", ha="right")
    axes.margins(y=0.1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    counts = [number for number, _ in next(iter(lines.values()))]
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xlabel("waiting processes (green: the limit; blue: jobserver-ffi, every way to wait; grey: peers)")
    axes.set_ylabel("sleeps for each token handed over")


DRAWN: dict[str, tuple[Callable[[Axes, list[Result], Colours], None], float]] = {
    "pair": (pair, 6.2),
    "handover": (handover, 4.6),
    "herd": (herd, 3.8),
}
"""For each question its picture, and how high that is in inches."""


def draw(questions: list[dict[str, Any]], folder: Path) -> None:
    """Writes FOLDER/QUESTION-light.svg and FOLDER/QUESTION-dark.svg for what was asked."""
    folder.mkdir(parents=True, exist_ok=True)
    for question in questions:
        if question["name"] in DRAWN and question["rows"]:
            picture, height = DRAWN[question["name"]]
            for theme, colours in THEMES.items():
                with mpl.rc_context(SETTINGS):
                    figure = Figure(figsize=(9, height), layout="constrained")
                    axes = figure.add_subplot()
                    picture(axes, question["rows"], colours)
                    paint(axes, colours)
                    file = folder / f"{question['name']}-{theme}.svg"
                    figure.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})


def paint(axes: Axes, colours: Colours) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours["grid"])
    axes.tick_params(which="both", colors=colours["text"], length=0)
    axes.grid(axis="both" if axes.get_ylabel() else "x", color=colours["grid"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(colours["text"])
    axes.yaxis.label.set_color(colours["text"])


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["questions"], Path(sys.argv[2]))
