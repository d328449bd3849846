"""Making a pool: in which style, and where a fifo lies."""

from __future__ import annotations

import os
from errno import EAGAIN

from ._core import ffi, lib
from .errors import check
from .handles import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# What this system has, the usual one first.
STYLES = ("semaphore",) if os.name == "nt" else ("pipe", "fifo")


def create(limit: int, style: str | None, path: str | os.PathLike[str] | None) -> tuple[Any, str, tuple[int, ...]]:
    """Makes a pool. Returns the core's client, its address, and the descriptors that children inherit."""
    style = STYLES[0] if style is None else style
    if style not in STYLES:
        raise ValueError(f"style={style!r}: {' or '.join(map(repr, STYLES))} is wanted on this system")
    if path is not None and style != "fifo":
        raise ValueError(f"path={path!r} goes with style='fifo' only")
    place = Place("client")
    if style == "fifo":
        code = _create_fifo(limit, path, place.out)
    elif style == "pipe":
        code = lib.jobserver_client_create_pipe(limit, place.out)
    else:
        code = lib.jobserver_client_create_semaphore(limit, place.out)
    if code == lib.JOBSERVER_LIMIT:
        raise ValueError(
            f"limit={limit}: a pipe here cannot hold so many tokens (see /proc/sys/fs/pipe-max-size): ask for fewer"
        )
    check(code)
    handle = place.take()
    return handle, *address(handle, style)


def _create_fifo(limit: int, path: str | os.PathLike[str] | None, out: Any) -> int:
    if path is not None:
        code = lib.jobserver_client_create_fifo(os.fsencode(path), limit, out)
        if code < 0 and code != lib.JOBSERVER_LIMIT:
            raise OSError(-code, os.strerror(-code), os.fspath(path))
        return code
    code = -EAGAIN
    for directory in fifo_directories():
        code = lib.jobserver_client_create_private_fifo(os.fsencode(directory), limit, out)
        if code in (0, lib.JOBSERVER_LIMIT):
            break
    return code


def fifo_directories(preferred: str | None = None) -> list[str]:
    """Where private directories for fifos may be made, best first: `preferred` if it can be.

    None has a character that make escapes in MAKEFLAGS (a blank, `$`, a backslash), since ninja, cargo and even the
    sub-makes of make 4.4.1 do not all undo that.
    """
    wanted = (preferred, os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp")
    return [
        name for name in wanted if name and os.path.isabs(name) and not any(c.isspace() or c in "$\\" for c in name)
    ]


def address(handle: Any, style: str) -> tuple[str, tuple[int, ...]]:
    """The address that children get, and the descriptors that they must inherit for it."""
    path = ffi.new("char[]", 4096)
    check(lib.jobserver_client_path(handle, path, 4096))
    name = os.fsdecode(ffi.string(path))
    if name:
        return f"fifo:{name}" if style == "fifo" else name, ()
    descriptors = ffi.new("int[2]")
    check(lib.jobserver_client_descriptors(handle, descriptors))
    return f"{descriptors[0]},{descriptors[1]}", (descriptors[0], descriptors[1])
