"""One thing that a doctor has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What is, why, and what to write instead.

    Attributes:
        name: Of this kind of finding; stays the same from version to version.
        fatal: Whether the jobserver cannot be used for it; False: it can, but not as one may think.
        what: What is seen.
        why: What brought it about.
        write: What to write instead.
    """

    name: str
    fatal: bool
    what: str
    why: str
    write: str
