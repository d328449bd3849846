"""The pools of running processes, as Linux shows them in /proc. Nothing is read from any pipe, and none is changed."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from ..environment import address_in, flags_in
from ..processes import Process, can_see, everyone, may_have_made, who_has
from ..style import is_make
from .jobservers import jobserver_at, jobserver_of, leases_of
from .seen import CannotSee, SeenPool, called, holder, shared_pool
from .served import served_to

if TYPE_CHECKING:
    from typing import Any

    from ..processes import File
    from .jobservers import Jobserver


def pool_of(pid: int, served: list[SeenPool]) -> SeenPool:
    """The pool that a process made, serves or uses.

    Args:
        pid: The process.
        served: The pools that are served.

    Raises:
        CannotSee: There is none, or it is not to be seen.
    """
    process = _reached(pid)
    own = served_to([pid], served)
    if own is not None:
        return own
    leases = list(leases_of(process))
    if leases:
        return _pools([], {pid: leases}, served)[0]
    found = jobserver_of(process, [other for other in everyone() if other.parent == pid])
    if found is None:
        raise CannotSee(f"`{process.program}` {_why_none(process)}")
    return _pools([found], {}, served)[0]


def pools_of_all(served: list[SeenPool]) -> list[SeenPool]:
    """The pools of all processes that can be looked into, without those that are served."""
    children = defaultdict(list)
    processes = list(everyone())
    for process in processes:
        children[process.parent].append(process)
    jobservers: dict[File, Jobserver] = {}
    leases: dict[int, list[Jobserver]] = {}
    for process in processes:
        own = list(leases_of(process))
        if own:
            leases[process.pid] = own
        found = jobserver_of(process, children[process.pid])
        if found is not None:
            jobservers.setdefault(found.file, found)
    return [pool for pool in _pools(list(jobservers.values()), leases, served) if pool.kind != "served"]


def pool_here(address: str, limit: int | None, served: list[SeenPool]) -> SeenPool | None:
    """The pool that this process has joined; None if it is neither a pipe nor a fifo."""
    found = jobserver_at(Process(os.getpid()), address, limit)
    return None if found is None else _pools([found], {}, served)[0]


def _pools(jobservers: list[Jobserver], leases: dict[int, list[Jobserver]], served: list[SeenPool]) -> list[SeenPool]:
    """What is seen of jobservers, and of pools with leases by the process that has them; each pool once."""
    pools: list[SeenPool] = []
    open_in = who_has({found.file for found in jobservers})[0] if jobservers else {}
    for found in jobservers:
        users = open_in[found.file]
        server = served_to((user.pid for user in users), served) if found.directory else None
        owner = _owner(found, users) if found.directory else None
        if server is not None:
            pools += [server] * (server not in pools)
        elif owner is not None:
            leases.setdefault(owner.pid, list(leases_of(owner)))
        else:
            pools.append(_shared(found, users))
    open_in = who_has({lease.file for own in leases.values() for lease in own})[0] if leases else {}
    for pid, own in leases.items():
        server = served_to((user.pid for lease in own for user in open_in[lease.file]), served)
        pool = server or _pool_of_leases(Process(pid), own, open_in)
        pools += [pool] * (pool not in pools)
    return pools


def _shared(found: Jobserver, users: list[Process]) -> SeenPool:
    holders = [holder(user, may_have_made(user, found.address)) for user in users]
    return shared_pool(found.address, found.style, found.free(), found.limit, holders)


def _owner(lease: Jobserver, users: list[Process]) -> Process | None:
    """The process whose pool a lease is of: it has the lock on the pool's directory."""
    for process in users:
        if any(process.path_of(number) == lease.directory for number in process.descriptors() or ()):
            return process
    return None


def _pool_of_leases(owner: Process, own: list[Jobserver], open_in: dict[File, list[Process]]) -> SeenPool:
    """The pool that a process has, as far as the pipes of its leases show it."""
    seen: list[dict[str, Any]] = []
    limits = []
    for lease in own:
        users = [user for user in open_in[lease.file] if user.pid != owner.pid]
        first = next((user for user in users if user.parent == owner.pid), users[0] if users else None)
        flags = flags_in((first.environment() or {}) if first else {})
        limits.append(flags.jobs)
        seen.append(
            {
                "style": lease.style,
                "address": flags.auth,
                "untaken": lease.free(),
                "process": first.pid if first else None,
                "command": first.command if first else [],
                "processes": [holder(user, made=False) for user in users],
            }
        )
    limit = next(filter(None, limits), None)
    return SeenPool("leases", called(owner), owner.pid, own[0].directory, None, limit, leases=seen)


def _reached(pid: int) -> Process:
    """A process that can be looked into.

    Raises:
        CannotSee: It is gone, or another user's.
    """
    if not can_see():
        raise CannotSee(
            f"this system ({sys.platform}) does not show what another process has open: run `jobserver status` inside "
            f"that build, or let it run in a pool that can be seen: `jobserver run --pool NAME -- CMD`"
        )
    try:
        process = Process(pid)
    except (OSError, ValueError):
        raise CannotSee(f"there is no process {pid} (any more): `pgrep -ax make` lists the makes that run") from None
    if process.descriptors() is None:
        from ..serve.place import user_name

        owner = process.owner()
        if owner in (None, os.geteuid()):
            raise CannotSee(f"{process} has ended, or does not let itself be looked into: try it as root (`sudo`)")
        raise CannotSee(
            f"{process} belongs to user {user_name(owner or 0)}, and you are {user_name(os.geteuid())}: only that user "
            f"and root may look into it: `sudo jobserver status --pid {pid}`"
        )
    return process


def _why_none(process: Process) -> str:
    """Why a process has no jobserver, and what mends it."""
    auth = address_in(process.environment() or {})
    if auth is not None:
        return (
            f"was started with the jobserver {auth}, but does not have it open: `jobserver doctor` in its place tells "
            f"why; look at the program that made it, above it: `jobserver status --pid {process.parent}`"
        )
    if is_make(process.program):
        return "has no jobserver: it runs one job at a time, or without a limit: start it as `make -jN`, N from 2 on"
    return (
        "has no jobserver: it made none and is under none (a cargo is seen while it compiles); name a `make -jN`, "
        "cargo, ninja or `jobserver run`, or what one of them started"
    )
