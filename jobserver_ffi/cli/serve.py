"""`jobserver serve`: one pool for all builds of a user on a machine."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..serve import DEFAULT_NAME
from .gates import add_gate_arguments, gates_of
from .messages import say, shown
from .pools import CANNOT, no_pools_here, pool_name, port, seconds, slots

if TYPE_CHECKING:
    from ..pool import Pool
    from ..serve.metrics import MetricsServer

_LONGEST_COMPLAINT = 500
_FIRST_PASSED = 3  # descriptor number with which systemd begins

_DESCRIPTION = """\
Serves one pool of N slots to all builds of this user that join it with
`jobserver run --pool NAME -- CMD`. Each has a lease of its own for as long as
it runs; when it is gone, however it ended, all that it had is back.

It ends on SIGTERM, SIGINT or SIGHUP; builds that run then go on with the slots
that they hold. `jobserver status` and `jobserver resize` talk to it. Started by
systemd (see docs/serve.md) it takes the socket that it is given.
"""

_STATUS = """\
exit status: 0 when it was ended; 1 if the pool cannot be served, because
another server has it, say; 2 for wrong arguments.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = "jobserver serve [OPTION ...]"
    parser.description = _DESCRIPTION
    parser.epilog = _STATUS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--name", metavar="NAME", type=pool_name, default=DEFAULT_NAME, help="the pool's name (default: %(default)s)"
    )
    parser.add_argument(
        "-j",
        "--jobs",
        metavar="N",
        type=slots,
        help="slots of the pool (default: the CPUs that may be used here)",
    )
    parser.add_argument(
        "--idle-exit",
        metavar="SECONDS",
        type=seconds,
        help="end after so many seconds without builds (default: never)",
    )
    parser.add_argument(
        "--metrics",
        metavar="PORT",
        type=port,
        help="serve metrics for Prometheus at http://127.0.0.1:PORT/metrics (0: at a free port)",
    )
    add_gate_arguments(parser)
    parser.set_defaults(function=lambda arguments: _serve(parser, arguments))


def _serve(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        return no_pools_here(parser)
    from ..cpus import usable_cpus
    from ..pool import Pool
    from ..serve.place import AlreadyServed, PlaceError, listen, runtime_directory, socket_path

    jobs = arguments.jobs or usable_cpus()
    gates = gates_of(parser, arguments)
    _raise_descriptor_limit()
    metrics = None
    if arguments.metrics is not None:
        from ..serve.metrics import MetricsServer

        try:
            metrics = MetricsServer(arguments.metrics)
        except OSError as error:
            mend = "give another PORT, or 0 for one that is free"
            say(f"cannot serve metrics at port {arguments.metrics} of 127.0.0.1: {error.strerror}: {mend}")
            return CANNOT
    try:
        listener, path = _passed_socket(), None
        if listener is None:
            path = socket_path(arguments.name)
            listener = listen(path)
        pool = Pool(jobs, gates=gates, directory=runtime_directory())
    except AlreadyServed:
        say(f"pool `{arguments.name}` is served already: `jobserver status --pool {arguments.name}` shows it")
        return CANNOT
    except (PlaceError, OSError) as error:
        say(f"cannot serve pool `{arguments.name}`: {error}")
        return CANNOT
    with pool:
        return _serve_pool(arguments, pool, listener, path, metrics)


def _serve_pool(
    arguments: argparse.Namespace,
    pool: Pool,
    listener: socket.socket,
    path: str | None,
    metrics: MetricsServer | None,
) -> int:
    from ..serve.server import PoolServer

    wake, woken = socket.socketpair()
    woken.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    server = PoolServer(arguments.name, pool, listener, path, arguments.idle_exit, _say_one_line, wake)
    os.chdir("/")  # no file system is kept from being unmounted
    place = listener.getsockname()
    with suppress(OSError):
        print(f"jobserver: serving pool `{arguments.name}` with {pool.limit} slots at {place}", flush=True)
        if metrics is not None:
            print(f"jobserver: metrics at {metrics.url}", flush=True)
    if metrics is not None:
        metrics.start(place)
    server.serve()
    builds = server.leases
    server.close()
    if builds:
        say(f"pool `{arguments.name}` ends; builds that go on with the slots that they hold: {builds}")
        # Closing the pool would remove the fifos of these builds, and a ninja without one runs without a limit. Who has
        # the last copy of their lock leaves them to be swept away.
        os._exit(0)
    return 0


def _say_one_line(text: str) -> None:
    """Clients choose their names."""
    say(shown(text, _LONGEST_COMPLAINT))


def _raise_descriptor_limit() -> None:
    """A client takes up to four descriptors, and usual limits are low for the sake of select()."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _passed_socket() -> socket.socket | None:
    """The listening socket that systemd passed to this process, or None.

    Raises:
        PlaceError: What it passed is something else.
    """
    from ..serve.place import PlaceError

    process, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    if process != str(os.getpid()) or not count:
        return None
    if count != "1":
        raise PlaceError(f"LISTEN_FDS={count}: a pool has one socket, so one is wanted")
    try:
        if not stat.S_ISSOCK(os.fstat(_FIRST_PASSED).st_mode):
            raise PlaceError(f"LISTEN_FDS=1, but descriptor {_FIRST_PASSED} is no socket")
    except OSError as error:
        raise PlaceError(f"LISTEN_FDS=1, but descriptor {_FIRST_PASSED} cannot be used: {error.strerror}") from None
    passed = socket.socket(fileno=_FIRST_PASSED)
    passed.set_inheritable(False)
    listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not listens:
        raise PlaceError(f"LISTEN_FDS=1, but descriptor {_FIRST_PASSED} is no local stream socket that listens")
    return passed
