"""How many CPUs this process may use."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_UNESCAPED = {"040": " ", "011": "\t", "012": "\n", "134": "\\", "043": "#"}


def usable_cpus(root: str = "/") -> int:
    """Count the CPUs that this process may use.

    The smallest of the scheduler's affinity (else the machine's CPUs) and the CPU quotas, rounded up, of the process's
    control group and of every group above it that it can see (Linux, cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`).

    Args:
        root: the directory that holds `proc` and the mounted control groups.
    Returns:
        The number, at least 1. What cannot be read or understood does not limit it.
    """
    return max(1, min((_affinity(), *_quotas(root))))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        try:
            return len(os.sched_getaffinity(0))
        except OSError:
            pass
    return os.cpu_count() or 1


def _quotas(root: str) -> Iterator[int]:
    groups = _own_groups(root)
    mounts = list(_mounts(root))
    for kind, group in groups.items():
        ours = [(source, target) for mounted, source, target in mounts if mounted == kind]
        seen = [(source, target) for source, target in ours if _inside(group, source)]
        # A group outside every mount (a namespace can do that) is at least below what is mounted.
        for source, target in seen or ours:
            below = group[len(source.rstrip("/")) :] if seen else ""
            yield from _read_upwards(kind, os.path.join(root, target.lstrip("/")), below.strip("/"))


def _own_groups(root: str) -> dict[str, str]:
    """The paths of this process's groups that can limit CPU time, by "cgroup" (v1) and "cgroup2"."""
    groups = {}
    for line in _read(os.path.join(root, "proc/self/cgroup")).split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if "cpu" in controllers.split(","):
            groups["cgroup"] = path
        elif number == "0" and not controllers:
            groups["cgroup2"] = path
    return groups


def _mounts(root: str) -> Iterator[tuple[str, str, str]]:
    """Kind, group at its top, and directory of each mount that can hold CPU quotas; see proc_pid_mountinfo(5)."""
    for line in _read(os.path.join(root, "proc/self/mountinfo")).split("\n"):
        before, _, after = line.partition(" - ")
        mount, system = before.split(" "), after.split(" ")
        if len(mount) < 6 or len(system) < 3:
            continue
        if system[0] == "cgroup2" or (system[0] == "cgroup" and "cpu" in system[2].split(",")):
            yield system[0], _unescape(mount[3]), _unescape(mount[4])


def _inside(group: str, source: str) -> bool:
    return ".." not in group.split("/") and (group + "/").startswith(source.rstrip("/") + "/")


def _read_upwards(kind: str, top: str, below: str) -> Iterator[int]:
    """The quotas of the group BELOW the directory TOP and of all between them, TOP included."""
    while True:
        quota = _quota(kind, os.path.join(top, below))
        if quota is not None:
            yield quota
        if not below:
            return
        below = below.rpartition("/")[0]


def _quota(kind: str, directory: str) -> int | None:
    if kind == "cgroup2":
        words = _read(os.path.join(directory, "cpu.max")).split()
    else:
        words = [_read(os.path.join(directory, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period")]
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None


def _read(path: str) -> str:
    """The content of a file, or nothing if it cannot be read (a path with a NUL is a ValueError)."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read())
    except (OSError, ValueError):
        return ""


def _unescape(field: str) -> str:
    """Undo the octal escapes in a field of mountinfo."""
    head, *parts = field.split("\\")
    return head + "".join(_UNESCAPED.get(part[:3], "\\" + part[:3]) + part[3:] for part in parts)
