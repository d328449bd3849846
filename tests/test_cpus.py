"""usable_cpus() on control groups laid out as files, and on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobserver_ffi.cpus import usable_cpus

pytestmark = pytest.mark.quick

V2 = "42 32 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 32 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
V1_OTHER = "34 32 0:32 / /sys/fs/cgroup/cpuset rw shared:6 - cgroup cgroup rw,cpuset\n"
ROOT_FS = "32 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


@pytest.fixture(autouse=True)
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four CPUs for this process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


def lay_out(root: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> int:
    """Write the two files of /proc/self, and quotas under /sys/fs/cgroup, then count.

    A file is GROUP/cpu.max with its text, or GROUP/cpu.cfs with "QUOTA PERIOD" for the two files of version 1.
    """
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_bytes(os.fsencode(cgroup))
    (root / "proc/self/mountinfo").write_bytes(os.fsencode(mountinfo))
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "cpu.max":
            file.write_bytes(os.fsencode(text))
        else:
            for part, value in zip(("quota", "period"), text.split(" "), strict=True):
                file.with_name(f"cpu.cfs_{part}_us").write_text(f"{value}\n")
    return usable_cpus(str(root))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 64),
        ("200000 100000\n", 2),
        ("200001 100000\n", 3),
        ("1000 100000\n", 1),
        ("50000 10000", 5),
        ("6400000 100000\n", 64),
        ("99900000 100000\n", 64),
        *((text, 64) for text in ("", "\n", "max", "2", "0 100000", "-1 100000", "200000 0", "1 2 3", "a b", "1e5 1")),
        *((text, 64) for text in ("\udcff\udcfe \0", "9" * 5000 + " 1", "2.5 1", "nan 1")),
    ],
)
def test_v2_quota(tmp_path: Path, text: str, expected: int) -> None:
    cgroup = "0::/a\n0:name=x:/wrong\n1::/wrong\n"
    files = {"a/cpu.max": text, "wrong/cpu.max": "100000 100000"}
    assert lay_out(tmp_path, cgroup, ROOT_FS + V2, files) == expected


@pytest.mark.parametrize(
    ("own", "parent", "top", "expected"),
    [
        ("200000 100000", "300000 100000", "max 100000", 2),
        ("max 100000", "300000 100000", "max 100000", 3),
        ("800000 100000", "300000 100000", "900000 100000", 3),
        ("max 100000", "max 100000", "500000 100000", 5),
        ("max 100000", "max 100000", "max 100000", 64),
    ],
)
def test_v2_every_group_above_limits(tmp_path: Path, own: str, parent: str, top: str, expected: int) -> None:
    files = {"a b/c/cpu.max": own, "a b/cpu.max": parent, "cpu.max": top}
    files |= {"a b/c/below/cpu.max": "100000 100000", "a/cpu.max": "100000 100000"}
    assert lay_out(tmp_path, "0::/a b/c\n", V2, files) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-1 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("0 100000", 64), ("5 x", 64), ("100 0", 64)],
)
def test_v1_quota(tmp_path: Path, text: str, expected: int) -> None:
    cgroup = "4:cpu,cpuacct:/a/b:c\n12:cpuset:/wrong\n1:name=systemd:/wrong\n0::/wrong\n"
    files = {"cpu,cpuacct/a/b:c/cpu.cfs": text, "cpu,cpuacct/a/cpu.cfs": "-1 100000"}
    wrong = ["cpu,cpuacct/wrong/cpu.cfs", "cpuset/a/b:c/cpu.cfs", "cpu,cpuacct/a/b:c/cpu.max"]
    files |= dict.fromkeys(wrong, "100000 100000")
    assert lay_out(tmp_path, cgroup, ROOT_FS + V1_OTHER + V1, files) == expected


def test_v1_every_group_above_limits(tmp_path: Path) -> None:
    files = {"a/b": "900000 100000", "a": "400000 100000", "": "-1 100000"}
    paths = {f"cpu,cpuacct/{group}/cpu.cfs": text for group, text in files.items()}
    assert lay_out(tmp_path, "4:cpu,cpuacct:/a/b\n", V1, paths) == 4


def test_both_versions_limit(tmp_path: Path) -> None:
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    files = {"cpu,cpuacct/a/cpu.cfs": "400000 100000", "unified/b/cpu.max": "300000 100000"}
    # Neither version's file counts under the other's mount.
    files |= {"cpu,cpuacct/b/cpu.max": "100000 100000", "unified/a/cpu.cfs": "100000 100000"}
    assert lay_out(tmp_path, "4:cpu,cpuacct:/a\n0::/b\n", V1 + unified, files) == 3


@pytest.mark.parametrize(
    ("group", "source", "expected"),
    [
        ("/", "/", 2),
        ("/a", "/", 1),
        ("/docker/x", "/docker/x", 2),  # the container's group is mounted at the top
        ("/docker/x/a", "/docker/x", 1),  # a group below it
        ("/docker/xa", "/docker/x", 2),  # not below it: the top is all that is known to be above
        ("/", "/docker/x", 2),
        ("/../other", "/", 2),
    ],
)
def test_group_mounted_elsewhere(tmp_path: Path, group: str, source: str, expected: int) -> None:
    files = {"cpu.max": "200000 100000", "a/cpu.max": "100000 100000", "../other/cpu.max": "100000 100000"}
    assert lay_out(tmp_path, f"0::{group}\n", V2.replace(" / /sys", f" {source} /sys"), files) == expected


def test_the_mount_that_holds_the_group_is_taken(tmp_path: Path) -> None:
    other = "43 32 0:30 /other /sys/fs/cgroup/wrong rw - cgroup2 cgroup2 rw\n"
    files = {"wrong/cpu.max": "100000 100000", "a/cpu.max": "300000 100000"}
    assert lay_out(tmp_path, "0::/a\n", other + V2, files) == 3


@pytest.mark.needs("any file name")
def test_escapes_in_mountinfo(tmp_path: Path) -> None:
    mountinfo = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/a\\040b\\134\\011c\\777")
    assert lay_out(tmp_path, "0::/\n", mountinfo, {"a b\\\tc\\777/cpu.max": "200000 100000"}) == 2


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    mountinfo = ROOT_FS.replace("sda1", "\udcff") + V2
    assert lay_out(tmp_path, "0::/\n1:\udcff:/\n", mountinfo, {"cpu.max": "200000 100000"}) == 2


ALL_LIMITED = {
    name: "100000 100000" for name in ("cpu.max", "a/cpu.max", "cpu,cpuacct/cpu.cfs", "cpu,cpuacct/a/cpu.cfs")
}


@pytest.mark.parametrize("cgroup", ["", "\n", "garbage", "0", "0:", "0::", "::::", "cpu", ":cpu", "\udcff:\udcff:\0"])
def test_strange_cgroup_does_not_limit(tmp_path: Path, cgroup: str) -> None:
    assert lay_out(tmp_path, cgroup, V1 + V2, ALL_LIMITED) == 64


@pytest.mark.parametrize(
    "mountinfo",
    [
        *("", "\n - \n", " - cgroup2 x rw", "1 2 3 4 5 6 - cgroup2", "1 2 3 4 5 6 - cgroup", "1 2 3 / /sys/fs/cgroup"),
        *(V2.replace("/sys", "/\0"), V2.replace("/sys", "\\"), "\udcff" * 9, V2.replace("cgroup2", "tmpfs"), V1_OTHER),
    ],
)
def test_strange_mountinfo_does_not_limit(tmp_path: Path, mountinfo: str) -> None:
    assert lay_out(tmp_path, "0::/a\n4:cpu,cpuacct:/a\n", mountinfo, ALL_LIMITED) == 64


def test_unreadable_does_not_limit(tmp_path: Path) -> None:
    assert usable_cpus(str(tmp_path)) == 64
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert lay_out(tmp_path, "0::/\n", V2, {}) == 64


@pytest.mark.parametrize(("cpus", "expected"), [({5, 7, 9}, 3), (set(range(9)), 4), (set(), 1)])
def test_affinity_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: set[int], expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus, raising=False)
    assert lay_out(tmp_path, "0::/\n", V2, {"cpu.max": "400000 100000"}) == expected


def test_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> set[int]:
        raise PermissionError

    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    assert usable_cpus(str(tmp_path)) == 12
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cpus(str(tmp_path)) == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(str(tmp_path)) == 1


def test_this_machine() -> None:
    """A child that pins itself counts what it has been left with."""
    code = """if True:
        import os
        from jobserver_ffi.cpus import usable_cpus
        before = usable_cpus()
        assert 1 <= before <= (os.cpu_count() or 1)
        if hasattr(os, "sched_setaffinity"):
            cpus = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cpus[:1])
            assert usable_cpus() == 1
            os.sched_setaffinity(0, cpus[-2:])
            assert usable_cpus() == min(before, len(cpus[-2:]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
