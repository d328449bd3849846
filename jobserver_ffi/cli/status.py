"""`jobserver status`: what a served pool has, and who has it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from .messages import say, shown
from .pools import CANNOT, no_pools_here
from .resize import add_pool

_PAUSE = 1.0  # seconds between two looks of --watch
_LONGEST_COMMAND = 60

_DESCRIPTION = """\
Shows the slots of a pool that `jobserver serve` or `jobserver run --pool` has
started, and the lease of each build: slots that it holds, tokens that it is
offered and has not taken (idle), the most that it held at once, the seconds of
slots that it used, how often it had to wait, tokens that it lost, and bytes
that it gave back beyond what it took.
"""

# The title of a column, and the item of a lease in it.
_COLUMNS = (
    ("PID", "process"),
    ("STATE", "state"),
    ("HELD", "slots"),
    ("IDLE", "untaken"),
    ("PEAK", "peak"),
    ("SECONDS", "slot_seconds"),
    ("WAITS", "waits"),
    ("LOST", "lost"),
    ("OVER", "over_released"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = "jobserver status [--pool NAME] [--json] [--watch]"
    parser.description = _DESCRIPTION
    parser.epilog = "exit status: 0; 1 if nobody serves the pool; 2 for wrong arguments."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_pool(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--watch", action="store_true", help="look again every second, until the server ends or Ctrl-C")
    parser.set_defaults(function=lambda arguments: _status(parser, arguments))


def _status(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        return no_pools_here(parser)
    from ..serve.client import NoServer, PoolConnection, RequestRefused, ServerGone
    from ..serve.place import PlaceError

    clear = "\x1b[H\x1b[J" if arguments.watch and not arguments.json and sys.stdout.isatty() else ""
    try:
        with PoolConnection(arguments.pool) as connection:
            while True:
                found = connection.status()
                print(json.dumps(found) if arguments.json else clear + described(found), flush=True)
                if not arguments.watch:
                    return 0
                time.sleep(_PAUSE)
    except (NoServer, PlaceError, RequestRefused, ServerGone) as error:
        say(f"cannot see pool `{arguments.pool}`: {error}")
        return CANNOT
    except BrokenPipeError:
        # Who read the status has enough of it; what is left in the buffer must not complain when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def described(status: dict[str, Any]) -> str:
    """A status as people read it."""
    ended = status["ended"]
    lines = [
        f"pool `{status['name']}` (process {status['process']}): {status['in_use']} of {status['limit']} slots in use, "
        f"{status['queued']} waiting; {ended['leases']} ended; tokens lost and back: {ended['lost']}, "
        f"given back too often: {ended['over_released']}"
    ]
    for gate in status["gates"]:
        if gate["held_back"]:
            lines.append(f"{gate['name']} (it is {gate['value']:.6g}): tokens held back: {gate['held_back']}")
    if status["leases"]:
        rows = [[title for title, _ in _COLUMNS] + ["COMMAND"]]
        rows += [_row(lease) for lease in status["leases"]]
        widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def _row(lease: dict[str, Any]) -> list[str]:
    cells = [lease[item] for _, item in _COLUMNS]
    return [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells] + [
        shown(" ".join(lease["command"]) or lease["name"], _LONGEST_COMMAND)
    ]
