"""Where the sockets of a user's pools lie, and who may make them."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

# What `struct sockaddr_un` holds, without the zero at the end.
LONGEST_PATH = 107 if sys.platform == "linux" else 103


class PlaceError(Exception):
    """A socket cannot be there; the message says why, and what mends it."""


class AlreadyServed(PlaceError):
    """Another server has the pool."""


def runtime_directory() -> str:
    """The directory of this user's sockets and fifos, made if it is not there: nobody else may enter it.

    `jobserver` in XDG_RUNTIME_DIR, or where there is none `jobserver-UID` in TMPDIR or /tmp.

    Raises:
        PlaceError: It belongs to somebody else, others may enter it, or it cannot be made.
    """
    path, mend = _where()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise PlaceError(f"cannot make {path} for the sockets of pools: {error.strerror}{mend}") from None
    _check(path, mend)
    return path


def pools() -> list[str]:
    """The names of the pools that have a socket in this user's directory; some may have been left by dead servers.

    Raises:
        PlaceError: The directory is one that nothing is served in.
    """
    path, mend = _where()
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PlaceError(f"cannot look into {path}: {error.strerror}{mend}") from None
    _check(path, mend)
    return sorted(name.removesuffix(".socket") for name in names if name.endswith(".socket"))


def _where() -> tuple[str, str]:
    """The path of the directory, and how to have another one."""
    user = os.geteuid()
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(given) and os.path.isdir(given):
        path, mend = os.path.join(given, "jobserver"), "; let XDG_RUNTIME_DIR name a directory of yours, or unset it"
        owner = os.stat(given).st_uid
        if owner != user and not os.path.lexists(path):
            raise PlaceError(f"XDG_RUNTIME_DIR={given} belongs to user {user_name(owner)}, not to you{mend}")
    else:
        temporary = os.environ.get("TMPDIR", "")
        parent = temporary if os.path.isabs(temporary) else "/tmp"
        path, mend = os.path.join(parent, f"jobserver-{user}"), "; let TMPDIR name another directory"
    return path, mend


def _check(path: str, mend: str) -> None:
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise PlaceError(f"{path} is no directory, so no pool can have its socket in it{mend}")
    if found.st_uid != os.geteuid():
        raise PlaceError(
            f"{path} belongs to user {user_name(found.st_uid)}: another user's pools are not for you{mend}"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise PlaceError(f"other users may enter {path} (mode {mode:04o}): `chmod 700 {path}` keeps them out")


def user_name(number: int) -> str:
    """A user's name, or the number of one who has none."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def is_path(pool: str) -> bool:
    """Whether a pool is named by the path of its socket."""
    return "/" in pool


def socket_path(pool: str) -> str:
    """The path of a pool's socket.

    Args:
        pool: Its name; or the path itself, which is recognized by a slash.

    Raises:
        PlaceError: There can be no such socket.
        ValueError: It is no name for a pool.
    """
    if is_path(pool):
        path = os.path.abspath(pool)
        mend = "name a shorter one"
    else:
        check_name(pool)
        path = os.path.join(runtime_directory(), f"{pool}.socket")
        mend = "let XDG_RUNTIME_DIR (without one: TMPDIR) name a directory with a shorter path"
    length = len(os.fsencode(path))
    if length > LONGEST_PATH:
        raise PlaceError(f"the socket's path {path} has {length} bytes, and {LONGEST_PATH} is the most: {mend}")
    return path


@contextmanager
def starting(path: str) -> Iterator[None]:
    """While it lasts nobody else makes or removes the socket; waits for whoever does."""
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def ending(path: str) -> Iterator[bool]:
    """As `starting`, but without waiting: False if somebody else has the turn, who may want to connect."""
    descriptor = _open_lock(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _open_lock(path: str) -> int:
    lock = path.removesuffix(".socket") + ".lock"
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise PlaceError(f"cannot open {lock}: {error.strerror}") from None


def listen(path: str) -> socket.socket:
    """Makes the socket of a pool. One that a dead server left there is replaced.

    The lock makes sure that of two who try at once one finds the other's socket, and that nobody removes a living one.

    Raises:
        AlreadyServed: Somebody listens there.
        PlaceError: It cannot be made.
    """
    with starting(path):
        if _answers(path):
            raise AlreadyServed("it is served already")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if os.path.lexists(path):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(socket.SOMAXCONN)
        except OSError as error:
            listener.close()
            raise PlaceError(f"cannot listen at {path}: {error.strerror or error}") from None
        return listener


def identity(path: str) -> tuple[int, int] | None:
    """What tells a socket from another one of the same name; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _answers(path: str) -> bool:
    """Whether a server is behind the socket; also one that is too busy to say so, or that is stopped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return False
            if error.errno in (errno.EAGAIN, errno.EINPROGRESS):
                return True
            raise PlaceError(f"cannot tell whether somebody listens at {path}: {error.strerror}") from None
        return True
