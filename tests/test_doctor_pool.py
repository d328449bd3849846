"""`jobserver doctor` where there is a jobserver, but something is wrong with it, or goes past it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from .command import Running
from .conftest import Tool, missing
from .doctored import (
    BECOME_ANOTHER,
    DOCTOR,
    Seen,
    doctor_after,
    in_recipe,
    need_root,
    python_script,
    shell,
)

pytestmark = pytest.mark.needs("/proc")


def test_two_addresses(make43: Tool, tmp_path: Path) -> None:
    """A client of ours inside a make's recipe, whose child sees the client by the variable of cargo."""
    program = f"""\
from jobserver_ffi import Client
with Client(5, style="fifo", path="fifo") as client, client.acquire():
    found = Client.from_env()
    held = found.configure(cwd=".")
    client.run(["sh", "-c", {shell(DOCTOR)!r}], variables=("CARGO_MAKEFLAGS",), pass_fds=held["pass_fds"])
"""
    seen = in_recipe(make43, "-j3", python_script(tmp_path, program), tmp_path)
    assert seen.status == 0
    seen.check("two-addresses")


def test_a_dry_run(make43: Tool, tmp_path: Path) -> None:
    in_recipe(make43, "-n -j3", shell(DOCTOR), tmp_path).check("dry-run")


def test_a_sub_make_that_left_the_jobserver(make441: Tool, tmp_path: Path) -> None:
    (tmp_path / "part.mk").write_text(f"all:\n\t+@{shell(DOCTOR)}; true\n".replace("$?", "$$?"))
    seen = in_recipe(make441, "-j3", f"{make441.path} -f part.mk -j2", tmp_path)
    assert seen.status == 0
    seen.check("own-jobs")


def test_a_ninja_that_left_the_jobserver(make43: Tool, ninja: Tool, tmp_path: Path) -> None:
    (tmp_path / "build.ninja").write_text("rule job\n  command = sh inner\nbuild all: job\n")
    (tmp_path / "inner").write_text(shell(DOCTOR) + "\n")
    seen = in_recipe(make43, "-j3", f"{ninja.path} -j2", tmp_path)
    assert "own-jobs" in seen.names and "`ninja -j2` inside a jobserver" in seen.text


def killed(make: Tool, directory: Path, before: str = "") -> Seen:
    """A doctor in a recipe whose make was killed."""
    program = f"""\
import os, signal, subprocess, time
{before}
above = os.getppid()
os.kill(above, signal.SIGKILL)
while os.getppid() == above:
    os.sched_yield()
subprocess.run(["sh", "-c", {shell(DOCTOR)!r}], close_fds=False)
"""
    command = python_script(directory, program)
    (directory / "Makefile").write_text(f"all:\n\t+@exec {command}\n")
    environ = {**os.environ, "TMPDIR": str(directory)}  # where make 4.4 puts its fifo, which stays
    with Running([make.path, "-j3"], cwd=directory, env=environ) as running:
        running.finish()  # The doctor has the other end of its output open until it has ended.
    return Seen(directory)


def test_a_maker_that_was_killed(make43: Tool, tmp_path: Path) -> None:
    """A pipe is there as long as somebody has it open; the tokens that are in it can still be used."""
    seen = killed(make43, tmp_path)
    assert (seen.status, seen.found["free"]) == (0, 2)
    seen.check("maker-dead-with-tokens")


def test_a_maker_that_was_killed_and_no_token(make43: Tool, tmp_path: Path) -> None:
    before = "from jobserver_ffi import Client\nheld = Client.from_env().acquire_many(2, minimum=2)"
    killed(make43, tmp_path, before).check("maker-dead")


def test_a_fifo_whose_maker_was_killed(make441: Tool, tmp_path: Path) -> None:
    """The fifo stays, and what was in it is gone with the last who had it open."""
    seen = killed(make441, tmp_path)
    assert (seen.names, seen.status, seen.found["free"]) == (["maker-dead"], 1, 0)


def test_a_maker_outside_of_a_container_is_not_dead(gnu_make: Tool, tmp_path: Path) -> None:
    """A name space of processes in which that of the recipe is the first one."""
    need_root()
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        missing("the right to unshare processes")
    line = shlex.join([*unshare, "sh", "-c", shell(DOCTOR)])
    seen = in_recipe(gnu_make, "-j3", line, tmp_path)
    assert (seen.status, seen.names, seen.found["free"]) == (0, [], 2)


TAKE_ONE = "import os; from jobserver_ffi import Client; Client.from_env().acquire_raw(); os._exit(0)"


def test_tokens_that_are_lost(make43: Tool, tmp_path: Path) -> None:
    take = python_script(tmp_path, TAKE_ONE)
    in_recipe(make43, "-j3", f"{take}; {take}; {shell(DOCTOR)}", tmp_path).check("tokens-lost")


def test_a_token_that_is_lost_while_another_is_in_use(make43: Tool, tmp_path: Path) -> None:
    """Two jobs run, of which the doctor itself is one, without a shell between it and make."""
    (tmp_path / "Makefile").write_text(f"""\
all: job end
job:
\t+@{python_script(tmp_path, TAKE_ONE)}; echo > told; read line < go
doctor:
\t-+@read line < told; exec {shlex.join(DOCTOR)} --json > json
end: doctor
\t@echo > go
""")
    os.mkfifo(tmp_path / "told")
    os.mkfifo(tmp_path / "go")
    with Running([make43.path, "-k", "-j3"], cwd=tmp_path) as running:
        running.finish()
    (finding,) = json.loads((tmp_path / "json").read_text())["findings"]
    assert finding["what"].endswith("1 of the 2 are in nobody's hands")


def test_tokens_that_others_have(make43: Tool, tmp_path: Path) -> None:
    """The jobs of a build that uses all its slots are nobody's fault."""
    holder = """\
import sys
from jobserver_ffi import Client
with Client.from_env().acquire_many(2, minimum=2):
    print(flush=True)
    sys.stdin.read()
"""
    hold = python_script(tmp_path, holder)
    os.mkfifo(tmp_path / "told")
    os.mkfifo(tmp_path / "go")
    line = f"{hold} < go > told & exec 9> go; read line < told; {shell(DOCTOR)}; exec 9>&-; wait"
    seen = in_recipe(make43, "-j3", line, tmp_path)
    assert seen.status == 0
    seen.check("starved")


def test_the_doctor_leaves_all_as_it_was(gnu_make: Tool, tmp_path: Path) -> None:
    """make counts its tokens at its end."""
    (tmp_path / "script").write_text(shell(DOCTOR))
    (tmp_path / "Makefile").write_text("all: one two\none two:\n\t+@mkdir $@; cd $@; sh ../script; true\n")
    done = subprocess.run([gnu_make.path, "-j2"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert {Seen(tmp_path / name).found["style"] for name in ("one", "two")} <= {"pipe", "fifo"}


def test_a_pipe_of_another_user(make43: Tool, tmp_path: Path) -> None:
    need_root()
    seen = in_recipe(make43, "-j3", shell(doctor_after(BECOME_ANOTHER)), tmp_path)
    assert seen.status == 0
    seen.check("another-user")
