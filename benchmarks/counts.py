"""What a pair costs in things that can be counted, and are the same in each run: no clock is looked at."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import ROOT
from .counted import EVERYBODY, LOOPS_OF
from .harness import quick
from .native import LOOPS, build
from .pairs import LIMIT
from .peers import left_out, notice
from .rows import Row

TITLE = "Counted for each pair: instructions in user space, system calls, allocations (with those of Python's objects)"

Counts = dict[str, float]
"""For each contestant, how many for one pair."""

Function = tuple[str, str]
"""The library that a function is in, and its name."""


def rows() -> Iterator[Row]:
    if quick():
        notice("a quick run counts nothing: tests/test_counts.py does, and `python -m benchmarks counts`")
        return
    counted = {name: count() for name, count in COUNTS.items() if needs(name)}
    for contestant in EVERYBODY:
        for name, counts in counted.items():
            if contestant.name in counts:
                yield row(contestant.name, name, counts)


def row(contestant: str, what: str, counts: Counts) -> Row:
    note = ""
    if what == "instructions":
        note = f"{counts[contestant] / counts[LIMIT.name]:.1f} x the limit's"
    return Row(f"{contestant}: {what}", counts[contestant], "", None, note)


def needs(what: str) -> bool:
    """Whether the tool that counts is there."""
    tool = {"instructions": "valgrind", "system calls": "strace"}.get(what)
    if tool is None or shutil.which(tool):
        return True
    left_out(f"no {tool} on this machine: {what} are not counted")
    return False


def instructions(who: str = "everybody") -> Counts:
    """Under callgrind. What the kernel does is not in it."""
    return per_pair({name: sum(functions.values()) for name, functions in profiles(who).items()})


def profiles(who: str) -> dict[str, Counter[Function]]:
    """The instructions of each loop, by the function that they are in."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        options = ["--quiet", "--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={out}"]
        child(["valgrind", "--tool=callgrind", *options], "instructions", who)
        found = {}
        for file in sorted(Path(directory).glob("out.*"), key=lambda file: int(file.suffix[1:])):
            text = file.read_text(errors="replace")
            trigger = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
            if trigger:
                found[trigger.group(1)] = by_function(text)
        return found


def by_function(text: str) -> Counter[Function]:
    """Reads what callgrind wrote; the line after one with "calls=" is the cost of the call, and counted in there."""
    found: Counter[Function] = Counter()
    library, function, called = "", "", False
    for line in text.splitlines():
        if line.startswith("ob="):
            library = Path(line[3:]).name
        elif line.startswith("fn="):
            function = line[3:].partition("'")[0]
        elif line[:1].isdigit() and not called:
            found[library, function] += int(line.split()[1])
        called = line.startswith("calls=")
    return found


def system_calls(who: str = "everybody") -> Counts:
    """Of all threads, under strace."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        child(["strace", "-f", "--quiet=all", "--signal=none", "-s", "200", "-o", str(out)], "system calls", who)
        found: dict[str, int] = {}
        name = None
        for line in out.read_text().splitlines():
            begun = re.search(r'write\(-1, "BEGIN\|([^"]*)"', line)
            if begun:
                name = begun.group(1)
                found[name] = 0
            elif 'write(-1, "END"' in line:
                name = None
            elif name is not None and "resumed>" not in line:
                found[name] += 1
    return per_pair(found)


def allocations(who: str = "everybody") -> Counts:
    """Of the C library's; Python is made to use it for every object."""
    preload = {"LD_PRELOAD": str(build("counting", [LOOPS / "counting.c"], "-ldl")), "PYTHONMALLOC": "malloc"}
    return per_pair(json.loads(child([], "allocations", who, preload)))


def child(tool: list[str], what: str, who: str, environment: Mapping[str, str] | None = None) -> bytes:
    """Runs the process that is counted. Returns what it prints."""
    command = [*tool, sys.executable, "-m", f"{__package__}.counted", what, who]
    settings = {**os.environ, "PYTHONHASHSEED": "0", **(environment or {})}
    return subprocess.run(command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, check=True).stdout


def per_pair(found: Mapping[str, int]) -> Counts:
    few, many = LOOPS_OF
    counts = {}
    for contestant in EVERYBODY:
        short, long = (found.get(f"{contestant.name}|{pairs}") for pairs in LOOPS_OF)
        if short is not None and long is not None:
            counts[contestant.name] = (long - short) / (many - few)
    return counts


COUNTS = {"instructions": instructions, "system calls": system_calls, "allocations": allocations}
