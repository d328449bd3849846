"""Makes top.svg: what `jobserver top` shows of a pool with real makes and a ninja on it, whose jobs only sleep.

`python docs/images/top.py`, with the extra `cli`, make and ninja; it takes two minutes.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from jobserver_ffi.serve.client import PoolConnection
from jobserver_ffi.top.view import UNICODE, History, draw

SIZE = os.terminal_size((80, 20))
SLOTS = 8
JOBSERVER = [sys.executable, "-m", "jobserver_ffi.cli"]

MAKEFILE = """\
first = $(foreach number,$(shell seq 60),first$(number))
second = $(foreach number,$(shell seq 200),second$(number))
all: $(second)
$(first):
	@sleep 2.3
link: $(first)
	@sleep 9
$(second): link
	@sleep 2.9
"""

NINJA = "rule job\n command = sleep 3.1\n" + "".join(f"build job{number}: job\n" for number in range(200))


class Run:
    """A pool in a directory of its own, with what was seen of it."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": directory}
        self.history = History()
        self.started: list[subprocess.Popen[bytes]] = []
        for name in ("library", "vendored"):
            (self.directory / name).mkdir()
            (self.directory / name / "Makefile").write_text(MAKEFILE)
        (self.directory / "application").mkdir()
        (self.directory / "application" / "build.ninja").write_text(NINJA)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts the `jobserver` command."""
        process = subprocess.Popen(
            [*JOBSERVER, *words],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def build(self, *command: str) -> subprocess.Popen[bytes]:
        """Starts a build in the pool."""
        return self.start("run", "--pool", "default", "--", *command)

    def connect(self) -> PoolConnection:
        """A connection to the server, as soon as it is there."""
        path = self.directory / "jobserver" / "default.socket"
        while not path.exists():
            time.sleep(0.1)
        return PoolConnection(str(path))

    def watch(self, connection: PoolConnection, seconds: float, enough: Callable[[dict[str, Any]], object]) -> Any:
        """Looks at the pool for so long, or until a status is enough; returns the last one."""
        end = time.monotonic() + seconds
        while True:
            status = connection.status()
            self.history.add(time.monotonic(), status["in_use"])
            if enough(status) or time.monotonic() >= end:
                return status
            time.sleep(0.1)

    def end(self) -> None:
        """Ends all that was started."""
        for process in reversed(self.started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def picture(status: dict[str, Any], history: History) -> str:
    """The screen as SVG, without the font that rich would fetch from the network."""
    console = Console(
        record=True, width=SIZE.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text("\n").join(draw(status, history, SIZE, UNICODE)))
    svg = console.export_svg(title="jobserver top", theme=MONOKAI, unique_id="top")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")


def main() -> None:
    """Writes the picture beside this file."""
    with tempfile.TemporaryDirectory(prefix="top-", dir="/tmp") as directory:
        run = Run(directory)
        try:
            run.start("serve", "-j", str(SLOTS))
            with run.connect() as connection:
                run.build("make", "-C", "library")
                run.watch(connection, 35, lambda _: False)
                killed = run.build("make", "-C", "vendored", "CFLAGS=-O2")
                run.watch(connection, 20, lambda _: False)
                run.build("ninja", "-C", "application")
                run.watch(connection, 15, lambda _: False)
                os.killpg(killed.pid, signal.SIGKILL)
                run.watch(connection, 30, lambda _: False)
                run.build("make", "-C", "vendored", "CFLAGS=-O3")
                run.watch(connection, 20, lambda _: False)
                run.build("cargo", "test", "--workspace")
                status = run.watch(connection, 30, lambda status: status["queued"])
        finally:
            run.end()
    Path(__file__).with_suffix(".svg").write_text(picture(status, run.history))


if __name__ == "__main__":
    main()
