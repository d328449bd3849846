"""The control groups of this process on Linux, of both versions."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_UNESCAPED = {"040": " ", "011": "\t", "012": "\n", "134": "\\", "043": "#"}


def own_groups(controller: str, root: str = "/") -> Iterator[tuple[str, str]]:
    """The directories of this process's group and of every group above it that it can see.

    Args:
        controller: What the groups of version 1 are to control: "cpu", "memory" …
        root: The directory that holds `proc` and the mounted control groups.

    Yields:
        "cgroup2" or "cgroup" (version 1), and the directory; from each group upwards.
    """
    mounts = list(_mounts(controller, root))
    for kind, group in _paths(controller, root).items():
        ours = [(source, target) for mounted, source, target in mounts if mounted == kind]
        seen = [(source, target) for source, target in ours if _inside(group, source)]
        # A group outside every mount (a namespace can do that) is at least below what is mounted.
        for source, target in seen or ours:
            below = (group[len(source.rstrip("/")) :] if seen else "").strip("/")
            top = os.path.join(root, target.lstrip("/"))
            while True:
                yield kind, os.path.join(top, below)
                if not below:
                    break
                below = below.rpartition("/")[0]


def _paths(controller: str, root: str) -> dict[str, str]:
    """The paths of this process's groups, by "cgroup" (version 1) and "cgroup2"."""
    groups = {}
    for line in read(os.path.join(root, "proc/self/cgroup")).split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if controller in controllers.split(","):
            groups["cgroup"] = path
        elif number == "0" and not controllers:
            groups["cgroup2"] = path
    return groups


def _mounts(controller: str, root: str) -> Iterator[tuple[str, str, str]]:
    """Kind, group at its top, and directory of each mount of such groups; see proc_pid_mountinfo(5)."""
    for line in read(os.path.join(root, "proc/self/mountinfo")).split("\n"):
        before, _, after = line.partition(" - ")
        mount, system = before.split(" "), after.split(" ")
        if len(mount) < 6 or len(system) < 3:
            continue
        if system[0] == "cgroup2" or (system[0] == "cgroup" and controller in system[2].split(",")):
            yield system[0], _unescape(mount[3]), _unescape(mount[4])


def _inside(group: str, source: str) -> bool:
    return ".." not in group.split("/") and (group + "/").startswith(source.rstrip("/") + "/")


def read(path: str) -> str:
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
