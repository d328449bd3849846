"""What is seen of a pool, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cli.messages import shown
from ..gates import measured

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .seen import Holder, SeenPool

_LONGEST_COMMAND = 60

# The title of a column, and the item of a lease in it.
_COLUMNS = (
    ("PID", "process"),
    ("STATE", "state"),
    ("HELD", "slots"),
    ("IDLE", "untaken"),
    ("PEAK", "peak"),
    ("SECONDS", "slot_seconds"),
    ("WAITS", "waits"),
    ("LOST", "lost"),
    ("OVER", "over_released"),
)


def described(pools: Iterable[SeenPool]) -> str:
    """Pools as people read them, with an empty line between two."""
    kinds = {"served": _served, "leases": _leases, "shared": _shared}
    return "\n\n".join("\n".join(kinds[pool.kind](pool)) for pool in pools) + "\n"


def _served(pool: SeenPool) -> list[str]:
    ended = pool.ended or {}
    lines = [
        f"pool `{pool.name}` (process {pool.process}): {pool.in_use} of {pool.limit} slots in use, {pool.free} free, "
        f"{pool.queued} waiting; {ended['leases']} ended; tokens lost and back: {ended['lost']}, "
        f"given back too often: {ended['over_released']}"
    ]
    for gate in pool.gates:
        is_now = measured(gate["name"], gate["value"])
        lines.append(f"{shown(gate['name'])} (it is {is_now}): tokens held back: {gate['held_back']}")
    if pool.leases:
        rows = [
            [lease[item] for _, item in _COLUMNS] + [_command(lease["command"], lease["name"])] for lease in pool.leases
        ]
        lines += _table([*(title for title, _ in _COLUMNS), "COMMAND"], rows)
    return lines


def _leases(pool: SeenPool) -> list[str]:
    slots = "an unknown number of slots" if pool.limit is None else _slots(pool.limit)
    offered = sum(lease["untaken"] or 0 for lease in pool.leases)
    free = f"at least {offered} free" if offered else "free: not known"
    lines = [
        f"pool with leases of `{pool.name}` (process {pool.process}): {slots}, {free}",
        "Who holds how many is known to that process alone; a pool that is served tells (`jobserver run --pool`).",
    ]
    rows = []
    for lease in pool.leases:
        untaken = "?" if lease["untaken"] is None else lease["untaken"]
        users = len(lease["processes"])
        rows.append([lease["process"] or "?", lease["style"], untaken, users, _command(lease["command"], "?")])
    return [*lines, *_table(["PID", "STYLE", "IDLE", "PROCESSES", "COMMAND"], rows)]


def _shared(pool: SeenPool) -> list[str]:
    what = f"jobserver {shown(pool.address or '').removeprefix('fifo:')} ({pool.style})"
    if pool.process is not None:
        what += f" of `{pool.name}` (process {pool.process})"
    if pool.free is None:
        count = "how many tokens are free cannot be told" + (f", of {_slots(pool.limit)}" if pool.limit else "")
    elif pool.in_use is None:
        count = f"{pool.free} free; how many slots there are is not known"
    else:
        count = f"{pool.in_use} of {pool.limit} slots in use, {pool.free} free"
    lines = [f"{what}: {count}"]
    if pool.processes is None:
        return [*lines, "Who has it open cannot be told on this system."]
    if not pool.processes:
        return [*lines, "No other process that can be seen has it open."]
    lines.append("These have it open; which of them hold tokens nobody can tell, since all share one pool:")
    return lines + _table(["PID", "COMMAND"], [[one.process, _of(one)] for one in pool.processes])


def _of(process: Holder) -> str:
    return _command(process.command, process.name) + ("  (made it)" if process.made else "")


def _slots(count: int) -> str:
    return f"{count} slot{'s' * (count != 1)}"


def _command(words: list[str], name: str) -> str:
    return shown(" ".join(words) or name, _LONGEST_COMMAND)


def _table(titles: list[str], rows: list[list[Any]]) -> list[str]:
    """Columns of figures, with a text in the last."""
    written = [titles] + [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*written, strict=True)]
    return [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in written
    ]
