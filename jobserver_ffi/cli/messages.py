"""What the command tells its user."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def say(text: str) -> None:
    """Prints one line on stderr; a stderr that is gone is no reason to fail.

    It goes around sys.stderr, whose leftovers would change the exit status when Python ends.
    """
    with suppress(OSError):
        os.write(2, f"jobserver: {text}\n".encode(errors="backslashreplace"))


def write(text: str) -> bool:
    """Prints to stdout; a reader that has gone (`| head`) is no reason to fail.

    It goes around sys.stdout, whose leftovers would change the exit status when Python ends.

    Returns:
        Whether somebody still reads.
    """
    rest = text.encode(sys.stdout.encoding, "backslashreplace")
    try:
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
    except BrokenPipeError:
        return False
    return True


def shown(text: str, most: int = 200) -> str:
    """A text of others as it can stand in a message: on one line, and not too long."""
    text = text if len(text) <= most else text[:most] + "..."
    return text if text.isprintable() else repr(text)
