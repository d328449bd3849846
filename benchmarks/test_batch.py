"""What does a token cost when many are taken at once?"""

from __future__ import annotations

import pytest

from jobserver_ffi import Client

from . import native
from .conftest import PAIRS, Against
from .pairs import TOKENS, pool

SIZES = (1, 2, 8, TOKENS)


@pytest.mark.parametrize("size", SIZES)
def test_limit(against: Against, size: int) -> None:
    with pool("pipe") as address:
        read_fd, write_fd = map(int, address.split(","))
        loop = native.limit().limit_batches
        against.loop(
            f"C: {size} in one read and one write", lambda pairs: loop(read_fd, write_fd, pairs, size), PAIRS, size
        )


@pytest.mark.parametrize("size", SIZES)
def test_acquire_many(against: Against, size: int) -> None:
    with Client(TOKENS) as client:

        def loop(pairs: int) -> None:
            for _ in range(pairs):
                with client.acquire_many(size):
                    pass

        most = 0.10 if size == TOKENS else None
        against.loop(f"with client.acquire_many({size})", loop, PAIRS // 5, size, most)
