"""The files that a recording is written to: tried out before the run, and whole or not there after it."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from typing import Any


def try_out(path: str) -> None:
    """Finds out whether `write` will be able to write this file.

    Raises:
        OSError: It will not.
    """
    if _is_written_in_place(path):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    else:
        os.unlink(_new_beside(path))


def write(path: str, text: str) -> None:
    """Writes a file, under another name until it is whole. What is no plain file (a pipe, /dev/null) is written to.

    A byte of an argument that is no UTF-8 becomes an escape, which is one in JSON too.

    Raises:
        OSError: It cannot be written; what was there is there still.
    """
    if _is_written_in_place(path):
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return
    new = _new_beside(path)
    try:
        with open(new, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        os.replace(new, os.path.realpath(path))
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def as_text(value: dict[str, Any]) -> str:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"


def _is_written_in_place(path: str) -> bool:
    """Whether it is there and no plain file; a directory is refused by the attempt."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _new_beside(path: str) -> str:
    """An empty file in the same directory, with the rights that a new file gets."""
    directory, name = os.path.split(os.path.realpath(path))
    new = os.path.join(directory, f".{name[:100]}.{os.urandom(4).hex()}")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return new
