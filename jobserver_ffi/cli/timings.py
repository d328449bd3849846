"""`jobserver run --timings` and `--trace`: where what was recorded is written to, and what is said of it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from .messages import say, shown

if TYPE_CHECKING:
    from ..timeline.recording import Recording

DEFAULT = "jobserver-timings.html"


def add_timings_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of `run` what it takes."""
    parser.add_argument(
        "--timings",
        metavar="FILE",
        nargs="?",  # only joined by `=`, see join_optional_values
        const=DEFAULT,
        help="record slots in use, processes and the machine, tell what ran alone for long, and write a page of it to "
        f"FILE; the recording as JSON if it ends in .json (write --timings=FILE; default: {DEFAULT})",
    )
    parser.add_argument(
        "--trace", metavar="FILE", help="record the same, and write it for Perfetto or Chrome's about:tracing"
    )


class Output:
    """The files that were asked for.

    They are tried out at once: better no build than one of an hour whose timings cannot be written.

    Args:
        parser: Is told what is wrong.
        timings, trace: Their names, or None.
    """

    def __init__(self, parser: argparse.ArgumentParser, timings: str | None, trace: str | None) -> None:
        from ..timeline.files import try_out

        self._timings, self._trace = timings, trace
        if timings is not None and trace is not None and os.path.realpath(timings) == os.path.realpath(trace):
            parser.error(f"--timings and --trace both name {shown(trace)!r}: give one of them another name")
        for option, name in (("--timings", timings), ("--trace", trace)):
            if name == "":
                parser.error(f"argument {option}: cannot write '': the name of the file is empty")
            try:
                if name is not None:
                    try_out(name)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                parser.error(f"argument {option}: cannot write {shown(name or '')!r}: {reason}")

    def write(self, recording: Recording) -> None:
        """Writes the files, and tells of them."""
        from ..timeline.analysis import summary
        from ..timeline.files import as_text
        from ..timeline.trace import trace

        if self._trace is not None:
            self._write("trace", self._trace, as_text(trace(recording)))
        if self._timings is not None:
            for line in summary(recording):
                say(line)
            self._write("timings", self._timings, _timings(recording, self._timings))

    @staticmethod
    def _write(what: str, name: str, text: str) -> None:
        from ..timeline.files import write

        try:
            write(name, text)
            say(f"{what}: {shown(name)}")
        except OSError as error:
            say(f"cannot write the {what} to {shown(name)!r}: {error.strerror}")


def _timings(recording: Recording, name: str) -> str:
    if name.endswith(".json"):
        from ..timeline.files import as_text

        return as_text(recording.as_json())
    from ..timeline.page import page

    return page(recording)


def join_optional_values(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """The words of `run`, in which `--timings` before CMD has its default value.

    argparse would take CMD for the value of an option that may do without one.
    """
    joined = list(words)
    at = joined.index("run") + 1 if "run" in joined else len(joined)
    while at < len(joined) and joined[at].startswith("-") and joined[at] != "--":
        action = parser._option_string_actions.get(joined[at])
        if action is not None and action.nargs == "?":
            joined[at] += f"={action.const}"
        at += 2 if action is not None and action.nargs is None else 1
    return joined
