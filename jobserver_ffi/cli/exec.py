"""`jobserver exec`: slots of the jobserver around this process, for a command that knows none but a number of jobs."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .. import AcquireTimeout, Client, Unsupported
from .execute import caller_environment, cannot_run
from .messages import say, shown

if TYPE_CHECKING:
    from ..acquired import AcquiredBatch

# What tools read that have jobs or threads of their own, and no jobserver.
VARIABLES = (
    "PARALLELISM",
    "CMAKE_BUILD_PARALLEL_LEVEL",
    "CTEST_PARALLEL_LEVEL",
    "MAX_JOBS",
    "NPY_NUM_BUILD_JOBS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "GOMAXPROCS",
    "JULIA_NUM_THREADS",
)

TIMED_OUT = 124
CANNOT_TAKE = 125

_USAGE = "jobserver exec [--min A] [--max B] [--timeout T] [--env VAR]... [--format TEXT] [--] CMD [ARGUMENT ...]"

_DESCRIPTION = """\
Takes between A and B slots from the jobserver around this process (the one
that the process itself runs on counts), tells CMD how many they are, and gives
them back when CMD has ended. CMD does not see the jobserver. Several of these
that wait for more than they have do not wait for each other.
"""

_STATUS = f"""\
variables that are set unless --env names others:
  {" ".join(VARIABLES[:5])}
  {" ".join(VARIABLES[5:9])}
  {" ".join(VARIABLES[9:])}

exit status: CMD's own; 128+n if signal n ended it; 127 if CMD was not found,
126 if it could not be run; 124 if A slots did not come in time; 125 if they
cannot be taken here; 2 for wrong arguments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = _USAGE
    parser.description = _DESCRIPTION
    parser.epilog = _STATUS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--min", metavar="A", type=_slots, default=1, help="fewest slots to start with (default: 1)")
    parser.add_argument(
        "--max", metavar="B", type=_slots, help="most slots to take (default: the CPUs that may be used here)"
    )
    parser.add_argument("--timeout", metavar="T", type=_seconds, help="seconds to wait for A slots (default: for ever)")
    parser.add_argument(
        "--env", metavar="VAR", action="append", help="a variable that is set to the number of slots; may be repeated"
    )
    parser.add_argument("--format", metavar="TEXT", help="what the number replaces in CMD and its arguments, {} say")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")
    parser.set_defaults(function=lambda arguments: _exec(parser, arguments))


def _slots(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0 and len(text.lstrip("0")) <= 9):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no number of slots: give a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no time: give seconds from 0 on")
    return seconds


def _exec(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from ..cpus import usable_cpus

    words: list[str] = arguments.command
    if words and words[0] == "--":
        words = words[1:]
    elif words and words[0].startswith("-"):
        parser.error(f"unrecognized arguments: {words[0]}")
    if not words:
        parser.error("no CMD given: name the command to run, as in `jobserver exec --max 4 pytest`")
    if arguments.format == "":
        parser.error("argument --format: an empty text is everywhere: name one that stands for the number, {} say")
    most: int = arguments.max or max(usable_cpus(), arguments.min)
    if arguments.min > most:
        parser.error(f"argument --min: {arguments.min} slots are more than --max, {most}")
    found = Client.from_env_ext()
    if found.client is None:
        say(f"no slots to take, so `{shown(words[0])}` may run {most} jobs: {found.error}")
        return _run(words, arguments, most)
    with found.client as client, ExitStack() as held:
        for descriptor in client._descriptors:
            os.set_inheritable(descriptor, False)  # CMD has its slots; it must not take more
        try:
            count = _take(client, held, arguments.min, most, arguments.timeout)
        except AcquireTimeout:
            say(f"{arguments.min} slots did not become free within {arguments.timeout:g} s")
            return TIMED_OUT
        except (Unsupported, OSError) as error:
            say(f"cannot take {arguments.min} slots of {client.auth}: {error}")
            return CANNOT_TAKE
        return _run(words, arguments, count)


def _take(client: Client, held: ExitStack, fewest: int, most: int, timeout: float | None) -> int:
    """Takes the slots; they are given back with `held`. Returns how many they are.

    The process's own slot is no token, so holding it keeps nobody from anything while this waits for the others.
    """
    held.enter_context(client.slot(timeout))
    if most == 1:
        return 1
    if fewest > 1:
        return 1 + _hold(held, client.acquire_many(most - 1, minimum=fewest - 1, timeout=timeout))
    try:
        return 1 + _hold(held, client.acquire_many(most - 1, timeout=0))
    except (AcquireTimeout, Unsupported):
        return 1


def _hold(held: ExitStack, batch: AcquiredBatch) -> int:
    held.enter_context(batch)
    return len(batch)


def _run(words: list[str], arguments: argparse.Namespace, count: int) -> int:
    """Runs CMD, which is told that it may run so many jobs."""
    from ..children import without_jobserver
    from .run import new_supervisor

    environment = without_jobserver(caller_environment())
    for name in arguments.env or VARIABLES:
        environment[name] = str(count)
    command = words if arguments.format is None else [word.replace(arguments.format, str(count)) for word in words]
    try:
        return new_supervisor().run(command, environment)
    except OSError as error:
        return cannot_run(command[0], error)
