"""The table that is printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Args:
        name: What was measured.
        value: The figure.
        unit: What it counts; nothing for a ratio.
        most: The target: the figure should not be above this. None where it is for information.
        note: What else helps to judge it.
    """

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.most is None:
            return ""
        return f"<= {self.most:g}: {'met' if self.value <= self.most else 'NOT MET'}"

    def __str__(self) -> str:
        figure = f"{self.value:10.2f} {self.unit:5}"
        return f"  {self.name:54} {figure} {self.verdict:18} {self.note}".rstrip()


def print_rows(title: str, rows: Iterable[Row]) -> None:
    """Prints one part of the table, each row as soon as it is there."""
    print(f"\n{title}", flush=True)
    for row in rows:
        print(row, flush=True)
