"""The pools that `jobserver serve` has for this user."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .seen import CannotSee, SeenPool

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_ANSWER = 5.0  # seconds that a server may take to answer; it takes a millisecond

_START = "`jobserver serve` or `jobserver run --pool {} -- CMD` starts it"


def served_pool(pool: str) -> SeenPool:
    """A pool by its name, or by the path of its socket.

    Raises:
        CannotSee: Nobody serves it, or its server does not answer.
        ValueError: It is no name for a pool.
    """
    from ..serve.client import NoServer, PoolConnection, RequestRefused, ServerGone
    from ..serve.place import PlaceError, is_path

    try:
        with PoolConnection(pool, LONGEST_ANSWER) as connection:
            return as_seen(connection.status(), connection.path)
    except NoServer as error:
        mend = "it can be seen while `jobserver serve` has it" if is_path(pool) else _START.format(pool)
        raise CannotSee(f"{error}: {mend}") from None
    except (PlaceError, RequestRefused, ServerGone) as error:
        raise CannotSee(str(error)) from None


def served_pools() -> tuple[list[SeenPool], list[str]]:
    """All that are served in this user's place; and why others that seem to be there cannot be seen."""
    if sys.platform == "win32":
        return [], []
    from ..serve.client import NoServer, PoolConnection, RequestRefused, ServerGone
    from ..serve.place import PlaceError, pools

    found: list[SeenPool] = []
    unseen: list[str] = []
    try:
        names = pools()
    except PlaceError as error:
        return [], [str(error)]
    for name in names:
        try:
            with PoolConnection(name, LONGEST_ANSWER) as connection:
                found.append(as_seen(connection.status(), connection.path))
        except NoServer:
            pass  # a server that was killed leaves its socket
        except (PlaceError, RequestRefused, ServerGone, ValueError) as error:
            unseen.append(f"cannot see pool `{name}`: {error}")
    return found, unseen


def as_seen(status: dict[str, Any], path: str) -> SeenPool:
    """What a server says of its pool."""
    return SeenPool(
        "served",
        status["name"],
        status["process"],
        path,
        None,
        status["limit"],
        status["in_use"],
        status["free"],
        status["queued"],
        status["held_back"],
        status["gates"],
        status["leases"],
        status["ended"],
    )


def served_to(processes: Iterable[int], served: list[SeenPool]) -> SeenPool | None:
    """The served pool that one of these processes serves."""
    numbers = set(processes)
    return next((pool for pool in served if pool.process in numbers), None)
