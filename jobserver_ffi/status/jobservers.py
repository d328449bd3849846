"""Which jobserver a running process has: the one that it made, or the one that it was started under.

A program that makes a jobserver has no address in its own environment. Its children have, or its descriptors tell.
Linux only: all of it is read from /proc.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..environment import flags_in
from ..makeflags import parse
from ..processes import tokens_at
from ..style import is_make

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..processes import File, Process

# The fifos of a Pool's leases, in its private directory; those of pipes have lost their names (csrc/posix_lease.c).
_OF_A_LEASE = re.compile(r"(.*/jobserver-ffi-[^/]+)/(take|lease)\d+( \(deleted\))?")
_PRIVATE_DIRECTORY = re.compile(r".*/jobserver-ffi-[^/]+")
_PRIVATE_FIFO = re.compile(r".*/jobserver-ffi-[^/]+/[^/]+")


@dataclass(frozen=True)
class Jobserver:
    """A jobserver that a process has.

    Attributes:
        file: The pipe or fifo that tokens are taken from.
        address: As it stands in MAKEFLAGS, or what stands for it there.
        style: "pipe" or "fifo".
        limit: N of the -jN beside the address; None where that is not known.
        place: Where it can be opened, below /proc.
        directory: Of the lease that it is: the private directory of the pool; None if it is none.
    """

    file: File
    address: str
    style: str
    limit: int | None
    place: str
    directory: str | None

    def free(self) -> int | None:
        """The tokens that lie there; None where it cannot be opened, being another user's."""
        return tokens_at(self.place)


def jobserver_of(process: Process, children: list[Process]) -> Jobserver | None:
    """The jobserver that a process made, else the one that it is under."""
    environ = process.environment() or {}
    own = flags_in(environ)
    for child in children:
        flags = flags_in(child.environment() or {})
        if flags.auth not in (None, own.auth):
            found = jobserver_at(process, flags.auth or "", flags.jobs, must_be_open=True)
            if found is not None:
                return found
    if own.auth is not None:
        return jobserver_at(process, own.auth, own.jobs)
    return _made_by(process, own.jobs)


def jobserver_at(process: Process, auth: str, jobs: int | None, *, must_be_open: bool = False) -> Jobserver | None:
    """The jobserver at an address, as this process sees it."""
    if auth.startswith("fifo:"):
        path = auth.removeprefix("fifo:")
        file = process.fifo_named(path)
        if file is None or (must_be_open and file not in (process.open_files() or ())):
            return None
        lease = _OF_A_LEASE.fullmatch(path)
        return Jobserver(file, auth, "fifo", jobs or None, f"{process.pid}/root{path}", lease and lease[1])
    numbers = re.fullmatch(r"(\d{1,9}),(\d{1,9})", auth)
    if numbers is None:
        return None
    read_fd, write_fd = int(numbers[1]), int(numbers[2])
    file = process.pool_at(read_fd, write_fd)
    if file is None:
        return None
    found = _on(process, read_fd, file, auth, jobs)
    # Only a lease has two pipes. Other numbers mean nothing here, if two pipes are there: they are another process's.
    return found if found.directory is not None or process.fifo_at(write_fd) == file else None


def _on(process: Process, number: int, file: File, auth: str, jobs: int | None) -> Jobserver:
    """The jobserver at a descriptor."""
    path = process.path_of(number)
    lease = _OF_A_LEASE.fullmatch(path)
    style = "fifo" if path.startswith("/") and not path.endswith(" (deleted)") else "pipe"
    return Jobserver(file, auth, style, jobs or None, f"{process.pid}/fd/{number}", lease and lease[1])


def _made_by(process: Process, jobs: int | None) -> Jobserver | None:
    """The jobserver of a make none of whose children tells of it, or of a program of ours that has no child.

    make has both ends open, above the standard streams, and no other pipe like that.
    """
    ends: dict[File, dict[int, int]] = {}
    make = is_make(process.program)
    for number in process.descriptors() or ():
        file = process.fifo_at(number) if number > 2 else None
        if file is None or not (make or _PRIVATE_FIFO.fullmatch(process.path_of(number))):
            continue
        ends.setdefault(file, {})[process.mode_of(number) or os.O_RDONLY] = number
    for file, numbers in ends.items():
        reader = numbers.get(os.O_RDONLY, numbers.get(os.O_RDWR))
        writer = numbers.get(os.O_WRONLY, numbers.get(os.O_RDWR))
        if reader is not None and writer is not None:
            path = process.path_of(reader)
            auth = f"fifo:{path}" if path.startswith("/") else f"{reader},{writer}"
            return _on(process, reader, file, auth, jobs or _jobs_of(process))
    return None


def _jobs_of(process: Process) -> int | None:
    """N of the -jN on a make's command line."""
    from ..cli.tools import own_jobs

    jobs = own_jobs(process.command) if process.command else None
    return parse(jobs).jobs if jobs else None


def leases_of(process: Process) -> Iterator[Jobserver]:
    """The leases of the `Pool` that a process has, if it has one."""
    numbers = process.descriptors() or []
    directories = {path for path in map(process.path_of, numbers) if _PRIVATE_DIRECTORY.fullmatch(path)}
    seen = set()
    for number in numbers:
        path = process.path_of(number)
        lease = _OF_A_LEASE.fullmatch(path)
        file = process.fifo_at(number)
        if lease and file and file not in seen and lease[1] in directories:
            seen.add(file)
            yield _on(process, number, file, "" if lease[2] == "take" else f"fifo:{path}", None)
