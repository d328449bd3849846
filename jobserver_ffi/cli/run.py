"""`jobserver run`: a command under a jobserver, of its own or the one that is there."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from .. import Client
from ..create import STYLES
from ..makeflags import parse
from .execute import caller_environment, cannot_run, execute, restore_signals
from .gates import add_gate_arguments, gates_of, has_gates
from .messages import say, shown
from .pools import no_pools_here, pool_address
from .progress import Progress, add_progress_argument
from .timings import Output, add_timings_arguments

if TYPE_CHECKING:
    from ..environment import FromEnv
    from ..timeline.recorder import Recorder

    if sys.platform == "win32":
        from .supervise_windows import Supervisor
    else:
        from .supervise import Supervisor

_STYLES = ("auto", *STYLES)
_USAGE = "jobserver run [OPTION ...] [--] CMD [ARGUMENT ...] [--- CMD ...]..."

_DESCRIPTION = """\
Runs CMD under a jobserver with N slots: make, ninja, cargo and whatever else
knows the jobserver of GNU make then run at most N jobs together, however deep
one starts the other. Call them without a -j of their own.

Several commands, with --- between them or one a line in a --file, run at the
same time and share the N slots fairly; each starts when a slot is free for it.

With --pool CMD shares the slots of one pool with all other builds of this user
that do so. Its server is started if there is none, with N slots.

Under a jobserver already (in a recipe of make -jN, say) CMD joins that one,
unless -j is given without --pool. With --style, --check, a gate or several
commands, or if CMD is a make or ninja that cannot read what is there, CMD gets
a jobserver of its own, with slots that are taken from the one around it when
CMD wants them.
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
    add_progress_argument(parser)
    add_gate_arguments(parser)
    add_timings_arguments(parser)
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
    if arguments.timings is None and arguments.trace is None:
        return _run_commands(parser, arguments, commands, None)
    if sys.platform == "win32":
        parser.error("--timings and --trace find processes in /proc, which Windows does not have: leave them out")
    from ..timeline.recorder import Recorder

    output = Output(parser, arguments.timings, arguments.trace)
    recorder = Recorder(commands)
    status = _run_commands(parser, arguments, commands, recorder)
    if recorder.begun:
        output.write(recorder.recording(status))
    return status


def _run_commands(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    commands: list[list[str]],
    recorder: Recorder | None,
) -> int:
    """Runs the commands in the jobserver that they belong to."""
    found = Client.from_env_ext()
    outer = _address(found)
    if arguments.pool is not None:
        return _run_in_pool(parser, arguments, commands, found, outer, recorder)
    client = found.client
    if client is not None and arguments.jobs is not None:
        client.close()
        client = None
    if outer is None or arguments.jobs is not None:
        if outer is not None:
            say(
                f"-j{arguments.jobs} makes a jobserver of its own beside the one of {outer}: the jobs of both add up; "
                f"to share that one leave -j out"
            )
        return _run_in_own(parser, arguments, commands, None, recorder)
    why = _why_a_lease(arguments, commands, client)
    if why is None:
        return _run_in_other(commands[0], found, outer, recorder, arguments.progress)
    if client is None or sys.platform == "win32":
        parser.error(f"{why} needs slots of the jobserver that is there, of {outer}, but {_refusal(found)}: add -j N")
    say(f"taking slots from the jobserver of {outer}, since {why} needs a jobserver of CMD's own")
    with client:
        for descriptor in client._descriptors:
            os.set_inheritable(descriptor, False)  # CMD has its lease; it must not take more
        return _run_in_own(parser, arguments, commands, client, recorder)


def _run_in_pool(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    commands: list[list[str]],
    found: FromEnv,
    outer: str | None,
    recorder: Recorder | None,
) -> int:
    """Joins a pool that is served; in a jobserver already it stays there."""
    if len(commands) > 1:
        parser.error("argument --pool: one CMD joins a pool: call `jobserver run --pool` for each")
    if has_gates(arguments):
        parser.error("argument --pool: gates belong to the server of the pool: give them to `jobserver serve`")
    if sys.platform == "win32":
        no_pools_here(parser)
    if outer is None:
        from .join import run_in_pool

        progress = Progress(arguments.progress)
        return run_in_pool(
            commands[0], arguments.pool, arguments.jobs, arguments.style, arguments.check, recorder, progress
        )
    # A build in the pool that waited for another slot of the pool might wait for itself.
    say(f"not joining pool `{arguments.pool}`: there is a jobserver already")
    return _run_in_other(commands[0], found, outer, recorder, arguments.progress)


def _refusal(found: FromEnv) -> str:
    return str(found.error) if found.client is None else "on Windows CMD cannot have slots that come from another one"


def _why_a_lease(arguments: argparse.Namespace, commands: list[list[str]], outer: Client | None) -> str | None:
    """What CMD cannot have in the jobserver that is there, so that it needs one of its own; None if it can join.

    Where CMD cannot read what is there, the style is set to one that it can.
    """
    from .tools import cannot_read

    if len(commands) > 1:
        return "running several commands"
    own = (("--check", arguments.check), ("--style", arguments.style), ("a gate", has_gates(arguments)))
    for option, given in own:
        if given:
            return option
    if outer is not None and cannot_read(commands[0], outer.auth, caller_environment()):
        arguments.style = "pipe" if outer.auth.startswith("fifo:") else "fifo"
        return f"`{shown(commands[0][0])}`, which cannot read that one,"
    return None


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


def _run_in_other(
    command: list[str], found: FromEnv, outer: str, recorder: Recorder | None, wants_progress: bool
) -> int:
    """Becomes CMD, in the jobserver that is there if it can be used; stays beside it to record or to show it."""
    environment = caller_environment()
    if found.client is not None:
        say(f"joining the jobserver of {outer}")
        warn_of_own_jobs(command)
    else:
        from ..children import without_jobserver

        environment = without_jobserver(environment)
        say(f"running `{shown(command[0])}` without a jobserver: {found.error}")
    progress = Progress(wants_progress and found.client is not None)
    try:
        if recorder is not None or progress.shown:
            from .watched import run_watched

            return run_watched(command, environment, found, recorder, progress)
        if found.client is not None:
            found.client.close()
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


def _run_in_own(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    commands: list[list[str]],
    outer: Client | None,
    recorder: Recorder | None,
) -> int:
    """Runs the commands in a jobserver that is made for them, with slots of its own or of an outer one."""
    for command in commands:
        warn_of_own_jobs(command)
    from ..children import without_jobserver
    from ..cpus import usable_cpus
    from ..pool import Pool
    from .on_leases import run_one

    if sys.platform == "win32":
        from .several_windows import run_several
    else:
        from .several import run_several

    gates = gates_of(parser, arguments)
    progress = Progress(arguments.progress)
    environment = caller_environment() if outer is not None else without_jobserver(caller_environment())

    def make_pool() -> Pool:
        return Pool(outer or arguments.jobs or usable_cpus(), gates=gates)

    if len(commands) > 1:
        return run_several(make_pool, commands, arguments.style, environment, arguments.check, recorder, progress)
    return run_one(make_pool, commands[0], arguments.style, environment, arguments.check, recorder, progress)


def warn_of_own_jobs(command: list[str]) -> None:
    """Tells of a -j by which a command leaves the jobserver."""
    from .tools import own_jobs

    jobs = own_jobs(command)
    if jobs is not None:
        what = "runs jobs without a limit" if jobs == "-j" else "counts its jobs by itself"
        name = shown(command[0])
        say(f"`{name} {shown(jobs)}` leaves this jobserver and {what}: call {name} without -j")
