"""Fixtures that all tests share: the check that every pool is whole, and the real tools."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest.mock
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psutil
import pytest

import jobserver_ffi.client
from jobserver_ffi import Client
from jobserver_ffi.create import STYLES

if TYPE_CHECKING:
    from .building import Environment


def open_descriptors() -> int:
    """How many descriptors this process has open, on Windows handles; 0 where the system does not tell (Wine)."""
    if os.path.isdir("/proc/self/fd") and os.name == "posix":
        return len(os.listdir("/proc/self/fd"))
    return int(getattr(psutil.Process(), "num_handles" if os.name == "nt" else "num_fds")())


# A shell without job control starts what it puts into the background with the terminal's signals ignored, and `nohup`
# does so with its end; children inherit that.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGQUIT", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
    if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# What a test may name in its mark `needs`: so it is skipped where the system has no such thing, whatever its name.
CAPABILITIES = {
    "pipe": "pipe" in STYLES,
    "fifo": "fifo" in STYLES,
    "semaphore": "semaphore" in STYLES,
    "fork": hasattr(os, "fork"),
    "signals": hasattr(signal, "pthread_kill"),
    "/proc": os.name == "posix" and os.path.isdir("/proc/self/fd"),
    "sh": os.name == "posix",
    "sockets with names": hasattr(socket, "AF_UNIX"),
    "any file name": os.name == "posix",
    "uvloop": os.name == "posix",
    "children that are reaped": hasattr(os, "waitid"),
    "descriptors to wait for": os.name == "posix",
    "descriptors that can be counted": open_descriptors() > 0,
    "limits of other processes": sys.platform == "linux",
    # PyPy ends what was dropped when it collects, which waiting for a token does not bring about.
    "objects that end when they are dropped": sys.implementation.name == "cpython",
    # After Ctrl-C that nobody caught PyPy ends itself by the signal, without exit() and without ending objects.
    "objects that end with the process": sys.implementation.name == "cpython",
    # Free-threaded Python leaves it to the thread that made an object to end it, when it runs Python again.
    "objects that any thread can end": "free-threading" not in sys.version,
    "subreaper": sys.platform == "linux",
    "name spaces": sys.platform == "linux",
    "systemd": sys.platform == "linux",
    "the repository": (Path(__file__).parent.parent / ".ci").is_dir(),
    "the sources": (Path(__file__).parent.parent / "jobserver_ffi" / "py.typed").is_file(),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what the system cannot do, by the name of the capability; a parameter `style` is one too."""
    for item in items:
        needed = [name for mark in item.iter_markers("needs") for name in mark.args]
        if item.name in ("README.md", "leases.md"):
            needed.append("pipe")  # they show MAKEFLAGS, which is not set on Windows unless it is named, and leases
        style = getattr(item, "callspec", None) and item.callspec.params.get("style")  # type: ignore[attr-defined]
        lacking = [name for name in (*needed, style) if name is not None and not CAPABILITIES.get(name, True)]
        if lacking:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(lacking)}"))


# Whether tests that try something many times, or in many variations, do all of it, as `.ci/long` lets them once a week.
LONG = os.environ.get("JOBSERVER_FFI_LONG") == "true"
long_form = pytest.mark.skipif(not LONG, reason="JOBSERVER_FFI_LONG is not true")

PATH = os.pathsep.join(
    [
        str(Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin")),
        os.environ.get("PATH", os.defpath),
        "/usr/bin",
        "/usr/local/bin",
    ]
)

# The tests must not run under the jobserver of whoever started them.
for name in ("MAKEFLAGS", "CARGO_MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(name, None)


def missing(what: str) -> NoReturn:
    """Skips the test and names what is missing; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"not on this machine: {what}")
    pytest.skip(f"not on this machine: {what}")


def in_pipe(descriptor: int) -> int:
    """How many bytes are in a pipe."""
    import fcntl
    import termios

    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0])


_WAITS_FOR_A_TOKEN = ("pipe_read", "ep_poll", "epoll_wait", "poll_schedule")
ACCEPT = ("skb_wait_for_more_packets",)  # of a Unix socket


def wait_until_asleep(
    process: int | str, thread: int | None = None, places: Sequence[str] = _WAITS_FOR_A_TOKEN
) -> None:
    """Returns when a thread (the main one of a process if none is named) sleeps in one of these places of the kernel.

    Where that cannot be seen, a test that comes too early is weaker, but not wrong.
    """
    if not CAPABILITIES["/proc"]:
        time.sleep(0.1)
        return
    place = Path(f"/proc/{process}/task/{thread or process}/wchan")
    end = time.monotonic() + 120
    while not any(name in place.read_text() for name in places):
        assert time.monotonic() < end, f"the thread never slept, but is in {place.read_text()}"
        time.sleep(0)


class TokenPipe:
    """A pool that a test made itself, as make would, with tokens of distinct bytes."""

    def __init__(self, tokens: bytes) -> None:
        self.tokens = tokens
        self.read_fd, self.write_fd = os.pipe()
        os.write(self.write_fd, tokens)
        self.clients: list[Client] = []

    @property
    def auth(self) -> str:
        return f"{self.read_fd},{self.write_fd}"

    @property
    def environ(self) -> dict[str, str]:
        """An environment as make hands it to a recipe."""
        return {"MAKEFLAGS": f" -j{len(self.tokens) + 1} --jobserver-auth={self.auth}"}

    def client(self) -> Client:
        """A client that knows the address only, so it has no implicit slot. It is closed after the test."""
        self.clients.append(Client.open(self.auth))
        return self.clients[-1]

    def content(self) -> bytes:
        """What is in the pipe; it is put back in another order."""
        count = in_pipe(self.read_fd)
        found = os.read(self.read_fd, count) if count else b""
        os.write(self.write_fd, found)
        return bytes(sorted(found))

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def pytest_collection_finish() -> None:
    """What is there before the first test stays, so the collector need not look at it after each one."""
    gc.collect()
    if sys.implementation.name == "cpython":
        gc.freeze()


@pytest.fixture(autouse=True)
def whole() -> Iterator[Callable[[bytes], TokenPipe]]:
    """After every test every pool is whole: those that clients made, and those made by calling this fixture.

    Two witnesses: the number of tokens in the pools of our own making, and the very bytes in the pipes of the test's.
    """
    clients: list[weakref.ref[Client]] = []
    pipes: list[TokenPipe] = []
    begin = jobserver_ffi.client.Client._begin

    def watched(self: Client, *args: object) -> None:
        begin(self, *args)  # type: ignore[arg-type]
        clients.append(weakref.ref(self))

    def make_pipe(tokens: bytes) -> TokenPipe:
        if not CAPABILITIES["pipe"]:
            pytest.skip("needs pipe")
        pipes.append(TokenPipe(tokens))
        return pipes[-1]

    # Not by the fixture monkeypatch: pytest-run-parallel takes a test that uses it for one that threads cannot share.
    with unittest.mock.patch.object(jobserver_ffi.client.Client, "_begin", watched):
        yield make_pipe
    gc.collect()
    for client in filter(None, (reference() for reference in clients)):
        if not client._closed:
            if client.limit is not None:
                assert client.available() == client.limit, f"{client} lost tokens, or made some up"
            client.close()
    for pipe in pipes:
        for client in pipe.clients:
            client.close()
        assert pipe.content() == bytes(sorted(pipe.tokens)), "the pipe does not hold the tokens that were put into it"
        pipe.close()


@dataclass(frozen=True)
class Tool:
    """A real program: where it is and what it says of its version."""

    path: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{Path(self.path).name} {'.'.join(map(str, self.version))}"


def version_of(path: str) -> tuple[int, ...]:
    """The first version number that the program prints."""
    printed = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", printed)
    return tuple(map(int, found.group().split("."))) if found else ()


def find_make(version: str) -> Tool | None:
    """A GNU make of this version on the path, in the environment of the tests, or named by GNU_MAKE_<version>."""
    named = os.environ.get("GNU_MAKE_" + version.replace(".", "_"))
    places = (
        [named]
        if named
        else [str(Path(place) / name) for place in PATH.split(os.pathsep) for name in ("make", "gmake", "make.exe")]
    )
    for path in places:
        if os.access(path, os.X_OK):
            tool = Tool(path, version_of(path))
            if ".".join(map(str, tool.version)) == version:
                return tool
    return None


def need_make(version: str) -> Tool:
    if version == "4.3" and not CAPABILITIES["pipe"]:
        pytest.skip("needs a make that knows pipes only")
    return find_make(version) or missing(f"GNU make {version}")


@pytest.fixture(scope="session")
def make43() -> Tool:
    return need_make("4.3")


@pytest.fixture(scope="session")
def make441() -> Tool:
    return need_make("4.4.1")


@pytest.fixture(scope="session", params=["4.3", "4.4.1"])
def gnu_make(request: pytest.FixtureRequest) -> Tool:
    """Both makes, one after the other."""
    return need_make(request.param)


@pytest.fixture(scope="session")
def ninja() -> Tool:
    path = shutil.which("ninja", path=PATH)
    tool = Tool(path, version_of(path)) if path else None
    return tool if tool and tool.version >= (1, 13) else missing("ninja 1.13 or newer")


@pytest.fixture(scope="session")
def cargo() -> Tool:
    path = shutil.which("cargo", path=PATH)
    return Tool(path, version_of(path)) if path else missing("cargo")


@pytest.fixture(scope="session")
def building(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh virtual environment with what builds extensions, and the back ends that do."""
    from .building import BACK_ENDS, new_environment

    place = tmp_path_factory.mktemp("building") / "venv"
    return new_environment(place, "cffi", "cython", "pybind11", "wheel", *BACK_ENDS)
