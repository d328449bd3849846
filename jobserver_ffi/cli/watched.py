"""`jobserver run --timings` in a jobserver that CMD joins: it stays beside CMD and looks at the jobserver's pipe."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..makeflags import parse
from .messages import say, shown
from .supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..environment import FromEnv
    from ..timeline.recorder import Recorder

assert sys.platform != "win32"


def run_watched(command: list[str], environment: Mapping[str, str], found: FromEnv, recorder: Recorder) -> int:
    """Runs the command as a child, and records it.

    Args:
        command: The command and its arguments.
        environment: What it gets.
        found: The jobserver, if it can be used.
        recorder: Records the run.

    Returns:
        The exit status.

    Raises:
        OSError: It cannot be started.
    """
    with found.client or nullcontext():
        if found.client is not None:
            recorder.use_client(found.client, parse(found.value or "").jobs or None)
            say("recording all that uses this jobserver, by looks at it: CMD has no slots of its own here")
        recorder.add_lease(shown(command[0]), command)
        status = Supervisor().run(command, environment, lambda process: recorder.follow(process, 0))
        recorder.end()
        return status
