"""What does a token cost when many are taken at once? The rows are those of test_batch.py."""

from __future__ import annotations

from collections.abc import Iterator

from .reports import rows_of
from .rows import Row

TITLE = "Each of many tokens taken at once; `read` and `write` of one in C = 1.00"


def rows() -> Iterator[Row]:
    yield from rows_of("test_batch.py")
