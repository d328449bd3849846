"""`jobserver serve`, `status`, `resize`, and `jobserver run --pool`: one pool for all builds of a user."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from .command import JOBSERVER, Lines, Running, python
from .conftest import Tool, missing, open_descriptors
from .overlap import GUARD, JobCounter
from .served import OTHER_USER, Held, Place, as_other_user, new_place
from .test_run_several import LOSER

pytestmark = pytest.mark.needs("signals")

if TYPE_CHECKING:
    from jobserver_ffi.serve.client import PoolConnection

POOL = ["run", "--pool", "default"]


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as place:
        yield place


def makefile(directory: Path, job: str, jobs: int) -> None:
    targets = " ".join(f"job{number}" for number in range(jobs))
    (directory / "Makefile").write_text(f"all: {targets}\n.PHONY: all {targets}\n{targets}:\n\t@{job}\n")


def test_first_build_starts_the_server(place: Place) -> None:
    done = place.call(*POOL, "-j3", "sh", "-c", "echo $MAKEFLAGS; exit 7")
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.startswith("-j3 --jobserver-auth=")
    found = place.status()
    assert (found["limit"], found["in_use"], found["leases"], found["ended"]["leases"]) == (3, 0, [], 1)
    for made in (place.directory, place.socket):
        assert stat.S_IMODE(made.stat().st_mode) & 0o077 == 0
    server = psutil.Process(found["process"])
    assert os.getsid(server.pid) == server.pid, "it would end with the terminal"
    assert server.cwd() == "/"


def test_builds_that_start_at_once_share_one_server(place: Place) -> None:
    with ExitStack() as stack:
        all_builds = [stack.enter_context(place.begin(*POOL, "-j2", "true")) for _ in range(6)]
        done = [build.finish() for build in all_builds]
    assert [(one.returncode, one.stderr.replace("waiting", "")) for one in done if one.returncode] == []
    assert place.status()["ended"]["leases"] == 6


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_make_fills_the_pool(style: str, place: Place, make441: Tool, tmp_path: Path) -> None:
    with place.serve("-j4"), JobCounter(12, 4, lambda: 0) as counter:
        makefile(tmp_path, counter.command, 12)
        done = place.call(*POOL, "--style", style, "--check", make441.path, "-s", "-C", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    counter.check()


def test_ninja_fills_the_pool(place: Place, ninja: Tool, tmp_path: Path) -> None:
    with place.serve("-j4"), JobCounter(12, 4, lambda: 0) as counter:
        edges = "".join(f"build job{number}: job\n" for number in range(12))
        (tmp_path / "build.ninja").write_text(f"rule job\n  command = {counter.command}\n{edges}")
        done = place.call(*POOL, "--style", "fifo", "--check", ninja.path, "--quiet", "-C", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    counter.check()


def test_make43_is_given_pipes(place: Place, make43: Tool, tmp_path: Path) -> None:
    with place.serve("-j4"), JobCounter(12, 4, lambda: 0) as counter:
        makefile(tmp_path, counter.command, 12)
        done = place.call(*POOL, "--check", make43.path, "-s", "-C", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    counter.check()


def test_first_slot_is_waited_for_and_the_place_told(place: Place) -> None:
    with place.serve("-j1"), Held(place) as first, place.begin(*POOL, "echo", "second") as second:
        assert second.process.stderr is not None
        lines = Lines(second.process.stderr.fileno())
        assert lines.next() == "jobserver: waiting for a slot of pool `default`, with nobody before this command"
        with place.begin(*POOL, "echo", "third") as third:
            assert third.process.stderr is not None
            lines = Lines(third.process.stderr.fileno())
            assert lines.next() == "jobserver: waiting for a slot of pool `default`, with 1 other before this command"
            assert [lease["state"] for lease in place.status()["leases"]] == ["started", "queued", "queued"]
            assert first.let_go().returncode == 0
            assert [second.finish().stdout, third.finish().stdout] == ["second\n", "third\n"]


def test_who_stops_waiting_leaves_the_queue(place: Place) -> None:
    with place.serve("-j1"), Held(place) as first, place.begin(*POOL, "echo", "never") as second:
        place.until(lambda status: status["queued"] == 1)
        second.process.send_signal(signal.SIGINT)
        assert (second.finish().returncode, second.command[-1]) == (130, "never")
        place.until(lambda status: len(status["leases"]) == 1)
        assert first.let_go().returncode == 0


def test_resize_takes_effect_as_jobs_end(place: Place) -> None:
    with place.serve("-j2"), Held(place) as first, Held(place) as second:
        assert place.call("resize", "1").stdout == (
            "pool `default`: 1 slot; 1 more than that are in use until jobs end\n"
        )
        with place.begin(*POOL, "echo", "third") as third:
            place.until(lambda status: status["queued"] == 1)
            assert first.let_go().returncode == 0
            assert place.until(lambda status: len(status["leases"]) == 2)["queued"] == 1, "one slot is in use still"
            assert place.call("resize", "2").stdout == "pool `default`: 2 slots\n"
            assert third.finish().stdout == "third\n"
        assert second.let_go().returncode == 0


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_tokens_of_a_killed_command_come_back(style: str, place: Place) -> None:
    with place.serve("-j4") as server:
        done = place.call(*POOL, "--style", style, "--check", *python(LOSER.format(int(signal.SIGKILL))))
        assert done.returncode == 128 + 9
        assert done.stderr.startswith(f"jobserver: `{sys.executable}` left tokens missing: 1 of 3;")
        found = place.status()
        assert (found["in_use"], found["ended"]["lost"]) == (0, 1)
        server.process.terminate()
        assert f"`{sys.executable}` (process " in server.finish().stderr


def test_lease_of_a_killed_run_lasts_as_long_as_its_command(place: Place) -> None:
    with place.serve("-j1"), Held(place) as first, place.begin(*POOL, "echo", "second") as second:
        first.running.process.kill()
        found = place.until(lambda status: status["leases"][0]["state"] == "orphans" and status["queued"] == 1)
        assert [(lease["connected"], lease["slots"]) for lease in found["leases"]] == [(False, 1), (True, 0)]
        os.kill(first.command, signal.SIGKILL)
        assert second.finish().stdout == "second\n"


@pytest.mark.needs("subreaper")
def test_what_a_command_leaves_behind_keeps_its_slot(place: Place, tmp_path: Path) -> None:
    """Also if it has closed the life line, as what Python's subprocess starts has."""
    orphan = f"import os, time; time.sleep(0.3); os.rmdir({str(tmp_path / 'running')!r})"
    parent = (
        f"import os, subprocess, sys; os.mkdir({str(tmp_path / 'running')!r}); "
        f"subprocess.Popen([sys.executable, '-c', {orphan!r}]); os._exit(0)"
    )
    with place.serve("-j1"), place.begin(*POOL, *python(parent)) as first:
        place.until(lambda status: status["leases"] or status["ended"]["leases"])
        assert place.call(*POOL, "test", "!", "-e", str(tmp_path / "running")).returncode == 0
        assert first.finish().returncode == 0


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_build_goes_on_when_its_server_is_killed(style: str, place: Place, make441: Tool, tmp_path: Path) -> None:
    """With all the slots that it had: the counter lets a job end only when all of them are in use."""
    with JobCounter(20, 3, lambda: 0) as counter, place.serve("-j3") as server:
        makefile(tmp_path, counter.command, 20)
        with place.begin(*POOL, "--style", style, make441.path, "-s", "-C", str(tmp_path)) as build:
            end = time.monotonic() + GUARD
            while counter.jobs < 6:
                assert time.monotonic() < end
                time.sleep(0.001)
            server.process.kill()
            server.process.wait(GUARD)
            done = build.finish()
    assert done.returncode == 0
    assert done.stderr == (
        f"jobserver: the server of pool `default` is gone: `{make441.path}` goes on with the slots that it holds\n"
    )
    counter.check()


@pytest.mark.parametrize("number", [number for number in signal.Signals if number.name in ("SIGTERM", "SIGKILL")])
def test_new_server_leaves_the_fifos_of_running_builds(number: signal.Signals, place: Place) -> None:
    with Held(place, "-j2", "--style", "fifo") as first:
        old = place.status()["process"]
        (fifo,) = place.directory.glob("jobserver-ffi-*/lease*")
        os.kill(old, number)
        with place.begin(*POOL, "true") as second:
            assert second.finish().returncode == 0
        assert place.status()["process"] != old
        assert fifo.exists()
        assert "is gone" in first.let_go().stderr
        os.kill(place.status()["process"], signal.SIGTERM)
        with place.serve("-j2"):
            assert not fifo.exists()


# Takes and gives back without a pause, until it is told to end; then it holds nothing.
RESTLESS = """
import os, select, signal, sys
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
take, give = os.open(f"/proc/self/fd/{sys.argv[1]}", os.O_RDONLY | os.O_NONBLOCK), int(sys.argv[2])
print(flush=True)
while not told:
    try:
        os.write(give, os.read(take, 1))
    except BlockingIOError:
        select.select([take], [], [], 0.01)
"""


@pytest.mark.needs("/proc")
def test_server_that_is_told_to_end_loses_no_token(place: Place) -> None:
    """Builds go on with what lies in their pipes: nothing may be on its way through the server."""
    builds = 3
    for _ in range(30):
        with place.serve(f"-j{2 * builds}") as server, ExitStack() as stack:
            leases, processes = [], []
            for _ in range(builds):
                leases.append(stack.enter_context(place.connect()).join("x", [], "pipe", print))
            for lease in leases:
                words = [*python(RESTLESS), str(lease.take), str(lease.give)]
                processes.append(subprocess.Popen(words, pass_fds=lease.for_command, stdout=subprocess.PIPE))
            for process in processes:
                assert process.stdout is not None and process.stdout.readline()
            server.process.send_signal(signal.SIGTERM)
            assert server.finish().returncode == 0
            for process in processes:
                process.terminate()
                process.communicate(timeout=GUARD)
            left = 0
            for lease in leases:
                os.set_blocking(lease.take, False)
                os.set_blocking(lease.give, False)
                for number in (lease.take, lease.give):
                    with suppress(BlockingIOError):
                        left += len(os.read(number, 100))
                for number in lease.for_command:
                    os.close(number)
            assert left == builds


def test_who_waits_when_the_server_is_killed_finds_another(place: Place) -> None:
    with Held(place, "-j1") as first, place.begin(*POOL, "-j1", "echo", "second") as second:
        old = place.until(lambda status: status["queued"] == 1)["process"]
        os.kill(old, signal.SIGKILL)
        assert second.finish().stdout == "second\n"
        assert place.status()["process"] != old
        assert first.let_go().returncode == 0


def test_socket_of_a_dead_server_is_replaced_and_a_living_one_is_not(place: Place) -> None:
    with place.serve() as server:
        server.process.kill()
        server.process.wait(GUARD)
        assert place.socket.exists()
    done = place.call("status", "--pool", "default")
    assert (done.returncode, done.stderr) == (
        1,
        f"jobserver: cannot see pool `default`: nobody serves {place.socket}: `jobserver serve` or `jobserver run "
        f"--pool default -- CMD` starts it\n",
    )
    with place.serve() as server:
        server.process.send_signal(signal.SIGSTOP)
        again = place.call("serve")
        assert (again.returncode, again.stderr) == (
            1,
            "jobserver: pool `default` is served already: `jobserver status --pool default` shows it\n",
        )
        server.process.send_signal(signal.SIGCONT)
        assert place.status()["process"] == server.pid
        with place.serve("--name", "other", "-j7") as other:
            assert place.status("other")["limit"] == 7
            assert place.call("status", "--pool", "other").stdout.startswith("pool `other`")
            other.process.terminate()
            assert other.finish().returncode == 0
        server.process.terminate()
        assert server.finish().returncode == 0
    assert list(place.directory.glob("*.socket")) == []
    assert list(place.directory.glob("jobserver-ffi-*")) == []


def test_idle_server_ends(place: Place) -> None:
    for idle in (0.3, 3, 30):  # longer if the build comes too late for it, and has a server of its own
        with place.serve("--idle-exit", str(idle)) as server:
            with Held(place) as build:
                # Idle means that there is no lease, however long one lasts.
                time.sleep(2 * idle)
                came_in_time = place.status()["process"] == server.pid
                assert build.let_go().returncode == 0
            assert server.finish().returncode == 0
        if came_in_time:
            break
        place.end()
    assert came_in_time, "the server ended while a build was there"
    assert list(place.directory.glob("*.socket")) == []


def test_build_in_the_pool_joins_the_jobserver_that_is_there(place: Place) -> None:
    """With one slot it would wait for itself for ever."""
    with place.serve("-j1"):
        done = place.call(*POOL, "--style", "fifo", *JOBSERVER, *POOL, "echo", "inner")
        assert (done.returncode, done.stdout) == (0, "inner\n")
        assert "not joining pool `default`: there is a jobserver already" in done.stderr
        assert place.status()["ended"]["leases"] == 1


def test_status_for_people_and_watched(place: Place) -> None:
    with place.serve("-j2") as server, Held(place):
        shown = place.call("status").stdout.splitlines()
        assert shown[0].startswith(f"pool `default` (process {server.pid}): 1 of 2 slots in use, 1 free, 0 waiting;")
        assert shown[1].split()[:5] == ["PID", "STATE", "HELD", "IDLE", "PEAK"]
        assert shown[2].split()[1:5] == ["started", "1", "1", "1"]
        with place.begin("status", "--pool", "default", "--watch", "--json") as watching:
            assert watching.process.stdout is not None
            lines = Lines(watching.process.stdout.fileno())
            assert [json.loads(lines.next())["pools"][0][item] for item in ("limit", "in_use")] == [2, 1]
            server.process.kill()
            done = watching.finish()
            assert (done.returncode, done.stderr) == (
                1,
                f"jobserver: cannot see pool `default`: nobody serves {place.socket}: `jobserver serve` or "
                f"`jobserver run --pool default -- CMD` starts it\n",
            )


def test_gates_of_a_server(place: Place, make441: Tool, tmp_path: Path) -> None:
    makefile(tmp_path, "sleep 0.1", 200)
    build = [*POOL, make441.path, "-s", "-C", str(tmp_path)]
    with place.serve("-j4", "--min-memory", "99%"), place.begin(*build) as running:
        found = place.until(lambda found: found["held_back"])
        assert [(gate["name"], gate["held_back"] > 0) for gate in found["gates"]] == [("memory below 99%", True)]
        assert "\nmemory below 99% (it is " in place.call("status").stdout
        running.process.terminate()
        running.finish()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "--max-load", "0"], "'0' is no limit"),
        (["run", "--pool", "x", "--max-load", "4", "true"], "gates belong to the server of the pool"),
        (["serve", "-j0"], "'0' is no number of slots"),
        (["serve", "--name", "../x"], "'../x' is no name for a pool"),
        (["serve", "--name", ""], "'' is no name for a pool"),
        (["serve", "--idle-exit", "0"], "'0' is no time"),
        (["serve", "--idle-exit", "nan"], "'nan' is no time"),
        (["serve", "make"], "unrecognized arguments: make"),
        (["resize"], "the following arguments are required: N"),
        (["resize", "many"], "'many' is no number of slots"),
        (["status", "--pool", "-x"], "expected one argument"),
        (["status", "--pool", ".x"], "'.x' is no name for a pool"),
        (["run", "--pool", "a b", "true"], "'a b' is no name for a pool"),
        (["run", "--pool", "x"], "no CMD given"),
        (["run", "--pool", "x", "true", "---", "true"], "one CMD joins a pool"),
    ],
)
def test_wrong_arguments(words: list[str], message: str, place: Place) -> None:
    done = place.call(*words)
    assert done.returncode == 2 and message in done.stderr
    assert not place.directory.exists()


@pytest.mark.parametrize("words", [["resize", "3"], ["status"], ["run", "true"]])
def test_path_without_a_server(words: list[str], place: Place) -> None:
    done = place.call(words[0], "--pool", f"{place.runtime}/none", *words[1:])
    assert done.returncode == (125 if words[0] == "run" else 1)
    assert f"nobody serves {place.runtime}/none" in done.stderr


def test_command_that_cannot_run(place: Place) -> None:
    with place.serve("-j1"):
        assert place.call(*POOL, "/no/such").returncode == 127
        assert place.until(lambda status: status["ended"]["leases"] == 1)["in_use"] == 0


def test_server_that_cannot_start_says_why(place: Place) -> None:
    place.directory.mkdir(mode=0o700)
    place.socket.mkdir()
    done = place.call(*POOL, "true")
    assert done.returncode == 125
    assert f"cannot tell whether somebody listens at {place.socket}" in done.stderr or "cannot join" in done.stderr


def test_path_that_is_too_long(place: Place) -> None:
    long = place.runtime / ("x" * 100)
    long.mkdir()
    for words in (["serve"], [*POOL, "true"], ["status", "--pool", "default"]):
        done = place.call(*words, env={**place.environment, "XDG_RUNTIME_DIR": str(long)})
        assert done.returncode in (1, 125)
        assert "and 107 is the most: let XDG_RUNTIME_DIR" in done.stderr or sys.platform != "linux"


def test_directory_that_others_may_enter(place: Place) -> None:
    place.directory.mkdir(mode=0o755)
    done = place.call("serve")
    assert (done.returncode, done.stderr) == (
        1,
        f"jobserver: cannot serve pool `default`: other users may enter {place.directory} (mode 0755): "
        f"`chmod 700 {place.directory}` keeps them out\n",
    )
    place.directory.rmdir()
    place.directory.write_text("")
    assert "is no directory" in place.call("serve").stderr


def test_without_a_runtime_directory_it_is_the_temporary_one(place: Place) -> None:
    environment = {**place.environment, "TMPDIR": str(place.runtime)}
    del environment["XDG_RUNTIME_DIR"]
    with place.serve(env=environment):
        made = place.runtime / f"jobserver-{os.geteuid()}"
        assert (made / "default.socket").exists() and stat.S_IMODE(made.stat().st_mode) == 0o700
        assert place.call(*POOL, "true", env=environment).returncode == 0


def test_other_user_cannot_reach_the_socket(place: Place) -> None:
    place.runtime.chmod(0o755)
    with place.serve(), Running(as_other_user("status", "--pool", str(place.socket))) as other:
        done = other.finish()
    assert (done.returncode, done.stderr) == (
        1,
        f"jobserver: cannot see pool `{place.socket}`: cannot connect to {place.socket}: Permission denied: it is "
        f"another user's\n",
    )


@pytest.mark.parametrize("words", [["status"], ["resize", "1"], ["run", "true"]])
def test_other_user_who_reaches_the_socket_is_refused(words: list[str], place: Place) -> None:
    """Root may enter every directory, and systemd makes sockets for whomever it is told to."""
    os.chown(place.runtime, OTHER_USER if os.geteuid() == 0 else -1, -1)
    with Running(as_other_user("serve", "-j3"), env=place.environment) as server:
        assert server.process.stdout is not None
        assert "serving" in server.process.stdout.readline()
        done = place.call(words[0], "--pool", str(place.socket), *words[1:])
        assert done.returncode == (125 if words[0] == "run" else 1)
        assert f"this pool is for user {OTHER_USER} only, and you are root" in done.stderr
        server.process.terminate()
        assert f"refused a connection of user root: this pool is for {OTHER_USER} only" in server.finish().stderr


def test_directory_of_another_user(place: Place) -> None:
    if os.geteuid() != 0:
        missing("the right to be another user (root)")
    os.chown(place.runtime, OTHER_USER, -1)
    done = place.call("serve")
    assert f"XDG_RUNTIME_DIR={place.runtime} belongs to user {OTHER_USER}, not to you" in done.stderr
    place.directory.mkdir()
    os.chown(place.directory, OTHER_USER, -1)
    done = place.call("serve")
    assert f"{place.directory} belongs to user {OTHER_USER}: another user's pools are not for you" in done.stderr


def talk(place: Place, *lines: bytes) -> list[dict[str, Any]]:
    """Sends lines and returns the answers until the server ends the connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(GUARD)
        client.connect(str(place.socket))
        client.sendall(b"".join(lines))
        client.shutdown(socket.SHUT_WR)
        found = b""
        while data := client.recv(65536):
            found += data
    return [json.loads(line) for line in found.splitlines()]


def test_lines_that_are_not_of_the_protocol(place: Place) -> None:
    with place.serve("-j2"):
        (refused,) = talk(place, b'{"request": "more"}\n')
        assert refused["reply"] == "refused" and "'more' is not known here" in refused["reason"]
        for line in (b"hello\n", b"[1]\n", b"[" * 5000 + b"\n", b"x" * 70000):
            (refused,) = talk(place, line)
            assert refused["reply"] == "refused"
        wrong = b'{"request": "lease", "name": "x", "style": "semaphore"}\n'
        assert "pipe or fifo" in talk(place, wrong)[0]["reason"]
        assert talk(place, b'{"request": "end"}\n')[0]["reason"] == "there is no lease to end"
        for limit in (b"0", b'"3"', b"null", b"-1", b"1e3"):
            assert talk(place, b'{"request": "resize", "limit": ' + limit + b"}\n")[0]["reply"] == "refused"
        lease = b'{"request": "lease", "name": "x", "style": "pipe"}\n'
        replies = [answer["reply"] for answer in talk(place, lease, lease)]
        assert "refused" in replies
        assert place.until(lambda status: not status["leases"])["limit"] == 2


@pytest.mark.needs("descriptors that can be counted")
def test_descriptors_that_came_are_kept_or_closed() -> None:
    """Also where there is room for no other one."""
    import resource  # not on Windows

    from jobserver_ffi.serve.lines import Lines

    here, there = socket.socketpair()
    with here, there:
        before = open_descriptors()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        socket.send_fds(there, [b"{}\n"], [0])
        lines = Lines(here)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            with suppress(OSError):
                lines.receive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in lines.take_descriptors():
            assert not os.get_inheritable(number)
            os.close(number)
        assert open_descriptors() == before


def test_many_clients_at_once(place: Place) -> None:
    """None waits for the answer to another's request; all get their slots, in their order."""
    with place.serve("-j4") as server, ExitStack() as stack:
        clients = [stack.enter_context(place.connect()) for _ in range(100)]
        for client in clients:
            client.ask("lease", name="x", command=[], style="fifo")
        for client in clients:
            while (answer := client._answer())["reply"] == "queued":
                pass
            assert answer["reply"] == "started"
            client.close()
        assert place.until(lambda status: not status["leases"])["ended"]["leases"] == 100
        assert server.process.poll() is None


def test_server_without_descriptors_goes_on(place: Place) -> None:
    """One client is refused, and others wait to be let in; when they have gone all is as before."""
    few = ["sh", "-c", 'ulimit -n 40 && exec "$@"', "sh", *JOBSERVER, "serve", "-j50"]
    with Running(few, env=place.environment) as server:
        stack = ExitStack()
        assert server.process.stdout is not None and "serving" in server.process.stdout.readline()
        replies = ["started"]
        while replies[-1] == "started":
            client = stack.enter_context(place.connect())
            client.ask("lease", name="x", command=[], style="pipe")
            replies.append(outcome(client))
        assert replies[2:-1] and replies[-1] == "refused"
        for _ in range(40):
            stack.enter_context(place.connect())
        stack.close()
        assert place.until(lambda status: not status["leases"])["in_use"] == 0
        assert place.call(*POOL, "true").returncode == 0
        assert server.process.poll() is None


@pytest.mark.needs("limits of other processes")
def test_server_lets_in_again_when_there_is_room(place: Place) -> None:
    """Also when no connection of its own ends: others had taken what there is of descriptors, say."""
    with place.serve("-j2", "--idle-exit", "1") as server:
        process = psutil.Process(server.process.pid)
        before = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
        with place.connect() as client:
            client.ask("status")
            # It sleeps again once it has tried; for longer than it may be idle, since somebody waits.
            assert not select.select([client._lines], [], [], 1.5)[0]
            assert server.process.poll() is None, server.finish().stderr
            process.rlimit(psutil.RLIMIT_NOFILE, before)
            assert select.select([client._lines], [], [], GUARD)[0], "nobody was let in any more"
            assert client._answer()["status"]["limit"] == 2
        done = server.finish()
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("limits of other processes")
def test_server_without_descriptors_ends_as_another(place: Place) -> None:
    """What builds go on with stays, although the lock of the socket cannot be opened."""
    with place.serve("-j2") as server, place.connect() as client:
        lease = client.join("x", [], "fifo", print)
        process = psutil.Process(server.process.pid)
        process.rlimit(psutil.RLIMIT_NOFILE, (3, 3))
        server.process.send_signal(signal.SIGTERM)
        done = server.finish()
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert Path(lease.auth.removeprefix("fifo:")).is_fifo()
    assert place.call(*POOL, "true").returncode == 0


def test_client_that_does_not_read_is_not_heard_meanwhile(place: Place) -> None:
    """And gets all in the end: also descriptors, which had to be kept."""
    requests = 2000
    with place.serve("-j2"), place.connect() as client:
        status = b'{"request": "status"}\n' * requests
        lease = b'{"request": "lease", "name": "x", "style": "pipe"}\n'
        sending = threading.Thread(target=client._lines.socket.sendall, args=(status + lease,))
        sending.start()
        assert place.call(*POOL, "true").returncode == 0, "nobody else is kept waiting"
        for _ in range(requests):
            assert client._answer()["reply"] == "status"
        sending.join()
        while (answer := client._answer())["reply"] == "queued":
            pass
        assert answer["descriptors"] == ["take", "give", "life line"]
        take, give, life_line = client._lines.take_descriptors()
        assert os.read(take, 1) == b"+"
        os.write(give, b"+")
        for descriptor in (take, give, life_line):
            os.close(descriptor)


def outcome(client: PoolConnection) -> str:
    """How the request for a lease ended."""
    from jobserver_ffi.serve.client import RequestRefused

    try:
        while (answer := client._answer())["reply"] == "queued":
            pass
    except RequestRefused as error:
        assert os.strerror(errno.EMFILE) in str(error)
        return "refused"
    return str(answer["reply"])


@pytest.mark.needs("systemd")
def test_socket_passed_by_systemd(place: Place) -> None:
    """By the tool that systemd has for trying: the server starts with the first client, and its socket stays."""
    try:
        subprocess.run(["systemd-socket-activate", "--version"], stdout=subprocess.DEVNULL, check=True)
    except FileNotFoundError:
        missing("systemd-socket-activate")
    place.directory.mkdir(mode=0o700)
    activate = ["systemd-socket-activate", "-l", str(place.socket), f"--setenv=XDG_RUNTIME_DIR={place.runtime}"]
    activate += [*JOBSERVER, "serve", "-j5", "--idle-exit", "0.3"]
    with Running(activate, env=place.environment) as server:
        end = time.monotonic() + GUARD
        while not place.socket.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        done = place.call(*POOL, "sh", "-c", "echo $MAKEFLAGS")
        assert done.stdout.startswith("-j5 "), done.stderr
        assert server.finish().returncode == 0
    assert place.socket.exists(), "it is systemd's"


# What systemd does: the descriptor is number 3, and the variables name the process.
ACTIVATE = """\
import os, socket, sys
path, kind = sys.argv[1:3]
passed = socket.socket(socket.AF_UNIX, getattr(socket, kind))
passed.bind(path)
if kind == "SOCK_STREAM":
    passed.listen()
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS=sys.argv[3], LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[4], sys.argv[4:])
"""


def activated(place: Place, kind: str, count: str) -> list[str]:
    place.directory.mkdir(mode=0o700, exist_ok=True)
    return [*python(ACTIVATE), str(place.socket), kind, count, *JOBSERVER, "serve", "-j5"]


def test_socket_passed_by_hand(place: Place) -> None:
    with Running(activated(place, "SOCK_STREAM", "1"), env=place.environment) as server:
        assert server.process.stdout is not None
        assert "with 5 slots" in server.process.stdout.readline()
        assert place.status()["process"] == server.pid
        assert place.call(*POOL, "true").returncode == 0
        server.process.terminate()
        assert server.finish().returncode == 0
    assert place.socket.exists()


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [
        ("SOCK_STREAM", "2", "LISTEN_FDS=2: a pool has one socket"),
        ("SOCK_DGRAM", "1", "no local stream socket that listens"),
    ],
)
def test_wrong_socket_passed(kind: str, count: str, message: str, place: Place) -> None:
    with Running(activated(place, kind, count), env=place.environment) as server:
        done = server.finish()
    assert done.returncode == 1 and message in done.stderr


UNITS = Path(__file__).parents[1] / "contrib" / "systemd"


def test_units_are_what_the_command_expects(place: Place) -> None:
    """Read as systemd does, as far as that goes without one: places, names, and arguments that are taken."""
    if not UNITS.exists():
        pytest.skip("the units are not beside these tests")
    unit = (UNITS / "jobserver@.socket").read_text().replace("%t", str(place.runtime)).replace("%i", "default")
    assert f"ListenStream={place.socket}\n" in unit
    start = next(
        line for line in (UNITS / "jobserver@.service").read_text().splitlines() if line.startswith("ExecStart=")
    )
    program, *words = start.removeprefix("ExecStart=").replace("%i", "default").split()
    assert program == "jobserver"
    with place.serve(*words[1:]) as server:
        assert (words[0], place.status()["process"]) == ("serve", server.pid)
