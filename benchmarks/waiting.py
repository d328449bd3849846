"""How much CPU does an acquire use that waits?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from jobserver_ffi import Client

from .rows import Row

TITLE = "CPU used by a wait of one second"
SECONDS = 1.0
MOST = 500  # microseconds: getting to sleep and waking up once


def rows() -> Iterator[Row]:
    for name, timeout in (("client.acquire()", None), ("client.acquire(timeout=60)", 60.0)):
        yield Row(name, cpu_of_a_wait(timeout) / 1e3, "us", MOST)


def cpu_of_a_wait(timeout: float | None) -> int:
    """Nanoseconds of CPU that a thread uses which waits until another gives its token back."""
    used = 0

    def wait() -> None:
        nonlocal used
        start = time.thread_time_ns()
        client.acquire(timeout).release()
        used = time.thread_time_ns() - start

    with Client(1) as client:
        thread = threading.Thread(target=wait)
        with client.acquire():
            thread.start()
            time.sleep(SECONDS)
        thread.join()
    return used
