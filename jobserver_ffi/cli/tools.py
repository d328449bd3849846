"""What the command knows of make and ninja: how they are called, and their -j."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..client import VARIABLES
from ..makeflags import escape, parse
from ..style import is_make, style_for
from .messages import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NINJA = re.compile(r"ninja(-build)?(-?\d+(\.\d+)*)?(\.exe)?")
_NINJA_WITH_ARGUMENT = "Cdfjkltw"


def is_ninja(program: str) -> bool:
    """Whether a program is a ninja, by its name."""
    return _NINJA.fullmatch(os.path.normcase(os.path.basename(program))) is not None


def variables_for(command: Sequence[str]) -> tuple[str, ...]:
    """The variables by which a command is told of its jobserver: a make or ninja reads MAKEFLAGS on Windows too."""
    program = command[0]
    return ("MAKEFLAGS", "CARGO_MAKEFLAGS") if is_make(program) or is_ninja(program) else VARIABLES


def own_jobs(command: Sequence[str]) -> str | None:
    """The -j by which a make or ninja leaves the jobserver around it.

    Returns:
        As it would be written in one word, or None if there is none or the command is neither.
    """
    program, *arguments = command
    if is_make(program):
        # make reads MAKEFLAGS as it reads its command line; the word `-` keeps the first one from being special there.
        jobs = parse(" ".join(["-", *(escape(word) or "''" for word in arguments)])).jobs
        return None if jobs is None else f"-j{jobs or ''}"
    return _jobs_of_ninja(arguments) if is_ninja(program) else None


def _jobs_of_ninja(arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    jobs = None
    for word in words:
        if word == "--":
            break
        if word.startswith("--") or not word.startswith("-"):
            continue
        at = next((at for at in range(1, len(word)) if word[at] in _NINJA_WITH_ARGUMENT), None)
        if at is None:
            continue
        argument = word[at + 1 :] or next(words, "")
        if word[at] == "j":
            jobs = f"-j{argument}"
        elif word[at] == "t":
            break
    return jobs


def cannot_read(command: list[str], auth: str, environment: Mapping[str, str]) -> bool:
    """Whether a command is a make that stops at the fifo at this address, or a ninja, which may know fifos only."""
    if is_make(command[0]):
        return auth.startswith("fifo:") and style_for(command, environment, say) == "pipe"
    return is_ninja(command[0]) and "," in auth
