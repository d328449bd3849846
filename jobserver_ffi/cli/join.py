"""`jobserver run --pool`: a command on a lease of a pool that a server has for all builds of this user."""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from typing import TYPE_CHECKING

from .._core import lib
from ..children import environment_of_lease, without_jobserver
from ..client import VARIABLES
from ..cpus import usable_cpus
from ..pool import ORPHAN_TIMEOUT
from ..serve.client import JoinedLease, NoServer, PoolConnection, RequestRefused, ServerGone
from ..serve.place import PlaceError, is_path
from ..style import style_for
from .adopt import wait_for_orphans
from .execute import caller_environment, cannot_run
from .messages import say, shown
from .on_leases import NO_JOBSERVER, settle
from .pools import start_server
from .progress import Progress, of_served_pool
from .run import warn_of_own_jobs
from .supervise import Supervisor

if TYPE_CHECKING:
    from ..lease_report import LeaseReport
    from ..timeline.recorder import Recorder

assert sys.platform != "win32"

_TRIES = 5
_MOST_WORDS = 100  # of a command, that its server shows
_LONGEST_ANSWER = 60.0  # seconds for which a server that does not answer is waited for, once the command has ended


class _Watch:
    """Hears of the end of the server while the command runs, and of what came of the lease when it has ended.

    Args:
        connection: Where the server says so.
        lease: What the server gave.
        pool, name: The pool and the command, for messages.
    """

    def __init__(self, connection: PoolConnection, lease: JoinedLease, pool: str, name: str) -> None:
        self._connection, self._lease, self._pool, self._name = connection, lease, pool, name
        self._report: queue.SimpleQueue[LeaseReport | None] = queue.SimpleQueue()
        self._ending = False

    def start(self) -> None:
        """Begins to listen, in a thread. Only after the fork: a child of a process with threads may block."""
        for descriptor in self._lease.for_command:
            if descriptor not in self._lease.kept:
                os.close(descriptor)
        threading.Thread(target=self._listen, name="jobserver pool server", daemon=True).start()

    def end(self) -> LeaseReport | None:
        """Ends the lease. Returns what came of it, or None if the server is gone."""
        self._ending = True
        self._connection.end()
        try:
            return self._report.get(timeout=_LONGEST_ANSWER)
        except queue.Empty:
            say(f"the server of pool `{self._pool}` does not answer: not known what `{self._name}` did with its tokens")
            return None

    def _listen(self) -> None:
        try:
            self._report.put(self._connection.wait_for_end())
            return
        except (ServerGone, RequestRefused):
            pass
        if not self._ending:
            say(f"the server of pool `{self._pool}` is gone: `{self._name}` goes on with the slots that it holds")
        self._report.put(None)
        if self._lease.take >= 0:
            self._serve_alone()

    def _serve_alone(self) -> None:
        """In the server's place: what the command gives back into one pipe it can take from the other again."""
        while True:
            select.select([self._lease.give], [], [])
            os.write(self._lease.take, os.read(self._lease.give, select.PIPE_BUF))


def run_in_pool(
    command: list[str],
    pool: str,
    jobs: int | None,
    style: str | None,
    check: bool,
    recorder: Recorder | None,
    progress: Progress,
) -> int:
    """Joins a pool, which is started if nobody serves it, and runs the command there.

    Args:
        command: The command and its arguments.
        pool: The pool's name, or the path of its socket.
        jobs: Slots of a pool that must be started.
        style: The style of the lease; None or "auto": what the command reads.
        check: Whether tokens that are missing are an error.
        recorder: Records the run.
        progress: Shows the pool while the command runs.

    Returns:
        The exit status.
    """
    environment = without_jobserver(caller_environment())
    chosen = style_for(command, environment, say) if style in (None, "auto") else style
    warn_of_own_jobs(command)
    name = shown(command[0])
    try:
        connection, lease = _join(pool, jobs or usable_cpus(), name, command, chosen)
    except (PlaceError, RequestRefused, NoServer, ServerGone) as error:
        say(f"cannot join pool `{pool}`: {error}")
        return NO_JOBSERVER
    except OSError as error:
        if error.filename is None:
            say(f"cannot join pool `{pool}`: {error.strerror}")
            return NO_JOBSERVER
        say(
            f"cannot open {error.filename}, the fifo of a lease of pool `{pool}`, from here: {error.strerror}; in a "
            f"container mount its directory at the same path, or use --style pipe"
        )
        return NO_JOBSERVER
    watch = _Watch(connection, lease, pool, name)

    def started(process: int) -> None:
        watch.start()
        if recorder is not None:
            recorder.follow(process, 0)
        progress.begin(of_served_pool(pool))

    if recorder is not None:
        recorder.use_server(pool)
        recorder.add_lease(name, command)
    supervisor = Supervisor()
    lib.jobserver_adopt_orphans()
    for descriptor in lease.for_command:
        os.set_inheritable(descriptor, True)

    try:
        environment = environment_of_lease(environment, lease.auth, lease.limit, VARIABLES)
        with progress:
            status = supervisor.run(command, environment, started, progress.hidden)
    except OSError as error:
        return cannot_run(command[0], error)
    wait_for_orphans(ORPHAN_TIMEOUT)
    report = watch.end()
    if recorder is not None:
        recorder.end([report])
    return status if report is None else settle(report, status, check, lease.limit)


def _join(pool: str, jobs: int, name: str, command: list[str], style: str) -> tuple[PoolConnection, JoinedLease]:
    """Connects and waits for the first slot. A server that ends while one connects is replaced."""
    failure: Exception = NoServer("")
    shortened = [shown(word) for word in command[:_MOST_WORDS]]
    for _ in range(_TRIES):
        try:
            connection = PoolConnection(pool)
            try:
                return connection, connection.join(name, shortened, style, lambda before: _tell_place(pool, before))
            except BaseException:
                connection.close()
                raise
        except ServerGone as error:
            failure = error
        except NoServer as error:
            failure = error
            if is_path(pool):
                break
            reason = start_server(pool, jobs)
            if reason is not None:
                failure = NoServer(f"{error}, and a server cannot be started: {reason}")
    raise failure


def _tell_place(pool: str, before: int) -> None:
    others = "nobody" if before == 0 else f"{before} other{'s' * (before != 1)}"
    say(f"waiting for a slot of pool `{pool}`, with {others} before this command")
