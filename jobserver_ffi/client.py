"""`Client`: one process's view of one jobserver."""

from __future__ import annotations

import os
import sys
from errno import EAGAIN, EINTR
from time import monotonic_ns

from ._core import ffi, lib
from .acquired import FREE_THREADED, Acquired, AcquiredBatch, FreeCells, ImplicitSlot, hold
from .arguments import LARGEST_LIMIT, batch_size, nanoseconds, pool_limit, whole_number
from .create import create
from .errors import ClientClosed, check, error_for, timed_out
from .event import NOTHING
from .handles import batch_maker, cell_maker

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any

    from .environment import FromEnv
    from .event import Others
    from .helper import HelperThread
    from .hooks import OnEvent
    from .ready import W

_acquire = lib.jobserver_token_acquire
_take = lib.jobserver_token_take
_acquire_raw = lib.jobserver_acquire_raw
_take_raw = lib.jobserver_take_raw
_release_raw = lib.jobserver_release_raw
_give_raw = lib.jobserver_give_raw
_give_raw_plus = lib.jobserver_give_raw_plus

_PLUS = 43  # the byte of every token that GNU make or this package made
_MOST_AT_ONCE = 1 << 20  # bytes that acquire_many makes room for, unless its minimum is larger

# Not MAKEFLAGS on Windows by itself: nmake reads it too, and stops at what it does not know.
VARIABLES = ("CARGO_MAKEFLAGS",) if os.name == "nt" else ("MAKEFLAGS", "CARGO_MAKEFLAGS")

if sys.platform == "win32":
    from .windows import end_waits_on_interrupt

    end_waits_on_interrupt()


class Client:
    """A jobserver: one that this process makes, or one that it was started under.

    `Client(limit)` makes a pool of `limit` tokens for this process and its children; `Client.from_env()` joins the one
    around this process; `Client.open(auth)` joins one by its address. Every method may be called from any thread. A
    forked child may go on using the client; it holds none of its parent's tokens.

    Args:
        limit: How many tokens the pool has; 0 is an empty pool.
        style: "pipe" (the default on POSIX: understood by every make and by cargo) or "fifo" (make 4.4 and newer,
            ninja 1.13 and newer); on Windows "semaphore".
        path: With style "fifo", where to make the fifo; it must not exist. Default: a private directory in
            XDG_RUNTIME_DIR or else TMPDIR or /tmp.
        on_event: Is called with a `JobserverEvent` for each token taken and given back and for each wait, by the thread
            that does it; see docs/events.md. Without one nothing is done for it.

    Raises:
        ValueError: The limit is negative or more than a pipe on this system can hold, or the style is unknown.
        OSError: The system refused (no descriptors left, path exists already …).
    """

    __slots__ = (
        "__weakref__",
        "_auth",
        "_batches",
        "_cells",
        "_closed",
        "_descriptors",
        "_handle",
        "_limit",
        "_new_cell",
    )

    def __init__(
        self,
        limit: int,
        *,
        style: str | None = None,
        path: str | os.PathLike[str] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._closed = True
        handle, auth, descriptors = create(pool_limit(limit), style, path)
        self._begin(handle, auth, descriptors, limit, on_event)

    def _begin(
        self, handle: Any, auth: str, descriptors: tuple[int, ...], limit: int | None, on_event: OnEvent | None
    ) -> None:
        self._handle = handle
        self._auth = auth
        self._descriptors = descriptors
        self._limit = limit
        self._new_cell = cell_maker(handle)
        self._batches: tuple[int, Callable[[], Any]] = (0, self._new_cell)  # what makes batches of the last size
        # Cells that hold nothing. Each is owned by exactly one place: this list or an Acquired. Two from the start: a
        # list that runs empty gives its memory up, and has to get it again for the next cell.
        self._cells: list[Any] = FreeCells() if FREE_THREADED else [self._new_cell(), self._new_cell()]
        if on_event is not None:
            from .observed import observe

            observe(self, on_event)
        self._closed = False

    @classmethod
    def _joined(cls, handle: Any, auth: str, descriptors: tuple[int, ...], on_event: OnEvent | None = None) -> Client:
        """A client of a pool that somebody else made."""
        self = cls.__new__(cls)
        self._begin(handle, auth, descriptors, None, on_event)
        return self

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, check_pipe: bool = False, on_event: OnEvent | None = None
    ) -> Client | None:
        """Joins the jobserver that this process was started under.

        The first of CARGO_MAKEFLAGS, MAKEFLAGS and MFLAGS that is not empty decides. The process then owns an implicit
        slot, see `slot`. Descriptors stay as they were inherited: nothing is closed, no flag is changed.

        Args:
            environ: Where to look, instead of `os.environ`.
            check_pipe: Insist that `R,W` are pipes (a socket or a device is accepted otherwise).
            on_event: As for `Client`.

        Returns:
            The client, or None where no jobserver is offered: no such variable, none in it, disabled for this process
            (`-2,-2`, make manual "POSIX Jobserver"), or of a style that this system does not know.

        Raises:
            FromEnvError: One is offered but unusable; the message says what to do.
        """
        found = cls.from_env_ext(environ, check_pipe=check_pipe, on_event=on_event)
        if found.error is not None and not found.error.kind.silent:
            raise found.error
        return found.client

    @classmethod
    def from_env_ext(
        cls, environ: Mapping[str, str] | None = None, *, check_pipe: bool = False, on_event: OnEvent | None = None
    ) -> FromEnv:
        """The same as `from_env`, but tells everything and never raises for what the environment says.

        Returns:
            `.client` or `.error` (the other is None), and the `.variable` and `.value` that decided.
        """
        from .environment import from_env

        return from_env(os.environ if environ is None else environ, check_pipe=check_pipe, on_event=on_event)

    @classmethod
    def open(cls, auth: str, *, on_event: OnEvent | None = None) -> Client:
        """Joins a jobserver by its address, as it stands behind `--jobserver-auth=`.

        It gives the process no implicit slot: there is none for a process that only knows an address.

        Args:
            auth: "R,W" (two descriptors, which must stay open) or "fifo:PATH"; on Windows the name of a semaphore.
            on_event: As for `Client`.

        Raises:
            FromEnvError: It is not the address of a usable jobserver; `.kind` says why.
        """
        from .environment import open_auth

        return open_auth(auth, on_event)

    @property
    def auth(self) -> str:
        """The address that children get, as it was inherited: "R,W" or "fifo:PATH", or a semaphore's name."""
        return self._auth

    @property
    def limit(self) -> int | None:
        """How many tokens the pool was made with; None where somebody else made it."""
        return self._limit

    @property
    def handle(self) -> int:
        """The address of the core's `jobserver_client`, for C and Cython (docs/embedding.md).

        It is valid while this object lives, and for as long as a cell, a batch or a hold that was made of it does.

        Raises:
            ClientClosed: The client was closed.
        """
        if self._closed:
            raise ClientClosed("this client was closed: make a new one")
        return int(ffi.cast("intptr_t", self._handle))

    def acquire(self, timeout: float | None = None) -> Acquired:
        """Takes a token, waiting for one if need be.

        A wait uses no CPU and one token wakes one waiter. Ctrl-C ends it as promptly as it ends `os.read`.

        Args:
            timeout: Seconds to wait at most; 0 tries once; None or infinity waits for ever.

        Raises:
            AcquireTimeout: No token came in time.
            PoolGone: The maker of the pool is gone (only sockets and devices can tell).
            Unsupported: With a timeout, for an inherited pipe that this system cannot read without blocking.
        """
        try:
            cell = self._cells.pop()
        except IndexError:
            cell = self._new_cell()
        token = Acquired()  # before the wait, so that less is done after it; as hold() does, whose call would show here
        token._client = self
        token._held = [cell]
        if timeout is None:
            code = _take(cell)
            if code == 0:
                return token
        else:
            code = -EINTR
        self._wait(_acquire, cell, code, timeout)
        return token

    def _wait(self, function: Any, what: Any, code: int, timeout: float | None) -> int:
        """Calls `function(what, timeout)` for as long as `code`, its result, says that it was interrupted.

        Between the calls Python runs its signal handlers, and those may raise.
        """
        limit = nanoseconds(timeout)
        end = monotonic_ns() + limit if limit > 0 else 0
        while code in (-EINTR, lib.JOBSERVER_STRANDED):
            if code == lib.JOBSERVER_STRANDED:
                error = self._settle()
                if error is not None:
                    raise error
            code = function(what, max(end - monotonic_ns(), 0) if end else limit)
        if code >= 0 or code == lib.JOBSERVER_READY:
            return code
        if code in (-EAGAIN, -lib.ETIMEDOUT):
            raise timed_out(timeout)
        raise error_for(code)

    def _error(self, code: int) -> Exception:
        """The exception for a result of the core; an earlier failure that nobody was told of comes first."""
        return (self._settle() if code == lib.JOBSERVER_STRANDED else None) or error_for(code)

    def _settle(self) -> Exception | None:
        """Tries again to give back what a destructor could not. Returns the error that is to be told, if there is."""
        stranded = ffi.new("int *")
        code = lib.jobserver_client_settle(self._handle, stranded)
        if code == 0:
            return None
        error = error_for(code)
        left = f"{stranded[0]} still held" if stranded[0] else "given back meanwhile"
        message = f"a token that was dropped could not be given back at that time ({left}): {error.args[-1]}"
        return type(error)(*error.args[:-1], message)

    def _forget(self, cell: Any) -> None:
        """Takes back a cell whose token is a raw one now."""
        self._cells.append(cell)

    def try_acquire(self) -> Acquired | None:
        """Takes a token if one is free now. Never blocks, and disturbs nobody.

        Returns:
            The token, or None.

        Raises:
            Unsupported: An inherited pipe that this system cannot read without blocking (another user's fifo on Linux;
                blocking pipes on systems without /proc).
        """
        try:
            cell = self._cells.pop()
        except IndexError:
            cell = self._new_cell()
        serial = _acquire(cell, 0)
        if serial > 0:
            return hold(Acquired(), self, cell)
        if serial == -EAGAIN:
            self._cells.append(cell)
            return None
        raise self._error(serial)

    def slot(self, timeout: float | None = None) -> Acquired:
        """Takes the implicit slot if it is free, else a token.

        A process that was started under a jobserver may run one job without a token (make manual, "POSIX Jobserver").
        It has one such slot, whatever the number of its clients and threads; none after a fork, and none in the
        process that made the pool, where this is `acquire`.

        Args:
            timeout: As for `acquire`.

        Raises:
            AcquireTimeout: Neither came in time.
        """
        nanoseconds(timeout)
        slot = self._implicit_slot()
        if slot is not None:
            return slot
        if not lib.jobserver_implicit_owned():
            return self.acquire(timeout)
        from .ready import wait_for_slot

        return wait_for_slot(self, timeout)

    def _implicit_slot(self) -> Acquired | None:
        """The process's implicit slot, if it has one that is free."""
        try:
            cell = self._cells.pop()
        except IndexError:
            cell = self._new_cell()
        if lib.jobserver_token_acquire_implicit(cell) > 0:
            return hold(ImplicitSlot(), self, cell)
        self._cells.append(cell)
        return None

    def acquire_many(self, maximum: int, *, minimum: int = 1, timeout: float | None = None) -> AcquiredBatch:
        """Takes between `minimum` and `maximum` tokens at once, waiting until the minimum is there.

        Two callers that want more than one each do not deadlock: only one at a time waits with tokens in its hands.

        Args:
            maximum: Most tokens to take: what is free beyond the minimum is taken, but not waited for.
            minimum: Fewest tokens to come back with; at least 1.
            timeout: As for `acquire`.

        Raises:
            ValueError: The minimum is below 1, above the maximum, or more than the pool has.
            AcquireTimeout: The minimum was not there in time; nothing is held.
            Unsupported: With a minimum above 1: a pool that this process cannot lock (a socket, another user's pipe).
        """
        maximum, minimum = batch_size(maximum, minimum, self._limit)
        nanoseconds(timeout)
        batch = self._acquire_many_or(NOTHING, maximum, minimum, timeout)
        assert batch is not None, "nothing else was waited for"
        return batch

    def _acquire_many_or(
        self, others: Others, maximum: int, minimum: int, timeout: float | None = None
    ) -> AcquiredBatch | None:
        """The same with arguments that were checked; None, with nothing held, if something else came first."""
        room = min(maximum, max(minimum, _MOST_AT_ONCE))
        size, new_batch = self._batches
        if size != room:
            new_batch = batch_maker(self._handle, min(room, LARGEST_LIMIT))
            self._batches = room, new_batch
        handle = new_batch()

        def take(handle: Any, limit: int) -> int:
            return lib.jobserver_batch_acquire_or(handle, minimum, limit, *others)

        try:
            count = self._wait(take, handle, -EINTR, timeout)
        except BaseException:
            # At once, not when the last traceback is gone. Should it fail, the destructor tries again and tells.
            lib.jobserver_batch_release(handle)
            raise
        if count == lib.JOBSERVER_READY:
            check(lib.jobserver_batch_release(handle))
            return None
        return AcquiredBatch(self, handle, count)

    def _acquire_or(self, others: Others, timeout: float | None = None) -> Acquired | None:
        """Takes a token, as `acquire`; None if something else came first."""
        try:
            cell = self._cells.pop()
        except IndexError:
            cell = self._new_cell()

        def take(cell: Any, limit: int) -> int:
            return lib.jobserver_token_acquire_or(cell, limit, *others)

        code = take(cell, -1) if timeout is None else -EINTR
        if code <= 0 and self._wait(take, cell, code, timeout) == lib.JOBSERVER_READY:
            self._cells.append(cell)
            return None
        return hold(Acquired(), self, cell)

    def into_helper_thread(self, callback: Callable[[Future[Acquired]], object]) -> HelperThread:
        """Starts a thread that waits for tokens, for a program that has other things to do.

        The client stays usable, and may have several helpers. Close them before the client.

        Args:
            callback: Is called in that thread with a `concurrent.futures.Future`, already done, for each request of
                `HelperThread.request_token`. What it raises goes to `threading.excepthook`.
        """
        from .helper import HelperThread

        return HelperThread(self, callback)

    def slot_or_ready(self, others: Iterable[W], timeout: float | None = None) -> tuple[Acquired | None, list[W]]:
        """Waits for a slot, or until a child exits or a descriptor becomes readable: what a scheduler's loop needs.

        What is ready is looked for first, so children are never left unreaped for the sake of more jobs. The wait
        itself is exclusive, as that of `acquire`: a token wakes one waiter.

        Args:
            others: Children (`subprocess.Popen`), and descriptors, as numbers or as objects with `fileno()`. On Windows
                children and handles.
            timeout: Seconds to wait at most; 0 only looks; None or infinity waits for ever.

        Returns:
            The slot (the implicit one if it is free, else a token, see `slot`) and an empty list; or None and those of
            `others` that are ready; or, after the timeout, None and an empty list.

        Raises:
            Unsupported: A pool that this system cannot read without blocking.
        """
        from .ready import slot_or_ready

        return slot_or_ready(self, others, timeout)

    def acquire_raw(self, timeout: float | None = None) -> int:
        """Takes a token and returns its byte, for callers that keep tokens in places of their own.

        It is out until `release_raw`; neither dropping the client nor the end of the process gives it back. After an
        exception (Ctrl-C) out of this call `release_raw()` gives back what it may have taken.

        Args:
            timeout: As for `acquire`.

        Returns:
            The byte, 0 to 255.

        Raises:
            AcquireTimeout: No token came in time.
        """
        if timeout is None:
            byte = _take_raw(self._handle)
            if byte >= 0:
                return byte
            return self._wait(_acquire_raw, self._handle, byte, None)
        return self._wait(_acquire_raw, self._handle, -EINTR, timeout)

    def release_raw(self, byte: int | None = None) -> None:
        """Gives back a token that was taken with `acquire_raw` or `Acquired.drop_without_releasing`. Does not block.

        Counted by client and process. A process that inherited the jobserver may also call it, without a byte and
        with none out, to lend its free implicit slot to the others, once.

        Args:
            byte: Which token; None for any that is out.

        Raises:
            OverRelease: No such token is out.
            PoolFull: The pipe is full; the token is still out.
        """
        if byte is _PLUS:
            code = _give_raw_plus(self._handle)
        elif byte is None:
            code = _give_raw(self._handle)
        elif 0 <= whole_number("byte", byte) <= 255:
            code = _release_raw(self._handle, byte)
        else:
            raise ValueError(f"byte={byte}: a token is one byte, 0 to 255")
        if code < 0:
            raise self._error(code)

    def available(self) -> int:
        """How many tokens are free now, without taking one (FIONREAD, NtQuerySemaphore): true for this moment only.

        Raises:
            Unsupported: A device that cannot say.
        """
        count = lib.jobserver_client_available(self._handle)
        if count < 0:
            raise self._error(count)
        return count

    def configure(self, *, variables: Iterable[str] = VARIABLES, **popen_kwargs: Any) -> dict[str, Any]:
        """Arguments for `subprocess.Popen` that put a child under this jobserver.

        `subprocess.Popen(cmd, **client.configure(cwd=...))`. The child inherits the advertised descriptors and no
        others; they stay open until it is spawned, also when the client is closed first. It runs on a slot of this
        process: hold one meanwhile (`with client.acquire(): ...`). Thread-safe.

        Args:
            variables: The environment variables to set; other flags and variables in them are kept. On Windows the
                default is CARGO_MAKEFLAGS alone, since nmake stops at a jobserver in MAKEFLAGS: name that for make.
            **popen_kwargs: Passed on; `env` and `pass_fds` are merged into.

        Returns:
            `popen_kwargs` with `env` and `pass_fds`.

        Raises:
            ClientClosed: The client was closed.
            ValueError: `close_fds=False`, which would let every descriptor through.
        """
        from .children import configure

        return configure(self, variables, popen_kwargs)

    def popen(self, args: Any, **popen_kwargs: Any) -> subprocess.Popen[Any]:
        """Starts a child under this jobserver, as `subprocess.Popen(args, **client.configure(...))`.

        A fifo that this client made lives until the child has been waited for.
        """
        from .children import ChildProcess, hold_open

        return ChildProcess(args, hold_open(self), **self.configure(**popen_kwargs))

    def run(self, args: Any, **run_kwargs: Any) -> subprocess.CompletedProcess[Any]:
        """Runs a child under this jobserver until it ends, as `subprocess.run(args, **client.configure(...))`."""
        from .children import run

        return run(self, args, run_kwargs)

    def close(self) -> None:
        """Ends the use of this client; again: harmless. Tokens that are out may still be released.

        The descriptors are closed, and a fifo that this process made is removed, when the last token is back and the
        last child of `popen` and `run` was waited for.

        Raises:
            ClientBusy: Another thread waits in this client; nothing is changed.
            OSError: A token that was dropped before could not be given back.
        """
        check(lib.jobserver_client_close(self._handle))
        self._closed = True
        self._cells.clear()
        error = self._settle()
        if error is not None:
            raise error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, finalizing: Any = sys.is_finalizing) -> None:
        if not getattr(self, "_closed", True) and not finalizing():  # Ctrl-C may come before there is one
            import warnings

            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            "a Client cannot be pickled: hand its client.auth to the other process, which joins with Client.open(auth)"
        )

    def __repr__(self) -> str:
        return f"<jobserver_ffi.Client {self._auth}{' closed' if self._closed else ''}>"
