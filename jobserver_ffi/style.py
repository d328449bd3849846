"""The style of a jobserver: that of a pool that is there, and the one that a make reads."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .create import STYLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .client import Client

    Warn = Callable[[str], object]

_MAKE = re.compile(r"(b|g|gnu|p|re)?make(-?\d+(\.\d+)*)?(\.exe)?")
_FIRST_WITH_FIFO = (4, 4)
_LONGEST_ANSWER = 30  # seconds that a make may take to tell its version


def is_make(program: str) -> bool:
    """Whether a program is a make, by its name."""
    return _MAKE.fullmatch(os.path.normcase(os.path.basename(program))) is not None


def style_of(client: Client) -> str:
    """The style of a pool that was joined: "pipe", "fifo", "semaphore", "socket" or "device".

    Raises:
        FileNotFoundError: Its fifo has been removed.
    """
    import stat

    if os.name == "nt":
        return "semaphore"
    path = client.auth.removeprefix("fifo:")
    status = os.stat(path) if path != client.auth else os.fstat(client._descriptors[0])
    if not stat.S_ISFIFO(status.st_mode):
        return "socket" if stat.S_ISSOCK(status.st_mode) else "device"
    return "fifo" if path != client.auth else "pipe"


def style_for(command: Sequence[str], environment: Mapping[str, str], warn: Warn) -> str:
    """The style of a new jobserver around a command.

    A make before 4.4 stops with an internal error when it is given a fifo; a fifo is what ninja reads.

    Args:
        command: The command; if it is a make it is asked, else the make in PATH, which it may start.
        environment: The environment to ask in.
        warn: Is told of a make that does not answer.

    Returns:
        The system's only one, or "fifo" where the make is GNU make 4.4 or newer, or there is none; else "pipe".
    """
    if len(STYLES) == 1:
        return STYLES[0]
    version = make_version(command[0] if is_make(command[0]) else "make", environment, warn)
    return "fifo" if version is None or version >= _FIRST_WITH_FIFO else "pipe"


def make_version(make: str, environment: Mapping[str, str], warn: Warn) -> tuple[int, ...] | None:
    """Asks a make for its version.

    Args:
        make: The program.
        environment: The environment to ask in; what make takes flags from is left out.
        warn: Is told of a make that does not answer.

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
        warn(f"`{make} --version` gave no answer in {_LONGEST_ANSWER} s: using a pipe; name a style")
        return ()
    found = re.match(rb"GNU Make (\d+(?:\.\d+)*)", answer)
    return tuple(map(int, found.group(1).split(b"."))) if found else ()
