"""What the subcommands for served pools share: their arguments, and reaching a pool's server."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import TYPE_CHECKING

from ..serve import check_name
from .messages import shown

if TYPE_CHECKING:
    from typing import NoReturn

CANNOT = 1

IDLE_EXIT = 60.0  # seconds for which a server that a build started waits for the next one


def pool_name(text: str) -> str:
    """An argument that names a pool."""
    try:
        check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no name for a pool: {error}") from None
    return text


def pool_address(text: str) -> str:
    """An argument that names a pool, or the socket of one by a path with a slash."""
    return text if "/" in text else pool_name(text)


def slots(text: str) -> int:
    """An argument that is a number of slots."""
    digits = text.lstrip("0")
    if not digits or not (text.isascii() and text.isdecimal()) or len(digits) > 9:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no number of slots: give a whole number from 1 on")
    return int(digits)


def seconds(text: str) -> float:
    """An argument that is a time."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no time: give seconds, more than 0")
    return found


def port(text: str) -> int:
    """An argument that is a TCP port."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no port: give a number from 0 to 65535")
    return int(text)


def no_pools_here(parser: argparse.ArgumentParser) -> NoReturn:
    """Windows has no served pools."""
    parser.error(
        "pools are served through sockets that hand on descriptors, which Windows does not have: use `jobserver run`"
    )


def start_server(name: str, jobs: int) -> str | None:
    """Starts a server of the pool, detached from this process and its terminal, and waits until one serves.

    It may be another one, which somebody started at the same time.

    Returns:
        Why it could not start, or None.
    """
    command = [sys.executable, "-m", "jobserver_ffi.cli", "serve", "--name", name]
    command += ["-j", str(jobs), "--idle-exit", str(IDLE_EXIT)]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    assert server.stdout is not None and server.stderr is not None
    with server.stdout, server.stderr:
        if server.stdout.readline():
            server.returncode = 0  # it is not waited for: it lives on when this process ends
            return None
        said = server.stderr.read().decode(errors="backslashreplace").strip()
    status = server.wait()
    return said.removeprefix("jobserver: ") or f"its server ended with status {status}"
