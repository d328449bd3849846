"""Which costs grow with the number of clients that a process has?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from jobserver_ffi import Client

from .harness import either, in_turns, ratio_row, timed
from .pairs import acquire, pool
from .rows import Row

CLIENTS = either((1, 10, 100, 1000), (1, 100))
PAIRS = 1000
TURNS = either(200, 20)
TITLE = f"The same with more clients in the process; with {CLIENTS[0]} = 1.00"


def rows() -> Iterator[Row]:
    samples = {}
    for number in CLIENTS:
        with ExitStack() as stack:
            address = stack.enter_context(pool("pipe"))
            clients = [stack.enter_context(Client.open(address)) for _ in range(number)]
            samples[number] = in_turns(costs(address, clients), TURNS)
    for name in samples[CLIENTS[0]]:
        for number in CLIENTS:
            yield ratio_row(f"{number:5} clients: {name}", samples[number][name], samples[CLIENTS[0]][name])


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
