"""`jobserver run --timings` and `--trace`: real builds whose slots and processes are known."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi.cli import _parsers
from jobserver_ffi.cli.timings import DEFAULT, join_optional_values
from jobserver_ffi.timeline import Recording, serial_stretches, slot_seconds, utilisation
from jobserver_ffi.timeline import files as timing_files
from jobserver_ffi.timeline.analysis import in_use

from .command import JOBSERVER, Done, Running, python, run, script, start
from .conftest import PATH, Tool
from .overlap import GUARD, PROGRAM, JobCounter
from .served import new_place

pytestmark = [
    pytest.mark.needs("sh", "/proc"),
    pytest.mark.skipif(not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="no children in /proc"),
]

# It lives for longer than the longest pause between two looks at the processes, and uses the CPU before.
# Uses the CPU for more than a twentieth of its time on any machine, so that it is more notable than its child.
LINKER = "#!/bin/sh\ni=0; while [ $i -lt 2000000 ]; do i=$((i+1)); done\nsleep 3\n"

# Takes all tokens but the last of its jobserver.
TAKE = PROGRAM + "client = Client.from_env()\nheld = [client.acquire_raw() for _ in range(int(sys.argv[1]))]\n"


def recording_in(path: Path) -> Recording:
    """What was recorded, which must make sense in itself."""
    found = Recording.from_json(json.loads(path.read_text()))
    assert found.dropped == 0
    for lease in found.leases:
        times = [time for time, _ in lease.changes]
        assert times == sorted(times)
        assert max((slots for _, slots in lease.changes), default=0) <= lease.peak
        assert lease.ended <= found.seconds
    for process in found.processes:
        assert 0 <= process.start <= process.end <= found.seconds
        assert process.lease < len(found.leases)
    machine = found.machine
    assert machine.times == sorted(machine.times) and machine.memory_total > 0
    for values in (machine.cpu, machine.memory, machine.load, *vars(machine.pressure).values()):
        assert len(values) in (0, len(machine.times))
    return found


def record(path: Path, *words: str, **popen_kwargs: Any) -> tuple[Done, Recording]:
    """Runs `jobserver run` with a recording."""
    done = run(f"--timings={path}", *words, **popen_kwargs)
    return done, recording_in(path)


def test_build_with_a_serial_link_at_its_end(gnu_make: Tool, tmp_path: Path) -> None:
    """Three of nine jobs run at once, for certain; then the linker, alone."""
    linker = script(tmp_path / "linker", LINKER)
    running: Future[Running] = Future()
    out, trace = tmp_path / "timings.json", tmp_path / "trace.json"
    with JobCounter(9, 3, lambda: running.result(GUARD).free()) as counter:
        objects = " ".join(f"object{number}" for number in range(9))
        (tmp_path / "Makefile").write_text(f"link: {objects}\n\t@{linker}\n{objects}:\n\t@{counter.command}\n")
        words = ["-j3", f"--timings={out}", "--trace", str(trace), gnu_make.path, "-s", "-C", str(tmp_path)]
        with start(*words, env={**os.environ, "PATH": PATH}) as started:
            running.set_result(started)
            done = started.finish()
    counter.check()
    assert done.returncode == 0
    assert re.search(r"with one slot in use, from .* on: `linker` \(/bin/sh ", done.stderr)
    found = recording_in(out)
    (lease,) = found.leases
    assert (found.source, found.status, found.sampled_every) == ("lease", 0, 0.0)
    assert found.command == [gnu_make.path, "-s", "-C", str(tmp_path)] == lease.command
    assert [limit for _, limit in found.limits] == [3]
    assert (lease.peak, lease.lost, lease.over_released) == (3, 0, 0)
    slots = [slots for _, slots in lease.changes]
    assert (slots[0], slots[-1], max(slots), slots.count(0)) == (1, 0, 3, 1)
    assert slot_seconds(found) == pytest.approx(lease.slot_seconds, rel=0.01)
    assert 0 < utilisation(found) < 1
    last = max(serial_stretches(found), key=lambda stretch: stretch.end)
    assert (last.name, last.slots) == ("linker", 1)
    seen = next(process for process in found.processes if process.name == "linker")
    assert seen.command == f"/bin/sh {linker}"
    assert {process.pid: process.name for process in found.processes}[seen.parent] == Path(gnu_make.path).name
    assert seen.memory > 0 and seen.cpu > 0
    assert_is_a_trace(json.loads(trace.read_text()), found)


def assert_is_a_trace(found: dict[str, Any], recording: Recording) -> None:
    """The Trace Event Format, and nothing in a lane at the same time as something else of it."""
    events = found["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "C", "X"}
    named = {(event["pid"], event.get("tid")) for event in events if event["ph"] == "M"}
    groups = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert len(groups) == 1 + len(recording.leases) == sum(event["name"] == "process_name" for event in events)
    ends: dict[tuple[int, int], float] = {}
    spans = sorted((event for event in events if event["ph"] == "X"), key=lambda event: event["ts"])
    assert len(spans) == len(recording.processes)
    for span in spans:
        lane = (span["pid"], span["tid"])
        assert lane in named and span["dur"] >= 0
        assert groups[span["pid"]] == recording.leases[0].name
        assert span["ts"] >= ends.get(lane, 0.0) - 0.01
        ends[lane] = span["ts"] + span["dur"]
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert {"slots in use", "limit", "CPU %", "memory MiB"} <= counters
    slots = [event["args"]["value"] for event in events if event["ph"] == "C" and event["name"] == "slots in use"]
    assert slots == [number for _, number in in_use(recording)]


def test_lost_tokens(gnu_make: Tool, tmp_path: Path) -> None:
    """A client in a recipe is killed with two tokens in its hands."""
    program = tmp_path / "client.py"
    program.write_text(TAKE + "os.kill(os.getpid(), signal.SIGKILL)\n")
    command = shlex.join([sys.executable, str(program), "2"])
    (tmp_path / "Makefile").write_text(f"all:\n\t-+@{command}\n")
    done, found = record(
        tmp_path / "t.json", "-j4", gnu_make.path, "-s", "-C", str(tmp_path), env={**os.environ, "PATH": PATH}
    )
    assert done.returncode == 0
    assert (found.leases[0].lost, found.leases[0].peak) == (2, 3)
    assert "jobserver: 2 tokens lost\n" in done.stderr


def test_empty_build(tmp_path: Path) -> None:
    done, found = record(tmp_path / "t.json", "-j2", "true")
    assert (done.returncode, done.stdout) == (0, "")
    assert [slots for _, slots in found.leases[0].changes] == [1, 0]
    assert found.leases[0].peak == 1
    assert Recording.from_json(found.as_json()) == found


def test_several_commands(tmp_path: Path) -> None:
    """Each has a lease of its own, and its processes; what stands between them and us is not shown."""
    hold = python("import time; time.sleep(3)")
    done, found = record(tmp_path / "t.json", "-j3", *hold, "---", "sh", "-c", "sleep 3; exit 5")
    assert (done.returncode, found.status) == (5, 5)
    assert found.command == [*hold, "---", "sh", "-c", "sleep 3; exit 5"]
    assert [lease.command for lease in found.leases] == [hold, ["sh", "-c", "sleep 3; exit 5"]]
    assert [lease.peak for lease in found.leases] == [1, 1]
    assert all(lease.changes[-1][1] == 0 for lease in found.leases)
    assert max(slots for _, slots in in_use(found)) == 2
    assert {process.lease for process in found.processes} == {0, 1}
    assert {process.name for process in found.processes if process.lease == 1} == {"sh", "sleep"}
    assert not any("jobserver_ffi.cli.adopt" in process.command for process in found.processes)


def test_arguments_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and what a page or a terminal might take for its own."""
    command: list[str | bytes] = ["sh", "-c", "exit 3", b"\xff\xfe", "</script>\x1b[2J"]
    for options in ("--timings=page.html", "--timings=recording.json", "--trace=trace.json"):
        done = subprocess.run(
            [*JOBSERVER, "run", "-j2", options, *command], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 3 and b"Traceback" not in done.stderr and b"\x1b" not in done.stderr
    json.loads((tmp_path / "trace.json").read_text("utf-8"))
    assert "??" in (tmp_path / "page.html").read_text("utf-8")
    recording = Recording.from_json(json.loads((tmp_path / "recording.json").read_text("utf-8")))
    assert recording.command[3].encode(errors="surrogateescape") == b"\xff\xfe"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    with start("-j2", f"--timings={out}", "sh", "-c", "echo runs; exec sleep 1000") as running:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "runs\n"
        os.kill(running.pid, number)
        done = running.finish()
    assert done.returncode == 128 + number
    found = recording_in(out)
    assert found.status == 128 + number
    assert found.leases[0].changes[-1][1] == 0


def test_inside_make_it_looks_at_the_pipe(gnu_make: Tool, tmp_path: Path) -> None:
    """The recipe holds two tokens for longer than the longest pause between two looks."""
    program = tmp_path / "client.py"
    program.write_text(TAKE + "import time; time.sleep(3)\nfor byte in held: client.release_raw(byte)\n")
    out = tmp_path / "t.json"
    inner = shlex.join([*JOBSERVER, "run", f"--timings={out}", sys.executable, str(program), "2"])
    (tmp_path / "Makefile").write_text(f"all:\n\t+@{inner}\n")
    with Running(
        [gnu_make.path, "-s", "-j5", "-C", str(tmp_path)], env={**os.environ, "PATH": PATH, "MAKEFLAGS": ""}
    ) as running:
        done = running.finish()
    assert done.returncode == 0, done.stderr
    assert "looked at now and then" in done.stderr
    found = recording_in(out)
    assert (found.source, found.limits, found.leases[0].peak) == ("samples", [(0.0, 5)], 3)
    assert found.sampled_every > 0
    assert any("client.py" in process.command for process in found.processes)


def test_in_a_jobserver_that_cannot_be_used(tmp_path: Path) -> None:
    """Nothing is known of slots; the processes are there."""
    environment = {**os.environ, "MAKEFLAGS": "-j --jobserver-auth=98,99"}
    done, found = record(tmp_path / "t.json", "sh", "-c", "sleep 3; exit 4", env=environment)
    assert (done.returncode, found.status) == (4, 4)
    assert (found.limits, found.leases[0].changes, utilisation(found)) == ([], [], 0.0)
    assert {process.name for process in found.processes} == {"sh", "sleep"}


@pytest.mark.needs("sockets with names")
def test_in_a_served_pool_it_asks_the_server(tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    program.write_text(TAKE + "import time; time.sleep(3)\nfor byte in held: client.release_raw(byte)\n")
    out = tmp_path / "t.json"
    with new_place() as here, here.serve("-j", "4"):
        words = ("run", "--pool", "default", f"--timings={out}", sys.executable, str(program), "2")
        done = here.call(*words)
    assert done.returncode == 0, done.stderr
    found = recording_in(out)
    assert (found.source, [limit for _, limit in found.limits], found.leases[0].peak) == ("samples", [4], 3)
    assert 3 in [slots for _, slots in found.leases[0].changes]


def test_page_is_written_in_the_current_folder_unless_it_is_named(tmp_path: Path) -> None:
    for words, name in ((["--timings"], DEFAULT), (["--timings=other.html", "-j2"], "other.html")):
        done = run(*words, "sh", "-c", "exit 3", cwd=tmp_path)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (3, f"jobserver: timings: {name}")
        assert (tmp_path / name).read_text().startswith("<!doctype html>")
    assert len(list(tmp_path.iterdir())) == 2


def test_status_and_output_are_the_commands(tmp_path: Path) -> None:
    done, found = record(tmp_path / "t.json", "-j2", "sh", "-c", "echo out; cat; exit 3", given="in")
    assert (done.returncode, done.stdout, found.status) == (3, "out\nin", 3)


# Files


@pytest.mark.parametrize("option", ["--timings={}", "--trace={}"])
@pytest.mark.parametrize("name", ["no/such/directory/t.json", ".", "file/below", ""])
def test_file_that_cannot_be_written_is_an_error_before_the_build(option: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(option.format(name), "touch", "ran", cwd=tmp_path)
    assert done.returncode == 2
    assert f"argument {option.partition('=')[0]}: cannot write '{name}'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_both_files_must_not_be_one(tmp_path: Path) -> None:
    done = run("--timings=t.json", "--trace", "./t.json", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert "--timings and --trace both name './t.json'" in done.stderr


def test_nothing_is_written_for_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    done = run("--timings=t.json", "no-such-program", cwd=tmp_path)
    assert done.returncode == 127
    assert list(tmp_path.iterdir()) == []


def test_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """It is written under another name, with the rights of a new file, through a link, and nothing is left behind."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "t.json").write_text("old")
    (tmp_path / "t.json").symlink_to("real/t.json")
    old = os.stat(tmp_path / "t.json").st_ino
    with pytest.raises(TypeError):
        timing_files.write(str(tmp_path / "t.json"), None)  # type: ignore[arg-type]
    assert (tmp_path / "real" / "t.json").read_text() == "old"
    mask = os.umask(0o027)
    try:
        timing_files.write(str(tmp_path / "t.json"), "new")
    finally:
        os.umask(mask)
    assert (tmp_path / "t.json").is_symlink()
    found = os.stat(tmp_path / "t.json")
    assert (found.st_mode & 0o777, found.st_ino != old) == (0o640, True)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["t.json"]


def test_what_is_no_plain_file_is_written_to() -> None:
    done = run("-j2", "--trace", "/dev/stdout", "true")
    assert done.returncode == 0
    assert json.loads(done.stdout)["traceEvents"]
    assert os.path.exists("/dev/stdout")


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["--timings", "make", "--timings"], [f"--timings={DEFAULT}", "make", "--timings"]),
        (["-j", "4", "--timings", "-j5"], ["-j", "4", f"--timings={DEFAULT}", "-j5"]),
        (["--timings=a", "make"], ["--timings=a", "make"]),
        (["--", "--timings"], ["--", "--timings"]),
        (["--trace", "--timings", "make"], ["--trace", "--timings", "make"]),
        (["--check", "--timings"], ["--check", f"--timings={DEFAULT}"]),
    ],
)
def test_command_is_not_taken_for_the_file(words: list[str], joined: list[str]) -> None:
    _, parser = _parsers(["run", *words])
    assert parser is not None
    assert join_optional_values(parser, ["run", *words]) == ["run", *joined]
