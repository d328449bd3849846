"""`jobserver_ffi.opentelemetry`, with OpenTelemetry's own SDK and its exporters into memory."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobserver_ffi import AcquireTimeout, Client, Pool

from .conftest import wait_until_asleep
from .overlap import GUARD
from .overlap import python as program

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from jobserver_ffi.hooks import OnEvent
from jobserver_ffi.opentelemetry import opentelemetry_events


class Telemetry:
    """A program's SDK, and what it would export."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    @property
    def hook(self) -> OnEvent:
        return opentelemetry_events(self.tracers, self.meters)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [
            metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


def test_tokens_held(telemetry: Telemetry) -> None:
    with Client(5, on_event=telemetry.hook) as client:
        with client.acquire(), client.acquire_many(3):
            assert [point.value for point in telemetry.points("jobserver.token.count")] == [4]
        assert [point.value for point in telemetry.points("jobserver.token.count")] == [0]
    assert telemetry.exporter.get_finished_spans() == (), "who does not wait makes no span"


def test_waits(telemetry: Telemetry) -> None:
    with Client(1, on_event=telemetry.hook) as client:
        held = client.acquire()

        def wait() -> None:
            with telemetry.tracers.get_tracer("program").start_as_current_span("work"), client.acquire(GUARD):
                pass

        thread = threading.Thread(target=wait)
        thread.start()
        assert thread.native_id is not None
        wait_until_asleep(os.getpid(), thread.native_id)
        with pytest.raises(AcquireTimeout):
            client.acquire(0.05)
        held.release()
        thread.join(GUARD)
    (work,) = telemetry.spans("work")
    failed, waited = sorted(telemetry.spans("jobserver wait"), key=lambda span: span.status.status_code.value)[::-1]
    assert waited.parent is not None and work.context is not None and waited.parent.span_id == work.context.span_id
    assert dict(waited.attributes or {}) == {"jobserver.auth": client.auth, "jobserver.token.count": 1}
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "AcquireTimeout"
    for span in (failed, waited):
        assert span.start_time is not None and span.end_time is not None
        assert span.end_time - span.start_time >= 0.001 * 1e9
    assert work.start_time is not None and waited.start_time is not None
    assert work.start_time - 1_000_000 <= waited.start_time
    points = {point.attributes.get("error.type"): point for point in telemetry.points("jobserver.token.wait_time")}
    assert set(points) == {None, "AcquireTimeout"}
    assert all(point.count == 1 and point.sum >= 0.01 for point in points.values()), "a clock may tick in 16 ms"
    assert points[None].explicit_bounds[0] == 0.0001, "bounds for seconds, not for milliseconds"


@pytest.mark.needs("pipe")
def test_leases(telemetry: Telemetry) -> None:
    with (
        telemetry.tracers.get_tracer("program").start_as_current_span("build"),
        Pool(3, on_event=telemetry.hook) as pool,
    ):
        assert pool.lease("good").run(["true"]).returncode == 0
        killed = "client = Client.from_env(); held = [client.acquire() for _ in range(2)]; os.kill(os.getpid(), 9)"
        assert pool.lease("killed").run(program(killed)).returncode == -signal.SIGKILL
    (build,) = telemetry.spans("build")
    good, lost = telemetry.spans("jobserver lease")
    for span, name, peak in ((good, "good", 1), (lost, "killed", 3)):
        attributes = span.attributes or {}
        assert (attributes["jobserver.lease.name"], attributes["jobserver.lease.peak"]) == (name, peak)
        assert build.context is not None and span.parent is not None and span.parent.span_id == build.context.span_id
    assert [event.name for event in good.events] == ["lease started"]
    assert good.status.status_code is StatusCode.UNSET
    assert lost.status.status_code is StatusCode.ERROR
    assert lost.status.description == "2 tokens not given back: back in the pool"
    assert [point.value for point in telemetry.points("jobserver.token.lost")] == [2]
