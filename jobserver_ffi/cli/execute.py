"""Becoming a command: replacing a process by it, as `env` does."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from .messages import say, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

CANNOT_RUN = 126
NOT_FOUND = 127

_SHELL = "/bin/sh"


def caller_environment() -> dict[str, str]:
    """The environment as the caller gave it, where the system can tell.

    In the C locale Python sets LC_CTYPE when it starts (PEP 538); the command would speak another language for it.
    """
    environment = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return environment
    given = [entry for entry in entries if entry.startswith(b"LC_CTYPE=")]
    if given:
        environment["LC_CTYPE"] = os.fsdecode(given[0].partition(b"=")[2])
    elif any(entries):
        environment.pop("LC_CTYPE", None)
    return environment


def restore_signals() -> None:
    """Makes default what Python ignores in its own process; an exec would hand that on."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def execute(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Replaces this process by a command, found as execvp finds it; a file without `#!` is a shell script.

    Raises:
        OSError: Why it cannot be started.
    """
    name = command[0]
    refused = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not name:
        raise refused
    if "/" in name:
        _execute_file(name, command, environment)
    for directory in os.get_exec_path(environment):
        try:
            _execute_file(os.path.join(directory, name), command, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refused = error
    raise refused


def _execute_file(path: str, command: list[str], environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execve(path, command, environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    os.execve(_SHELL, [_SHELL, path, *command[1:]], environment)


def cannot_run(name: str, error: OSError) -> int:
    """Tells why a command could not be started.

    Returns:
        The exit status that says so, as `env` and shells have it.
    """
    reason = error.strerror or str(error)
    if error.errno == errno.ENOENT and not os.path.dirname(name):
        reason = "there is no such program in PATH"
    elif error.errno == errno.ENOENT and os.path.exists(name):
        reason = "the interpreter that its first line or its header names does not exist"
    say(f"cannot run `{shown(name)}`: {reason}")
    return NOT_FOUND if error.errno == errno.ENOENT else CANNOT_RUN
