"""Finding the jobserver around this process: every cause, its message, and that nothing is touched."""

from __future__ import annotations

import os
import pickle
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobserver_ffi import Client, FromEnvError, FromEnvErrorKind

from .conftest import TokenPipe

pytestmark = pytest.mark.quick
needs_pipe = pytest.mark.needs("pipe")
needs_semaphore = pytest.mark.needs("semaphore")

Kind = FromEnvErrorKind
NewPipe = Callable[[bytes], TokenPipe]


def flags(auth: str) -> dict[str, str]:
    return {"MAKEFLAGS": f"k -j3 --jobserver-auth={auth}"}


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, Kind.NO_ENV_VAR),
        ({"PATH": "/bin"}, Kind.NO_ENV_VAR),
        ({"MAKEFLAGS": ""}, Kind.NO_JOBSERVER),
        ({"CARGO_MAKEFLAGS": "", "MAKEFLAGS": "", "MFLAGS": ""}, Kind.NO_JOBSERVER),
        ({"MAKEFLAGS": "k"}, Kind.NO_JOBSERVER),
        ({"MAKEFLAGS": " -j3"}, Kind.NO_JOBSERVER),
        ({"MAKEFLAGS": " -j3 -- --jobserver-auth=3,4"}, Kind.NO_JOBSERVER),
        ({"MAKEFLAGS": "\udcff\udcfe"}, Kind.NO_JOBSERVER),
        (flags("-2,-2"), Kind.NEGATIVE_FD),
        (flags("-1,4"), Kind.NEGATIVE_FD),
        pytest.param(flags("gmake_semaphore_17"), Kind.UNSUPPORTED, marks=pytest.mark.needs("pipe")),
        (flags("socket:/tmp/x"), Kind.UNSUPPORTED),
    ],
)
def test_where_no_jobserver_is_offered_there_is_no_client(environ: dict[str, str], kind: Kind) -> None:
    assert Client.from_env(environ) is None
    found = Client.from_env_ext(environ)
    assert found.client is None
    assert found.error is not None
    assert found.error.kind is kind


@pytest.mark.parametrize(
    ("auth", "kind", "mend"),
    [
        ("3", Kind.CANNOT_PARSE, "R,W"),
        ("3,", Kind.CANNOT_PARSE, "R,W"),
        (",4", Kind.CANNOT_PARSE, "R,W"),
        ("3,4,5", Kind.CANNOT_PARSE, "R,W"),
        ("a,b", Kind.CANNOT_PARSE, "R,W"),
        ("99999999999,1", Kind.CANNOT_PARSE, "R,W"),
        ("2147483648,1", Kind.CANNOT_PARSE, "R,W"),
        ("²,1", Kind.CANNOT_PARSE, "R,W"),
        ("", Kind.CANNOT_PARSE, "R,W"),
        ("fifo:", Kind.CANNOT_PARSE, "fifo:"),
        pytest.param("fifo:/no/such/fifo", Kind.CANNOT_OPEN_PATH, "its maker has ended", marks=needs_pipe),
        pytest.param("fifo:/", Kind.CANNOT_OPEN_PATH, "not its directory", marks=needs_pipe),
        pytest.param("2147483647,2147483646", Kind.CANNOT_OPEN_FD, "`+`", marks=needs_pipe),
        pytest.param("no-such-semaphore", Kind.CANNOT_OPEN_PATH, "its maker has ended", marks=needs_semaphore),
    ],
)
def test_an_unusable_jobserver_is_an_error_with_its_mend(auth: str, kind: Kind, mend: str) -> None:
    with pytest.raises(FromEnvError) as caught:
        Client.from_env(flags(auth))
    error = caught.value
    assert (error.kind, error.variable, error.value) == (kind, "MAKEFLAGS", flags(auth)["MAKEFLAGS"])
    assert "MAKEFLAGS" in str(error)
    assert repr(auth)[1:-1] in str(error)
    assert mend in str(error)
    with pytest.raises(FromEnvError) as opened:
        Client.open(auth)
    assert opened.value.kind is kind
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_huge_value_is_read_and_shortened_in_the_message() -> None:
    value = " -j3 " + "-k " * 300_000 + "--jobserver-auth=" + "9" * 500_000
    with pytest.raises(FromEnvError) as caught:
        Client.from_env({"MAKEFLAGS": value})
    assert caught.value.kind is Kind.CANNOT_PARSE
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("variable", "others"), [("CARGO_MAKEFLAGS", ["MAKEFLAGS", "MFLAGS"]), ("MAKEFLAGS", ["MFLAGS"])]
)
def test_the_first_variable_that_is_not_empty_decides(variable: str, others: list[str], whole: NewPipe) -> None:
    pipe = whole(b"ab")
    environ = {"CARGO_MAKEFLAGS": "", **dict.fromkeys(others, "-j --jobserver-auth=a,b")}
    environ[variable] = f"-j --jobserver-fds=7,8 --jobserver-auth={pipe.auth}"
    found = Client.from_env_ext(environ)
    assert found.variable == variable
    assert found.value == environ[variable]
    assert found.client is not None
    with found.client as client:
        assert client.auth == pipe.auth


@pytest.mark.thread_unsafe(reason="the number of a closed descriptor may be given to another thread's")
def test_closed_descriptor(whole: NewPipe) -> None:
    pipe = whole(b"a")
    closed = os.dup(pipe.read_fd)
    os.close(closed)
    for auth in (f"{closed},{pipe.write_fd}", f"{pipe.read_fd},{closed}"):
        with pytest.raises(FromEnvError, match=rf"descriptor {closed} is closed.*`\+`") as caught:
            Client.from_env(flags(auth))
        assert caught.value.kind is Kind.CANNOT_OPEN_FD


def test_reversed_descriptors(whole: NewPipe) -> None:
    pipe = whole(b"a")
    with pytest.raises(FromEnvError, match="not open for reading: the order is R,W") as caught:
        Client.from_env(flags(f"{pipe.write_fd},{pipe.read_fd}"))
    assert caught.value.kind is Kind.CANNOT_OPEN_FD


@pytest.mark.needs("pipe")
def test_a_file_is_no_pool(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"++++")
    with path.open("r+b") as file:
        number = file.fileno()
        with pytest.raises(FromEnvError, match="neither a pipe nor a socket nor a device") as caught:
            Client.from_env(flags(f"{number},{number}"))
        assert caught.value.kind is Kind.NOT_A_PIPE
    with pytest.raises(FromEnvError, match="neither a fifo nor a character device") as caught:
        Client.from_env(flags(f"fifo:{path}"))
    assert caught.value.kind is Kind.NOT_A_PIPE
    assert path.read_bytes() == b"++++"


@pytest.mark.needs("fifo")
def test_a_fifo_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    path.chmod(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            error = Client.from_env_ext(flags(f"fifo:{path}")).error
            status = 0 if error is not None and error.kind is Kind.CANNOT_OPEN_PATH else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.needs("fifo")
def test_a_fifo_with_a_blank_in_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a b\\c"
    with Client(2, style="fifo", path=path) as server:
        for value in (f"-j3 --jobserver-auth=fifo:{tmp_path}/a\\ b\\\\c",):
            client = Client.from_env({"MAKEFLAGS": value})
            assert client is not None
            assert client.auth == server.auth == f"fifo:{path}"
            with client.acquire():
                assert server.available() == 1
            client.close()


def descriptor_flags(pipe: TokenPipe) -> list[int]:
    import fcntl

    commands = (fcntl.F_GETFL, fcntl.F_GETFD)
    return [fcntl.fcntl(descriptor, command) for descriptor in (pipe.read_fd, pipe.write_fd) for command in commands]


def test_inherited_descriptors_are_left_as_they_were(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    os.set_blocking(pipe.read_fd, False)
    before = descriptor_flags(pipe)
    client = Client.from_env(pipe.environ)
    assert client is not None
    with client.acquire(), client.acquire(1), client.acquire_many(1):
        assert client.try_acquire() is None
    client.close()
    assert descriptor_flags(pipe) == before


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def sockets(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.thread_unsafe(reason="a socket gives out tokens in the order in which they came back")
@pytest.mark.needs("sockets with names")
def test_a_socket_holds_tokens(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    for byte in (b"x", b"y"):
        theirs.send(byte)
    auth = f"{ours.fileno()},{ours.fileno()}"
    client = Client.from_env(flags(auth))
    assert client is not None
    first = client.acquire()
    second = client.try_acquire()
    assert second is not None
    assert client.try_acquire() is None
    first.release()
    second.release()
    assert theirs.recv(1) + theirs.recv(1) == b"xy"
    client.close()
    with pytest.raises(FromEnvError, match="check_pipe") as caught:
        Client.from_env(flags(auth), check_pipe=True)
    assert caught.value.kind is Kind.NOT_A_PIPE


@pytest.mark.needs("pipe")
def test_a_character_device_holds_tokens() -> None:
    import pty
    import tty

    server, device = pty.openpty()
    tty.setraw(device)
    os.write(server, b"mn")
    name = os.ttyname(device)
    assert stat.S_ISCHR(os.stat(name).st_mode)
    for auth in (f"fifo:{name}", f"{device},{device}"):
        client = Client.open(auth)
        first, second = client.acquire(), client.acquire(5)
        assert client.try_acquire() is None
        first.release()
        second.release()
        assert os.read(server, 1) + os.read(server, 1) == b"mn"
        os.write(server, b"mn")
        client.close()
    os.close(server)
    os.close(device)


def test_a_pipe_passes_check_pipe(whole: NewPipe) -> None:
    client = Client.from_env(whole(b"ab").environ, check_pipe=True)
    assert client is not None
    client.close()
