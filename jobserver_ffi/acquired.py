"""Tokens that are out: one (`Acquired`), the implicit slot, or several (`AcquiredBatch`)."""

from __future__ import annotations

from ._core import lib
from .errors import JobserverError, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from .client import Client

_release = lib.jobserver_token_release


class Acquired:
    """One token, or the implicit slot, for as long as this object is not released.

    A context manager. Dropping it releases it. The C core owns the token from the moment it is read, so that no
    exception, and no Ctrl-C at any instruction, loses it. Releasing is thread-safe; in a forked child it does nothing,
    since the token is the parent's.
    """

    __slots__ = ("_cell", "_client", "_serial")

    implicit = False
    """Whether this is the process's implicit slot, which is no token of the pool."""

    def __init__(self, client: Client, cell: Any, serial: int) -> None:
        self._client = client
        self._cell = cell
        self._serial = serial

    def __enter__(self) -> Acquired:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cell = self._cell
        if cell is not None:
            code = _release(cell, self._serial)
            if code == 0:
                # Forgotten before it can be reused, or this object would keep another's token from being dropped.
                self._cell = None
                self._client._cells.append(cell)
            elif code < 0:
                check(code)

    def release(self) -> None:
        """Gives the token back, with the byte that was read. Releasing again is harmless. Does not block.

        Raises:
            PoolFull: The pipe is full; the token is still held.
            PoolGone: Nobody reads the pool any more; the token is still held.
        """
        self.__exit__(None, None, None)

    def drop_without_releasing(self) -> int:
        """Keeps the token out and forgets it: from now on it is a raw one, for `Client.release_raw`.

        Returns:
            The token's byte.

        Raises:
            JobserverError: It was released before, or it is the implicit slot, which has no byte.
        """
        cell = self._cell
        byte = -1 if cell is None else lib.jobserver_token_drop(cell, self._serial)
        if byte < 0:
            reason = "is the implicit slot, which is no token" if self.implicit else "was released before"
            raise JobserverError(f"this Acquired {reason}: it has no byte to keep")
        self._cell = None
        self._client._cells.append(cell)
        return byte

    def __repr__(self) -> str:
        state = "released" if self._cell is None else "held"
        return f"<{type(self).__name__} {state}, implicit={self.implicit}>"


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
