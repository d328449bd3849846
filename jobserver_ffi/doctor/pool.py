"""What can be wrong with a pool that can be opened: its maker is dead, its tokens are lost, it is not the one meant."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from ..environment import address_in
from ..errors import Unsupported
from ..processes import Process, can_see, everyone, first, may_have_made, who_has
from ..style import is_make
from .finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client import Client
    from ..processes import File
    from .causes import Scene

_WATCHED = 0.5  # seconds that an empty pool is watched for a token
_PAUSE = 0.02
_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "zsh", "busybox")
_START_ANEW = "start the build anew (whoever waits for a token of this one waits for ever)"


def findings_of_pool(client: Client, scene: Scene, slots: int | None) -> Iterator[Finding]:
    """What is wrong with the pool of a client; `slots` is N of the -jN beside its address."""
    if os.name == "nt":
        return
    auth = client.auth
    is_path = auth.startswith("fifo:")
    status = os.stat(auth.removeprefix("fifo:")) if is_path else os.fstat(client._descriptors[0])
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        yield Finding(
            "another-file",
            True,
            f"the address of the jobserver ({auth}) leads to {os.devnull}",
            "the descriptors were closed on the way to this process, and the numbers were taken for that file",
            "put a `+` in front of the recipe line, and hand the descriptors on (in Python: `pass_fds`)",
        )
    if not stat.S_ISFIFO(status.st_mode):
        return
    file = status.st_dev, status.st_ino
    if not is_path:
        other = _not_the_one_meant(client._descriptors, file, scene)
        if other is not None:
            yield other
            return
        yield from _of_another_user(client._descriptors[0], status.st_uid)
    open_in, unseen = who_has([file])
    holders = open_in[file]
    empty = _stays_empty(client)
    if not any(may_have_made(process, auth) for process in holders) and not _out_of_sight(unseen, status.st_uid, auth):
        yield Finding(
            "maker-dead",
            empty,
            f"nobody who could have made this jobserver ({auth}) has it open"
            + (", and it has no token" if empty else ""),
            "the program that made it has ended; perhaps it was killed",
            _START_ANEW if empty else "start the build anew",
        )
    elif empty:
        yield _starved(holders, slots)


def _not_the_one_meant(descriptors: tuple[int, ...], file: File, scene: Scene) -> Finding | None:
    """Numbers that were closed on the way may be another pipe's here, which nothing in the environment tells."""
    for process in scene.above:
        other = process.pool_at(*descriptors)
        if other == file:
            break
        if other is not None and is_make(process.program):
            return Finding(
                "another-file",
                True,
                f"descriptors {descriptors[0]} and {descriptors[1]} are a pipe, but not the jobserver",
                f"{process} has its jobserver there; on the way to this process they were closed, and the numbers were "
                f"taken for another pipe",
                "put a `+` in front of the recipe line, and hand the descriptors on (in Python: `pass_fds`)",
            )
    return None


def _of_another_user(descriptor: int, owner: int) -> Iterator[Finding]:
    try:
        os.close(os.open(f"/dev/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        yield Finding(
            "another-user",
            False,
            f"the pipe of this jobserver is that of user {owner}, and this process runs as user {os.geteuid()}",
            "sudo, su or a set-user-ID program stands between: the pipe can be used as it was inherited, but cannot be "
            "opened anew, which some programs must do to wait with a time limit",
            "run this as the user who started the build",
        )
    except OSError:
        pass


def _out_of_sight(unseen: list[Process], owner: int, auth: str) -> bool:
    """Whether the maker may be a process that cannot be looked at: it is one of the pool's owner.

    A first process that was started with the address is that of a container; who handed it in is outside.
    """
    if not can_see() or any(process.owner() == owner for process in unseen):
        return True
    return address_in(first().environment() or {}) == auth


def _stays_empty(client: Client) -> bool:
    """Whether no token is free for as long as an empty pool is watched; it is only looked at."""
    end = time.monotonic() + _WATCHED
    try:
        while client.available() == 0:
            if time.monotonic() > end:
                return True
            time.sleep(_PAUSE)
    except Unsupported:
        pass
    return False


def _starved(holders: list[Process], slots: int | None) -> Finding:
    """Of a pool with no token free, which these others have open: in use, or lost?"""
    what = f"no token became free within {_WATCHED:g} s"
    makes = [process for process in holders if is_make(process.program)]
    users = [process for process in holders if process not in makes and process.program not in _SHELLS]
    parents = [os.getppid(), *(process.parent for process in everyone())]
    # A make's first job runs on the slot that the make itself has.
    used = sum(max(parents.count(make.pid) - 1, 0) for make in makes)
    if makes and not users and slots and used < slots - 1:
        return Finding(
            "tokens-lost",
            True,
            f"{what}, and {slots - 1 - used} of the {slots - 1} are in nobody's hands",
            f"a program took them and ended without giving them back; perhaps it was killed (make will say `INTERNAL: "
            f"Exiting with … jobserver tokens available; should be {slots}!`)",
            "run the suspect as `jobserver run --check -- COMMAND`, which names who loses tokens; start the build anew",
        )
    held = ", ".join(map(str, users[:5])) + (" …" if len(users) > 5 else "")
    return Finding(
        "starved",
        False,
        f"{what}: all are in use",
        (f"these have the jobserver open and may hold some: {held}" if users else "other jobs of the build hold them")
        + (f"; -j{slots} allows {slots} jobs together" if slots else ""),
        "wait, or start the build with a larger -j; this process may run one job meanwhile, which needs no token",
    )
