"""Tokens that are out: one (`Acquired`), the implicit slot, or several (`AcquiredBatch`)."""

from __future__ import annotations

import sys

from ._core import lib
from .errors import JobserverError, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from .client import Client

_give = lib.jobserver_token_give


FREE_THREADED = "free-threading" in sys.version  # what the manual of CPython tells to ask for


class FreeCells(list[object]):
    """The cells of a client that hold nothing."""

    if FREE_THREADED:

        def append(self, cell: object) -> None:
            """Forgets the cell.

            In a free-threaded Python the thread that made an object ends it, once it runs Python again after another
            thread dropped it. A token in the cell of a thread that sleeps in `acquire` would be out until that thread
            has got a token.
            """


class Acquired:
    """One token, or the implicit slot, for as long as this object is not released.

    A context manager. Dropping it releases it: in a free-threaded Python, where another thread than the one that took
    it drops it, only when that one runs Python again; release it there. The C core owns the token from the moment it is
    read, so that no exception, and no Ctrl-C at any instruction, loses it. Releasing is thread-safe; in a forked child
    it does nothing, since the token is the parent's.
    """

    __slots__ = ("_client", "_held")

    _client: Client
    _held: list[Any]  # the cell; nothing once the token is given back

    implicit = False
    """Whether this is the process's implicit slot, which is no token of the pool."""

    def __enter__(self) -> Acquired:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # Of several threads one gets the cell, and nobody has it any more when it is used again.
            cell = self._held.pop()
        except IndexError:
            return
        code = _give(cell)
        if code == 0:
            self._client._cells.append(cell)
        elif code < 0:
            self._held.append(cell)
            check(code)

    def release(self) -> None:
        """Gives the token back, with the byte that was read. Releasing again is harmless. Does not block.

        Raises:
            PoolFull: The pipe is full; the token is still held.
            PoolGone: Nobody reads the pool any more; the token is still held.
        """
        self.__exit__(None, None, None)

    @property
    def byte(self) -> int | None:
        """The token's byte, 0 to 255; None for the implicit slot, which is no token, and after the release."""
        for cell in self._held:
            byte = lib.jobserver_token_byte(cell)
            return byte if byte >= 0 else None
        return None

    def drop_without_releasing(self) -> int:
        """Keeps the token out and forgets it: from now on it is a raw one, for `Client.release_raw`.

        Returns:
            The token's byte.

        Raises:
            JobserverError: It was released before, or it is the implicit slot, which has no byte.
        """
        if self.implicit:
            raise JobserverError("this Acquired is the implicit slot, which is no token: it has no byte to keep")
        try:
            cell = self._held.pop()
        except IndexError:
            cell = None
        byte = -1 if cell is None else lib.jobserver_token_drop(cell, 0)
        if byte < 0:
            raise JobserverError("this Acquired was released before: it has no byte to keep")
        self._client._forget(cell)
        return byte

    def __repr__(self) -> str:
        state = "held" if self._held else "released"
        return f"<{type(self).__name__} {state}, implicit={self.implicit}>"


def hold(token: Acquired, client: Client, cell: Any) -> Acquired:
    """Lets a new Acquired hold what the cell holds; a constructor in Python would cost a tenth of the whole pair."""
    token._client = client
    token._held = [cell]
    return token


class ImplicitSlot(Acquired):
    """The slot that a process started under a jobserver owns without a token."""

    __slots__ = ()

    implicit = True


class AcquiredBatch:
    """Several tokens taken at once; `len()` is how many are held.

    A context manager. Dropping it releases them all. Thread- and fork-safe as `Acquired` is.
    """

    __slots__ = ("_batch", "_client", "_count")

    def __init__(self, client: Client, batch: Any, count: int) -> None:
        self._client = client
        self._batch = batch
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> AcquiredBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives all the tokens back, each with the byte that was read. Releasing again is harmless. Does not block.

        Raises:
            PoolFull: The pipe is full; what did not fit is still held, and a later release tries again.
            PoolGone: Nobody reads the pool any more; the tokens are still held.
        """
        check(lib.jobserver_batch_release(self._batch))
        self._count = 0

    def __repr__(self) -> str:
        return f"<AcquiredBatch of {self._count}>"
