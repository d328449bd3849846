"""`jobserver run --timings` and `--progress` in a jobserver that CMD joins: it stays beside CMD and looks on."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..makeflags import parse
from .messages import say, shown
from .progress import Progress, of_client
from .supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..environment import FromEnv
    from ..timeline.recorder import Recorder

assert sys.platform != "win32"


def run_watched(
    command: list[str], environment: Mapping[str, str], found: FromEnv, recorder: Recorder | None, progress: Progress
) -> int:
    """Runs the command as a child, and records it or shows the jobserver meanwhile.

    Args:
        command: The command and its arguments.
        environment: What it gets.
        found: The jobserver, if it can be used.
        recorder: Records the run.
        progress: Shows the jobserver, if it can be used.

    Returns:
        The exit status.

    Raises:
        OSError: It cannot be started.
    """
    jobs = parse(found.value or "").jobs or None

    def started(process: int) -> None:
        if recorder is not None:
            recorder.follow(process, 0)
        if found.client is not None:
            progress.begin(of_client(found.client, jobs))

    with found.client or nullcontext():
        if recorder is not None:
            if found.client is not None:
                recorder.use_client(found.client, jobs)
                say("recording all that uses this jobserver, by looks at it: CMD has no slots of its own here")
            recorder.add_lease(shown(command[0]), command)
        with progress:
            status = Supervisor().run(command, environment, started, progress.hidden)
        if recorder is not None:
            recorder.end()
        return status
