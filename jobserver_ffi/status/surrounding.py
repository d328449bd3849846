"""The jobserver around this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client import Client
from ..environment import FromEnvErrorKind
from ..errors import Unsupported
from ..makeflags import parse
from ..processes import can_see
from ..style import style_of
from .running import pool_here
from .seen import CannotSee, shared_pool

if TYPE_CHECKING:
    from .seen import SeenPool

_NONE_OFFERED = (FromEnvErrorKind.NO_ENV_VAR, FromEnvErrorKind.NO_JOBSERVER)


def surrounding_pool(served: list[SeenPool]) -> SeenPool | None:
    """The jobserver that this process was started under; None if there is none.

    Args:
        served: The pools that are served: it may be a lease of one of them.

    Raises:
        CannotSee: There is one, but it cannot be used here.
    """
    found = Client.from_env_ext()
    if found.client is None:
        if found.error is None or found.error.kind in _NONE_OFFERED:
            return None
        raise CannotSee(f"{found.error}; `jobserver doctor` says more")
    limit = parse(found.value or "").jobs or None
    with found.client as client:
        try:
            style = style_of(client)
        except FileNotFoundError:
            raise CannotSee(
                f"{client.auth} is gone: the program that made it has ended; start the build anew"
            ) from None
        try:
            free = client.available()
        except Unsupported:
            free = None
        seen = pool_here(client.auth, limit, served) if can_see() else None
        if seen is None:
            return shared_pool(client.auth, style, free, limit, None)
    if seen.kind == "leases" and seen.limit is None:  # this process is the only one on its lease
        seen.limit = limit
    if seen.kind == "shared" and seen.free is None:  # a pipe of another user's, which cannot be opened anew
        return shared_pool(client.auth, style, free, limit, seen.processes)
    return seen
