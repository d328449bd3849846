"""`Lease`: what one process may use of a pool."""

from __future__ import annotations

import os
import warnings
from errno import EAGAIN, EINTR, ETIMEDOUT
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from ._core import ffi, lib
from .arguments import nanoseconds, whole_number
from .children import ChildProcess, HeldDescriptors, held_back
from .client import VARIABLES
from .create import STYLES
from .errors import AcquireTimeout, LeaseBusy, PoolClosed, error_for
from .handles import Place
from .lease_report import LeaseReport, report_of
from .makeflags import merge, remove_auth
from .style import style_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from .pool import Pool

_STYLES = ("auto", *STYLES)
_MOMENT = 5.0  # seconds that a pool may take, on a busy machine, to see that a process has ended


class Lease:
    """What one process, with all that it starts, may use of a pool; made by `Pool.lease`.

    The process costs one slot from its start, which waits for it, to its end; it takes the others as a client of any
    jobserver does. When it ends, however it ends, all that it held is back in the pool. A context manager; leaving it
    closes the lease. Every method may be called from any thread. In a forked child it can only be dropped. Dropping it
    takes everything back; `popen` keeps it alive until the process has been waited for.
    """

    def __init__(
        self, pool: Pool, name: str, style: str, minimum: int, maximum: int | None, weight: float, orphans: float
    ) -> None:
        if style not in _STYLES:
            raise ValueError(f"style={style!r}: one of {', '.join(map(repr, _STYLES))} is wanted")
        if pool.limit is None and whole_number("minimum", minimum) > 1:
            raise ValueError(f"minimum={minimum}: slots of an outer jobserver cannot be set aside, so 1 is the most")
        if not 0 <= whole_number("minimum", minimum) <= (pool.limit or 1):
            raise ValueError(f"minimum={minimum}: this pool has {pool.limit} slots, so they never come")
        if maximum is not None and whole_number("maximum", maximum) < max(minimum, 1):
            raise ValueError(f"maximum={maximum}: at least the minimum ({minimum}) and 1 are wanted")
        if not 0 < weight < float("inf"):
            raise ValueError(f"weight={weight!r}: a number above 0 is wanted")
        self._pool = pool
        self._name = name
        self._style = style
        self._terms = (minimum, maximum or 0, float(weight), nanoseconds(orphans))
        self._command: tuple[str, ...] = ()
        self._handle: Any = None
        self._has_process = False

    @property
    def name(self) -> str:
        """What it was called."""
        return self._name

    def configure(
        self, *, slot_timeout: float | None = None, variables: Iterable[str] = VARIABLES, **popen_kwargs: Any
    ) -> dict[str, Any]:
        """Waits for the slot, and returns arguments for `subprocess.Popen` that put a process on this lease.

        The lease does not know the process: tell it by `watch`, or `close` the lease when it has ended.

        Args:
            slot_timeout: Seconds to wait for the slot at most; 0 tries once, None waits for ever.
            variables: The environment variables to set; other flags and variables in them are kept.
            **popen_kwargs: Passed on; `env` and `pass_fds` are merged into.

        Raises:
            AcquireTimeout: No slot came in time.
            LeaseBusy: The lease has a process already, or has ended.
            PoolClosed: The pool was closed.
            ValueError: `close_fds=False`, which would let every descriptor through.
        """
        arguments = self._prepare((), variables, popen_kwargs)
        self._start(slot_timeout)
        return arguments

    def popen(self, args: Any, *, slot_timeout: float | None = None, **popen_kwargs: Any) -> subprocess.Popen[Any]:
        """Waits for the slot and starts a process on this lease, which ends with it.

        Args:
            args: The command, as for `subprocess.Popen`.
            slot_timeout: As for `configure`.
            **popen_kwargs: As for `configure`.

        Raises:
            OSError: It cannot be started; the slot is given back.
            AcquireTimeout, LeaseBusy, PoolClosed, ValueError: As for `configure`.
        """
        command = (args,) if isinstance(args, (str, bytes, os.PathLike)) else tuple(args)
        variables = popen_kwargs.pop("variables", VARIABLES)
        arguments = self._prepare(tuple(map(os.fsdecode, command)), variables, popen_kwargs)
        self._start(slot_timeout)
        try:
            process = ChildProcess(args, self, **held_back(arguments))
        except BaseException:
            lib.jobserver_lease_give_up(self._handle)
            raise
        process.begin(self.watch)
        return process

    def run(
        self, args: Any, *, slot_timeout: float | None = None, check: bool = False, **popen_kwargs: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Runs a process on this lease until it has ended, as `popen` and `communicate`.

        Args:
            args: The command.
            slot_timeout: As for `configure`.
            check: Raise `subprocess.CalledProcessError` if it fails.
            **popen_kwargs: As for `configure`; also `input` and `timeout`, as for `subprocess.run`.
        """
        import subprocess

        given, timeout = popen_kwargs.pop("input", None), popen_kwargs.pop("timeout", None)
        if given is not None:
            popen_kwargs["stdin"] = subprocess.PIPE
        if popen_kwargs.pop("capture_output", False):
            popen_kwargs.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self.popen(args, slot_timeout=slot_timeout, **popen_kwargs) as process:
            try:
                out, err = process.communicate(given, timeout=timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(args, process.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def watch(self, process: int) -> None:
        """Says which child of this process runs on the lease, started with what `configure` returned.

        The lease then ends with it. The child must not have been waited for.

        Raises:
            LeaseBusy: The lease has no slot, or has a process already.
        """
        if self._has_process:
            raise LeaseBusy("this lease has a process already: make a lease for each process")
        self._check(lib.jobserver_lease_spawned(self._opened(), process))
        self._has_process = True

    def wait(self, timeout: float | None = None) -> LeaseReport:
        """Waits until the lease has ended: with its process, and with those that it left behind.

        Args:
            timeout: Seconds; 0 only looks, None waits for ever.

        Raises:
            AcquireTimeout: It has not ended in time.
            LeaseBusy: It has no process to end with.
        """
        if not self._has_process:
            raise LeaseBusy("this lease has no process that it could end with: close it")
        self._wait(lib.jobserver_lease_wait, timeout, f"the lease {self._name!r} has not ended")
        return self.report()

    def report(self) -> LeaseReport:
        """What the lease has and what came of it, as of now."""
        return report_of(self._handle, self._name, self._command)

    def close(self) -> LeaseReport:
        """Ends the lease; again: harmless. What is left of its process's descendants is waited for, see `Pool.lease`.

        Raises:
            LeaseBusy: Its process runs: wait for it or end it first.
        """
        if self._handle is None:
            return self.report()
        if self._has_process and self.report().state == "started":
            # Who has just waited for the process may be faster than the pool.
            try:
                self._wait(lib.jobserver_lease_wait, _MOMENT, "")
            except AcquireTimeout:
                if self.report().state == "started":
                    raise LeaseBusy(f"the process of lease {self._name!r} runs: wait for it or end it first") from None
        if self._has_process and self.report().state == "orphans":
            self._wait(lib.jobserver_lease_wait, None, "")
        self._check(lib.jobserver_lease_end(self._handle))
        return self.report()

    def _prepare(
        self, command: tuple[str, ...], variables: Iterable[str], popen_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Arguments for Popen, with the address that the lease has or now gets for this command."""
        if popen_kwargs.get("close_fds") is False:
            raise ValueError("close_fds=False lets every descriptor through: name those that the child needs")
        given = popen_kwargs.get("env")
        environment = {
            os.fsdecode(name): os.fsdecode(value) for name, value in (os.environ if given is None else given).items()
        }
        handle = self._opened(command, environment)
        self._command = command
        auth, descriptors = _address(handle)
        if "MFLAGS" in environment:
            environment["MFLAGS"] = remove_auth(environment["MFLAGS"])
        for name in variables:
            environment[name] = merge(environment.get(name, ""), auth, self._pool.limit)
        others = popen_kwargs.get("pass_fds", ())
        held = HeldDescriptors(dict.fromkeys((*others, *descriptors)), (handle, others))
        return {**popen_kwargs, "env": environment, "pass_fds": held}

    def _opened(self, command: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> Any:
        """The core's lease, made on first use: only now it is known which style the command reads."""
        if self._handle is not None:
            return self._handle
        style = self._style
        if style == "auto":
            style = style_for(command or ("make",), environment or os.environ, _warn)
        minimum, maximum, weight, orphans = self._terms
        terms = ffi.new("jobserver_lease_terms *")
        terms.style = lib.JOBSERVER_LEASE_FIFO if style == "fifo" else lib.JOBSERVER_LEASE_PIPE
        terms.minimum, terms.maximum, terms.weight = minimum, maximum, weight
        terms.life_line, terms.orphan_timeout = int(orphans != 0), orphans
        place = Place("lease")
        self._check(lib.jobserver_lease_open(self._pool._handle, terms, place.out))
        handle = place.take()
        if self._pool._watcher is not None:
            self._pool._watcher.watch(handle, self._name, command)
        self._handle = handle
        return handle

    def _start(self, timeout: float | None) -> None:
        """Waits for the slots to start with; whoever is interrupted leaves the queue."""
        try:
            self._wait(lib.jobserver_lease_start, timeout, f"no slot became free for the lease {self._name!r}")
        except LeaseBusy:
            raise
        except BaseException:
            lib.jobserver_lease_give_up(self._handle)
            raise

    def _wait(self, function: Any, timeout: float | None, failure: str) -> None:
        """Calls `function(handle, timeout)` until it is not interrupted; Python runs its signal handlers in between."""
        limit = nanoseconds(timeout)
        end = monotonic_ns() + limit if limit > 0 else 0
        code = -EINTR
        while code == -EINTR:
            code = function(self._handle, max(end - monotonic_ns(), 0) if end else limit)
        if code in (-EAGAIN, -lib.ETIMEDOUT):  # which on Windows may be another number than Python's
            raise AcquireTimeout(ETIMEDOUT, f"{failure} within {timeout} s")
        self._check(code)

    def _check(self, code: int) -> None:
        if code == lib.JOBSERVER_CLOSED:
            raise PoolClosed("this pool was closed, or is the pool of the process that this one was forked from")
        if code < 0:
            raise error_for(code)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except LeaseBusy:
            # It ends with its process; what made the caller leave is what it should hear of.
            if error is None:
                raise

    def __repr__(self) -> str:
        return f"<jobserver_ffi.Lease {self._name!r} {self.report().state}>"


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=5)


def _address(handle: Any) -> tuple[str, tuple[int, ...]]:
    """The address of a lease, and the descriptors that its process must inherit."""
    path = ffi.new("char[]", 4096)
    code = lib.jobserver_lease_path(handle, path, 4096)
    if code < 0:
        raise error_for(code)
    found = ffi.new("int[3]")
    lib.jobserver_lease_descriptors(handle, found)
    name = ffi.string(path)
    kind = "fifo:" if "fifo" in STYLES else ""  # the name of a semaphore stands by itself
    auth = kind + os.fsdecode(name) if name else f"{found[0]},{found[1]}"
    return auth, tuple(number for number in found if number >= 0)
