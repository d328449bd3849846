"""Whose slots a build runs on: those of the jobserver around it, or of one of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ..client import Client
from ..cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Where a user says how many jobs a build may have; the first that is set and not empty counts.
VARIABLES = ("JOBSERVER_FFI_JOBS", "MAX_JOBS")

_LARGEST_NUMBER = 2**15  # so many tokens fit into every pipe


class Jobs(NamedTuple):
    """The slots of a build.

    Attributes:
        client: Whose slots; to be closed when the build is done.
        most: How many jobs the user allows at once, whatever is free; None where there is no other limit than slots.
    """

    client: Client
    most: int | None


def find_jobs(wanted: int | None, warn: Callable[[str], object], environ: Mapping[str, str] | None = None) -> Jobs:
    """Joins the jobserver around this process, or makes one.

    Where none is offered the build has one of its own, with the CPUs that this process may use. Where one is offered
    that cannot be used (make disabled it for a recipe without `+`, its descriptors were closed on the way …) a tool
    above counts on this process for one job: then it is one, as for a make in the same place.

    Args:
        wanted: The number of jobs that the user gave (`-j`); None: the environment may say, see VARIABLES. It is the
            size of an own jobserver, and never exceeded in another's.
        warn: Is told why one that is offered is not used.
        environ: Where to look, instead of `os.environ`.

    Raises:
        ValueError: A number of jobs is none.
    """
    environ = os.environ if environ is None else environ
    most = _wanted_in(environ) if wanted is None else _number("-j/--parallel", str(wanted))
    found = Client.from_env_ext(environ)
    if found.client is not None:
        return Jobs(found.client, most)
    assert found.error is not None
    offered = found.error.kind.name not in ("NO_ENV_VAR", "NO_JOBSERVER")
    size = most or (1 if offered else usable_cpus())
    if offered:
        warn(f"building {size} at a time, without the jobserver around this: {found.error}")
    return Jobs(Client(size), most)


def _wanted_in(environ: Mapping[str, str]) -> int | None:
    for name in VARIABLES:
        if environ.get(name):
            return _number(name, environ[name])
    return None


def _number(name: str, text: str) -> int:
    digits = text.strip().lstrip("0")
    if not (digits.isascii() and digits.isdecimal() and int(digits[:6]) <= _LARGEST_NUMBER):
        raise ValueError(f"{name}={text!r} is no number of jobs: give a whole number from 1 to {_LARGEST_NUMBER}")
    return int(digits)
