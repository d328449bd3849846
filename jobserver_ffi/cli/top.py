"""`jobserver top`: a served pool, watched live in a terminal."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib.util import find_spec

from ..serve import DEFAULT_NAME
from .messages import say
from .pools import CANNOT, no_pools_here
from .resize import add_pool
from .terminals import cannot_move_cursor

_DESCRIPTION = """\
Shows in the terminal what `jobserver status` prints, as it changes: the slots
of a served pool in use, over the last minutes too, and the lease of each build.
A lease has a bar of the slots that it holds, or its place in the queue; the
seconds of slots that it used; the most that it held at once; tokens it lost.

keys: + and - give the pool one slot more or less, q or Ctrl-C leaves.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = "jobserver top [--pool NAME]"
    parser.description = _DESCRIPTION
    parser.epilog = (
        "exit status: 0; 1 if nobody serves the pool, or its server ends, or there is no terminal; 2 for wrong "
        "arguments; 130 for Ctrl-C."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_pool(parser)
    parser.set_defaults(function=lambda arguments: _top(parser, arguments))


def _top(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        return no_pools_here(parser)
    reason = _why_not(arguments.pool)
    if reason is not None:
        say(reason)
        return CANNOT
    from ..serve.client import NoServer, PoolConnection, RequestRefused, ServerGone
    from ..serve.place import PlaceError
    from ..top.live import watch

    try:
        with PoolConnection(arguments.pool) as connection:
            ended_by = watch(connection)
    except (NoServer, PlaceError, RequestRefused, ServerGone) as error:
        say(f"cannot see pool `{arguments.pool}`: {error}")
        return CANNOT
    except OSError as error:
        say(f"cannot use the terminal: {error.strerror}")
        return CANNOT
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    if ended_by:
        os.kill(os.getpid(), ended_by)  # now that it has its effect again
    return 0


def _why_not(pool: str) -> str | None:
    """Why nothing can be watched here, and what can be done instead."""
    status = "jobserver status" if pool == DEFAULT_NAME else f"jobserver status --pool {pool}"
    for name, descriptor in (("standard output", 1), ("standard input", 0)):
        if not os.isatty(descriptor):
            return f"top needs a terminal, and {name} is none: `{status} --json` is for programs"
    if cannot_move_cursor():
        return f"top needs a terminal with a cursor, and by TERM this one has none: there is `{status} --watch`"
    if find_spec("rich") is None:
        return f"top needs rich: `pip install 'jobserver-ffi[cli]'`; without it there is `{status} --watch`"
    return None
