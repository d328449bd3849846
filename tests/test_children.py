"""Children under a client's jobserver: what they inherit, and how long the pool lives for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi import Client

from .conftest import TokenPipe
from .overlap import FOR_MAKE, LIST_OPEN, captured, ends, python

NewPipe = Callable[[bytes], TokenPipe]
every_style = pytest.mark.parametrize("style", ["pipe", "fifo"])


def open_in_child(child: subprocess.Popen[Any]) -> set[int]:
    with child:
        return set(map(int, child.communicate()[0].split()))


@every_style
def test_a_child_has_what_is_advertised_and_nothing_else(style: str) -> None:
    with Client(2, style=style) as client, Client(1), open(os.devnull) as mine, client.acquire():
        options = captured({"stdin": subprocess.DEVNULL})
        assert open_in_child(client.popen(LIST_OPEN, **options)) == {0, 1, 2} | ends(client)
        child = client.popen(LIST_OPEN, pass_fds=[mine.fileno()], **options)
        assert open_in_child(child) == {0, 1, 2, mine.fileno()} | ends(client)
        done = client.run(LIST_OPEN, **options)
        assert set(map(int, done.stdout.split())) == {0, 1, 2} | ends(client)


GRANDCHILD = """
client = Client.from_env()
token = client.acquire()
client.run(sys.argv[1:], check=True)
"""


def test_a_grandchild_has_what_is_advertised_and_nothing_else(whole: NewPipe) -> None:
    pipe = whole(b"ab")
    child = subprocess.Popen(
        [*python(GRANDCHILD), *LIST_OPEN],
        env={**os.environ, **pipe.environ},
        pass_fds=(pipe.read_fd, pipe.write_fd),
        **captured({"stdin": subprocess.DEVNULL}),
    )
    assert open_in_child(child) == {0, 1, 2, pipe.read_fd, pipe.write_fd}


@pytest.mark.needs("fifo")
@pytest.mark.parametrize("waited", ["wait", "poll", "communicate"])
def test_a_fifo_stays_until_the_child_was_waited_for(waited: str, tmp_path: Path) -> None:
    client = Client(1, style="fifo", path=tmp_path / "pool")
    child = client.popen(["true"])
    client.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # It has ended, but nobody was told yet.
    assert (tmp_path / "pool").exists()
    getattr(child, waited)()
    assert not (tmp_path / "pool").exists()


OWNER = """
client = Client(1, style="fifo")
print(client.auth.removeprefix("fifo:"), flush=True)
input()
"""


def owner(directory: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a fifo of its own in the directory until it reads a line."""
    pipe = subprocess.PIPE
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    child = subprocess.Popen(python(OWNER), env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert child.stdout
    return child, Path(child.stdout.readline().strip())


@pytest.mark.needs("fifo")
def test_what_a_killed_owner_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    killed, left = owner(tmp_path)
    living, used = owner(tmp_path)
    with killed:
        killed.kill()
    assert left.exists()
    later, own = owner(tmp_path)
    assert (left.parent.exists(), used.exists(), own.exists()) == (False, True, True)
    for child in (living, later):
        child.communicate("\n")
    assert list(tmp_path.iterdir()) == []


JOIN_BOTH = """
for variable in "MAKEFLAGS", "CARGO_MAKEFLAGS":
    with Client.from_env({variable: os.environ[variable]}) as client:
        print(client.available())
"""


def test_two_pools_for_one_child_outlive_both_clients() -> None:
    one, two = Client(2), Client(3)
    options = two.configure(variables=["CARGO_MAKEFLAGS"], **one.configure(variables=["MAKEFLAGS"]))
    one.close()
    two.close()
    done = subprocess.run(python(JOIN_BOTH), **captured(options), check=True)
    assert done.stdout.split() == ["2", "3"]


def test_every_descriptor_is_not_let_through() -> None:
    with Client(1) as client, pytest.raises(ValueError, match=r"close_fds=False.*pass_fds"):
        client.configure(close_fds=False)


def test_the_other_flags_stay_and_no_old_address_does() -> None:
    given = {"MAKEFLAGS": "k -j9 --jobserver-auth=98,99 -- A=1", "MFLAGS": "-k -j9 --jobserver-auth=98,99"}
    with Client(3) as client:
        environ = client.configure(env=given, **FOR_MAKE)["env"]
    assert environ["MAKEFLAGS"] == f"k -j3 --jobserver-auth={client.auth} -- A=1"
    assert environ["CARGO_MAKEFLAGS"].split() == ["-j3", f"--jobserver-auth={client.auth}"]
    assert environ["MFLAGS"] == "-k"
