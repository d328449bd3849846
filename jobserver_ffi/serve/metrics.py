"""`jobserver serve --metrics`: the pool's figures over HTTP, for Prometheus, to this machine only.

A thread answers one request after the other. It asks the pool's server as any client does, over its socket, so the
server's own thread shares nothing with it and goes on whatever comes over HTTP.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import TYPE_CHECKING, NoReturn

from ..status.prometheus import CONTENT_TYPE, exposition
from ..status.seen import CannotSee
from ..status.served import served_pool

if TYPE_CHECKING:
    from typing import Any

ADDRESS = "127.0.0.1"
PATH = "/metrics"

_NAMES = (ADDRESS, "localhost")  # which a client may have asked for, before the port

_LONGEST_REQUEST = 10.0  # seconds from the connection to the end of the answer; the pool's server has half of them
_ROOM_AGAIN = 1.0  # seconds until the next try after there was no descriptor for a connection


class MetricsServer(TCPServer):
    """Serves the metrics of one pool from a thread, until the process ends.

    Args:
        port: Where, on the loopback address; 0 takes one that is free.

    Raises:
        OSError: The port cannot be had.
    """

    allow_reuse_address = True
    pool = ""  # the path of its socket

    def __init__(self, port: int) -> None:
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """Where the metrics are."""
        return f"http://{ADDRESS}:{self.server_address[1]}{PATH}"

    def start(self, pool: str) -> None:
        """Begins to answer, for the pool with a socket at this path."""
        self.pool = pool
        threading.Thread(target=self._serve, name="jobserver metrics", daemon=True).start()

    def _serve(self) -> NoReturn:
        while True:
            self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Takes a connection; one that there is no descriptor for would be reported again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_ROOM_AGAIN)
            raise

    def handle_error(self, *arguments: Any) -> None:
        """A client that went away in the middle is nothing to tell of."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*arguments)


class _Handler(BaseHTTPRequestHandler):
    """One request. A client that is slow is parted with, since others wait behind it."""

    server: MetricsServer
    server_version = "jobserver"
    sys_version = ""

    def setup(self) -> None:
        """Begins the time that the request has."""
        self._guard = threading.Timer(_LONGEST_REQUEST, self._part)
        self._guard.daemon = True
        self._guard.start()
        super().setup()

    def finish(self) -> None:
        """The request is answered."""
        self._guard.cancel()
        super().finish()

    def do_GET(self) -> None:
        """Answers with the metrics; 403 to another name, 404 at another path, 503 if the pool's server is silent."""
        if self.headers.get("Host", ADDRESS).partition(":")[0] not in _NAMES:
            # A page on the web whose name was made to mean this address would read what runs here.
            self._answer(403, "text/plain", f"Ask for {self.server.url}, by that address.\n")
            return
        if self.path.partition("?")[0] != PATH:
            self._answer(404, "text/plain", f"There is nothing but {PATH}.\n")
            return
        try:
            text = exposition([served_pool(self.server.pool)])
        except CannotSee as error:
            self._answer(503, "text/plain", f"{error}\n")
            return
        self._answer(200, CONTENT_TYPE, text)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode(errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _part(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
