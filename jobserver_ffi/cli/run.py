"""`jobserver run`: a command under a jobserver, of its own or the one that is there."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from typing import TYPE_CHECKING

from .. import Client
from ..create import STYLES
from ..makeflags import parse
from .execute import caller_environment, cannot_run, execute, restore_signals
from .messages import say, shown
from .pools import no_pools_here, pool_address

if TYPE_CHECKING:
    from ..environment import FromEnv
    from ..lease import LeaseReport

    if sys.platform == "win32":
        from .supervise_windows import Supervisor
    else:
        from .supervise import Supervisor

CHECK_FAILED = 70
NO_JOBSERVER = 125

_STYLES = ("auto", *STYLES)
_USAGE = (
    f"jobserver run [-j N] [--pool NAME] [--style {{{','.join(_STYLES)}}}] [--check] [--] CMD [ARGUMENT ...] "
    f"[--- CMD ...]..."
)

_DESCRIPTION = """\
Runs CMD under a jobserver with N slots: make, ninja, cargo and whatever else
knows the jobserver of GNU make then run at most N jobs together, however deep
one starts the other. Call them without a -j of their own.

Several commands, with --- between them or one a line in a --file, run at the
same time and share the N slots fairly; each starts when a slot is free for it.

With --pool CMD shares the slots of one pool with all other builds of this user
that do so. Its server is started if there is none, with N slots.

Under a jobserver already (in a recipe of make -jN, say) CMD joins that one,
unless -j is given without --pool.
"""

_STATUS = """\
exit status: CMD's own; 128+n if signal n ended it; 127 if CMD was not found,
126 if it could not be run; 125 if no jobserver could be made; 70 if CMD went
well but --check did not; 2 for wrong arguments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = _USAGE
    parser.description = _DESCRIPTION
    parser.epilog = _STATUS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "-j",
        "--jobs",
        metavar="N",
        type=_slots,
        help="slots of a jobserver of CMD's own; one of them is CMD's (default: the CPUs that may be used here)",
    )
    parser.add_argument(
        "--pool",
        metavar="NAME",
        type=pool_address,
        help="join the pool of this name, or the one whose socket has this path (see `jobserver serve`)",
    )
    parser.add_argument(
        "--style",
        choices=_STYLES,
        help="how CMD finds the jobserver: every make reads a pipe, make 4.4 and ninja 1.13 read a fifo (default: "
        "auto, which asks make for its version)",
    )
    parser.add_argument(
        "--check", action="store_true", help="fail with status 70 if tokens are missing or too many when CMD is gone"
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="run the commands in FILE (- for standard input): one a line, quoted as in sh",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")
    parser.set_defaults(function=lambda arguments: _run(parser, arguments))


def _slots(text: str) -> int:
    digits = text.lstrip("0")
    if not digits or not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{shown(text)!r} is no number of slots: give a whole number from 1 on, or no -j for one slot per CPU"
        )
    if len(digits) > 9:
        raise argparse.ArgumentTypeError(f"{shown(text)} slots are more than a pipe can hold: give a smaller number")
    return int(digits)


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    commands = _commands(parser, arguments)
    command = commands[0]
    found = Client.from_env_ext()
    if found.client is not None:
        found.client.close()
    outer = _address(found)
    if arguments.pool is not None:
        if len(commands) > 1:
            parser.error("argument --pool: one CMD joins a pool: call `jobserver run --pool` for each")
        if sys.platform == "win32":
            no_pools_here(parser)
        elif outer is None:
            from .join import run_in_pool

            return run_in_pool(command, arguments.pool, arguments.jobs, arguments.style, arguments.check)
        else:
            # A build in the pool that waited for another slot of the pool might wait for itself.
            say(f"not joining pool `{arguments.pool}`: there is a jobserver already")
            return _run_in_other(command, found, outer)
    if outer is None or arguments.jobs is not None:
        if outer is not None:
            say(
                f"-j{arguments.jobs} makes a jobserver of its own beside the one of {outer}: the jobs of both add up; "
                f"to share that one leave -j out"
            )
        if len(commands) > 1:
            if sys.platform == "win32":
                parser.error("several commands share a pool by leases, which Windows does not have: run one CMD")
            from .several import run_several

            return run_several(commands, arguments.jobs, arguments.style, arguments.check)
        if sys.platform == "win32":
            from .run_windows import run_in_own

            return run_in_own(parser, arguments, command, new_supervisor())
        return _run_in_own(arguments, command)
    if len(commands) > 1:
        parser.error(f"several commands need a jobserver of their own, beside the one of {outer}: add -j N")
    for option, given in (("--check", arguments.check), ("--style", arguments.style)):
        if given:
            parser.error(
                f"{option} is for a new jobserver, but CMD would have the one that is there, of {outer}: add -j N to "
                f"make a new one"
            )
    return _run_in_other(command, found, outer)


def _commands(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[list[str]]:
    """Each CMD with its arguments."""
    words: list[str] = arguments.command
    if words and words[0] == "--":
        words = words[1:]
    elif words and words[0].startswith("-"):
        parser.error(f"unrecognized arguments: {words[0]}")
    if arguments.file is not None:
        if words:
            parser.error("CMD goes into the FILE, if there is one")
        return _commands_in(parser, arguments.file)
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "---":
            commands.append([])
        else:
            commands[-1].append(word)
    if not all(commands):
        parser.error("no CMD given: name the command to run, as in `jobserver run -j4 make`")
    return commands


def _commands_in(parser: argparse.ArgumentParser, name: str) -> list[list[str]]:
    import shlex

    try:
        with open(0 if name == "-" else name, closefd=name != "-") as file:
            commands = [shlex.split(line, comments=True) for line in file]
    except (OSError, ValueError) as error:
        parser.error(f"argument --file: cannot read commands from {shown(name)!r}: {error}")
    commands = [command for command in commands if command]
    if not commands:
        parser.error(f"argument --file: there is no command in {shown(name)!r}")
    return commands


def _address(found: FromEnv) -> str | None:
    """Variable and address of the jobserver around this process, usable or not, or None if there is none."""
    auth = parse(found.value or "").auth
    return None if auth is None else f"{found.variable} ({shown(auth)})"


def _run_in_other(command: list[str], found: FromEnv, outer: str) -> int:
    """Becomes CMD, in the jobserver that is there if it can be used."""
    environment = caller_environment()
    if found.client is not None:
        say(f"joining the jobserver of {outer}")
        warn_of_own_jobs(command)
    else:
        from ..children import without_jobserver

        environment = without_jobserver(environment)
        say(f"running `{shown(command[0])}` without a jobserver: {found.error}")
    try:
        return _become(command, environment)
    except OSError as error:
        return cannot_run(command[0], error)


def _become(command: list[str], environment: dict[str, str]) -> int:
    """Lets CMD be this process; Windows cannot replace one by another, so there it is a child in a job with it.

    Raises:
        OSError: Why it cannot be started.
    """
    if sys.platform != "win32":
        restore_signals()
        execute(command, environment)
    return new_supervisor().run(command, environment)


def new_supervisor() -> Supervisor:
    """What runs CMD as a child, for this system."""
    if sys.platform == "win32":
        from .supervise_windows import Supervisor
    else:
        from .supervise import Supervisor
    return Supervisor()


def _run_in_own(arguments: argparse.Namespace, command: list[str]) -> int:
    """Makes a jobserver and runs CMD under it."""
    from ..children import without_jobserver
    from ..cpus import usable_cpus
    from ..pool import Pool
    from ..style import style_for

    jobs: int = arguments.jobs or usable_cpus()
    environment = without_jobserver(caller_environment())
    style = style_for(command, environment, say) if arguments.style in (None, "auto") else arguments.style
    warn_of_own_jobs(command)
    supervisor = new_supervisor()
    try:
        pool = Pool(jobs)
        lease = pool.lease(shown(command[0]), style=style, orphan_timeout=0)
        child = lease.configure(env=environment)
    except OSError as error:
        place = error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
        mend = ": let TMPDIR name a directory that may be written" if place else ""
        say(f"cannot make a jobserver of style {style}: {error.strerror}{mend}")
        return NO_JOBSERVER
    with pool:
        for descriptor in child["pass_fds"]:
            os.set_inheritable(descriptor, True)
        try:
            status = supervisor.run(command, child["env"], lease.watch)
        except OSError as error:
            return cannot_run(command[0], error)
        return settle(lease.wait(), status, arguments.check, jobs)


def warn_of_own_jobs(command: list[str]) -> None:
    """Tells of a -j by which a command leaves the jobserver."""
    from .tools import own_jobs

    jobs = own_jobs(command)
    if jobs is not None:
        what = "runs jobs without a limit" if jobs == "-j" else "counts its jobs by itself"
        name = shown(command[0])
        say(f"`{name} {shown(jobs)}` leaves this jobserver and {what}: call {name} without -j")


def settle(report: LeaseReport, status: int, check: bool, jobs: int) -> int:
    """Tells what CMD did wrong with its tokens.

    A CMD that failed may have been killed with tokens in its hands, which is of no interest unless it is asked for.
    """
    wrong = report.lost or report.over_released or report.foreign
    if not wrong or (status and not check):
        return status
    if report.lost:
        say(
            f"`{report.name}` left tokens missing: {report.lost} of {jobs - 1}; a program ended without giving back "
            f"what it took (a killed one, say), or a process that was left in the background still has it"
        )
    if report.over_released:
        say(
            f"`{report.name}` gave back tokens too many: {report.over_released} more than it had taken; they were "
            f"thrown away"
        )
    if report.foreign:
        say(f"`{report.name}` gave back tokens with another byte than it took: they were put right")
    return CHECK_FAILED if check and status == 0 else status
