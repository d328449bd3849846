"""What the command knows of make and ninja: how they are called, which style of jobserver they read, and their -j."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..create import STYLES
from ..makeflags import escape, parse
from .messages import say, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAKE = re.compile(r"(b|g|gnu|p|re)?make(-?\d+(\.\d+)*)?(\.exe)?")
_NINJA = re.compile(r"ninja(-build)?(-?\d+(\.\d+)*)?(\.exe)?")
_NINJA_WITH_ARGUMENT = "Cdfjkltw"

_FIRST_WITH_FIFO = (4, 4)
_LONGEST_ANSWER = 5  # seconds that a make may take to tell its version


def is_make(program: str) -> bool:
    """Whether a program is a make, by its name."""
    return _MAKE.fullmatch(os.path.normcase(os.path.basename(program))) is not None


def is_ninja(program: str) -> bool:
    """Whether a program is a ninja, by its name."""
    return _NINJA.fullmatch(os.path.normcase(os.path.basename(program))) is not None


def style_for(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The style of a new jobserver around a command.

    A make before 4.4 stops with an internal error when it is given a fifo; a fifo is what ninja reads.

    Args:
        command: The command; if it is a make it is asked, else the make in PATH, which it may start.
        environment: The environment to ask in.

    Returns:
        The system's only one, or "fifo" where the make is GNU make 4.4 or newer, or there is none; else "pipe".
    """
    if len(STYLES) == 1:
        return STYLES[0]
    version = make_version(command[0] if is_make(command[0]) else "make", environment)
    return "fifo" if version is None or version >= _FIRST_WITH_FIFO else "pipe"


def make_version(make: str, environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Asks a make for its version.

    Args:
        make: The program.
        environment: The environment to ask in; what make takes flags from is left out.

    Returns:
        The version; () if it does not say that it is GNU make; None if it cannot be started.
    """
    import subprocess

    environment = {name: value for name, value in environment.items() if not name.endswith("MAKEFLAGS")}
    try:
        answer = subprocess.run(
            [make, "--version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_LONGEST_ANSWER,
            check=False,
        ).stdout
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        say(f"`{shown(make)} --version` gave no answer in {_LONGEST_ANSWER} s: using a pipe; --style says it at once")
        return ()
    found = re.match(rb"GNU Make (\d+(?:\.\d+)*)", answer)
    return tuple(map(int, found.group(1).split(b"."))) if found else ()


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
