"""`jobserver run` with a jobserver of its own on Windows: a semaphore that CMD shares, since there are no leases."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import Client
from ..children import without_jobserver
from ..client import VARIABLES
from ..cpus import usable_cpus
from ..makeflags import merge
from ..style import is_make
from .execute import caller_environment, cannot_run
from .messages import say
from .on_leases import CHECK_FAILED, NO_JOBSERVER
from .tools import is_ninja

if TYPE_CHECKING:
    from .supervise import Supervisor

# Under nmake the first would be read as its own flags: only who knows the jobserver gets it.
_FOR_MAKE = ("MAKEFLAGS", "CARGO_MAKEFLAGS")


def run_in_own(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, command: list[str], supervisor: Supervisor
) -> int:
    """Makes a jobserver and runs CMD under it."""
    jobs: int = arguments.jobs or usable_cpus()
    environment = without_jobserver(caller_environment())
    try:
        client = Client(jobs - 1)
    except ValueError:
        parser.error(f"argument -j/--jobs: {jobs} slots are more than a semaphore can hold: give a smaller number")
    except OSError as error:
        say(f"cannot make a jobserver: {error.strerror}")
        return NO_JOBSERVER
    with client:
        for name in _FOR_MAKE if is_make(command[0]) or is_ninja(command[0]) else VARIABLES:
            environment[name] = merge(environment.get(name, ""), client.auth, jobs)
        try:
            status = supervisor.run(command, environment)
        except OSError as error:
            return cannot_run(command[0], error)
        return _settle(client, status, arguments.check)


def _settle(client: Client, status: int, check: bool) -> int:
    """Counts the tokens after CMD has ended, and tells what is wrong with them."""
    limit = client.limit or 0
    missing = limit - client.available()
    if missing == 0 or (status and not check):
        return status
    if missing > 0:
        say(
            f"tokens missing: {missing} of {limit}; a program ended without giving back what it took (a killed one, "
            f"say), or a process that CMD left in the background still has it"
        )
    else:
        say(
            f"tokens too many: {-missing} more than the {limit} there were; a program gave back what it had not taken, "
            f"so more than {limit + 1} jobs may have run at once"
        )
    return CHECK_FAILED if check and status == 0 else status
