"""GNU make as a client of our jobserver, and our client in the recipes of GNU make."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi import AcquireTimeout, Client

from .conftest import TokenPipe
from .overlap import FOR_MAKE, LIST_OPEN, MAKE_SERVERS, JobCounter, Recipe, captured, ends, quiet, server_command

NewPipe = Callable[[bytes], TokenPipe]
Done = subprocess.CompletedProcess[Any]
every_server = pytest.mark.parametrize("server", MAKE_SERVERS)


def flat(jobs: int, command: str) -> str:
    """A makefile with that many jobs that do not depend on each other."""
    targets = " ".join(map(str, range(jobs)))
    return f"all: {targets}\n{targets}:\n\t@{command}\n"


def make_of(server: str, directory: Path) -> tuple[str, list[str]]:
    """A make and style of MAKE_SERVERS the other way round: the style that our pool has, and the make that joins it."""
    return server.split()[1], [server_command(server)[0].path, "-s", "-C", str(directory)]


def by_run(client: Client, command: list[str]) -> Done:
    return client.run(command, **FOR_MAKE, **captured({}))


def by_popen(client: Client, command: list[str]) -> Done:
    with client.popen(command, **FOR_MAKE, **captured({})) as child:
        out, err = child.communicate()
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def by_configure(client: Client, command: list[str]) -> Done:
    with subprocess.Popen(command, **client.configure(**FOR_MAKE, **captured({}))) as child:
        out, err = child.communicate()
    return subprocess.CompletedProcess(command, child.returncode, out, err)


@pytest.mark.parametrize("start", [by_run, by_popen, by_configure])
@every_server
def test_jobs_fill_the_slots(server: str, start: Callable[[Client, list[str]], Done], tmp_path: Path) -> None:
    style, command = make_of(server, tmp_path)
    with Client(4, style=style) as client, JobCounter(7, 4, client.available) as counter:
        (tmp_path / "Makefile").write_text(flat(7, counter.command))
        with client.acquire():
            quiet(start(client, command))
        assert client.available() == 4
    counter.check()


@every_server
def test_sub_makes_share_the_slots(server: str, tmp_path: Path) -> None:
    style, command = make_of(server, tmp_path)
    (tmp_path / "Makefile").write_text("all: left right\nleft right:\n\t+@$(MAKE) -s -f part.mk\n")
    with Client(4, style=style) as client, JobCounter(12, 4, client.available) as counter:
        (tmp_path / "part.mk").write_text(flat(6, counter.command))
        with client.acquire():
            quiet(client.run(command, **FOR_MAKE, **captured({})))
        assert client.available() == 4
    counter.check()


@pytest.mark.needs("pipe")
def test_both_makes_share_one_pool(tmp_path: Path) -> None:
    commands = [make_of(server, tmp_path)[1] for server in ("4.3 pipe", "4.4.1 pipe")]
    with Client(5, style="pipe") as client, JobCounter(12, 5, client.available) as counter:
        (tmp_path / "Makefile").write_text(flat(6, counter.command))

        def build(command: list[str]) -> None:
            with client.acquire():
                quiet(client.run(command, **FOR_MAKE, **captured({})))

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(build, commands))
        assert client.available() == 5
    counter.check()


@pytest.mark.parametrize("end", ["close", "drop"])
@every_server
def test_a_build_that_starts_after_its_client_is_gone(server: str, end: str, tmp_path: Path) -> None:
    style, command = make_of(server, tmp_path)
    client = Client(3, style=style)
    with Client.open(client.auth) as witness, JobCounter(6, 4, witness.available) as counter:
        (tmp_path / "Makefile").write_text(flat(6, counter.command))
        configured = client.configure(**FOR_MAKE, **captured({}))
        if end == "close":
            client.close()
        else:
            with pytest.warns(ResourceWarning, match="unclosed"):
                del client
        # Were the pool's descriptors closed now, these files would get their numbers.
        with open(os.devnull), open(os.devnull):
            quiet(subprocess.run(command, **configured))
        assert witness.available() == 3
    counter.check()


@pytest.mark.needs("/proc")
@every_server
def test_threads_that_start_builds_at_the_same_time(server: str, tmp_path: Path) -> None:
    """Other pools come and go meanwhile: no child gets a descriptor or a token of another pool."""
    style, command = make_of(server, tmp_path)
    together = threading.Barrier(6)

    def build(shared: Client) -> None:
        together.wait()
        with Client(1, style=style) as other:
            listed = other.run(LIST_OPEN, **captured({"stdin": subprocess.DEVNULL})).stdout
            assert set(map(int, listed.split())) == {0, 1, 2} | ends(other)
            with shared.acquire():
                quiet(shared.run(command, **FOR_MAKE, **captured({})))

    with Client(6, style=style) as client, JobCounter(18, 6, client.available) as counter:
        (tmp_path / "Makefile").write_text(flat(3, counter.command))
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(build, [client] * 6))
        assert client.available() == 6
    counter.check()


@pytest.mark.needs("sh")
@every_server
def test_a_build_that_fails_gives_all_back(server: str, tmp_path: Path) -> None:
    style, command = make_of(server, tmp_path)
    with Client(3, style=style) as client, JobCounter(3, 3, client.available) as counter:
        (tmp_path / "Makefile").write_text(flat(3, f"{counter.command}; exit 1"))
        with client.acquire():
            assert client.run([*command, "-k"], **FOR_MAKE, **captured({})).returncode == 2
        assert client.available() == 3
    counter.check()


@pytest.mark.needs("pipe")
@pytest.mark.parametrize("server", ["4.3 pipe", "4.4.1 pipe"])
def test_what_make_does_to_the_flags_of_our_pipe_does_not_disturb_us(server: str, tmp_path: Path) -> None:
    """Make sets O_NONBLOCK on the read end that it inherits: a plain read of it would fail from then on."""
    import fcntl

    (tmp_path / "Makefile").write_text("all:;@:\n")
    with Client(1) as client:
        read_fd = int(client.auth.split(",")[0])
        assert not fcntl.fcntl(read_fd, fcntl.F_GETFL) & os.O_NONBLOCK
        quiet(client.run(make_of(server, tmp_path)[1], **FOR_MAKE, **captured({})))
        assert fcntl.fcntl(read_fd, fcntl.F_GETFL) & os.O_NONBLOCK
        with ThreadPoolExecutor(1) as threads:
            with client.acquire():
                waiter = threads.submit(lambda: client.acquire().release())
                assert client.try_acquire() is None
                with pytest.raises(AcquireTimeout):
                    client.acquire(0.001)
            waiter.result()


# In a recipe: what the pool has, how it was found, and the status flags of the descriptors that make handed on.
SURVEY = """
def flags():
    return [fcntl.fcntl(int(end), fcntl.F_GETFL) for end in client.auth.split(",")] if "," in client.auth else []
before = flags()
held = [client.slot()]
while (token := client.try_acquire()) is not None:
    held.append(token)
try:
    client.acquire(0.001)
except TimeoutError:
    tell(implicit=[token.implicit for token in held], free=client.available(), before=before)
for token in held:
    token.release()
with client.acquire(), client.acquire(60), client.acquire_many(9):
    pass
client.release_raw(client.acquire_raw())
client.run([sys.executable, "-I", "-S", "-c", ""])
tell(free=client.available(), after=flags())
client.close()
"""


@every_server
def test_a_recipe_has_the_implicit_slot_and_the_tokens(server: str, tmp_path: Path) -> None:
    recipe = Recipe(tmp_path, ("+", SURVEY), ("+", SURVEY))
    for told, later in zip(*[iter(recipe.run([*server_command(server)[1], "-j4"]))] * 2, strict=True):
        assert told["implicit"] == [True, False, False, False]
        assert (told["free"], later["free"]) == (0, 3)
        assert told["before"] == later["after"]
        if "pipe" in server:
            assert [bool(flags & os.O_NONBLOCK) for flags in told["before"]] == [True, False]


TELL_ERROR = """
try:
    tell(kind=error and error.kind.name, message=str(error), joined=Client.from_env() is not None)
except FromEnvError as raised:
    tell(kind=raised.kind.name, message=str(raised), joined=False)
"""


@pytest.mark.needs("pipe")
@pytest.mark.parametrize(
    ("server", "kind", "mend"),
    [
        ("4.3 pipe", "CANNOT_OPEN_FD", "closed in this process: mark the recipe line with `+`"),
        ("4.4.1 pipe", "NEGATIVE_FD", "mark it with `+`"),
    ],
)
def test_a_recipe_without_a_plus_is_told_the_mend(server: str, kind: str, mend: str, tmp_path: Path) -> None:
    (told,) = Recipe(tmp_path, ("", TELL_ERROR)).run([*server_command(server)[1], "-j4"])
    assert (told["kind"], told["joined"]) == (kind, False)
    assert mend in told["message"]
    assert "MAKEFLAGS" in told["message"]


@pytest.mark.needs("fifo")
def test_a_recipe_without_a_plus_reaches_a_fifo(tmp_path: Path) -> None:
    """Make does not hide a fifo from recipes that are not marked."""
    (told,) = Recipe(tmp_path, ("", TELL_ERROR)).run([*server_command("4.4.1 fifo")[1], "-j4"])
    assert (told["kind"], told["joined"]) == (None, True)


@every_server
def test_a_dry_run_runs_marked_recipes_only_and_says_so(server: str, tmp_path: Path) -> None:
    marked = "from jobserver_ffi.makeflags import parse\ntell(dry=parse(os.environ['MAKEFLAGS']).dry_run)"
    recipe = Recipe(tmp_path, ("+", marked + "\ntell(free=client.available())"), ("", "tell(ran=True)"))
    assert recipe.run([*server_command(server)[1], "-j3", "-n"]) == [{"dry": True}, {"free": 2}]
    assert recipe.run([*server_command(server)[1], "-j3"])[2:] == [{"dry": False}, {"free": 2}, {"ran": True}]


SUB_MAKE = """
with client.slot() as slot:
    done = client.run({command!r})
tell(implicit=slot.implicit, status=done.returncode, auth=client.auth, free=client.available())
"""


@pytest.mark.needs("fifo")
@pytest.mark.parametrize(
    ("server", "place"), [*((server, "plain") for server in MAKE_SERVERS), ("4.4.1 fifo", "a blank")]
)
def test_a_recipe_hands_the_pool_on_to_a_make(server: str, place: str, tmp_path: Path) -> None:
    """Make, our client in its recipe, a make below it, its jobs: one pool for all, also where its path has a blank."""
    (tmp_path / place).mkdir()
    tool, command = server_command(server)
    recipe = Recipe(tmp_path, ("+", SUB_MAKE.format(command=[tool.path, "-s", "-f", "jobs.mk"])))
    with JobCounter(7, 4, lambda: 0) as counter:
        (tmp_path / "jobs.mk").write_text(flat(7, counter.command))
        (told,) = recipe.run([*command, "-j4"], env={**os.environ, "TMPDIR": str(tmp_path / place)})
    counter.check()
    assert (told["implicit"], told["status"], told["free"]) == (True, 0, 3)
    assert told["auth"].startswith(f"fifo:{tmp_path / place}" if "fifo" in server else "")


IN_A_THREAD = "threading.Thread(target=lambda held: threading.Event().wait(), args=[held], daemon=True).start()"


@pytest.mark.parametrize("end", ["sys.exit(0)", "client.close()", "del client, found, held", IN_A_THREAD])
@every_server
def test_a_recipe_that_ends_with_tokens_in_its_hands(server: str, end: str, tmp_path: Path) -> None:
    program = f"held = [client.slot(), client.acquire(), client.acquire_many(9)]\n{end}"
    recipe = Recipe(tmp_path, ("+", program), ("+", "tell(free=client.available())"))
    assert recipe.run([*server_command(server)[1], "-j4"]) == [{"free": 3}]


@every_server
def test_make_tells_of_a_token_that_is_lost(server: str, tmp_path: Path) -> None:
    """The witness for the tests above: had they lost a token, make would have said so."""
    Recipe(tmp_path, ("+", "client.acquire_raw()"))
    done = subprocess.run([*server_command(server)[1], "-j4"], cwd=tmp_path, **captured({}))
    assert "INTERNAL: Exiting with 3 jobserver tokens available; should be 4!" in done.stderr
