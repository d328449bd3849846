"""Served pools for tests: a runtime directory of their own, and the servers in it, which end with the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from .command import JOBSERVER, Done, Lines, Running
from .conftest import missing
from .overlap import GUARD

if TYPE_CHECKING:
    from jobserver_ffi.serve.client import PoolConnection


class Place:
    """A runtime directory. pytest's own are too long for the path of a socket.

    Attributes:
        environment: Of a user whose runtime directory this is.
        socket: Where the pool `default` has its socket.
    """

    def __init__(self, directory: str) -> None:
        self.runtime = Path(directory)
        self.directory = self.runtime / "jobserver"
        self.socket = self.directory / "default.socket"
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": directory}
        self._servers: dict[int, psutil.Process] = {}

    def call(self, *words: str, **popen_kwargs: Any) -> Done:
        """Runs the command until it ends."""
        with self.begin(*words, **popen_kwargs) as running:
            return running.finish()

    def begin(self, *words: str, **popen_kwargs: Any) -> Running:
        """Starts the command."""
        return Running([*JOBSERVER, *words], **{"env": self.environment, **popen_kwargs})

    @contextmanager
    def serve(self, *words: str, **popen_kwargs: Any) -> Iterator[Running]:
        """A server in the foreground, which serves when this begins."""
        with self.begin("serve", *words, **popen_kwargs) as running:
            assert running.process.stdout is not None
            said = running.process.stdout.readline()
            assert "serving pool" in said, running.finish().stderr
            yield running

    def connect(self, pool: str = "default") -> PoolConnection:
        """A connection of this process to the server."""
        from jobserver_ffi.serve.client import PoolConnection

        return PoolConnection(str(self.directory / f"{pool}.socket"))

    def status(self, pool: str = "default") -> dict[str, Any]:
        """What the server says of its pool."""
        with self.connect(pool) as connection:
            found = connection.status()
        self._servers[found["process"]] = psutil.Process(found["process"])
        return found

    def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first status of which something holds."""
        end = time.monotonic() + GUARD
        while not holds(found := self.status()):
            assert time.monotonic() < end, f"never came; now it is {found}"
            time.sleep(0.01)
        return found

    def end(self) -> None:
        """Ends what serves in here."""
        from jobserver_ffi.serve.client import NoServer, RequestRefused, ServerGone
        from jobserver_ffi.serve.place import PlaceError

        for path in self.directory.glob("*.socket"):
            with suppress(NoServer, ServerGone, PlaceError, RequestRefused):
                self.status(path.stem)
        for server in self._servers.values():
            with suppress(psutil.NoSuchProcess):
                server.kill()


@contextmanager
def new_place() -> Iterator[Place]:
    """A runtime directory that ends with all that serves in it."""
    with tempfile.TemporaryDirectory(prefix="served-", dir="/tmp") as directory:
        place = Place(directory)
        try:
            yield place
        finally:
            place.end()


OTHER_USER = 54321


# The user may have no right to read the program, so all of it is loaded before.
AS_OTHER_USER = f"""\
import importlib.metadata, os, pwd, resource, subprocess, sys
import jobserver_ffi.serve.server, jobserver_ffi.serve.client
import jobserver_ffi.cli.serve, jobserver_ffi.cli.status, jobserver_ffi.cli.join
import jobserver_ffi.status.running, jobserver_ffi.status.surrounding, jobserver_ffi.status.text
from jobserver_ffi.cli import main
os.setgroups([])
os.setgid({OTHER_USER})
os.setuid({OTHER_USER})
sys.exit(main())
"""


def as_other_user(*words: str) -> list[str]:
    if os.geteuid() != 0:
        missing("the right to be another user (root)")
    return [sys.executable, "-I", "-c", AS_OTHER_USER, *words]


class Held:
    """A build that is there, told by a line of its output, and ends when it is let go.

    Args:
        place: Where its pool is served.
        words: Arguments of `jobserver run`.
    """

    def __init__(self, place: Place, *words: str) -> None:
        program = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
        command = [sys.executable, "-I", "-S", "-c", program]
        self._place, self.words = place, ["run", "--pool", "default", *words, "--", *command]

    def __enter__(self) -> Held:
        self.running = self._place.begin(*self.words, stdin=subprocess.PIPE)
        assert self.running.process.stdout is not None
        self.command = int(Lines(self.running.process.stdout.fileno()).next())
        return self

    def let_go(self) -> Done:
        """Lets it end, and waits for that."""
        return self.running.finish("")

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.command, signal.SIGKILL)
        self.running.__exit__()
