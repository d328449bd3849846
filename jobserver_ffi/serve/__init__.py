"""`jobserver serve`: one pool for all builds of a user, and what they and their user say to its server.

The protocol is one JSON object a line, both ways, over a local stream socket; docs/serve.md has it.
"""

from __future__ import annotations

import re

DEFAULT_NAME = "default"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def check_name(name: str) -> None:
    """Checks the name of a pool, which becomes the name of a file.

    Raises:
        ValueError: It is not one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("letters, digits, `_`, `-` and `.` are wanted, the first one no `-` or `.`")
