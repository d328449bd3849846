"""`jobserver doctor` tries the tools on PATH: real ones, of which is known what they do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobserver_ffi import Client
from jobserver_ffi.create import STYLES
from jobserver_ffi.doctor import trials
from jobserver_ffi.doctor.tools import survey

from .command import JOBSERVER, script
from .conftest import Tool, missing
from .doctored import (
    DOCTOR,
    in_recipe,
    shell,
)
from .overlap import server_command

posix = pytest.mark.needs("/proc", "sh")


def tools_of(path: str, *words: str, **environ: str) -> dict[str, dict[str, str]]:
    """For each tool on a PATH what it did with each style."""
    done = subprocess.run(
        [*JOBSERVER, "doctor", "--json", *words],
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    tools = json.loads(done.stdout)["tools"]
    return {tool["name"]: {style: seen["outcome"] for style, seen in tool["styles"].items()} for tool in tools}


def only(directory: Path, *tools: str) -> str:
    """A PATH with these tools only, and what they need: a shell."""
    directory.mkdir()
    for tool in tools:
        (directory / Path(tool).name).symlink_to(tool)
    return str(directory)


@posix
def test_makes_and_ninja_are_tried(make43: Tool, make441: Tool, ninja: Tool, tmp_path: Path) -> None:
    assert tools_of(only(tmp_path / "old", make43.path, ninja.path)) == {
        "make": {"pipe": "joins", "fifo": "stops"},
        "ninja": {"pipe": "joins", "fifo": "joins"},
    }
    assert tools_of(only(tmp_path / "new", make441.path)) == {"make": {"pipe": "joins", "fifo": "joins"}}


@posix
def test_flags_around_and_odd_directories_do_not_disturb_the_trials(make43: Tool, ninja: Tool, tmp_path: Path) -> None:
    """`-n` would have make run nothing; ninja reads no fifo with a blank in its path."""
    place = tmp_path / "a b's $c"
    place.mkdir()
    path = only(tmp_path / "bin", make43.path, ninja.path)
    assert tools_of(path, TMPDIR=str(place), MAKEFLAGS="n", GNUMAKEFLAGS="-j9") == {
        "make": {"pipe": "joins", "fifo": "stops"},
        "ninja": {"pipe": "joins", "fifo": "joins"},
    }
    assert list(place.iterdir()) == []


@posix
@pytest.mark.parametrize("name", ["make", "ninja", "cmake", "ctest"])
def test_jobs_run_in_odd_directories(name: str, tmp_path: Path) -> None:
    """A tool whose jobs fail has a token for an instant too, which is seen or not."""
    place = tmp_path / "a b's $c"
    place.mkdir()
    tool = shutil.which(name) or missing(name)
    attempt = getattr(trials, f"try_{name}")
    environ = {variable: value for variable, value in os.environ.items() if variable not in trials.DISTURBING}
    attempt(tool, "pipe", place, environ)
    assert {path.name for path in place.glob("*.started")} == {"one.started", "two.started"}


@posix
def test_what_this_system_has_is_tried(cargo: Tool) -> None:
    found = {tool["name"]: tool for tool in survey_of_system()}
    for name in ("gcc", "cmake", "ctest", "cargo", "make"):
        if name not in found:
            missing(name)
    joins = {
        name: [style for style, seen in tool["styles"].items() if seen["outcome"] == "joins"]
        for name, tool in found.items()
    }
    assert joins["cargo"] == ["pipe", "fifo"]
    assert joins["gcc"] == (["pipe", "fifo"] if version(found["gcc"]) >= (13,) else ["pipe"])
    assert joins["ctest"] == (["pipe", "fifo"] if version(found["ctest"]) >= (3, 29) else [])
    assert joins["make"] == joins["cmake"] == (["pipe", "fifo"] if version(found["make"]) >= (4, 4) else ["pipe"])


def version(tool: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, tool["version"].split(".")))


def survey_of_system() -> list[dict[str, Any]]:
    done = subprocess.run([*JOBSERVER, "doctor", "--json"], capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout)["tools"])


# A ninja as upstream has it: the one on PyPI reads pipes, too.
UPSTREAM_NINJA = """\
#!/bin/sh
case $MAKEFLAGS in
*fifo:*) ;;
*) unset MAKEFLAGS CARGO_MAKEFLAGS ;;
esac
exec {ninja} "$@"
"""


@posix
@pytest.mark.parametrize("server", ["4.3 pipe", "4.4.1 fifo"])
def test_what_the_tools_mean_for_this_jobserver(server: str, make43: Tool, ninja: Tool, tmp_path: Path) -> None:
    """A make that stops at a fifo and a ninja that reads no pipe are told in the recipe where it happens."""
    upstream = script(tmp_path / "ninja", UPSTREAM_NINJA.format(ninja=ninja.path))
    shell_tools = [shutil.which(name) or missing(name) for name in ("sh", "true")]
    path = only(tmp_path / "bin", make43.path, str(upstream), *shell_tools)
    make, _ = server_command(server)
    doctor = [word for word in DOCTOR if word != "--no-tools"]
    seen = in_recipe(make, "-j3", shell(doctor), tmp_path, environ={"PATH": path})
    assert seen.status == (1 if "fifo" in server else 0)
    seen.check(f"tools-{server.split()[1]}")


@posix
def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LONGEST", 0.3)
    monkeypatch.setattr("jobserver_ffi.doctor.tools.LONGEST", 0.3)
    started = tmp_path / "started"
    started.touch()
    script(tmp_path / "make", f"#!/bin/sh\necho $$ >> {started}\nexec {shutil.which('sleep')} 1000\n")
    (tool,) = survey({"PATH": str(tmp_path)})
    assert [seen.outcome for seen in tool.styles.values()] == ["silent"] * len(STYLES)
    assert not any(map(psutil.pid_exists, map(int, started.read_text().split())))


@pytest.mark.needs("semaphore")
def test_tools_of_windows_are_tried(make441: Tool, ninja: Tool) -> None:
    place = str(Path(make441.path).parent)
    assert Path(ninja.path).parent == Path(place)
    found = tools_of(f"{place}{os.pathsep}{os.environ['PATH']}")
    assert found["make"] == found["ninja"] == {"semaphore": "joins"}


@pytest.mark.needs("semaphore")
@pytest.mark.parametrize(
    ("auth", "name"),
    [("gmake_semaphore_none", "maker-gone"), ("3,4", "unknown-style"), (None, "not-under-a-jobserver")],
)
def test_no_semaphore(auth: str | None, name: str) -> None:
    environ = {**os.environ, **({} if auth is None else {"MAKEFLAGS": f" -j3 --jobserver-auth={auth}"})}
    done = subprocess.run([*DOCTOR, "--json"], env=environ, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert ([finding["name"] for finding in found["findings"]], done.returncode) == ([name], 1)


@pytest.mark.needs("semaphore")
def test_a_semaphore() -> None:
    with Client(3) as client, client.acquire():
        done = client.run([*DOCTOR, "--json"], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        assert (found["style"], found["free"], found["findings"]) == ("semaphore", 2, [])
