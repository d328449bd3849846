"""What is measured, as rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Times:
    """How long something took, in nanoseconds."""

    median: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Times:
        cuts = statistics.quantiles(samples, n=100)
        return cls(cuts[49], cuts[94], cuts[98])


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Args:
        name: What was measured.
        value: The figure.
        unit: What it counts; nothing for a ratio.
        most: The target: the figure should not be above this. None where it is for information.
        note: What else helps to judge it.
        times: What the figure is a ratio of, if it is one of times.
        judged: The figure that the target is for, if it is not the value.
    """

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    note: str = ""
    times: Times | None = None
    judged: float | None = None

    @property
    def met(self) -> bool | None:
        if self.most is None:
            return None
        return (self.value if self.judged is None else self.judged) <= self.most

    @property
    def verdict(self) -> str:
        return "" if self.met is None else f"<= {self.most:g}: {'met' if self.met else 'NOT MET'}"

    def __str__(self) -> str:
        figure = f"{self.value:10,.2f} {self.unit:5}"
        times = self.times
        columns = " ".join(map(duration, (times.median, times.p95, times.p99))) if times else " " * 29
        return f"  {self.name:58} {figure} {columns}  {self.verdict:16} {self.note}".rstrip()

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


HEADER = f"  {'':58} {'figure':>10}       {'median':>9} {'p95':>9} {'p99':>9}"


def duration(nanoseconds: float) -> str:
    """A time in nine characters."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}".rjust(9)
    return f"{nanoseconds:.0f} ns".rjust(9)


def print_rows(title: str, rows: Iterable[Row], printed: list[Row]) -> None:
    """Prints one part of the table, each row as soon as it is there, and adds it to `printed`."""
    print(f"\n{title}\n{HEADER}", flush=True)
    for row in rows:
        print(row, flush=True)
        printed.append(row)
