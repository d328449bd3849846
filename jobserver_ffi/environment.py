"""Finding the jobserver around this process, and joining a jobserver by its address."""

from __future__ import annotations

import enum
import os
import stat
from errno import EACCES, EBADF, EINVAL, EISDIR, ENOENT, ENOTDIR

from ._core import lib
from .client import Client
from .errors import JobserverError, check, error_for
from .handles import Place
from .makeflags import MakeFlags, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .hooks import OnEvent

# The first one that is not empty decides, as in the Rust crate (which stops at one that is set but empty).
VARIABLES = ("CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS")

_PATH_MENDS = {
    ENOENT: "its maker has ended, or the path is not visible here (bind-mount it into a container)",
    ENOTDIR: "its maker has ended, or the path is not visible here (bind-mount it into a container)",
    EACCES: "it is another user's: run this as that user, or make a jobserver of your own with `jobserver run -jN`",
    EISDIR: "the address must name the fifo itself, not its directory",
}

_NOT_HERE = (
    "descriptors and fifos are POSIX's, here a jobserver is a semaphore",
    "the tool above is one of MSYS or Cygwin",
)

_LARGEST_DESCRIPTOR = 2**31 - 1


class FromEnvErrorKind(enum.Enum):
    """Why `Client.from_env` gave no client; the names are the Rust crate's."""

    NO_ENV_VAR = "no variable is set"
    NO_JOBSERVER = "the variables name no jobserver"
    CANNOT_PARSE = "the address cannot be read"
    CANNOT_OPEN_PATH = "the path cannot be opened"
    CANNOT_OPEN_FD = "a descriptor cannot be used"
    NEGATIVE_FD = "the jobserver is disabled for this process"
    NOT_A_PIPE = "what is there cannot hold tokens"
    UNSUPPORTED = "this style is not known on this system"

    @property
    def silent(self) -> bool:
        """Whether nothing is wrong: no jobserver is offered, so a program goes on without (as cargo and rustc do)."""
        return self in _SILENT


_SILENT = (
    FromEnvErrorKind.NO_ENV_VAR,
    FromEnvErrorKind.NO_JOBSERVER,
    FromEnvErrorKind.NEGATIVE_FD,
    FromEnvErrorKind.UNSUPPORTED,
)


class FromEnvError(JobserverError):
    """No jobserver could be joined. The message says what stood where, and what to do.

    Attributes:
        kind: Why.
        variable: The environment variable that decided, or None.
        value: The value of that variable; from `Client.open`, the address.
        problem: What stood where, and what is wrong with it: the first part of the message.
        mend: What may be the cause and what to do, the second part; may be empty.
    """

    def __init__(
        self, kind: FromEnvErrorKind, variable: str | None, value: str | None, problem: str, mend: str
    ) -> None:
        super().__init__(kind, variable, value, problem, mend)
        self.kind = kind
        self.variable = variable
        self.value = value
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.problem}: {self.mend}" if self.mend else self.problem


class FromEnv:
    """What `Client.from_env_ext` found.

    Attributes:
        client: The client, or None.
        error: Why there is none, or None.
        variable: The environment variable that decided, or None where none is set.
        value: Its value, or None.
    """

    __slots__ = ("client", "error", "value", "variable")

    def __init__(
        self, client: Client | None, error: FromEnvError | None, variable: str | None, value: str | None
    ) -> None:
        self.client = client
        self.error = error
        self.variable = variable
        self.value = value

    def __repr__(self) -> str:
        return f"<FromEnv client={self.client!r} error={self.error!r} variable={self.variable!r}>"


class _Refused(Exception):
    """An address that is no usable jobserver: the kind, the reason, and its mend."""

    def __init__(self, kind: FromEnvErrorKind, reason: str, mend: str) -> None:
        super().__init__(kind, reason, mend)
        self.kind = kind
        self.reason = reason
        self.mend = mend


def from_env(environ: Mapping[str, str], *, check_pipe: bool, on_event: OnEvent | None) -> FromEnv:
    """See `Client.from_env_ext`."""
    variable = next((name for name in VARIABLES if environ.get(name)), None)
    if variable is None:
        empty = next((name for name in VARIABLES if name in environ), None)
        kind = FromEnvErrorKind.NO_ENV_VAR if empty is None else FromEnvErrorKind.NO_JOBSERVER
        state = "not set" if empty is None else "set but empty"
        given = environ.get(empty or "")
        problem = f"no jobserver: {', '.join(VARIABLES)} are {state}"
        error = FromEnvError(kind, empty, given, problem, "run this under make, or under `jobserver run`")
        return FromEnv(None, error, empty, given)
    value = environ[variable]
    auth = parse(value).auth
    if auth is None:
        problem = f"no jobserver: {variable}={_short(value)} has no --jobserver-auth"
        error = FromEnvError(FromEnvErrorKind.NO_JOBSERVER, variable, value, problem, "run the tool above with -jN")
        return FromEnv(None, error, variable, value)
    try:
        handle, descriptors = _open(auth, check_pipe)
    except _Refused as refused:
        problem = f"{variable} has --jobserver-auth={_short(auth)}, but {refused.reason}"
        return FromEnv(None, FromEnvError(refused.kind, variable, value, problem, refused.mend), variable, value)
    lib.jobserver_client_inherit(handle)
    return FromEnv(Client._joined(handle, auth, descriptors, on_event), None, variable, value)


def flags_in(environ: Mapping[str, str]) -> MakeFlags:
    """What the variable says that decides in an environment, also another process's; nothing if none is set."""
    return parse(next((environ[name] for name in VARIABLES if environ.get(name)), ""))


def address_in(environ: Mapping[str, str]) -> str | None:
    """The address in the variable that decides, if it has one."""
    return flags_in(environ).auth


def open_auth(auth: str, on_event: OnEvent | None) -> Client:
    """See `Client.open`."""
    try:
        handle, descriptors = _open(auth, check_pipe=False)
    except _Refused as refused:
        problem = f"the address {_short(auth)} cannot be used: {refused.reason}"
        raise FromEnvError(refused.kind, None, auth, problem, refused.mend) from None
    return Client._joined(handle, auth, descriptors, on_event)


def _short(text: str, most: int = 200) -> str:
    """A value for a message: on one line, printable, and not too long."""
    text = text if len(text) <= most else text[:most] + "…"
    return repr(text)


def _open(auth: str, check_pipe: bool) -> tuple[Any, tuple[int, ...]]:
    """Joins the pool at an address. Returns the core's client and the descriptors that children must inherit."""
    if auth.startswith("fifo:"):
        return _open_path(auth.removeprefix("fifo:")), ()
    if auth and "," not in auth and not auth.isdecimal():
        return _open_semaphore(auth), ()
    numbers = _descriptors(auth)
    if min(numbers) < 0:
        raise _Refused(
            FromEnvErrorKind.NEGATIVE_FD,
            "a negative descriptor says that make disabled the jobserver for this recipe line",
            "mark it with `+`",
        )
    for number, for_writing in zip(numbers, (False, True), strict=True):
        _check_descriptor(number, for_writing, check_pipe)
    place = Place("client")
    check(lib.jobserver_client_open_descriptors(*numbers, place.out))
    return place.take(), numbers


def _descriptors(auth: str) -> tuple[int, int]:
    """The two numbers of "R,W"."""
    parts = auth.split(",")
    if len(parts) != 2 or not all(_is_number(part) for part in parts):
        raise _Refused(
            FromEnvErrorKind.CANNOT_PARSE,
            "that is neither two descriptors (R,W) nor fifo:PATH",
            "see what put it there",
        )
    first, second = map(int, parts)
    return first, second


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdecimal() and digits.isascii() and len(digits) <= 10 and int(digits) <= _LARGEST_DESCRIPTOR


def _open_semaphore(name: str) -> Any:
    """Joins the pool that is a semaphore of this name."""
    place = Place("client")
    code = lib.jobserver_client_open_semaphore(os.fsencode(name), place.out) if "\0" not in name else -EINVAL
    if code == lib.JOBSERVER_UNSUPPORTED or (code < 0 and ":" in name):
        raise _Refused(
            FromEnvErrorKind.UNSUPPORTED,
            "that is the name of a semaphore (Windows) or a style that this version does not know",
            "POSIX has R,W and fifo:PATH",
        )
    if code < 0:
        raise _Refused(
            FromEnvErrorKind.CANNOT_OPEN_PATH,
            f"the semaphore cannot be opened ({error_for(code)})",
            "its maker has ended, or is another user's or another session's",
        )
    return place.take()


def _check_descriptor(number: int, for_writing: bool, check_pipe: bool) -> None:
    """Raises _Refused unless the descriptor can be that end of a pool."""
    code = lib.jobserver_check_descriptor(number, for_writing)
    if code == lib.JOBSERVER_UNSUPPORTED:
        raise _Refused(FromEnvErrorKind.UNSUPPORTED, *_NOT_HERE)
    if code == -EBADF:
        raise _Refused(
            FromEnvErrorKind.CANNOT_OPEN_FD,
            f"descriptor {number} is closed in this process",
            "mark the recipe line with `+`, and let every program between make and this one keep it open (in Python: "
            "pass_fds)",
        )
    if code == lib.JOBSERVER_WRONG_DIRECTION:
        verb = "writing" if for_writing else "reading"
        raise _Refused(
            FromEnvErrorKind.CANNOT_OPEN_FD,
            f"descriptor {number} is not open for {verb}",
            "the order is R,W, or another file took the number",
        )
    if code == lib.JOBSERVER_NOT_A_PIPE:
        raise _Refused(
            FromEnvErrorKind.NOT_A_PIPE,
            f"descriptor {number} is neither a pipe nor a socket nor a device",
            "another file took the number; mark the recipe line with `+`",
        )
    check(code)
    if check_pipe and not stat.S_ISFIFO(os.fstat(number).st_mode):
        raise _Refused(
            FromEnvErrorKind.NOT_A_PIPE, f"descriptor {number} is not a pipe, as check_pipe=True demands", ""
        )


def _open_path(path: str) -> Any:
    """Joins the pool behind a fifo or a character device."""
    if not path:
        raise _Refused(FromEnvErrorKind.CANNOT_PARSE, "nothing stands behind `fifo:`", "see what put it there")
    place = Place("client")
    code = lib.jobserver_client_open_path(os.fsencode(path), place.out) if "\0" not in path else -EINVAL
    if code == lib.JOBSERVER_UNSUPPORTED:
        raise _Refused(FromEnvErrorKind.UNSUPPORTED, *_NOT_HERE)
    if code == lib.JOBSERVER_NOT_A_PIPE:
        raise _Refused(FromEnvErrorKind.NOT_A_PIPE, f"{path!r} is neither a fifo nor a character device", "")
    if code < 0:
        mend = _PATH_MENDS.get(-code, "see that this process may open it")
        raise _Refused(FromEnvErrorKind.CANNOT_OPEN_PATH, f"{path!r} cannot be opened ({os.strerror(-code)})", mend)
    return place.take()
