"""Runs one command until what it leaves behind has ended too: `python -m jobserver_ffi.cli.adopt MASK SECONDS CMD …`.

It stands between `jobserver run` and each of several commands. A killed make's compilers become its children, so that
it can wait for them; as long as it lives, the slots of its lease are in use.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from .._core import lib
from .execute import caller_environment, cannot_run
from .supervise import Supervisor

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0  # seconds


def main() -> int:
    """Runs the command, with the signals in MASK blocked and no others.

    Returns:
        The command's exit status.
    """
    mask, seconds, *command = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_SETMASK, {int(number) for number in mask.split(",") if number})
    lib.jobserver_adopt_orphans()  # where the system knows no such thing, the life line has to do
    try:
        status = Supervisor().run(command, caller_environment())
    except OSError as error:
        return cannot_run(command[0], error)
    wait_for_orphans(float(seconds))
    return status


def wait_for_orphans(seconds: float) -> None:
    """Waits until no child is left, or for so long, or until a signal says that it is enough.

    A process that made a session of its own is a daemon, which is meant to stay. Nothing tells when it does that, so it
    is looked at again after pauses that grow.
    """
    end = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    awaited = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    while left_behind() and time.monotonic() < end:
        found = signal.sigtimedwait(awaited, max(min(end - time.monotonic(), pause), 0))
        pause = min(2 * pause, _LONGEST_PAUSE)
        if found is not None and found.si_signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            return


def left_behind() -> bool:
    """Whether there is a child of this session, after reaping those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return False
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return not children.exists() or any(is_of_session(int(child)) for child in children.read_text().split())


def is_of_session(process: int) -> bool:
    """Whether a process is in the session of this one."""
    try:
        return os.getsid(process) == os.getsid(0)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
