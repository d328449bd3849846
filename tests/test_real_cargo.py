"""Cargo and rustc as clients of our jobserver, and our client in a build script below cargo."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from jobserver_ffi import Client

from .conftest import TokenPipe, Tool
from .overlap import JobCounter, captured, told_in, write_recipe

pytestmark = pytest.mark.needs("sh")

NewPipe = Callable[[bytes], TokenPipe]

# Stands between cargo and rustc: a compilation is a job, what cargo only asks rustc is none.
WRAPPER = """\
#!/bin/sh
case "$*" in
    *"--crate-name ___"*) exec "$@" ;;
    *"--crate-name"*) exec {job} "$@" ;;
esac
exec "$@"
"""


def crates(directory: Path, count: int) -> None:
    """A workspace of crates that need nothing and nobody."""
    members = [f"crate{number}" for number in range(count)]
    (directory / "Cargo.toml").write_text(f"[workspace]\nresolver = '2'\nmembers = {members}\n")
    for member in members:
        (directory / member / "src").mkdir(parents=True)
        (directory / member / "src/lib.rs").touch()
        (directory / member / "Cargo.toml").write_text(f"[package]\nname = '{member}'\nedition = '2021'\n")


def environment(directory: Path, **more: str) -> dict[str, str]:
    """An environment in which cargo needs no net, and puts what it makes into the directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_BUILD_", "RUSTC_"))}
    return {**kept, "CARGO_TARGET_DIR": str(directory / "target"), "CARGO_NET_OFFLINE": "true", **more}


def counted(directory: Path, counter: JobCounter) -> dict[str, str]:
    """An environment in which every compilation is counted."""
    wrapper = directory / "wrapper"
    wrapper.write_text(WRAPPER.format(job=counter.command))
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return environment(directory, RUSTC_WRAPPER=str(wrapper))


def cargo_in(directory: Path, cargo: Tool) -> list[str]:
    return [cargo.path, "check", "--offline", "--manifest-path", str(directory / "Cargo.toml")]


@pytest.mark.parametrize("variables", [["MAKEFLAGS", "CARGO_MAKEFLAGS"], ["CARGO_MAKEFLAGS"], ["MAKEFLAGS"]])
@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_jobs_fill_the_slots(style: str, variables: list[str], cargo: Tool, tmp_path: Path) -> None:
    crates(tmp_path, 6)
    with Client(4, style=style) as client, JobCounter(6, 4, client.available) as counter:
        options = captured({"env": counted(tmp_path, counter), "variables": variables})
        with client.acquire():
            done = client.run(cargo_in(tmp_path, cargo), **options)
        assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
        assert client.available() == 4
    counter.check()


def test_the_bytes_in_a_pipe_come_back(cargo: Tool, tmp_path: Path, whole: NewPipe) -> None:
    crates(tmp_path, 4)
    pipe = whole(b"ab")
    with pipe.client() as client, JobCounter(4, 3, client.available) as counter:
        done = client.run(cargo_in(tmp_path, cargo), **captured({"env": counted(tmp_path, counter)}))
        assert done.returncode == 0, done.stderr
        assert pipe.content() == b"ab"
    counter.check()


BUILD_SCRIPT = """\
fn main() {
    let command = std::env::var("COMMAND").unwrap();
    let status = std::process::Command::new("/bin/sh").arg("-c").arg(command).status().unwrap();
    assert!(status.success());
}
"""

IN_BUILD_SCRIPT = """
held = [client.slot(), client.acquire(), client.acquire()]
tell(variable=found.variable, auth=client.auth, implicit=held[0].implicit, free=client.available())
"""


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_a_build_script_reaches_our_pool_through_cargo(style: str, cargo: Tool, tmp_path: Path) -> None:
    crates(tmp_path, 1)
    (tmp_path / "crate0/build.rs").write_text(BUILD_SCRIPT)
    command = shlex.join(write_recipe(tmp_path / "program.py", IN_BUILD_SCRIPT, tmp_path / "told"))
    with Client(3, style=style) as client:
        options = captured({"env": environment(tmp_path, COMMAND=command)})
        with client.acquire():
            done = client.run(cargo_in(tmp_path, cargo), **options)
        assert done.returncode == 0, done.stderr
        assert client.available() == 3
        told = {"variable": "CARGO_MAKEFLAGS", "auth": client.auth, "implicit": True, "free": 0}
        assert told_in(tmp_path / "told") == [told]
