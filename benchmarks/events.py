"""What does it cost to be told of each token? The rows are those of test_events.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from jobserver_ffi import Client, JobserverEvent, log_events

from .pairs import Loop, Missing, Pairs, acquire, joined, raw
from .reports import rows_of
from .rows import Row

TITLE = "A pair whose events are told to `on_event`, uncontended; `read`, `write` in C = 1.00"

Hook = Callable[[JobserverEvent], object]


def rows() -> Iterator[Row]:
    yield from rows_of("test_events.py")


def told(door: Callable[[Client, int], object], make_hook: Callable[[], Hook]) -> Callable[[str, ExitStack], Loop]:
    """The door of a client that joins the pool and tells a hook."""

    def begin(address: str, stack: ExitStack) -> Loop:
        client = stack.enter_context(Client.open(address, on_event=make_hook()))
        return lambda pairs: door(client, pairs)

    return begin


def nothing() -> Hook:
    return lambda event: None


def log(level: int) -> Hook:
    logger = logging.Logger("benchmarks", level)
    logger.addHandler(logging.NullHandler())
    return log_events(logger)


def telemetry() -> Hook:
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    except ImportError:
        raise Missing("opentelemetry-sdk is not installed") from None
    from jobserver_ffi.opentelemetry import opentelemetry_events

    return opentelemetry_events(meter_provider=MeterProvider([InMemoryMetricReader()]))


EVENTS = (
    Pairs("without on_event: with client.acquire()", joined(acquire)),
    Pairs("on_event, a function that does nothing: with client.acquire()", told(acquire, nothing), divisor=10),
    Pairs(
        "on_event=log_events(), level above: with client.acquire()",
        told(acquire, lambda: log(logging.WARNING)),
        divisor=10,
    ),
    Pairs(
        "on_event=log_events(), logged: with client.acquire()", told(acquire, lambda: log(logging.DEBUG)), divisor=25
    ),
    Pairs("on_event=opentelemetry_events(): with client.acquire()", told(acquire, telemetry), divisor=25),
    Pairs("without on_event: client.release_raw(client.acquire_raw())", joined(raw)),
    Pairs("on_event, a function that does nothing: raw", told(raw, nothing), divisor=5),
)
