"""Which costs grow with the number of clients, or of leases, that a process has?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias

from jobserver_ffi import Client, Pool

from .harness import either, in_turns, ratio_row, timed
from .pairs import acquire, pool
from .rows import Row

CLIENTS = either((1, 10, 100, 1000), (1, 100))
LEASES = either((1, 10, 100, 300), (1, 20))
PAIRS = 1000
ROUNDS = either(5, 1)
TURNS = either(40, 20)  # in each round
TITLE = "The same with more clients, or leases, in the process; with 1 = 1.00"


def rows() -> Iterator[Row]:
    yield from table("clients", in_rounds(CLIENTS, with_clients))
    yield from table("leases", in_rounds(LEASES, with_leases))


Samples: TypeAlias = dict[str, list[float]]


def in_rounds(numbers: tuple[int, ...], measure: Callable[[int], Samples]) -> dict[int, Samples]:
    """Every number has its turn in each round."""
    found: dict[int, Samples] = {number: {} for number in numbers}
    for _ in range(ROUNDS):
        for number, samples in found.items():
            for name, more in measure(number).items():
                samples.setdefault(name, []).extend(more)
    return found


def with_clients(number: int) -> Samples:
    with ExitStack() as stack:
        address = stack.enter_context(pool("pipe"))
        clients = [stack.enter_context(Client.open(address)) for _ in range(number)]
        return in_turns(costs(address, clients), TURNS)


def with_leases(number: int) -> Samples:
    with Pool(2 * number) as leases:
        for _ in range(number - 1):
            leases.lease("idle", style="fifo").configure(env={})
        return in_turns({"lease.configure(), .close()": partial(timed, lease, leases)}, TURNS)


def table(what: str, samples: dict[int, Samples]) -> Iterator[Row]:
    fewest = samples[min(samples)]
    for name in fewest:
        for number in samples:
            yield ratio_row(f"{number:5} {what}: {name}", samples[number][name], fewest[name])


def lease(pool: Pool) -> None:
    with pool.lease("one more", style="fifo") as one:
        one.configure(env={})


def costs(address: str, clients: list[Client]) -> dict[str, Callable[[], float]]:
    """What is timed, each by nanoseconds for one."""
    last = clients[-1]

    def one_more() -> None:
        Client.open(address).close()

    def fork() -> None:
        process = os.fork()
        if process == 0:
            os._exit(0)
        os.waitpid(process, 0)

    def look() -> None:
        for _ in range(PAIRS):
            last.available()

    return {
        "with client.acquire()": lambda: timed(acquire, last, PAIRS) / PAIRS,
        "client.available()": lambda: timed(look) / PAIRS,
        "Client.open(auth).close()": lambda: timed(one_more),
        "os.fork() and its end": lambda: timed(fork),
    }
