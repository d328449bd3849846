"""How many tokens can several processes take and give back in a second, together?"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from .harness import either, in_turns, processes, shared_memory
from .pairs import BARE, LIMIT, OURS, PEERS, TOKENS, Missing, Pairs, pool
from .peers import left_out
from .rows import Row

PROCESSES = either((1, 2, 4, 8), (2,))
TURNS = either(7, 2)
WINDOW = either(0.2, 0.05)  # seconds
CHUNK = 100  # pairs between two looks at the clock
NAMES = ("C: jobserver_token_take, _give", "client.release_raw(client.acquire_raw())", "with client.acquire()")
THEIRS = ("acquire, drop", "release(acquire())")
TITLE = f"Pairs of several processes together ({TOKENS} tokens, nobody waits): how many times fewer than in C"


def contestants() -> list[Pairs]:
    peers = [peer for peer in PEERS if peer.pool == "pipe" and peer.name.endswith(THEIRS)]
    return [LIMIT, BARE, *(one for one in OURS if one.name in NAMES), *peers]


def rows() -> Iterator[Row]:
    everybody = {one.name: one for one in contestants() if is_here(one)}
    for number in PROCESSES:
        rates = in_turns({name: partial(rate, one, number) for name, one in everybody.items()}, TURNS, 1)
        limit = rates[LIMIT.name]
        for name, found in rates.items():
            middle = sorted(found)[len(found) // 2]
            fewer = sorted(theirs / mine for mine, theirs in zip(found, limit, strict=True))[len(found) // 2]
            yield Row(f"{number} process{'es' * (number > 1)}, {name}", fewer, note=f"{middle:,.0f} a second")


def is_here(contestant: Pairs) -> bool:
    """Whether somebody is on this machine."""
    try:
        with ExitStack() as stack:
            contestant.begin(stack.enter_context(pool("pipe")), stack)
    except Missing as error:
        left_out(str(error))
        return False
    return True


def rate(contestant: Pairs, number: int) -> float:
    """Pairs in a second, of all processes together."""
    done = (ctypes.c_int64 * number).from_buffer(shared_memory(8 * number))
    with pool("pipe") as address:

        def work(index: int) -> None:
            loop = contestant.begin(address, ExitStack())
            while True:
                loop(CHUNK)
                done[index] += CHUNK

        with processes([partial(work, index) for index in range(number)]):
            while min(done) == 0:
                time.sleep(0.001)
            start, before = time.perf_counter(), sum(done)
            time.sleep(WINDOW)
            return (sum(done) - before) / (time.perf_counter() - start)
