"""How many CPUs this process may use."""

from __future__ import annotations

import os

from .cgroups import own_groups, read


def usable_cpus(root: str = "/") -> int:
    """Count the CPUs that this process may use.

    The smallest of the scheduler's affinity (else the machine's CPUs) and the CPU quotas, rounded up, of the process's
    control group and of every group above it that it can see (Linux, cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`).

    Args:
        root: the directory that holds `proc` and the mounted control groups.
    Returns:
        The number, at least 1. What cannot be read or understood does not limit it.
    """
    return max(1, min((_affinity(), *filter(None, (_quota(*group) for group in own_groups("cpu", root))))))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        try:
            return len(os.sched_getaffinity(0))
        except OSError:
            pass
    return os.cpu_count() or 1


def _quota(kind: str, directory: str) -> int | None:
    if kind == "cgroup2":
        words = read(os.path.join(directory, "cpu.max")).split()
    else:
        words = [read(os.path.join(directory, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period")]
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None
