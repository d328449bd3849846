"""What a terminal can do, as far as its user has said."""

from __future__ import annotations

import os

from .execute import caller_environment


def cannot_move_cursor() -> bool:
    """Whether a terminal has no cursor that could be moved, by TERM."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


def size_of(descriptor: int) -> os.terminal_size:
    """The size of a terminal, one that does not tell is as usual.

    Raises:
        OSError: It is gone, or none.
    """
    columns, lines = os.get_terminal_size(descriptor)
    return os.terminal_size((columns or 80, lines or 24))


def shows_unicode() -> bool:
    """Whether a terminal shows more than ASCII, by the caller's locale; Python's own may be another (PEP 538, 540)."""
    environment = caller_environment()
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((environment[name] for name in names if environment.get(name)), "")
    return locale.lower().replace("-", "").endswith("utf8")
