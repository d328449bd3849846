"""Gates: what they measure, and that a pool holds tokens back for them."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from jobserver_ffi import MaxLoad, MaxPressure, MinMemory, Pool, Unsupported
from jobserver_ffi.gates import Gate, Gatekeeper

from .command import run
from .conftest import CAPABILITIES, Tool
from .overlap import GUARD
from .test_bridge import hold, wait_for

if sys.platform != "win32":
    import resource


def write(root: Path, **files: str) -> None:
    """Files of a system, by their path with `__` for `/` and `_dot_` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def memory(root: Path, available: int) -> None:
    write(root, proc__meminfo=f"MemTotal: 1000 kB\nMemAvailable:  {available} kB\n")


@pytest.mark.parametrize(("running", "verdict"), [(6, True), (5, None), (4, False)])
def test_load(running: int, verdict: bool | None, tmp_path: Path) -> None:
    write(tmp_path, proc__loadavg=f"9.0 9.0 9.0 {running + 1}/99 1\n")
    gate = MaxLoad(5, str(tmp_path))
    assert (gate.measure(), gate.value) == (verdict, running)


@pytest.mark.parametrize(("available", "verdict"), [(499, True), (500, None), (560, False)])
def test_memory_of_the_machine(available: int, verdict: bool | None, tmp_path: Path) -> None:
    memory(tmp_path, available)
    assert MinMemory(0.5, str(tmp_path)).measure() is verdict
    assert MinMemory(500 * 1024, str(tmp_path)).measure() is verdict


@pytest.mark.needs("/proc")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("used", "verdict"), [(700, True), (560, None), (300, False)])
def test_memory_of_the_group_above(version: int, used: int, verdict: bool | None, tmp_path: Path) -> None:
    """A limit of 1000 in the group above; of what is used 50 could be dropped."""
    memory(tmp_path, 1000)
    if version == 2:
        write(tmp_path, proc__self__cgroup="0::/a/b\n", proc__self__mountinfo="1 2 0:1 / /sys/g rw - cgroup2 none rw\n")
        write(tmp_path, sys__g__a__b__memory_dot_max="max\n", sys__g__a__b__memory_dot_current="1\n")
        write(tmp_path, sys__g__a__memory_dot_max="1000\n", sys__g__a__memory_dot_current=f"{used}\n")
        write(tmp_path, sys__g__a__memory_dot_stat="anon 5\ninactive_file 50\n")
    else:
        mounted = "1 2 0:1 / /sys/g rw - cgroup none rw,memory\n"
        write(tmp_path, proc__self__cgroup="4:memory:/a\n", proc__self__mountinfo=mounted)
        names = {
            "limit_in_bytes": "1000",
            "usage_in_bytes": str(used),
            "stat": "inactive_file 1\ntotal_inactive_file 50",
        }
        write(tmp_path, **{f"sys__g__a__memory_dot_{name}": text + "\n" for name, text in names.items()})
        write(tmp_path, sys__g__memory_dot_limit_in_bytes=f"{2**63 - 4096}\n", sys__g__memory_dot_usage_in_bytes="5\n")
    assert MinMemory(0.45, str(tmp_path)).measure() is verdict


@pytest.mark.needs("/proc")
def test_pressure(tmp_path: Path) -> None:
    """At first the kernel's average, then what was added since the last look; the worse of machine and group."""
    write(tmp_path, proc__pressure__io="some avg10=60.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0 total=0\n")
    gate = MaxPressure("io", 50, str(tmp_path))
    assert (gate.measure(), gate.value) == (True, 60.0)
    assert (gate.measure(), gate.value) == (False, 0.0)
    write(tmp_path, proc__pressure__io=f"some avg10=0.00 avg60=0.00 avg300=0.00 total={10**12}\n")
    assert (gate.measure(), gate.value) == (True, 100.0)
    write(tmp_path, proc__self__cgroup="0::/a\n", proc__self__mountinfo="1 2 0:1 / /g rw - cgroup2 none rw\n")
    write(tmp_path, g__a__io_dot_pressure="some avg10=70.00 avg60=0.00 avg300=0.00 total=1\n")
    assert MaxPressure("io", 50, str(tmp_path)).measure() is True


def test_system_without_pressure_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="CONFIG_PSI"):
        MaxPressure("cpu", 50, str(tmp_path))


@pytest.mark.needs("/proc")
def test_this_machine() -> None:
    load, memory_gate = MaxLoad(1e9), MinMemory(1)
    assert (load.measure(), memory_gate.measure()) == (False, False) and memory_gate.value > 2**20
    if os.path.exists("/proc/pressure/cpu"):
        assert MaxPressure("cpu", 99).measure() in (True, False, None)


@pytest.mark.parametrize(
    "make", [lambda: MaxLoad(0), lambda: MinMemory(0), lambda: MaxPressure("disk", 5), lambda: MaxPressure("io", 100)]
)
def test_wrong_limits(make: object) -> None:
    with pytest.raises(ValueError, match="wanted"):
        make()  # type: ignore[operator]


class Scripted(Gate):
    """A gate that says what it was told to, and then nothing new."""

    name = "scripted"

    def __init__(self, *verdicts: bool | None) -> None:
        self._verdicts = list(verdicts)

    def measure(self) -> bool | None:
        return self._verdicts.pop(0) if self._verdicts else None


def test_gatekeeper_closes_and_opens_by_and_by() -> None:
    keeper = Gatekeeper([Scripted(False, True, True, None, False, False, False, False, False), Scripted(False)])
    assert keeper.look(8) is None
    assert [keeper.look(8), keeper.look(8), keeper.look(4)] == [6, 5, 5]
    assert [(gate.name, gate.held_back) for gate in keeper.status(8)] == [("scripted", 3), ("scripted", 0)]
    assert [keeper.look(5), keeper.look(6), keeper.look(7), keeper.look(8)] == [6, 7, None, None]
    always = Gatekeeper([Scripted(*[True] * 20)])
    assert [always.look(2) for _ in range(20)][-1] == 1


def test_closed_gate_holds_tokens_back_and_lets_each_lease_start(tmp_path: Path) -> None:
    memory(tmp_path, 10)
    with Pool(4, gates=[MinMemory(0.5, str(tmp_path))]) as pool:
        with pool.lease("first") as first, pool.lease("second") as second:
            first.configure()
            wait_for(lambda: pool.status().held_back == 3)
            (gate,) = pool.status().gates
            assert (gate.name, gate.value, gate.held_back) == ("memory below 50%", 10 * 1024, 3)
            process = second.popen(**hold(2))
            assert pool.status().in_use == 2
            wait_for(lambda: pool.status().held_back == 2)
            memory(tmp_path, 900)
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            assert pool.status().gates[0].held_back == 0
            process.communicate("\n", timeout=GUARD)
            second.wait(GUARD)
        assert pool.status().in_use == 0


@pytest.mark.needs("signals")
def test_pool_without_descriptors_for_its_gates_is_refused() -> None:
    """However few are left: no pool goes on without its gates."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    with open(os.devnull) as first:
        for left in range(40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (first.fileno() + 1 + left, hard))
            try:
                with Pool(2, gates=[Scripted(True)]):
                    assert "jobserver gates" in {thread.name for thread in threading.enumerate()}
            except OSError as error:
                assert error.errno == errno.EMFILE
                refused += 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < refused < 40


def test_minimum_is_not_held_back(tmp_path: Path) -> None:
    memory(tmp_path, 10)
    with Pool(4, gates=[MinMemory(0.5, str(tmp_path))]) as pool, pool.lease("first") as first:
        first.configure()
        wait_for(lambda: pool.status().held_back == 3)
        with pool.lease("second", minimum=3) as second:
            process = second.popen(**hold(2))
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            process.communicate("\n", timeout=GUARD)
            second.wait(GUARD)


@pytest.mark.skipif(not CAPABILITIES["sh"], reason="needs sh")
def test_command(gnu_make: Tool, tmp_path: Path) -> None:
    """A build behind a closed gate goes on, one job at a time; wrong options are refused."""
    (tmp_path / "Makefile").write_text("all: 1 2 3\n1 2 3:\n\t@sleep 0.01\n")
    done = run("-j3", "--min-memory", "9999T", "--check", gnu_make.path, "-s", "-C", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    done = run("-j3", "--max-load", "99", "--min-memory", "1%", "true", "---", "true")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--max-load=0", "--max-load=x", "--min-memory=2X", "--min-memory=100%", "--max-pressure=disk=5"):
        done = run("-j3", option, "true")
        assert (done.returncode, "give " in done.stderr) == (2, True), option
