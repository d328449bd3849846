"""Slots for the workers of pytest-xdist, from the process that started them.

A worker has its starter's environment but not its descriptors: it could join a fifo, but no pipe. And a worker that
crashes would take its token with it. So the starter takes the slots, and a worker has one for as long as it says so
on a connection that ends with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from ..errors import JobserverError

if TYPE_CHECKING:
    from types import TracebackType

    from ..client import Client

# What goes over a connection: a worker asks; it gets two bytes, the kind and the byte; it gives back.
_ASK, _GIVE_BACK = b"?", b"."
_IMPLICIT, _TOKEN = 0, 1

_ROOM_AGAIN = 0.1  # seconds until workers are let in again after that was not possible


class Service:
    """Serves slots on a socket in a private directory; one thread for each worker.

    Args:
        client: Where the slots come from. The first to ask gets the implicit slot.

    Attributes:
        address: What a worker connects to.

    Raises:
        pytest.UsageError: The system has no sockets with names.
    """

    def __init__(self, client: Client) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise pytest.UsageError(
                "jobserver: slots for the workers of pytest-xdist need Unix sockets; run without -n"
            )
        self._client = client
        self._directory = tempfile.mkdtemp(prefix="jobserver-pytest-")
        self.address = os.path.join(self._directory, "slots")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(128)
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="jobserver: workers", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                # No descriptors are left for a moment, say. Workers that wait to be let in would wait for ever.
                time.sleep(_ROOM_AGAIN)
                continue
            with self._lock:
                if self._closing:
                    connection.close()
                    return
                thread = threading.Thread(target=self._serve, args=(connection,), name="jobserver: worker", daemon=True)
                self._connections[connection] = thread
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        """Serves one worker until it is gone; what it held then is given back."""
        try:
            with connection, suppress(ConnectionError):
                while connection.recv(1) == _ASK:
                    # The connection becomes readable only at its end: the worker waits for the answer.
                    slot, _ = self._client.slot_or_ready([connection])
                    if slot is None:
                        return
                    with slot:
                        byte = slot.byte
                        connection.sendall(bytes([_IMPLICIT, 0] if byte is None else [_TOKEN, byte]))
                        if connection.recv(1) != _GIVE_BACK:
                            return
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def close(self) -> None:
        """Ends the connections, and returns when all slots are given back."""
        with self._lock:
            self._closing = True
            threads = list(self._connections.values())
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.address)  # so that accept() returns
        for thread in (*threads, self._thread):
            thread.join()
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class Remote:
    """A worker's end: slots of the process that started it.

    Args:
        address: The service's.
    """

    def __init__(self, address: str) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)

    def slot(self) -> RemoteSlot:
        """Waits for a slot.

        Raises:
            JobserverError: The process that gives the slots is gone.
        """
        self._connection.sendall(_ASK)
        answer = self._connection.recv(2, socket.MSG_WAITALL)
        if len(answer) < 2:
            raise JobserverError("no more slots: the pytest that started this worker has ended, or lost its jobserver")
        return RemoteSlot(self._connection, answer[1] if answer[0] == _TOKEN else None)

    def close(self) -> None:
        """Gives back what is held."""
        self._connection.close()


class RemoteSlot:
    """A slot that is given back at the end of the `with` block, or with the process.

    Attributes:
        byte: The token's, or None for the implicit slot.
    """

    def __init__(self, connection: socket.socket, byte: int | None) -> None:
        self._connection = connection
        self.byte = byte

    def __enter__(self) -> RemoteSlot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(ConnectionError):
            self._connection.sendall(_GIVE_BACK)
