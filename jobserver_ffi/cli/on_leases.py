"""`jobserver run` on leases: one command on one, and what each did wrong with its tokens."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ..style import style_for
from .execute import cannot_run
from .messages import say, shown
from .progress import Progress, of_pool
from .run import new_supervisor
from .tools import variables_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..lease_report import LeaseReport
    from ..pool import Pool
    from ..timeline.recorder import Recorder

CHECK_FAILED = 70
NO_JOBSERVER = 125


def run_one(
    make_pool: Callable[[], Pool],
    command: list[str],
    style: str | None,
    environment: dict[str, str],
    check: bool,
    recorder: Recorder | None,
    progress: Progress,
) -> int:
    """Runs the command on a lease.

    Returns:
        Its exit status, or CHECK_FAILED.
    """
    if style in (None, "auto"):
        style = style_for(command, environment, say)
    supervisor = new_supervisor()
    try:
        pool = make_pool()
        lease = pool.lease(shown(command[0]), style=style, orphan_timeout=0)
        if recorder is not None:
            recorder.use_pool(pool)
            recorder.add_lease(lease.name, command, lease)
        child = lease.configure(env=environment, variables=variables_for(command))
    except OSError as error:
        place = error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
        mend = ": let TMPDIR name a directory that may be written" if place else ""
        say(f"cannot make a jobserver of style {style}: {error.strerror}{mend}")
        return NO_JOBSERVER

    def started(process: int) -> None:
        lease.watch(process)
        if recorder is not None:
            recorder.follow(process, 0)
        progress.begin(of_pool(pool))

    with pool:
        for descriptor in child["pass_fds"]:
            os.set_inheritable(descriptor, True)
        try:
            with progress:
                status = supervisor.run(command, child["env"], started, progress.hidden)
        except OSError as error:
            return cannot_run(command[0], error)
        report = lease.wait()
        if recorder is not None:
            recorder.end([report])
        return settle(report, status, check, pool.limit)


def settle(report: LeaseReport, status: int, check: bool, jobs: int | None) -> int:
    """Tells what CMD did wrong with its tokens.

    A CMD that failed may have been killed with tokens in its hands, which is of no interest unless it is asked for.
    """
    wrong = report.lost or report.over_released or report.foreign
    if not wrong or (status and not check):
        return status
    if report.lost:
        of = "" if jobs is None else f" of {jobs - 1}"
        say(
            f"`{report.name}` left tokens missing: {report.lost}{of}; a program ended without giving back "
            f"what it took (a killed one, say), or a process that was left in the background still has it"
        )
    if report.over_released:
        say(
            f"`{report.name}` gave back tokens too many: {report.over_released} more than it had taken; they were "
            f"thrown away"
        )
    if report.foreign:
        say(f"`{report.name}` gave back tokens with another byte than it took: they were put right")
    return CHECK_FAILED if check and status == 0 else status
