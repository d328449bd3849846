"""`jobserver run`: counting the tokens at the end, and what it does where there is a jobserver already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi.makeflags import parse

from .command import JOBSERVER, Running, python, run
from .conftest import TokenPipe, Tool
from .overlap import GUARD

pytestmark = pytest.mark.needs("sh")

NewPipe = Callable[[bytes], TokenPipe]

# A command that takes tokens out of its pool, or puts some in, and ends.
TAMPER = """\
import os, sys
take, give, status = map(int, sys.argv[1:])
auth = os.environ["CARGO_MAKEFLAGS"].rpartition("=")[2]
if auth.startswith("fifo:"):
    read_fd = write_fd = os.open(auth[5:], os.O_RDWR)
else:
    read_fd, write_fd = map(int, auth.split(","))
if take:
    assert len(os.read(read_fd, take)) == take
os.write(write_fd, b"+" * give)
sys.exit(status)
"""

MISSING = (
    f"jobserver: `{sys.executable}` left tokens missing: {{}} of 3; a program ended without giving back what it took "
    "(a killed one, say), or a process that was left in the background still has it\n"
)
SURPLUS = (
    f"jobserver: `{sys.executable}` gave back tokens too many: {{}} more than it had taken; they were thrown away\n"
)


@pytest.mark.parametrize("style", ["pipe", "fifo"])
@pytest.mark.parametrize(
    ("take", "give", "message"),
    [(0, 0, ""), (3, 3, ""), (2, 0, MISSING.format(2)), (3, 0, MISSING.format(3)), (0, 1, SURPLUS.format(1))],
)
def test_tokens_are_counted_at_the_end(style: str, take: int, give: int, message: str) -> None:
    """--check makes an error of it, unless the command failed by itself; without it one that failed is left alone."""
    words = ["-j4", "--style", style]
    command = [*python(TAMPER), str(take), str(give)]
    found = {
        (check, status): run(*words, *(["--check"] if check else []), *command, status)
        for check in (False, True)
        for status in ("0", "3")
    }
    assert {key: (done.returncode, done.stderr) for key, done in found.items()} == {
        (False, "0"): (0, message),
        (False, "3"): (3, ""),
        (True, "0"): (70 if message else 0, message),
        (True, "3"): (3, message),
    }


def test_tokens_of_a_killed_command_are_missing() -> None:
    program = TAMPER.replace("sys.exit(status)", "os.kill(os.getpid(), status)")
    done = run("-j4", "--check", *python(program), "2", "0", "9")
    assert (done.returncode, done.stderr) == (128 + 9, MISSING.format(2))


def test_token_of_a_process_in_the_background_is_missing() -> None:
    program = TAMPER.replace("sys.exit(status)", "if os.fork() == 0:\n    os.dup2(0, 1), os.dup2(0, 2), os.read(0, 1)")
    with Running(
        [*JOBSERVER, "run", "-j4", "--check", *python(program), "1", "0", "0"], stdin=subprocess.PIPE
    ) as running:
        assert running.process.wait(GUARD) == 70
        assert running.process.stderr is not None and running.process.stderr.read() == MISSING.format(1)


def test_empty_pool() -> None:
    assert run("-j1", "--check", *python(TAMPER), "0", "0", "0").returncode == 0
    done = run("-j1", "--check", *python(TAMPER), "0", "2", "0")
    assert (done.returncode, done.stderr) == (70, SURPLUS.format(2))


# Inside a jobserver

# A command that tells its process number, environment and open descriptors, and how many tokens it finds.
WITNESS = """\
import fcntl, json, os, struct, sys, termios
told = {"pid": os.getpid(), "environment": dict(os.environ), "descriptors": [], "tokens": None}
for number in range(64):
    try:
        os.fstat(number)
    except OSError:
        continue
    told["descriptors"].append(number)
if len(sys.argv) > 1:
    told["tokens"] = struct.unpack("i", fcntl.ioctl(int(sys.argv[1]), termios.FIONREAD, bytes(4)))[0]
json.dump(told, sys.stdout)
"""


class Surroundings:
    """A pool of distinct tokens that somebody else made, and how to start a process under it."""

    def __init__(self, pipe: TokenPipe) -> None:
        self.auth = pipe.auth
        self.read_fd = pipe.read_fd
        self.popen_kwargs: dict[str, Any] = {
            "env": {**os.environ, "MAKEFLAGS": f"k -j4 --jobserver-auth={pipe.auth} -- X=y", "MFLAGS": "-k -j4"},
            "pass_fds": (pipe.read_fd, pipe.write_fd),
        }

    def run(self, *words: str) -> tuple[int, dict[str, Any], str, int]:
        """Status, what the witness told, stderr and process number of `jobserver run`."""
        with Running([*JOBSERVER, "run", *words, *python(WITNESS), str(self.read_fd)], **self.popen_kwargs) as running:
            done = running.finish()
            return done.returncode, json.loads(done.stdout or "{}"), done.stderr, running.pid


@pytest.fixture
def outer(whole: NewPipe) -> Surroundings:
    return Surroundings(whole(b"abc"))


@pytest.mark.parametrize("words", [[], ["--"]])
def test_joins_the_jobserver_around_it(words: list[str], outer: Surroundings) -> None:
    """The command takes this process's place, with nothing changed and no token taken."""
    status, told, err, pid = outer.run(*words)
    assert (status, err) == (0, f"jobserver: joining the jobserver of MAKEFLAGS ({outer.auth})\n")
    assert told["environment"] == outer.popen_kwargs["env"]
    assert told["descriptors"] == sorted([0, 1, 2, *outer.popen_kwargs["pass_fds"]])
    assert (told["pid"], told["tokens"]) == (pid, 3)


def test_joined_commands_status_is_its_own(outer: Surroundings) -> None:
    assert run("sh", "-c", "exit 3", **outer.popen_kwargs).returncode == 3
    assert run("sh", "-c", "kill -9 $$", **outer.popen_kwargs).returncode == -9


@pytest.mark.parametrize("option", ["--check", "--style pipe", "--style fifo --check"])
def test_options_for_an_own_jobserver_take_slots_of_the_one_around_it(option: str, outer: Surroundings) -> None:
    """The command has a jobserver of its own, and not the descriptors of the outer one, whose tokens are all back."""
    done = run(*option.split(), *python(WITNESS), **outer.popen_kwargs)
    told = json.loads(done.stdout)
    why = "--check" if "--check" in option else "--style"
    assert (done.returncode, done.stderr) == (
        0,
        f"jobserver: taking slots from the jobserver of MAKEFLAGS ({outer.auth}), since {why} needs a jobserver of "
        f"CMD's own\n",
    )
    flags = parse(told["environment"]["MAKEFLAGS"])
    assert flags.auth not in (None, outer.auth) and flags.jobs == 4
    assert told["environment"]["MAKEFLAGS"].endswith(" -- X=y")
    assert not set(outer.popen_kwargs["pass_fds"]) & set(told["descriptors"])


def test_own_jobserver_inside_another(outer: Surroundings) -> None:
    outer.popen_kwargs["env"].update(
        CARGO_MAKEFLAGS=f"-j --jobserver-auth={outer.auth}", MFLAGS="-k --jobserver-fds=1,2"
    )
    status, told, err, _ = outer.run("-j6", "--style", "pipe", "--check")
    assert (status, err) == (
        0,
        f"jobserver: -j6 makes a jobserver of its own beside the one of CARGO_MAKEFLAGS ({outer.auth}): the jobs of "
        f"both add up; to share that one leave -j out\n",
    )
    environment = told["environment"]
    flags = parse(environment["MAKEFLAGS"])
    assert flags.auth not in (None, outer.auth) and flags.jobs == 6
    assert environment["MAKEFLAGS"] == f"k -j6 --jobserver-auth={flags.auth} -- X=y"
    assert environment["CARGO_MAKEFLAGS"] == f" -j6 --jobserver-auth={flags.auth}"
    assert environment["MFLAGS"] == "-k"
    assert set(outer.popen_kwargs["pass_fds"]) < set(told["descriptors"])


@pytest.fixture
def no_pool(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Things that are no pool, by a word that stands for them in an address."""
    (tmp_path / "directory").mkdir()
    with open(tmp_path / "file", "w+") as file:
        yield {
            "FILE": str(file.fileno()),
            "MISSING": str(tmp_path / "no\nfifo"),
            "DIRECTORY": str(tmp_path / "directory"),
        }


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ("3", "that is neither two descriptors (R,W) nor fifo:PATH"),
        ("a,b", "that is neither two descriptors (R,W) nor fifo:PATH"),
        ("99999999999,1", "that is neither two descriptors (R,W) nor fifo:PATH"),
        ("fifo:", "nothing stands behind `fifo:`"),
        ("fifo:MISSING", "cannot be opened (No such file or directory): its maker has ended"),
        ("fifo:DIRECTORY", "cannot be opened (Is a directory)"),
        ("61,62", "descriptor 61 is closed in this process: mark the recipe line with `+`"),
        ("FILE,FILE", "is neither a pipe nor a socket nor a device"),
        ("-2,-2", "make disabled the jobserver for this recipe line: mark it with `+`"),
        ("gmake_semaphore_1", "the name of a semaphore (Windows) or a style that this version does not know"),
        ("pool:x", "the name of a semaphore (Windows) or a style that this version does not know"),
    ],
)
def test_unusable_jobserver_is_named_and_left_out(auth: str, reason: str, no_pool: dict[str, str]) -> None:
    for word, place in no_pool.items():
        auth = auth.replace(word, place)
    environment = {
        **os.environ,
        "MAKEFLAGS": f"k -j4 --jobserver-auth={auth} -- X=y",
        "MFLAGS": "-k --jobserver-fds=1,2",
    }
    numbers = [int(no_pool["FILE"])]
    done = run(*python(WITNESS), env=environment, pass_fds=numbers)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and reason in done.stderr
    assert done.stderr.startswith("jobserver: running `") and "without a jobserver: MAKEFLAGS has " in done.stderr
    told = json.loads(done.stdout)
    assert told["environment"] == {**environment, "MAKEFLAGS": "k -- X=y", "MFLAGS": "-k"}
    assert told["descriptors"] == sorted([0, 1, 2, *numbers])
    refused = run("--check", "true", env=environment, pass_fds=numbers)
    assert (refused.returncode, "add -j N" in refused.stderr) == (2, True)


def test_own_jobserver_inside_an_unusable_one(gnu_make: Tool) -> None:
    environment = {**os.environ, "MAKEFLAGS": "--jobserver-auth=61,62"}
    done = run("-j3", "--check", "--", gnu_make.path, "--version", env=environment)
    assert done.returncode == 0
    assert done.stderr.startswith("jobserver: -j3 makes a jobserver of its own beside the one of MAKEFLAGS (61,62): ")


@pytest.mark.parametrize("value", ["", "k", " -j8", "-- --jobserver-auth=3,4", "\udcff"])
def test_flags_without_a_jobserver_are_none(value: str) -> None:
    done = run("-j3", "--check", *python(TAMPER), "2", "2", "0", env={**os.environ, "MAKEFLAGS": value})
    assert (done.returncode, done.stderr) == (0, "")
