"""`jobserver status`: every pool that it can reach, with real makes, ninja, cargo, `jobserver run` and `serve`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobserver_ffi import Client

from .command import JOBSERVER, Lines, Running
from .conftest import TokenPipe, Tool
from .overlap import GUARD, server_command
from .seen import JOB, check, child_of, makefile, ninja_file, pool_in, standing
from .served import OTHER_USER, Held, Place, as_other_user, new_place

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

pytestmark = pytest.mark.needs("/proc")

NewPipe = Callable[[bytes], TokenPipe]


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as place:
        yield place


def figures(pool: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(pool[item] for item in ("kind", "style", "limit", "in_use", "free"))


# Running processes.


@pytest.mark.parametrize("server", ["4.3 pipe", "4.4.1 pipe", "4.4.1 fifo"])
@pytest.mark.parametrize("prefix", ["", "+"])
def test_a_make(server: str, prefix: str, place: Place, tmp_path: Path) -> None:
    """Also one whose children do not have its pipe, and are told nothing of it (make 4.4.1, no `+`)."""
    make, command = server_command(server)
    makefile(tmp_path, 3, prefix)
    with standing([*command, "-j4"], tmp_path, 3) as build:
        words = ["status", "--pid", str(build.pid)]
        text, as_json = place.call(*words), place.call(*words, "--json")
        pool = pool_in(as_json)
        assert figures(pool) == ("shared", server.split()[1], 4, 3, 1)
        assert (pool["name"], pool["process"]) == ("make", build.pid)
        makers = [one["process"] for one in pool["processes"] if one["made"]]
        assert makers == [build.pid]
        golden = f"make-{server.replace(' ', '-')}{'-plus' if prefix else ''}"
        check(golden, text, as_json, make.path, tmp_path)


def test_a_process_below_a_make(make441: Tool, place: Place, tmp_path: Path) -> None:
    makefile(tmp_path, 2)
    with standing([make441.path, "-s", "-j3"], tmp_path, 2) as build:
        pool = pool_in(place.call("status", "--pid", str(child_of(build.pid, "sh")), "--json"))
        assert figures(pool) == ("shared", "fifo", 3, 2, 1)
        assert pool["process"] == build.pid


def test_a_sub_make_that_left_the_jobserver(make43: Tool, place: Place, tmp_path: Path) -> None:
    """It was started under one jobserver, and has made another one: what it made counts."""
    makefile(tmp_path, 2)
    (tmp_path / "outer.mk").write_text(f"all:\n\t+@{make43.path} -s -j5 2>&1\n")
    with standing([make43.path, "-f", "outer.mk", "-j2"], tmp_path, 2) as build:
        inner = child_of(build.pid, "make")
        pool = pool_in(place.call("status", "--pid", str(inner), "--json"))
        assert (figures(pool), pool["process"]) == (("shared", "pipe", 5, 2, 3), inner)
        pool = pool_in(place.call("status", "--pid", str(build.pid), "--json"))
        assert (figures(pool), pool["process"]) == (("shared", "pipe", 2, 1, 1), build.pid)


def test_ninja_below_a_make(make441: Tool, ninja: Tool, place: Place, tmp_path: Path) -> None:
    ninja_file(tmp_path, 2)
    (tmp_path / "Makefile").write_text(f"all:\n\t+@{ninja.path} > log; true\n")
    with standing([make441.path, "-s", "-j3"], tmp_path, 2) as build:
        pool = pool_in(place.call("status", "--pid", str(child_of(build.pid, "ninja")), "--json"))
        assert figures(pool) == ("shared", "fifo", 3, 2, 1)
        names = {one["name"]: one["made"] for one in pool["processes"]}
        assert names == {"make": True, "ninja": False}


def test_cargo(cargo: Tool, place: Place, tmp_path: Path) -> None:
    """cargo has a jobserver of its own, and tells nobody how many slots it has."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lib.rs").touch()
        (tmp_path / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\n[lib]\npath = "lib.rs"\n')
    (tmp_path / "Cargo.toml").write_text('[workspace]\nresolver = "2"\nmembers = ["one", "two"]\n')
    wrapper = tmp_path / "wrapper"
    case = f'case "$*" in *"--crate-name ___"*) ;; *--crate-name*) cd {tmp_path}; {JOB};; esac'
    wrapper.write_text(f'#!/bin/sh\n{case}\nexec "$@"\n')
    wrapper.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_BUILD_", "RUSTC_"))}
    environ = {**kept, "RUSTC_WRAPPER": str(wrapper), "CARGO_TARGET_DIR": str(tmp_path / "target")}
    with standing([cargo.path, "check", "--offline", "-j3"], tmp_path, 2, env=environ) as build:
        done = place.call("status", "--pid", str(build.pid))
        assert "1 free; how many slots there are is not known" in done.stdout
        pool = pool_in(place.call("status", "--pid", str(build.pid), "--json"))
        assert figures(pool) == ("shared", "pipe", None, None, 1)
        assert pool["process"] == build.pid


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_jobserver_run(style: str, make441: Tool, place: Place, tmp_path: Path) -> None:
    makefile(tmp_path, 2)
    command = [*JOBSERVER, "run", "-j2", "--style", style, "--", make441.path, "-s"]
    with standing(command, tmp_path, 2, env=place.environment) as build:
        words = ["status", "--pid", str(build.pid)]
        text, as_json = place.call(*words), place.call(*words, "--json")
        check(f"run-{style}", text, as_json, make441.path, tmp_path, place.runtime)
        pool = pool_in(as_json)
        assert (pool["kind"], pool["process"], pool["limit"]) == ("leases", build.pid, 2)
        inside = pool_in(place.call("status", "--pid", str(child_of(build.pid, "make")), "--json"))
        assert inside["process"] == build.pid and inside["kind"] == "leases"


def test_jobserver_run_with_several_commands(make441: Tool, place: Place, tmp_path: Path) -> None:
    make = [make441.path, "-s", "-f"]
    for name in ("one.mk", "two.mk"):
        (tmp_path / name).write_text(f"all:\n\t@{JOB}\n")
    command = [*JOBSERVER, "run", "-j3", "--", *make, "one.mk", "---", *make, "two.mk"]
    with standing(command, tmp_path, 2, env=place.environment) as build:
        pool = pool_in(place.call("status", "--pid", str(build.pid), "--json"))
        assert (pool["kind"], pool["process"], pool["limit"]) == ("leases", build.pid, 3)
        assert sorted(lease["command"][-1] for lease in pool["leases"]) == ["one.mk", "two.mk"]
        assert sum(lease["untaken"] for lease in pool["leases"]) <= 1


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_a_client_of_ours(style: str, place: Place) -> None:
    """Also while it has no child: of its own pipe nothing tells then, its private fifo is known by its place."""
    program = (
        f"import subprocess, sys; from jobserver_ffi import Client; client = Client(3, style={style!r}); "
        f"token = client.acquire(); child = {'1' if style == 'fifo' else '0'} or client.popen(['sleep', '1000']); "
        f"print('began', flush=True); sys.stdin.read()"
    )
    with Running([sys.executable, "-c", program], env=place.environment, stdin=subprocess.PIPE) as running:
        assert running.process.stdout is not None
        Lines(running.process.stdout.fileno()).next()
        pool = pool_in(place.call("status", "--pid", str(running.pid), "--json"))
        assert (pool["kind"], pool["style"], pool["free"]) == ("shared", style, 2)
        assert (pool["limit"], pool["in_use"]) == ((None, None) if style == "fifo" else (3, 1))


def test_nothing_is_taken_or_changed(whole: NewPipe, place: Place) -> None:
    """The pipe's own bytes, and the flags of the very description that others share, are as before."""
    pipe = whole(b"abc")
    os.set_blocking(pipe.read_fd, True)
    child = subprocess.Popen(
        ["sleep", "1000"], env={**os.environ, **pipe.environ}, pass_fds=(pipe.read_fd, pipe.write_fd)
    )
    try:
        before = Path(f"/proc/self/fdinfo/{pipe.read_fd}").read_text()
        for words in (["--pid", str(child.pid)], ["--pid", str(os.getpid())], ["--all"]):
            assert place.call("status", *words).returncode == 0
        pool = pool_in(place.call("status", "--pid", str(child.pid), "--json"))
        assert figures(pool) == ("shared", "pipe", 4, 1, 3)
        assert Path(f"/proc/self/fdinfo/{pipe.read_fd}").read_text() == before
        assert pipe.content() == b"abc"
    finally:
        child.kill()
        child.wait()


# The jobserver around it.


@pytest.mark.parametrize("server", ["4.3 pipe", "4.4.1 fifo"])
def test_the_surrounding_one(server: str, place: Place, tmp_path: Path) -> None:
    make, command = server_command(server)
    status = shlex.join([*JOBSERVER, "status"])
    (tmp_path / "Makefile").write_text(f"all:\n\t+@{status} > text; {status} --json > json; true\n")
    environ = {**place.environment, "TMPDIR": str(tmp_path)}
    with Running([*command, "-j3"], cwd=tmp_path, env=environ) as running:
        done = running.finish()
    assert (done.returncode, done.stderr) == (0, "")
    text, as_json = (subprocess.CompletedProcess([], 0, (tmp_path / name).read_text(), "") for name in ("text", "json"))
    assert figures(pool_in(as_json)) == ("shared", server.split()[1], 3, 1, 2)
    check(f"surrounding-{server.replace(' ', '-')}", text, as_json, make.path, tmp_path)


def test_the_surrounding_one_cannot_be_used(make43: Tool, place: Place, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"all:\n\t@{shlex.join([*JOBSERVER, 'status'])}; true\n")
    with Running([make43.path, "-j3"], cwd=tmp_path, env=place.environment) as running:
        done = running.finish()
    assert "has --jobserver-auth='3,4', but" in done.stderr and "`jobserver doctor` says more" in done.stderr


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_a_lease_around_it_is_shown_as_its_pool(style: str, place: Place) -> None:
    status = [*JOBSERVER, "status", "--json"]
    own = pool_in(place.call("run", "-j3", "--style", style, "--", *status))
    assert (own["kind"], own["limit"]) == ("leases", 3)
    with place.serve("-j4") as server:
        pool = pool_in(place.call("run", "--pool", "default", "--style", style, "--", *status))
        assert (pool["kind"], pool["process"], pool["limit"], pool["in_use"]) == ("served", server.pid, 4, 1)


# Served pools.


def test_served_pools(place: Place) -> None:
    with place.serve("-j4", "--min-memory", "1%") as server, place.serve("--name", "other", "-j2") as other:
        with Held(place, "--style", "pipe") as build:
            words = ["status", "--pool", "default"]
            check("served", place.call(*words), place.call(*words, "--json"), place.runtime)
            pools = json.loads(place.call("status", "--json").stdout)["pools"]
            assert {pool["name"]: pool["process"] for pool in pools} == {"default": server.pid, "other": other.pid}
            for process in (server.pid, build.running.pid, build.command):
                found = pool_in(place.call("status", "--pid", str(process), "--json"))
                assert (found["name"], found["in_use"], found["free"]) == ("default", 1, 3)
                assert [lease["process"] for lease in found["leases"]] == [build.running.pid]
        # One that was killed leaves its socket, and is none any more.
        other.process.kill()
        other.process.wait(GUARD)
        assert pool_in(place.call("status", "--json"))["name"] == "default"


def test_a_server_that_does_not_answer(place: Place) -> None:
    with place.serve() as server, place.serve("--name", "other") as other:
        other.process.send_signal(signal.SIGSTOP)
        done = place.call("status", "--json")
        assert pool_in(done)["process"] == server.pid
        assert done.stderr.startswith("jobserver: cannot see pool `other`: the server at ")
        assert "does not answer: it is stopped (`kill -CONT` continues it)" in done.stderr
        other.process.send_signal(signal.SIGCONT)


def test_all_of_them(make43: Tool, place: Place, tmp_path: Path) -> None:
    makefile(tmp_path, 2)
    waiting = ["run", "-j5", "--", "sh", "-c", "echo; read end"]
    with (
        place.serve("-j3") as server,
        standing([make43.path, "-s", "-j7"], tmp_path, 2) as build,
        place.begin(*waiting, stdin=subprocess.PIPE) as run,
    ):
        assert run.process.stdout is not None and run.process.stdout.readline() == "\n"
        pools = json.loads(place.call("status", "--all", "--json").stdout)["pools"]
        ours = [pool for pool in pools if pool["process"] in (server.pid, build.pid, run.pid)]
        found = sorted((pool["kind"], pool["limit"]) for pool in ours)
        assert found == [("leases", 5), ("served", 3), ("shared", 7)], ours


def test_numbers_that_mean_other_pipes(place: Place) -> None:
    """A process whose child was given an address that is none of its own has no pool for that."""
    for_child, out = os.pipe(), os.pipe()
    program = (
        "import os, subprocess, sys\n"
        f"auth = ' -j3 --jobserver-auth={for_child[0]},{out[1]}'\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, env={'MAKEFLAGS': auth})\n"
        "print('began', flush=True); input(); child.communicate(b'\\n')"
    )
    command = [sys.executable, "-c", program]
    with Running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(for_child[0], out[1])) as parent:
        assert parent.process.stdout is not None and parent.process.stdout.readline() == "began\n"
        done = place.call("status", "--pid", str(parent.pid))
        assert (done.returncode, done.stdout) == (1, "") and "has no jobserver" in done.stderr
    for descriptor in (*for_child, *out):
        os.close(descriptor)


# What cannot be seen.


def test_what_cannot_be_seen(place: Place, make43: Tool, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        done = place.call("status", *words)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    assert refused() == (
        "jobserver: cannot see a pool: there is no jobserver around this process, and no pool is served: `jobserver "
        "serve` or `jobserver run --pool NAME -- CMD` serves one, `jobserver status --pid PID` looks at a make that "
        "runs\n"
    )
    assert not place.directory.exists()
    with subprocess.Popen(["true"]) as gone:
        pass
    assert refused("--pid", str(gone.pid)).endswith(
        f"there is no process {gone.pid} (any more): `pgrep -ax make` lists the makes that run\n"
    )
    with Running(["sleep", "1000"]) as running:
        assert "`sleep` has no jobserver: it made none and is under none" in refused("--pid", str(running.pid))
    makefile(tmp_path, 1)
    with standing([make43.path, "-s"], tmp_path, 1) as build:
        assert refused("--pid", str(build.pid)).endswith("start it as `make -jN`, N from 2 on\n")
    with standing([make43.path, "-s", "-j2"], tmp_path, 1) as build:
        assert refused("--pid", str(child_of(build.pid, "sh"))).endswith(
            f"look at the program that made it, above it: `jobserver status --pid {build.pid}`\n"
        )


def test_a_process_of_another_user(place: Place) -> None:
    with Running(["sleep", "1000"]) as running, Running(as_other_user("status", "--pid", str(running.pid))) as other:
        done = other.finish()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        f"`sleep` (process {running.pid}) belongs to user root, and you are {OTHER_USER}: only that user and root may "
        f"look into it: `sudo jobserver status --pid {running.pid}`\n"
    )


def test_without_proc(place: Place) -> None:
    program = (
        "import sys, jobserver_ffi.processes as seen; seen._PROC = '/no/proc'\n"
        "from jobserver_ffi.cli import main; sys.argv[1:] = sys.argv[1:]; sys.exit(main())"
    )
    blind = [sys.executable, "-c", program, "status"]
    with Client(3) as client:
        done = client.run([*blind, "--json"], env=place.environment, capture_output=True, text=True)
        pool = pool_in(done)
        assert (figures(pool), pool["processes"]) == (("shared", "pipe", 3, 0, 3), None)
        done = client.run(blind, env=place.environment, capture_output=True, text=True)
        assert done.stdout.endswith(": 0 of 3 slots in use, 3 free\nWho has it open cannot be told on this system.\n")
    with Running([*blind, "--pid", "1"], env=place.environment) as running:
        assert "does not show what another process has open: run `jobserver status` inside" in running.finish().stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "--pid", "0"], "'0' is no number of a process"),
        (["status", "--pid", "make"], "'make' is no number of a process"),
        (["status", "--pid", "1", "--all"], "not allowed with argument"),
        (["status", "--json", "--metrics"], "not allowed with argument"),
        (["serve", "--metrics", "65536"], "'65536' is no port: give a number from 0 to 65535"),
    ],
)
def test_wrong_arguments(words: list[str], message: str, place: Place) -> None:
    done = place.call(*words)
    assert done.returncode == 2 and message in done.stderr


# Metrics.


def families(text: str) -> dict[str, Metric]:
    """Metrics as Prometheus's own parser reads them."""
    from prometheus_client.parser import text_string_to_metric_families

    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str) -> dict[tuple[str, str], float]:
    """The samples by their name, and the labels that tell them apart."""
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sample.labels.items())): sample.value
        for family in families(text).values()
        for sample in family.samples
    }


def test_metrics_of_a_make(make43: Tool, place: Place, tmp_path: Path) -> None:
    makefile(tmp_path, 2)
    with standing([make43.path, "-s", "-j4"], tmp_path, 2) as build:
        text = place.call("status", "--pid", str(build.pid), "--metrics").stdout
    labels = f"pool=make,maker={build.pid}"
    assert values(text) == {
        ("jobserver_slots", labels): 4,
        ("jobserver_slots_in_use", labels): 2,
        ("jobserver_slots_free", labels): 2,
        ("jobserver_processes", labels): 1,
    }


def test_metrics_are_served(place: Place) -> None:
    with place.serve("-j4", "--min-memory", "1%", "--metrics", "0") as server, Held(place, "--style", "pipe") as build:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().split()[-1]
        assert url.startswith("http://127.0.0.1:") and url.endswith("/metrics")
        with urllib.request.urlopen(url, timeout=GUARD) as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = values(text)
        for name, value in (("slots", 4), ("slots_in_use", 1), ("slots_free", 3), ("slots_held_back", 0)):
            assert found[f"jobserver_{name}", "pool=default"] == value
        lease = f"pool=default,process={build.running.pid},lease={sys.executable}"
        assert found["jobserver_lease_slots_in_use", lease] == 1
        assert found["jobserver_leases", "pool=default,state=started"] == 1
        assert found["jobserver_gate_slots_held_back", "pool=default,gate=memory below 1%"] == 0
        kinds = {family.name: (family.type, bool(family.documentation)) for family in families(text).values()}
        assert kinds["jobserver_slot_seconds"] == ("counter", True) and kinds["jobserver_slots"] == ("gauge", True)
        before = found["jobserver_slot_seconds_total", "pool=default"]
        assert before > 0
        assert build.let_go().returncode == 0
        with urllib.request.urlopen(url, timeout=GUARD) as answer:
            found = values(answer.read().decode())
        # What a lease used counts on when it has ended.
        assert found["jobserver_leases_ended_total", "pool=default"] == 1
        assert found["jobserver_slot_seconds_total", "pool=default"] >= before
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url.removesuffix("metrics"), timeout=GUARD)
        refused.value.close()
        assert refused.value.code == 404
        by_name = urllib.request.Request(url, headers={"Host": "metrics.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(by_name, timeout=GUARD)
        assert refused.value.code == 403 and url in refused.value.read().decode()


def test_a_scrape_that_stands_still_does_not_keep_others_out(place: Place) -> None:
    with place.serve("--metrics", "0") as server:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().split()[-1]
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.send(b"GET /metr")
            with urllib.request.urlopen(url, timeout=GUARD) as answer:
                assert answer.status == 200
            assert slow.recv(1) == b""
        # The pool's own server has not waited for it.
        done = place.call("serve", "--name", "other", "--metrics", str(port))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"cannot serve metrics at port {port} of 127.0.0.1: Address already in use: give another" in done.stderr
        server.process.terminate()
        assert server.finish().returncode == 0


def test_names_that_clients_choose(place: Place) -> None:
    """A quote, a backslash, the end of a line, and a byte that is no text; twice, which is one series."""
    name = 'a"b\\c\nd\ud800'
    with place.serve("-j4"), place.connect() as one, place.connect() as two:
        for connection in (one, two):
            connection.join(name, ["build"], "pipe", lambda before: None)
        text = place.call("status", "--metrics").stdout
        lease = f"pool=default,process={os.getpid()},lease={name[:-1]}?"
        assert values(text)["jobserver_lease_slots_in_use", lease] == 2
