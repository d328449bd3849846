"""OpenTelemetry for jobservers: metrics of tokens, and spans of leases and of waits that last.

Needs the extra `opentelemetry`, which is its API; what is done with what it gets is up to the program's SDK.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace

from .hooks import EventKind

if TYPE_CHECKING:
    from typing import TypeAlias

    from .hooks import JobserverEvent, OnEvent

    Attributes: TypeAlias = dict[str, str | int]

__all__ = ["opentelemetry_events"]

SHORTEST_WAIT = 0.001  # seconds; of a shorter one there is no span

# A token is waited for as long as a job takes: from a hand-over, some microseconds, to minutes.
_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds

_NANOSECONDS = 1e9  # in a second


def opentelemetry_events(
    tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
) -> OnEvent:
    """A value for `on_event` of clients and pools, of as many as there are.

    Metrics: `jobserver.token.wait_time` (histogram, s; with `error.type` where an exception ended it),
    `jobserver.token.count` (held by this process's clients, its implicit slot too) and `jobserver.token.lost` (by the
    processes of leases). Spans: `jobserver wait`, of at least a millisecond, and `jobserver lease`, from its first use
    to its end; both are children of the span that is current in the thread that waits, or that opens the lease.

    Args:
        tracer_provider: By default the program's.
        meter_provider: By default the program's.
    """
    return _Telemetry(
        trace.get_tracer("jobserver_ffi", tracer_provider=tracer_provider),
        metrics.get_meter("jobserver_ffi", meter_provider=meter_provider),
    )


class _Telemetry:
    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._wait_time = meter.create_histogram(
            "jobserver.token.wait_time",
            "s",
            "How long a client waited for a token.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._held = meter.create_up_down_counter(
            "jobserver.token.count", "{token}", "Tokens that this process's clients hold, and its implicit slot."
        )
        self._lost = meter.create_counter(
            "jobserver.token.lost", "{token}", "Tokens that a lease's processes did not give back."
        )
        self._leases: dict[int, trace.Span] = {}

    def __call__(self, event: JobserverEvent) -> None:
        if event.kind is EventKind.ACQUIRED:
            self._held.add(event.tokens)
        elif event.kind is EventKind.RELEASED:
            self._held.add(-event.tokens)
        elif event.kind is EventKind.WAIT_ENDED:
            self._wait_ended(event)
        elif event.kind is EventKind.LOST:
            self._lost.add(event.tokens)
        elif event.lease:
            self._lease(event)

    def _wait_ended(self, event: JobserverEvent) -> None:
        error: Attributes = {"error.type": event.error} if event.error else {}
        self._wait_time.record(event.waited, error)
        if event.waited < SHORTEST_WAIT:
            return
        end = _clock(event)
        start = end - int(event.waited * _NANOSECONDS)
        attributes: Attributes = {"jobserver.auth": event.name, "jobserver.token.count": event.tokens, **error}
        span = self._tracer.start_span("jobserver wait", start_time=start, attributes=attributes)
        if event.error:
            span.set_status(trace.StatusCode.ERROR)
        span.end(end)

    def _lease(self, event: JobserverEvent) -> None:
        now = _clock(event)
        if event.kind is EventKind.LEASE_OPENED:
            attributes = {"jobserver.lease.name": event.name}
            self._leases[event.lease] = self._tracer.start_span(
                "jobserver lease", start_time=now, attributes=attributes
            )
            return
        span = self._leases.get(event.lease)
        if span is None:
            return
        if event.kind is not EventKind.LEASE_ENDED:
            span.add_event(event.kind.value, timestamp=now)
            return
        del self._leases[event.lease]
        report = event.report
        if report is not None:
            for name in ("peak", "taken", "waits", "lost", "over_released", "slot_seconds", "queue_seconds"):
                span.set_attribute(f"jobserver.lease.{name}", getattr(report, name))
            if report.complaints:
                span.set_status(trace.StatusCode.ERROR, "; ".join(report.complaints))
        span.end(now)


def _clock(event: JobserverEvent) -> int:
    """When it was, by the clock of spans: nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - event.time) * _NANOSECONDS)
