"""What does it cost to take a token and give it back, when there is one? The rows are those of test_pair.py."""

from __future__ import annotations

from collections.abc import Iterator

from .reports import rows_of
from .rows import Row

TITLE = "A pair (a token taken and given back), uncontended; `read`, `write` in C = 1.00, targets in os.read + os.write"


def rows() -> Iterator[Row]:
    yield from rows_of("test_pair.py")
