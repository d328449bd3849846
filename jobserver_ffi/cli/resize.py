"""`jobserver resize`: another number of slots for a pool that is served."""

from __future__ import annotations

import argparse
import sys

from ..serve import DEFAULT_NAME
from .messages import say
from .pools import CANNOT, no_pools_here, pool_address, slots

_DESCRIPTION = """\
Changes how many slots a pool has that `jobserver serve` or `jobserver run
--pool` has started. No job is stopped: a smaller number takes effect as jobs
end.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = "jobserver resize [--pool NAME] N"
    parser.description = _DESCRIPTION
    parser.epilog = "exit status: 0; 1 if nobody serves the pool; 2 for wrong arguments."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("limit", metavar="N", type=slots, help="how many slots the pool is to have")
    add_pool(parser)
    parser.set_defaults(function=lambda arguments: _resize(parser, arguments))


def add_pool(parser: argparse.ArgumentParser) -> None:
    """The argument that names a pool."""
    parser.add_argument(
        "--pool",
        metavar="NAME",
        type=pool_address,
        default=DEFAULT_NAME,
        help="the pool's name, or the path of its socket (default: %(default)s)",
    )


def _resize(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        return no_pools_here(parser)
    from ..serve.client import NoServer, PoolConnection, RequestRefused, ServerGone
    from ..serve.place import PlaceError

    try:
        with PoolConnection(arguments.pool) as connection:
            excess = connection.resize(arguments.limit)
    except (NoServer, PlaceError, RequestRefused, ServerGone) as error:
        say(f"cannot resize pool `{arguments.pool}`: {error}")
        return CANNOT
    plural = "s" * (arguments.limit != 1)
    still = f"; {excess} more than that are in use until jobs end" if excess else ""
    print(f"pool `{arguments.pool}`: {arguments.limit} slot{plural}{still}")
    return 0
