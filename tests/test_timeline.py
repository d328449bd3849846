"""What is told of a recording, and the trace: for any recording that there can be."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobserver_ffi.timeline import (
    Machine,
    Pressure,
    RecordedLease,
    RecordedProcess,
    Recording,
    levels,
    serial_stretches,
    slot_seconds,
    trace,
    utilisation,
)
from jobserver_ffi.timeline.analysis import in_use, summary
from jobserver_ffi.timeline.machine import MOST, MachineSamples
from jobserver_ffi.timeline.trace import lanes

pytestmark = pytest.mark.quick

SECONDS = 100.0
times = st.floats(0, SECONDS, allow_nan=False)
slots = st.integers(0, 9)


def steps(values: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[float, float]]]:
    return st.lists(st.tuples(times, values), max_size=12).map(lambda found: sorted(found, key=lambda step: step[0]))


@st.composite
def leases(draw: st.DrawFn) -> RecordedLease:
    changes = draw(steps(slots))
    end = draw(st.floats(changes[-1][0] if changes else 0, SECONDS))
    return RecordedLease(draw(st.text(max_size=5)), ["make"], changes, end, 9, lost=draw(st.integers(0, 2)))


@st.composite
def processes(draw: st.DrawFn) -> RecordedProcess:
    start, end = sorted((draw(times), draw(times)))
    cpu = draw(st.floats(0, 10))
    return RecordedProcess(draw(st.integers(1, 99)), 1, 0, draw(st.text(max_size=5)), "a b", start, end, cpu, 4096)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    at = sorted(draw(st.sets(times, max_size=5)))
    shares = [0.5] * len(at)
    return Machine(at, shares, [1] * len(at), 2, shares, Pressure(shares, shares, []))


recordings = st.builds(
    Recording,
    command=st.lists(st.text(max_size=5)),
    seconds=st.just(SECONDS),
    limits=steps(st.integers(1, 9)),
    leases=st.lists(leases(), max_size=4),
    processes=st.lists(processes(), max_size=12),
    machine=machines(),
)


@given(recordings)
def test_json_keeps_everything(recording: Recording) -> None:
    text = json.dumps(recording.as_json())
    assert Recording.from_json(json.loads(text)) == recording
    assert set(json.loads(text)) == {"format", "version", *(field.name for field in dataclasses.fields(Recording))}


def test_what_is_no_recording_is_refused() -> None:
    good = Recording().as_json()
    assert Recording.from_json({**good, "of a later minor version": 1}) == Recording()
    for bad in ({}, {**good, "format": "other"}, {**good, "version": 2}):
        with pytest.raises(ValueError, match="recording"):
            Recording.from_json(bad)


def value_at(found: list[tuple[float, float]], time: float) -> float:
    """What steps say of a time, after all changes at that time."""
    return next((value for at, value in reversed(found) if at <= time), 0.0)


@given(recordings, times)
def test_slots_in_use_are_those_of_all_leases(recording: Recording, time: float) -> None:
    expected = sum(value_at(lease.changes, time) for lease in recording.leases if time < lease.ended)
    assert value_at(in_use(recording), time) == expected


@given(recordings)
def test_levels_add_up(recording: Recording) -> None:
    found = levels(recording)
    assert math.fsum(found.values()) == pytest.approx(SECONDS)
    of_each = 0.0
    for lease in recording.leases:
        ends = [time for time, _ in lease.changes[1:]] + [lease.ended]
        of_each += sum((end - at) * count for (at, count), end in zip(lease.changes, ends, strict=False))
    assert slot_seconds(recording) == pytest.approx(of_each, abs=1e-6)


@given(recordings)
def test_utilisation_is_a_share(recording: Recording) -> None:
    assert 0.0 <= utilisation(recording) <= 1.0
    if not recording.limits:
        assert utilisation(recording) == 0.0


@given(recordings)
def test_stretches_are_the_longest_with_one_slot_at_most(recording: Recording) -> None:
    found = serial_stretches(recording, most=100)
    assert [stretch.seconds for stretch in found] == sorted((stretch.seconds for stretch in found), reverse=True)
    assert serial_stretches(recording, most=2) == found[:2]
    in_order = sorted(found, key=lambda stretch: stretch.start)
    assert all(one.end < other.start for one, other in itertools.pairwise(in_order))
    for stretch in found:
        assert 0 <= stretch.start < stretch.end <= SECONDS
        inside = [value for at, value in in_use(recording) if stretch.start < at < stretch.end]
        most = max([value_at(in_use(recording), stretch.start), *inside])
        assert most == stretch.slots <= 1
        assert value_at(in_use(recording), stretch.end) > 1 or stretch.end == SECONDS
        if stretch.process is not None:
            assert stretch.process.start < stretch.end and stretch.process.end > stretch.start


@given(st.lists(processes(), max_size=30))
def test_lanes_are_as_few_as_can_be(found: list[RecordedProcess]) -> None:
    packed = lanes(found)
    assert sorted(map(id, found)) == sorted(id(process) for lane in packed for process in lane)
    for lane in packed:
        assert all(one.end <= other.start for one, other in itertools.pairwise(lane))
    most = max((sum(one.start <= at.start < one.end for one in found) for at in found), default=0)
    instants = sum(process.start == process.end for process in found)
    assert most <= len(packed) <= most + instants


@given(recordings)
def test_trace_can_be_written(recording: Recording) -> None:
    found = json.loads(json.dumps(trace(recording), allow_nan=False))
    assert all(event["ph"] in "MCX" and event["pid"] > 0 for event in found["traceEvents"])
    assert sum(event["ph"] == "X" for event in found["traceEvents"]) == sum(
        process.lease < len(recording.leases) for process in recording.processes
    )


@given(recordings)
def test_summary_is_short_and_printable(recording: Recording) -> None:
    lines = summary(recording)
    assert 1 <= len(lines) <= 6
    assert all(line.isprintable() and len(line) < 200 for line in lines)


def test_summary_of_a_build() -> None:
    """Four slots for ten seconds, then a linker for 31."""
    lease = RecordedLease("make", ["make"], [(0.0, 1), (0.5, 4), (10.0, 1), (41.0, 0)], 41.0, 4)
    compilers = [RecordedProcess(2 + n, 1, 0, "cc1", "cc1 a.c", 0.5, 10.0, 9.0, 1) for n in range(4)]
    linker = RecordedProcess(9, 1, 0, "ld", "ld -o program a.o", 10.0, 41.0, 30.0, 1)
    make = RecordedProcess(1, 0, 0, "make", "make", 0.0, 41.0, 0.1, 1)
    recording = Recording(["make"], seconds=41.0, limits=[(0.0, 4)], leases=[lease])
    recording.processes = [make, *compilers, linker]
    assert summary(recording) == [
        "41 s, 42% of 4 slots in use, 4 at most",
        "31 s with one slot in use, from 10 s on: `ld` (ld -o program a.o)",
        "0.5 s with one slot in use, from 0 ms on: `make`",
    ]
    sleeper = dataclasses.replace(linker, pid=10, name="sleep", command="sleep 30", start=10.1, cpu=0.0)
    recording.processes = [dataclasses.replace(make, cpu=0.5), sleeper]
    assert "`sleep`" in summary(recording)[1]  # make waits for it, though it has used some CPU before
    recording.dropped = 7
    lease.lost = 1
    assert summary(recording)[-2:] == ["1 token lost", "7 changes came too fast to be recorded: the figures are rough"]


def test_stretch_is_named_by_what_worked_in_it_and_not_by_what_waited() -> None:
    """No process used the CPU, and none but make, which waited for both, was there for most of the stretch."""
    lease = RecordedLease("make", changes=[(0.0, 1), (9.0, 0)], ended=9.0)
    recording = Recording(seconds=9.0, limits=[(0.0, 4)], leases=[lease])
    first, last = (
        RecordedProcess(pid, 1, 0, f"part {pid}", "", start, end, 0.0, 1) for pid, start, end in [(2, 0, 3), (3, 3, 9)]
    )
    recording.processes = [RecordedProcess(1, 0, 0, "make", "make", 0.0, 9.0, 0.1, 1), first, last]
    assert [stretch.process for stretch in serial_stretches(recording)] == [last]


def test_one_slot_has_no_serial_stretches() -> None:
    lease = RecordedLease("make", ["make"], [(0.0, 1), (9.0, 0)], 9.0, 1)
    assert serial_stretches(Recording(seconds=9.0, limits=[(0.0, 1)], leases=[lease])) == []


@pytest.mark.needs("/proc")
def test_machine_of_a_long_run_takes_no_more_room() -> None:
    samples = MachineSamples()
    for number in range(MOST + 10):
        samples.look(1.0 + number)
    found = samples.found
    assert samples.thinned == 1
    assert len(found.times) == MOST // 2 + 10
    assert found.times == sorted(found.times)
    for values in (found.cpu, found.memory, found.load, *vars(found.pressure).values()):
        assert len(values) in (0, len(found.times))
