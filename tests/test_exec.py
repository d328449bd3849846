"""`jobserver exec`: slots of the jobserver around it, for a command that only knows a number of jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi.cli.exec import VARIABLES
from jobserver_ffi.makeflags import parse

from .command import JOBSERVER, Done, Running, python
from .conftest import TokenPipe, Tool
from .overlap import GUARD

pytestmark = pytest.mark.needs("sh")

NewPipe = Callable[[bytes], TokenPipe]
TELL = python("import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:], os.listdir('/dev/fd')]))")


def exec_in(pipe: TokenPipe | None, *words: str, **popen_kwargs: Any) -> Done:
    """Runs `jobserver exec` under a jobserver that somebody else made."""
    given = {} if pipe is None else {"pass_fds": (pipe.read_fd, pipe.write_fd)}
    environment = {**os.environ, **({} if pipe is None else pipe.environ)}
    with Running([*JOBSERVER, "exec", *words], env=environment, **given, **popen_kwargs) as running:
        return running.finish()


@pytest.mark.parametrize(
    ("words", "count"),
    [([], None), (["--max", "1"], 1), (["--max", "3"], 3), (["--max", "9"], 4), (["--min", "4", "--max", "4"], 4)],
)
def test_takes_what_is_free(words: list[str], count: int | None, whole: NewPipe) -> None:
    """The slot of the process itself counts."""
    pipe = whole(b"abc")
    done = exec_in(pipe, *words, *TELL)
    assert (done.returncode, done.stderr) == (0, "")
    environment, arguments, descriptors = json.loads(done.stdout)
    if count is None:
        count = min(len(os.sched_getaffinity(0)), 4)
    assert {environment[name] for name in VARIABLES} == {str(count)}
    assert parse(environment["MAKEFLAGS"]).auth is None
    assert arguments == []
    assert str(pipe.read_fd) not in descriptors


def test_named_variables_and_a_placeholder(whole: NewPipe) -> None:
    words = ["--max", "3", "--env", "JOBS", "--env", "THREADS", "--format", "{}", *TELL, "-n{}", "{}:{}"]
    environment, arguments, _ = json.loads(exec_in(whole(b"abc"), *words).stdout)
    assert (environment["JOBS"], environment["THREADS"], arguments) == ("3", "3", ["-n3", "3:3"])
    assert "MAX_JOBS" not in environment


def test_placeholder_is_left_alone_unless_it_is_asked_for(whole: NewPipe) -> None:
    assert json.loads(exec_in(whole(b"a"), *TELL, "{}").stdout)[1] == ["{}"]


def test_minimum_that_does_not_come(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    with pipe.client().acquire():
        done = exec_in(pipe, "--min", "4", "--timeout", "0.05", "true")
    assert (done.returncode, done.stderr) == (124, "jobserver: 4 slots did not become free within 0.05 s\n")


def test_minimum_that_is_waited_for(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    token = pipe.client().acquire()
    found: list[Done] = []
    waiting = threading.Thread(target=lambda: found.append(exec_in(pipe, "--min", "4", "--max", "4", *TELL)))
    waiting.start()
    token.release()
    waiting.join(GUARD)
    assert json.loads(found[0].stdout)[0]["MAX_JOBS"] == "4"


def test_several_that_want_more_than_there_is_do_not_wait_for_each_other(whole: NewPipe) -> None:
    pipe = whole(b"abcd")
    found: list[Done] = []
    threads = [
        threading.Thread(target=lambda: found.append(exec_in(pipe, "--min", "4", "--max", "4", "true")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert [done.returncode for done in found] == [0] * 6


@pytest.mark.parametrize("command", [["sh", "-c", "exit 3"], ["sh", "-c", "kill -9 $$"], ["/no/such"]])
def test_everything_is_given_back_whatever_the_command_does(command: list[str], whole: NewPipe) -> None:
    """The fixture counts the tokens, byte by byte."""
    statuses = {"exit 3": 3, "kill -9 $$": 128 + 9, "/no/such": 127}
    assert exec_in(whole(b"abc"), "--max", "4", *command).returncode == statuses[command[-1]]


def test_signals_are_passed_on_and_all_is_given_back(whole: NewPipe) -> None:
    pipe = whole(b"abc")
    with Running(
        [*JOBSERVER, "exec", "--max", "4", "sh", "-c", "echo there; exec cat"],
        env={**os.environ, **pipe.environ},
        pass_fds=(pipe.read_fd, pipe.write_fd),
        stdin=subprocess.PIPE,
    ) as running:
        assert running.process.stdout is not None and running.process.stdout.readline() == "there\n"
        os.kill(running.pid, signal.SIGTERM)
        assert running.process.wait(GUARD) == 128 + signal.SIGTERM


def test_without_a_jobserver() -> None:
    done = exec_in(None, "--max", "5", *TELL)
    assert json.loads(done.stdout)[0]["MAX_JOBS"] == "5"
    assert done.stderr.startswith("jobserver: no slots to take, so `") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min", "0", "true"], "'0' is no number of slots"),
        (["--max", "x", "true"], "'x' is no number of slots"),
        (["--min", "3", "--max", "2", "true"], "3 slots are more than --max, 2"),
        (["--timeout", "-1", "true"], "'-1' is no time"),
        (["--timeout", "nan", "true"], "'nan' is no time"),
        (["--format", "", "true"], "an empty text is everywhere"),
        ([], "no CMD given"),
        (["--nonsense", "true"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_arguments(words: list[str], message: str) -> None:
    done = exec_in(None, *words)
    assert done.returncode == 2 and message in done.stderr


def test_in_a_recipe(gnu_make: Tool, tmp_path: Path) -> None:
    """Below a real make: two of them share its slots, and it finds all its tokens again."""
    line = " ".join([*JOBSERVER, "exec", "--min", "2", "--max", "3", "--env", "N", "--", "sh", "-c", "'echo $$N'"])
    (tmp_path / "Makefile").write_text(f"all: one two\n.PHONY: all one two\none two:\n\t+@{line}\n")
    done = subprocess.run([gnu_make.path, "-s", "-j4"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) <= {"2", "3"} and len(done.stdout.split()) == 2
