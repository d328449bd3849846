"""The server of one pool: a lease for each client, which lives as long as its connection."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from contextlib import suppress
from dataclasses import asdict
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._core import ffi, lib
from ..errors import JobserverError, check
from .lease import ServedLease
from .lines import LONGEST_LINE, BadLine, Lines
from .place import PlaceError, ending, identity, starting, user_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..lease_report import LeaseReport
    from ..pool import Pool

STYLES = ("pipe", "fifo")

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_ROOM_AGAIN = 1.0  # seconds until clients are let in again after there was no room for one
_ADDED_UP = ("lost", "over_released", "foreign", "slot_seconds", "queue_seconds")  # of the leases that have ended
_TOO_MANY = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Refused(Exception):
    """A request that cannot be met; the client is told why."""


class _Client:
    """One connection: what it sends and gets, and its lease if it asked for one."""

    def __init__(self, connected: socket.socket, process: int) -> None:
        connected.setblocking(False)
        self.lines = Lines(connected, LONGEST_LINE)
        self.process = process
        self.lease: ServedLease | None = None

    def answer(self, reply: str, attached: list[int] | None = None, **values: Any) -> None:
        self.lines.send({"reply": reply, **values}, attached or ())


class PoolServer:
    """Serves one pool, in one thread and without waking while nothing moves.

    Args:
        name: What the pool is called.
        pool: The pool.
        listener: The socket on which clients come.
        path: The socket's path if it is this server's to remove, None if somebody else made it (systemd).
        idle_exit: Seconds without a lease after which serving ends; None: never.
        say: Is told what clients did wrong.
        wake: A socket that becomes readable when serving is to end.
    """

    def __init__(
        self,
        name: str,
        pool: Pool,
        listener: socket.socket,
        path: str | None,
        idle_exit: float | None,
        say: Callable[[str], object],
        wake: socket.socket,
    ) -> None:
        self._name, self._pool, self._path, self._idle_exit, self._say = name, pool, path, idle_exit, say
        self._identity = None if path is None else identity(path)
        self._listener, self._wake = listener, wake
        self._clients: dict[Lines, _Client] = {}
        self._leases: dict[ServedLease, _Client] = {}  # those that have not ended
        self._queue: list[ServedLease] = []  # those that wait for their first slot, in their order
        self._leaving: list[ServedLease] = []  # those whose client is gone
        self._ended = {"leases": 0, **dict.fromkeys(_ADDED_UP, 0)}
        self._idle_since = monotonic()
        self._changes = check(lib.jobserver_broker_watch(pool._handle))
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, _READ, self._accept)
        self._selector.register(wake, _READ, self._stop)
        self._selector.register(self._changes, _READ, self._look)
        self._stopped = False
        self._full_until: float | None = None  # nobody is let in until then, for want of descriptors or memory

    @property
    def leases(self) -> int:
        """How many leases there are; those of clients that left processes behind, too."""
        return len(self._leases)

    def serve(self) -> None:
        """Serves until it is woken, or idle for as long as it may be."""
        while not self._stopped:
            for key, events in self._selector.select(self._time_to_sleep()):
                if isinstance(key.fileobj, Lines):
                    self._attend(self._clients[key.fileobj], events)
                else:
                    key.data()
            if self._full_until is not None and monotonic() >= self._full_until:
                self._let_in_again()
            if not self._stopped and self._time_left() == 0:
                self._stopped = self._leave()

    def close(self) -> None:
        """Removes the socket, moves no more tokens, and lets go of all connections.

        Without the lock (there are no descriptors left, say) the socket stays: the next server replaces it.
        """
        if self._path is not None:
            with suppress(PlaceError), starting(self._path):
                self._remove_socket(self._path)
        self._listener.close()
        # At once and between two moves: a token that was fetched and not yet offered again would be lost to builds that
        # go on alone.
        lib.jobserver_broker_stop(self._pool._handle)
        for client in self._clients.values():
            client.lines.close()
        self._selector.close()

    def status(self) -> dict[str, Any]:
        """What the pool has and who has it, as it is told to clients."""
        found = self._pool.status()
        return {
            "name": self._name,
            "process": os.getpid(),
            "limit": found.limit,
            "in_use": found.in_use,
            "free": found.free,
            "queued": found.queued,
            "held_back": found.held_back,
            "gates": [asdict(gate) for gate in found.gates],
            "leases": [
                {"process": lease.process, "connected": lease.connected, **asdict(lease.report())}
                for lease in self._leases
            ],
            "ended": self._ended,
        }

    def _time_left(self) -> float | None:
        """Seconds until it has been idle for too long; None while it is not, or may be for ever."""
        if self._idle_exit is None or self._leases or self._full_until is not None:
            return None
        return max(self._idle_since + self._idle_exit - monotonic(), 0.0)

    def _time_to_sleep(self) -> float | None:
        """Seconds after which there is something to do although nobody says so; None for no limit."""
        if self._full_until is not None:
            return max(self._full_until - monotonic(), 0.0)
        return self._time_left()

    def _leave(self) -> bool:
        """Ends serving for want of clients, unless one is just coming. Who is late finds no socket, or an end."""
        self._idle_since = monotonic()  # if it stays
        if self._path is None:
            return not self._accept()
        with suppress(PlaceError), ending(self._path) as nobody_starts:
            if nobody_starts and not self._accept():
                self._remove_socket(self._path)
                return True
        return False

    def _remove_socket(self, path: str) -> None:
        """With the lock: so whoever finds no socket can make one, and none that another has made is removed."""
        if identity(path) == self._identity:
            os.unlink(path)
        self._path = None
        self._listener.close()

    def _stop(self) -> None:
        self._stopped = True

    def _accept(self) -> bool:
        """Lets a client in, if it is of the same user. Returns whether one came."""
        try:
            connected, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in _TOO_MANY:
                raise
            # It would be reported on and on. The next connection that ends makes room, or others on this machine do.
            self._full_until = monotonic() + _ROOM_AGAIN
            self._selector.unregister(self._listener)
            return False
        user, process = ffi.new("int64_t *"), ffi.new("int *")
        code = lib.jobserver_peer(connected.fileno(), user, process)
        client = _Client(connected, process[0])
        if code < 0 or user[0] != os.geteuid():
            self._refuse_user(client, user[0] if code == 0 else None)
        else:
            self._clients[client.lines] = client
            self._selector.register(client.lines, _READ)
        return True

    def _refuse_user(self, client: _Client, user: int | None) -> None:
        name = "unknown" if user is None else user_name(user)
        owner = user_name(os.geteuid())
        self._say(f"refused a connection of user {name}: this pool is for {owner} only")
        with suppress(OSError):
            client.answer("refused", reason=f"this pool is for user {owner} only, and you are {name}")
        client.lines.close()

    def _attend(self, client: _Client, events: int) -> None:
        """Sends what waits, or answers requests; not both: who does not read is not heard."""
        try:
            if events & _WRITE:
                client.lines.flush()
            elif events & _READ:
                requests = client.lines.receive()
                for number in client.lines.take_descriptors():
                    os.close(number)
                if requests is None:
                    self._part(client)
                    return
                for request in requests:
                    self._answer(client, request)
            self._selector.modify(client.lines, _WRITE if client.lines.unsent else _READ)
        except BadLine as error:
            self._say(f"a client (process {client.process}) sent {error}")
            self._tell(client, "refused", reason=f"this is {error}")
            self._part(client)
        except OSError:
            self._part(client)

    def _part(self, client: _Client) -> None:
        """The connection has ended, and with it what the client has, but for what it left behind."""
        self._selector.unregister(client.lines)
        del self._clients[client.lines]
        client.lines.close()
        if client.lease in self._queue:
            self._forget(client.lease, client.lease.end())  # nobody has its descriptors
        elif client.lease in self._leases:
            client.lease.leave()
            self._leaving.append(client.lease)
        if self._full_until is not None:
            self._let_in_again()

    def _let_in_again(self) -> None:
        self._full_until = None
        self._selector.register(self._listener, _READ, self._accept)

    def _answer(self, client: _Client, request: dict[str, Any]) -> None:
        answers = {"lease": self._open, "end": self._end, "status": self._show, "resize": self._resize}
        answer = answers.get(str(request.get("request")))
        try:
            if answer is None:
                known = ", ".join(answers)
                raise Refused(f"request {request.get('request')!r} is not known here: one of {known} is wanted")
            answer(client, request)
        except Refused as error:
            client.answer("refused", reason=str(error))

    def _open(self, client: _Client, request: dict[str, Any]) -> None:
        """A lease for the client, which is put at the end of the queue."""
        name, style, command = request.get("name"), request.get("style"), request.get("command", [])
        if client.lease is not None:
            raise Refused("this connection has its lease already: one connection for each")
        if not isinstance(name, str) or style not in STYLES or not _is_command(command):
            raise Refused("a lease needs a name, a style (pipe or fifo) and a command, which is a list of words")
        try:
            lease = ServedLease(self._pool, name, tuple(command), style, client.process)
            lease.start()
        except (OSError, JobserverError) as error:
            raise Refused(f"the server can make no lease: {error}") from None
        client.lease = lease
        self._leases[lease] = client
        self._queue.append(lease)
        self._serve_queue()

    def _end(self, client: _Client, _: dict[str, Any]) -> None:
        if client.lease is None or client.lease not in self._leases:
            raise Refused("there is no lease to end")
        report = client.lease.end()
        self._forget(client.lease, report)
        client.answer("ended", report=asdict(report))

    def _show(self, client: _Client, _: dict[str, Any]) -> None:
        client.answer("status", status=self.status())

    def _resize(self, client: _Client, request: dict[str, Any]) -> None:
        try:
            excess = self._pool.resize(request.get("limit"))  # type: ignore[arg-type]
        except (TypeError, ValueError, JobserverError) as error:
            raise Refused(str(error)) from None
        client.answer("resized", limit=self._pool.limit, excess=excess)

    def _look(self) -> None:
        """The state of some lease has changed, or its place in the queue."""
        try:
            while len(os.read(self._changes, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        for lease in list(self._leaving):
            report = lease.report()
            if report.state == "ended":
                self._forget(lease, report)
        self._serve_queue()

    def _serve_queue(self) -> None:
        """Hands leases over to those who have their first slot, and tells the others how many are before them."""
        while self._queue and self._queue[0].start():
            lease = self._queue.pop(0)
            values, descriptors = lease.hand_over()
            self._tell(self._leases[lease], "started", descriptors, limit=self._pool.limit, **values)
            lease.handed_over()
        for place, lease in enumerate(self._queue):
            client = self._leases[lease]
            if lease.place != place and not client.lines.unsent:
                lease.place = place
                self._tell(client, "queued", before=place)

    def _tell(self, client: _Client, reply: str, attached: list[int] | None = None, **values: Any) -> None:
        """Sends what nobody asked for in this moment. Who cannot get it is parted with when the end is read."""
        try:
            client.answer(reply, attached, **values)
            if client.lines.unsent:
                self._selector.modify(client.lines, _WRITE)
        except OSError:
            with suppress(OSError):
                client.lines.socket.shutdown(socket.SHUT_RDWR)

    def _forget(self, lease: ServedLease, report: LeaseReport) -> None:
        """A lease has ended."""
        del self._leases[lease]
        for waiting in (self._queue, self._leaving):
            if lease in waiting:
                waiting.remove(lease)
        self._ended["leases"] += 1
        for what in _ADDED_UP:
            self._ended[what] += getattr(report, what)
        for complaint in report.complaints:
            self._say(f"`{report.name}` (process {lease.process}): {complaint}")
        self._idle_since = monotonic()


def _is_command(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
