"""What the tests of the Rust crate `jobserver` check."""

from __future__ import annotations

import os
import select
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobserver_ffi import AcquireTimeout, Client
from jobserver_ffi.makeflags import parse

from .conftest import CAPABILITIES, TokenPipe
from .overlap import FOR_MAKE, MAKE_SERVERS, JobCounter, Recipe, captured, python, quiet, server_command

NewPipe = Callable[[bytes], TokenPipe]
STYLES = ["pipe", "fifo", "semaphore"]
every_style = pytest.mark.parametrize("style", STYLES)
every_server = pytest.mark.parametrize("server", MAKE_SERVERS)


# A client in a recipe of make.


@pytest.mark.parametrize("prefix", ["", "+"])
@every_server
def test_no_jobserver_without_j(server: str, prefix: str, tmp_path: Path) -> None:
    program = "tell(joined=Client.from_env() is not None)"
    assert Recipe(tmp_path, (prefix, program)).run(server_command(server)[1]) == [{"joined": False}]


ACQUIRE_BLOCKS = """
first = client.acquire()
asked, got = threading.Event(), threading.Event()
def second():
    asked.set()
    with client.acquire():
        got.set()
thread = threading.Thread(target=second)
thread.start()
asked.wait()
try:
    client.acquire(0.05)
except TimeoutError:
    pass
tell(early=got.is_set(), free=client.available())
first.release()
thread.join()
tell(got=got.is_set(), free=client.available())
"""


@pytest.mark.parametrize(
    ("jobs", "program", "expected"),
    [
        ("-j2", "tell(joined=Client.from_env() is not None)", [{"joined": True}]),
        ("-j2", "client.acquire().release()\n" * 2 + "tell(free=client.available())", [{"free": 1}]),
        ("-j3", "with client.acquire(), client.acquire(): tell(free=client.available())", [{"free": 0}]),
        ("-j2", ACQUIRE_BLOCKS, [{"early": False, "free": 0}, {"got": True, "free": 1}]),
        ("-j2", "client.acquire_raw()\nclient.release_raw()\ntell(free=client.available())", [{"free": 1}]),
    ],
    ids=["from_env", "acquire", "acquire3", "acquire blocks", "acquire_raw"],
)
@every_server
def test_client_in_a_recipe(
    server: str, jobs: str, program: str, expected: list[dict[str, object]], tmp_path: Path
) -> None:
    assert Recipe(tmp_path, ("+", program)).run([*server_command(server)[1], jobs]) == expected


# The server.


@every_style
def test_server(style: str) -> None:
    with Client(2, style=style) as client:
        client.acquire().release()
        client.acquire().release()
        assert client.available() == 2
        first = client.acquire()
        assert client.available() == 1
        second = client.acquire()
        assert client.available() == 0
        first.release()
        assert client.available() == 1
        second.release()
        assert client.available() == 2


@every_style
def test_server_blocks(style: str) -> None:
    with Client(1, style=style) as client, ThreadPoolExecutor(1) as threads:
        asked, got = threading.Event(), threading.Event()

        def second() -> None:
            asked.set()
            with client.acquire():
                got.set()

        with client.acquire():
            waiter = threads.submit(second)
            asked.wait()
            with pytest.raises(AcquireTimeout):
                client.acquire(0.05)
            assert not got.is_set()
        waiter.result()


@every_style
def test_an_empty_pool_gives_nothing(style: str) -> None:
    with Client(0, style=style) as client:
        assert client.try_acquire() is None
        with pytest.raises(AcquireTimeout):
            client.acquire(0.001)


@every_server
def test_make_with_its_own_slot_only(server: str, tmp_path: Path) -> None:
    """The only token is held, so make runs one job after the other."""
    (tmp_path / "Makefile").write_text("all: foo bar\nfoo bar:\n\techo $@\n")
    with Client(1, style=server.split()[1]) as client, client.acquire():
        done = client.run([server_command(server)[0].path], cwd=tmp_path, **FOR_MAKE, **captured({}))
    quiet(done)
    assert done.stdout in ("echo foo\nfoo\necho bar\nbar\n", "echo bar\nbar\necho foo\nfoo\n")


PASS_ON = "os.environ['MAKEFLAGS'] = os.environ.pop('CARGO_MAKEFLAGS'); os.execvp(sys.argv[1], sys.argv[1:])"


@every_server
def test_make_below_a_program_that_moves_the_variable(server: str, tmp_path: Path) -> None:
    """Cargo and the crate set CARGO_MAKEFLAGS; a program below makes that MAKEFLAGS for a make."""
    command = [*python(PASS_ON), server_command(server)[0].path, "-s", "-C", str(tmp_path)]
    with Client(1, style=server.split()[1]) as client, JobCounter(2, 2, client.available) as counter:
        (tmp_path / "Makefile").write_text(f"all: foo bar\nfoo bar:\n\t{counter.command}\n")
        quiet(client.run(command, variables=["CARGO_MAKEFLAGS"], **captured({})))
        assert client.available() == 1
    counter.check()


CLIENT_OF_MYSELF = """
client = Client.from_env()
print("free", client.available(), flush=True)
with client.acquire():
    print("hello!", flush=True)
"""


@every_style
def test_client_of_myself(style: str) -> None:
    with Client(1, style=style) as client:
        held = client.acquire()
        with client.popen(python(CLIENT_OF_MYSELF), stdout=subprocess.PIPE, bufsize=0) as child:
            assert child.stdout
            assert child.stdout.readline().rstrip() == b"free 0"
            with pytest.raises(AcquireTimeout):
                client.acquire(0.05)
            if CAPABILITIES["pipe"]:  # Windows selects sockets only
                assert select.select([child.stdout], [], [], 0)[0] == []
            held.release()
            assert child.stdout.read().rstrip() == b"hello!"
        client.acquire().release()


# try_acquire, the address and the parser.


@pytest.mark.parametrize("style", [*STYLES, "inherited"])
def test_try_acquire(style: str, whole: NewPipe) -> None:
    with whole(b"1").client() if style == "inherited" else Client(1, style=style) as client:
        raw = client.acquire().drop_without_releasing()
        assert client.try_acquire() is None
        client.release_raw(raw)
        token = client.try_acquire()
        assert token is not None
        assert client.try_acquire() is None
        token.release()
        assert client.try_acquire() is not None


LEND = """
client = Client.from_env()
assert client.try_acquire() is None
client.release_raw()
token = client.try_acquire()
assert token is not None and client.try_acquire() is None
token.release()
client.try_acquire().drop_without_releasing()
"""


@every_style
def test_an_implicit_slot_is_lent(style: str) -> None:
    """The crate lets who inherited an empty pool give its own slot to the others; at the end it is taken back."""
    with Client(0, style=style) as client:
        client.run(python(LEND), check=True)


def test_the_address_is_as_it_was_given(tmp_path: Path, whole: NewPipe) -> None:
    pipe = whole(b"1")
    os.mkfifo(tmp_path / "pool")
    for auth in (pipe.auth, f"fifo:{tmp_path / 'pool'}"):
        with Client.open(auth) as client:
            assert client.auth == auth


@pytest.mark.parametrize("name", ["auth", "fds"])
def test_finding_the_address(name: str) -> None:
    flag = f"--jobserver-{name}"
    for auth in ("3,4", "fifo:/pool", ""):
        for value in (f"{flag}={auth}", f"-j2 {flag}={auth}", f"{flag}={auth} -j2", f"{flag}=first {flag}={auth}"):
            assert parse(value).auth == auth
    for value in ("", "-j2", flag):
        assert parse(value).auth is None
    for others in ("{auth}=a {fds}=b {auth}=last", "{fds}=b {auth}=last {fds}=c"):
        assert parse(others.format(auth="--jobserver-auth", fds="--jobserver-fds")).auth == "last"
