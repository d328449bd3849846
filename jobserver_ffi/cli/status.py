"""`jobserver status`: the pools that can be seen from here, and who uses their slots."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from .messages import say, shown, write
from .pools import CANNOT, no_pools_here, pool_address

if TYPE_CHECKING:
    from ..status.seen import SeenPool

_PAUSE = 1.0  # seconds between two looks of --watch

_DESCRIPTION = """\
Shows the jobserver around this process; where there is none, all pools that
`jobserver serve` or `jobserver run --pool` has for this user: how many slots
there are, how many are free, and who uses them.

A served pool knows the lease of each build: slots that it holds, tokens that
it is offered and has not taken (idle), the most that it held at once, the
seconds of slots that it used, how often it had to wait, tokens that it lost,
and tokens that it gave back beyond what it took. Of a pipe or fifo that all
share it can be seen (on Linux) who has it open, and not who holds tokens.
No token is taken for all that.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = "jobserver status [--pool NAME | --pid PID | --all] [--json | --metrics] [--watch]"
    parser.description = _DESCRIPTION
    parser.epilog = "exit status: 0; 1 if there is no such pool, or it cannot be seen; 2 for wrong arguments."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--pool", metavar="NAME", type=pool_address, help="the served pool of this name, or at the socket of this path"
    )
    which.add_argument(
        "--pid",
        metavar="PID",
        type=_process,
        help="the pool that this process made, serves or uses: a make, ninja, cargo, `jobserver run` … (Linux)",
    )
    which.add_argument(
        "--all",
        action="store_true",
        help="all pools: around this process, served, and (on Linux) of every build that runs",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one line of JSON")
    form.add_argument("--metrics", action="store_true", help="print metrics in the text format of Prometheus")
    parser.add_argument("--watch", action="store_true", help="look again every second, until it is gone or Ctrl-C")
    parser.set_defaults(function=lambda arguments: _status(parser, arguments))


def _process(text: str) -> int:
    """An argument that is the number of a process."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no number of a process: give one as `pgrep` prints it")
    return int(text)


def _status(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from ..status.seen import CannotSee

    if arguments.pool is not None and sys.platform == "win32":
        return no_pools_here(parser)
    clear = "\x1b[H\x1b[J" if arguments.watch and not arguments.json and sys.stdout.isatty() else ""
    try:
        while True:
            if not write(clear + _written(_seen(arguments), arguments)) or not arguments.watch:
                return 0
            time.sleep(_PAUSE)
    except CannotSee as error:
        say(f"cannot see {_wanted(arguments)}: {error}")
        return CANNOT


def _wanted(arguments: argparse.Namespace) -> str:
    if arguments.pool is not None:
        return f"pool `{arguments.pool}`"
    return "a pool" if arguments.pid is None else f"the jobserver of process {arguments.pid}"


def _written(pools: list[SeenPool], arguments: argparse.Namespace) -> str:
    if arguments.json:
        import json
        from dataclasses import asdict

        return json.dumps({"pools": [asdict(pool) for pool in pools]}) + "\n"
    if arguments.metrics:
        from ..status.prometheus import exposition

        return exposition(pools)
    from ..status.text import described

    return described(pools)


def _seen(arguments: argparse.Namespace) -> list[SeenPool]:
    """The pools that were asked for.

    Raises:
        CannotSee: There is none.
    """
    from ..status.seen import CannotSee
    from ..status.served import served_pool, served_pools

    if arguments.pool is not None:
        return [served_pool(arguments.pool)]
    served, unseen = served_pools()
    if arguments.pid is not None:
        from ..status.running import pool_of

        return [pool_of(arguments.pid, served)]
    from ..status.surrounding import surrounding_pool

    try:
        around = surrounding_pool(served)
    except CannotSee as error:
        if not arguments.all:
            raise
        around, unseen = None, [*unseen, f"cannot see the jobserver around this process: {error}"]
    if around is not None and not arguments.all:
        return [around]
    pools = {pool.key: pool for pool in served}
    if arguments.all:
        from ..status.running import pools_of_all

        around_it = [] if around is None else [around]
        pools.update({pool.key: pool for pool in (*around_it, *pools_of_all(served))})
    for text in unseen:
        say(text)
    if not pools:
        raise CannotSee(
            "there is no jobserver around this process, and no pool is served: `jobserver serve` or `jobserver run "
            "--pool NAME -- CMD` serves one, `jobserver status --pid PID` looks at a make that runs"
        )
    return list(pools.values())
