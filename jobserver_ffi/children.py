"""What a child process needs to be under a jobserver: its environment, and descriptors that are open when it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from .errors import ClientClosed
from .handles import hold
from .makeflags import merge, parse, remove_auth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .client import Client


class HeldDescriptors(tuple[int, ...]):
    """A `pass_fds` that keeps the pool's descriptors open: a number that was closed is soon another file's."""

    hold: Any

    def __new__(cls, descriptors: Iterable[int], hold: Any) -> HeldDescriptors:
        """The descriptors, and what keeps them open."""
        self = super().__new__(cls, descriptors)
        self.hold = hold
        return self


class ChildProcess(subprocess.Popen[Any]):
    """A child that keeps the pool (descriptors, fifo) until it has been waited for."""

    def __init__(self, args: Any, hold: Any, **popen_kwargs: Any) -> None:
        self._hold = hold
        self._returncode: int | None = None
        super().__init__(args, **popen_kwargs)

    def begin(self, watch: Callable[[int], object]) -> None:
        """Tells `watch` the number of a child that was started with `held_back`, and lets it begin."""
        try:
            watch(self.pid)
        finally:
            if sys.platform == "win32":
                from .windows import resume

                resume(self)

    # Popen sets this wherever it reaps a child, also in its clean-up of objects that were dropped.
    @property
    def returncode(self) -> int | None:
        """The child's exit status, None until it has been waited for; negative: the signal that ended it."""
        return self._returncode

    @returncode.setter
    def returncode(self, status: int | None) -> None:
        self._returncode = status
        if status is not None:
            self._hold = None


def held_back(popen_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a child that starts nothing before `ChildProcess.begin`.

    On Windows what a process starts is in its lease's job object only if it was there before.
    """
    if sys.platform == "win32":
        from .windows import suspended

        return suspended(popen_kwargs)
    return popen_kwargs


def hold_open(client: Client) -> Any:
    """Keeps the pool's descriptors and fifo while the result lives."""
    try:
        return hold(client._handle)
    except MemoryError:
        raise ClientClosed("this client was closed: make a new one") from None


def run(client: Client, args: Any, run_kwargs: dict[str, Any]) -> subprocess.CompletedProcess[Any]:
    """See `Client.run`."""
    held = hold_open(client)
    try:
        return subprocess.run(args, **client.configure(**run_kwargs))
    finally:
        del held


def configure(client: Client, variables: Iterable[str], popen_kwargs: dict[str, Any]) -> dict[str, Any]:
    """See `Client.configure`."""
    if popen_kwargs.get("close_fds") is False:
        raise ValueError("close_fds=False lets every descriptor through: name those that the child needs in pass_fds")
    given = popen_kwargs.get("env")
    environment = child_environment(os.environ if given is None else given, client, variables)
    others = popen_kwargs.get("pass_fds", ())
    # The others may be held by another client's configure, as long as that object lives.
    held = HeldDescriptors(dict.fromkeys((*others, *client._descriptors)), (hold_open(client), others))
    return {**popen_kwargs, "env": environment, "pass_fds": held}


def child_environment(given: Mapping[Any, Any], client: Client, variables: Iterable[str]) -> dict[str, str]:
    """A copy of an environment with the client's address in the variables, and in no other that tools look at."""
    environment = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
    if "MFLAGS" in environment:
        environment["MFLAGS"] = remove_auth(environment["MFLAGS"])
    for name in variables:
        value = environment.get(name, "")
        if client.limit is not None:
            environment[name] = merge(value, client.auth, client.limit)
        elif parse(value).auth != client.auth:
            environment[name] = merge(value, client.auth, None)
    return environment


def environment_of_lease(given: Mapping[Any, Any], auth: str, limit: int, variables: Iterable[str]) -> dict[str, str]:
    """A copy of an environment with a lease's address in the variables, and in no other that tools look at."""
    environment = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
    if "MFLAGS" in environment:
        environment["MFLAGS"] = remove_auth(environment["MFLAGS"])
    for name in variables:
        environment[name] = merge(environment.get(name, ""), auth, limit)
    return environment


def without_jobserver(given: Mapping[str, str]) -> dict[str, str]:
    """A copy of an environment in which no variable names a jobserver; other flags stay."""
    environment = dict(given)
    for name in ("MAKEFLAGS", "CARGO_MAKEFLAGS", "MFLAGS"):
        if name in environment:
            environment[name] = remove_auth(environment[name])
    return environment
