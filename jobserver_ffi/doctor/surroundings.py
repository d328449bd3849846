"""What goes past a jobserver: dry runs, a -j of one's own, and variables that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cli.tools import own_jobs
from ..environment import VARIABLES, address_in
from ..makeflags import parse
from .finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .causes import Scene


def findings_of_surroundings(variable: str | None, names: set[str], scene: Scene) -> Iterator[Finding]:
    """What is to be told whether the jobserver can be used or not.

    Args:
        variable: The environment variable that decided.
        names: The findings that there are already.
        scene: What is around this process.
    """
    if variable is None:
        return
    flags = parse(scene.environ[variable])
    if flags.dry_run:
        yield Finding(
            "dry-run",
            False,
            f"{variable} has -n: make only prints what it would run",
            "make runs lines with `+` or `$(MAKE)` all the same, so that makes below can print their part",
            "a program that knows the jobserver must build nothing now; leave -n out to build",
        )
    if "overridden" not in names:
        yield from _other_addresses(variable, flags.auth, scene)
    if "own-jobs" not in names:
        yield from _own_jobs(scene)


def _other_addresses(variable: str, auth: str | None, scene: Scene) -> Iterator[Finding]:
    for name in VARIABLES:
        other = parse(scene.environ.get(name, "")).auth
        if name != variable and auth is not None and other not in (None, auth):
            yield Finding(
                "two-addresses",
                False,
                f"{variable} names one jobserver ({auth}), {name} another ({other})",
                f"this package, cargo and rustc take {variable}; make and ninja look at MAKEFLAGS only",
                f"take out the one that is not meant: `env -u {name} COMMAND` or `env -u {variable} COMMAND`",
            )
            return


def _own_jobs(scene: Scene) -> Iterator[Finding]:
    """Makes and ninjas above that left the jobserver around them by a -j of their own."""
    for process in scene.above:
        jobs = own_jobs(process.command) if process.command else None
        outer = address_in(process.environment() or {}) if jobs is not None else None
        if outer is not None and not outer.startswith("-"):
            yield Finding(
                "own-jobs",
                False,
                f"{process} was started as `{process.program} {jobs}` inside a jobserver ({outer})",
                "a -j on the command line makes it leave that jobserver: its jobs come on top of the others",
                f"call {process.program} without -j there: it takes its slots from the jobserver around it",
            )
            return
