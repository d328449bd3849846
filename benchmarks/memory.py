"""How much memory do a client and a token take, and does anything stay behind after very many of them?"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from jobserver_ffi import Acquired, Client, Lease, Pool

from . import ROOT
from .harness import either
from .rows import Row

TITLE = "Memory: what one takes, and what stays behind (each in a process of its own)"
ACQUIRES = either(1_000_000, 100_000)
CLIENTS = either(10_000, 500)
A_LEASE = "a lease with its fifo"
MOST = {A_LEASE: 30 * 1024}
ALIVE = either(1000, 500)
HELD = 20_000  # tokens at once
WARM_UP = 0.02  # of the whole, before the first look: caches and free lists fill once
NOISE = 128  # KiB; a byte lost each time would be 977 with the acquires, and 16 bytes 156 with the clients


def rows() -> Iterator[Row]:
    for name in SIZES:
        yield Row(name, in_a_process(name), "bytes", MOST.get(name))
    for name, (kibibytes, descriptors) in in_a_process("growth").items():
        yield Row(f"resident memory after {name}", kibibytes, "KiB", NOISE)
        yield Row(f"descriptors after {name}", descriptors, "", 0)


def each(make: Callable[[], Any], number: int) -> float:
    """Bytes of this process that one of many objects takes, when all are alive."""
    kept = [make() for _ in range(number // 10)]  # what is only needed once
    before, _ = usage()
    kept += [make() for _ in range(number)]
    size = (usage()[0] - before) / number
    for one in kept:
        one.release() if isinstance(one, Acquired) else one.close()
    return size


def configured(pool: Pool) -> Lease:
    lease = pool.lease("one of many", style="fifo")
    lease.configure(env={})
    return lease


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


def a_client() -> float:
    with Client(8) as pool:
        return each(lambda: Client.open(pool.auth), ALIVE)


def a_token() -> float:
    with Client(HELD) as pool:
        return each(pool.acquire, HELD // 2)


def a_lease() -> float:
    with Pool(ALIVE) as pool:
        return each(lambda: configured(pool), ALIVE // 5)


def growth() -> dict[str, tuple[float, int]]:
    return {
        f"{ACQUIRES:,} acquires": grown(acquire, ACQUIRES),
        f"{CLIENTS:,} clients": grown(make_clients, CLIENTS),
    }


SIZES = {"a client that joined a pool": a_client, "a token that is held": a_token, A_LEASE: a_lease}


def in_a_process(name: str) -> Any:
    """What a process of its own finds, whose memory nothing else has used."""
    command = [sys.executable, "-m", __spec__.name, name]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16 * ALIVE), hard))
    json.dump({**SIZES, "growth": growth}[sys.argv[1]](), sys.stdout)
