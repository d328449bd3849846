"""The `jobserver` command: one module for each subcommand, imported only when it is asked for."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

SUBCOMMANDS = {
    "doctor": "tell whether there is a jobserver here, why not, and which tools join it",
    "exec": "run a command that knows no jobserver on slots of the one around it",
    "resize": "change how many slots a served pool has",
    "run": "run a command under a jobserver",
    "serve": "serve one pool of slots to all builds of this user",
    "status": "show the slots of the pools that can be seen, and who uses them",
    "top": "watch a served pool in the terminal, as it changes",
}


def main() -> int:
    """Runs the command with the arguments of this process.

    Returns:
        The exit status.
    """
    words = sys.argv[1:]
    parser, chosen = _parsers(words)
    try:
        if "--timings" in words and chosen is not None:
            from .timings import join_optional_values

            words = join_optional_values(chosen, words)
        arguments, unknown = parser.parse_known_args(words)
        if unknown:
            (chosen or parser).error(f"unrecognized arguments: {' '.join(unknown)}")
        return int(arguments.function(arguments))
    except KeyboardInterrupt:
        return 128 + 2


def _parsers(words: list[str]) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser | None]:
    """The parser of the whole command line, and that of the subcommand in it, if there is one."""
    import argparse
    from importlib import import_module

    class Version(argparse.Action):
        """Looks the version up only when it is asked for."""

        def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
            from importlib.metadata import version

            print(f"jobserver {version('jobserver-ffi')}")
            parser.exit()

    parser = argparse.ArgumentParser(
        prog="jobserver", description="Share job slots between make, ninja, cargo and other tools.", allow_abbrev=False
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    wanted = next((word for word in words if not word.startswith("-")), None)
    chosen = None
    for name, summary in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, allow_abbrev=False)
        if name == wanted:
            import_module(f".{name}", __name__).add_arguments(subparser)
            chosen = subparser
    return parser, chosen
