"""What is seen of pools, in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from .seen import SeenPool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# In the order in which they are written.
METRICS = {
    "jobserver_slots": ("gauge", "Slots of the pool."),
    "jobserver_slots_in_use": ("gauge", "Slots in use; of a shared pool all that are not free, so lost tokens, too."),
    "jobserver_slots_free": ("gauge", "Slots that are free."),
    "jobserver_slots_held_back": ("gauge", "Free slots that gates keep from being used."),
    "jobserver_processes": ("gauge", "Processes that have a shared pool open."),
    "jobserver_leases": ("gauge", "Leases, by their state."),
    "jobserver_lease_slots_in_use": ("gauge", "Slots that a lease holds."),
    "jobserver_lease_tokens_untaken": ("gauge", "Tokens that a lease is offered and has not taken."),
    "jobserver_gate_value": ("gauge", "What a gate measured last: a load, bytes, or percent."),
    "jobserver_gate_slots_held_back": ("gauge", "Free slots that a gate keeps from being used."),
    "jobserver_leases_ended_total": ("counter", "Leases that have ended."),
    "jobserver_slot_seconds_total": ("counter", "Seconds that slots were in use, added up."),
    "jobserver_queue_seconds_total": ("counter", "Seconds that leases waited for their first slot, added up."),
    "jobserver_tokens_lost_total": ("counter", "Tokens that leases held when they ended, and that are back."),
    "jobserver_tokens_over_released_total": ("counter", "Tokens given back that had not been taken; thrown away."),
    "jobserver_tokens_foreign_total": ("counter", "Tokens given back with another byte than was taken; put right."),
}

_STATES = ("queued", "started", "orphans")

# Metric, labels, value.
Sample = tuple[str, dict[str, str], float]


def exposition(pools: Iterable[SeenPool]) -> str:
    """Pools as a scrape of Prometheus reads them."""
    samples: dict[str, dict[str, float]] = {name: {} for name in METRICS}
    for pool in pools:
        for name, labels, value in _samples(pool):
            series = _series(name, labels)
            # Two leases of one process and name are one series.
            samples[name][series] = samples[name].get(series, 0) + value
    lines = []
    for name, (kind, text) in METRICS.items():
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{series} {value!r}" for series, value in samples[name].items()]
    return "".join(f"{line}\n" for line in lines)


def _samples(pool: SeenPool) -> Iterator[Sample]:
    labels = _labels(pool)
    found = {
        "jobserver_slots": pool.limit,
        "jobserver_slots_in_use": pool.in_use,
        "jobserver_slots_free": pool.free,
        "jobserver_slots_held_back": pool.held_back,
        "jobserver_processes": None if pool.processes is None else len(pool.processes),
    }
    for name, value in found.items():
        if value is not None:
            yield name, labels, value
    for lease in pool.leases:
        process = "" if lease["process"] is None else str(lease["process"])
        own = {**labels, "process": process, "lease": _name(lease)}
        if pool.kind == "served":
            yield "jobserver_lease_slots_in_use", own, lease["slots"]
        if lease["untaken"] is not None:
            yield "jobserver_lease_tokens_untaken", own, lease["untaken"]
    for gate in pool.gates:
        own = {**labels, "gate": gate["name"]}
        yield "jobserver_gate_value", own, gate["value"]
        yield "jobserver_gate_slots_held_back", own, gate["held_back"]
    if pool.ended is not None:
        yield from _of_server(labels, pool.leases, pool.ended)


def _of_server(labels: dict[str, str], leases: Sequence[dict[str, Any]], ended: dict[str, Any]) -> Iterator[Sample]:
    """What only a server counts, of leases that there are and that have ended."""
    for state in _STATES:
        yield "jobserver_leases", {**labels, "state": state}, sum(lease["state"] == state for lease in leases)
    yield "jobserver_leases_ended_total", labels, ended["leases"]
    for name, item in (
        ("jobserver_slot_seconds_total", "slot_seconds"),
        ("jobserver_queue_seconds_total", "queue_seconds"),
        ("jobserver_tokens_lost_total", "lost"),
        ("jobserver_tokens_over_released_total", "over_released"),
        ("jobserver_tokens_foreign_total", "foreign"),
    ):
        yield name, labels, ended[item] + sum(lease[item] for lease in leases)


def _labels(pool: SeenPool) -> dict[str, str]:
    """What tells pools apart: two makes may have the same address and the same name."""
    if pool.kind == "served":
        return {"pool": pool.name or ""}
    process = "" if pool.process is None else str(pool.process)
    return {"pool": pool.name or pool.address or "", "maker": process}


def _name(lease: dict[str, Any]) -> str:
    return str(lease.get("name") or " ".join(lease["command"][:1]))


def _series(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    return f"{name}{{{inside}}}"


def _escaped(value: str) -> str:
    """A label's value; bytes of a command that are no text become `?`."""
    text = value.encode(errors="replace").decode()
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
