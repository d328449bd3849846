"""What is seen of a pool."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from ..processes import Process


class CannotSee(Exception):
    """There is nothing to be seen; the message says why, and what mends it."""


@dataclass(frozen=True)
class Holder:
    """A process that has a pool open. Whether it holds a token is another matter, which nobody can tell.

    Attributes:
        process: Its number.
        name: What it is called: the program.
        command: Its words.
        made: Whether it may have made the pool: it was not started with its address.
    """

    process: int
    name: str
    command: list[str]
    made: bool


@dataclass
class SeenPool:
    """What is seen of a pool. What cannot be known is None.

    Attributes:
        kind: "shared" (one pipe, fifo or semaphore for all), "leases" (of a `jobserver run` or another program with a
            `Pool`), or "served" (by `jobserver serve`).
        name: What it is called: a served pool's own name, otherwise the program that made it.
        process: The process that made it, or serves it.
        address: As it stands in MAKEFLAGS; of a served pool, its socket.
        style: "pipe", "fifo", "semaphore", "socket" or "device"; None where each lease has its own.
        limit: How many slots there are: N of -jN.
        in_use: Slots in use; of a shared pool, those that are not free: a token that was lost counts as in use.
        free: Slots that are free.
        queued: Leases that wait for their first slot.
        held_back: Free slots that gates keep from being used.
        gates: Of a served pool: what each gate measures and holds back.
        leases: Each of a served pool as its server tells it (docs/serve.md); each of other leases with `style`,
            `untaken`, `process`, `command` and `processes`.
        ended: Of a served pool: what came of the leases that have ended.
        processes: Those that have it open.
    """

    kind: str
    name: str | None
    process: int | None
    address: str | None
    style: str | None = None
    limit: int | None = None
    in_use: int | None = None
    free: int | None = None
    queued: int | None = None
    held_back: int | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    leases: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, Any] | None = None
    processes: list[Holder] | None = None

    @property
    def key(self) -> tuple[str, int | None, str | None]:
        """What stays the same of a pool from one look to the next."""
        return self.kind, self.process, self.address


def holder(process: Process, made: bool) -> Holder:
    """A process as a holder of a pool."""
    return Holder(process.pid, called(process), process.command, made)


def called(process: Process) -> str:
    """The program that a process runs; of Python, what it runs there."""
    words = process.command
    if process.program.startswith(("python", "pypy")) and len(words) > 1:
        if words[1] == "-m" and len(words) > 2:
            return words[2]
        if not words[1].startswith("-"):
            return os.path.basename(words[1])
    return process.program


def shared_pool(
    address: str, style: str | None, free: int | None, limit: int | None, processes: list[Holder] | None
) -> SeenPool:
    """What is seen of a pool that all its users share."""
    maker = next((process for process in processes or () if process.made), None)
    # A free token more than there are slots: -jN is not this pool's.
    in_use = limit - free if limit is not None and free is not None and free <= limit else None
    return SeenPool(
        "shared",
        None if maker is None else maker.name,
        None if maker is None else maker.process,
        address,
        style,
        limit,
        in_use,
        free,
        processes=processes,
    )
