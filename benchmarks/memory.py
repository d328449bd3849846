"""How much memory do a client and a token take, and does anything stay behind after very many of them?"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from jobserver_ffi import Client

from .harness import either
from .rows import Row

TITLE = "Memory: what one takes, and what stays behind (in a process of its own)"
ACQUIRES = either(1_000_000, 100_000)
CLIENTS = either(10_000, 500)
HELD = 20_000  # tokens at once
WARM_UP = 0.02  # of the whole, before the first look: caches and free lists fill once
NOISE = 128  # KiB; a byte lost each time would be 977 with the acquires, and 16 bytes 156 with the clients


def rows() -> Iterator[Row]:
    command = [sys.executable, "-m", __spec__.name]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE)
    results = json.loads(done.stdout)
    for name, size in results["each"].items():
        yield Row(name, size, "bytes")
    for name, kibibytes, descriptors in results["grown"]:
        yield Row(f"resident memory after {name}", kibibytes, "KiB", NOISE)
        yield Row(f"descriptors after {name}", descriptors, "", 0)


def each(make: Callable[[], object], number: int) -> float:
    """Bytes of this process that one of many objects takes, when all are alive."""
    kept = [make() for _ in range(number // 10)]  # what is only needed once
    before, _ = usage()
    kept += [make() for _ in range(number)]
    return (usage()[0] - before) / number


def acquire(times: int) -> None:
    """Takes and gives back so many tokens, by each way in turn."""
    with Client(8) as client:
        for _ in range(times // 4):
            with client.acquire():
                pass
            client.release_raw(client.acquire_raw())
            with client.acquire_many(1):
                pass
            client.try_acquire()


def make_clients(times: int) -> None:
    """Makes, uses and closes so many clients, of both styles and of inherited pipes."""
    for _ in range(times // 4):
        with Client(8) as maker, Client.open(maker.auth) as joined, joined.acquire():
            pass
        with Client(8, style="fifo") as maker, Client.open(maker.auth) as joined, joined.acquire():
            pass


def grown(work: Callable[[int], None], times: int) -> tuple[float, int]:
    """By how much this process has grown through the work: KiB of memory that is its own, and descriptors."""
    work(int(times * WARM_UP))
    before = usage()
    work(times)
    after = usage()
    return (after[0] - before[0]) / 1024, after[1] - before[1]


def usage() -> tuple[int, int]:
    gc.collect()
    process = psutil.Process()
    return process.memory_full_info().uss, process.num_fds()


if __name__ == "__main__":
    with Client(8) as pool, Client(HELD) as many:
        sizes = {
            "a client that joined a pool": each(lambda: Client.open(pool.auth), 100),
            "a token that is held": each(many.acquire, HELD // 2),
        }
    growth = [
        (f"{ACQUIRES:,} acquires", *grown(acquire, ACQUIRES)),
        (f"{CLIENTS:,} clients", *grown(make_clients, CLIENTS)),
    ]
    json.dump({"each": sizes, "grown": growth}, sys.stdout)
