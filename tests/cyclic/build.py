"""Builds the graphs of a program, for all kinds of handles or for one, and lets go of them."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from types import ModuleType

from jobserver_ffi import Client
from jobserver_ffi.hooks import OnEvent

from . import finalisers, makers
from .calls import CALLS, new_users
from .finalisers import Trap
from .program import Call, Program, Thing
from .sessions import make_session
from .witness import WAYS_TO_END, Report

Maker = Callable[[Program, list[Thing]], Thing | None]

USERS: tuple[Maker, ...] = (
    finalisers.make_trap,
    finalisers.make_trap,
    finalisers.make_trap,
    finalisers.make_error,
    finalisers.make_callback,
)
GENERATORS: tuple[Maker, ...] = (finalisers.make_generator, finalisers.make_generator, finalisers.make_coroutine)


@dataclass(frozen=True)
class Kind:
    """What programs of one kind of handle have.

    Attributes:
        made: What is made, beside clients and pools.
        clients: How many clients there are at most.
        pools: How many pools.
        anchored: How often a client or pool stands outside of the cycles, so that its own handle stays.
        ways: How generators hold tokens, see `finalisers.hold_in_with`.
    """

    made: tuple[Maker, ...]
    clients: int = 1
    pools: int = 0
    anchored: float = 1.0
    ways: tuple[int, ...] = (0, 1, 2)


KINDS: dict[str | None, Kind] = {
    None: Kind(
        (
            *USERS,
            *GENERATORS,
            makers.make_token,
            makers.make_token,
            makers.make_batch,
            makers.make_batch,
            makers.make_arguments,
            makers.make_child,
            makers.make_helper,
            makers.make_executor,
            make_session,
            makers.make_lease,
            makers.make_lease,
        ),
        clients=3,
        pools=2,
        anchored=0.35,
    ),
    "client": Kind((*USERS, makers.make_arguments), clients=3, anchored=0.0, ways=()),
    "cell": Kind((*USERS, *GENERATORS, makers.make_token, makers.make_token, make_session), ways=(0, 1)),
    "batch": Kind((*USERS, *GENERATORS[:2], makers.make_batch, makers.make_batch, make_session), ways=(2,)),
    "hold": Kind((*USERS, makers.make_arguments, makers.make_arguments, makers.make_child), clients=2, ways=()),
    "event": Kind((*USERS, makers.make_helper, makers.make_executor, makers.make_executor), ways=()),
    "lease": Kind((*USERS, makers.make_lease, makers.make_lease, GENERATORS[0]), clients=0, pools=1, ways=()),
    "broker": Kind((*USERS, makers.make_lease), clients=0, pools=2, anchored=0.0, ways=()),
}
MODULES = ("aio", "children", "environment", "executor", "helper", "lease", "lease_events", "observed", "pool", "ready")
THREADED = ("event", "lease", "broker")
WITH_THREADS = (makers.make_helper, makers.make_executor, make_session)


def build(program: Program) -> list[Thing]:
    """Makes things, mostly in one cycle or a few. Returns all of them, but for those that are anchored."""
    random, kind = program.random, KINDS[program.kind]
    things: list[Thing] = []  # that may be used: the anchored ones too
    graph: list[Thing] = []
    for _ in range(random.randint(1, kind.clients) if kind.clients else 0):
        add_root(program, things, graph, makers.make_client, random.random() < kind.anchored)
    for _ in range(random.randint(program.kind is not None, kind.pools) if kind.pools and program.threads else 0):
        add_root(program, things, graph, makers.make_pool, random.random() < kind.anchored)
    left_out = () if program.threads else WITH_THREADS
    if program.at_exit and sys.version_info[:2] == (3, 12):
        left_out = (*left_out, make_session)  # CPython 3.12 crashes where an event loop with tasks lives to the end
    chosen = [maker for maker in kind.made if maker not in left_out]
    for _ in range(random.randint(4, 16)):
        maker = random.choice(chosen)
        try:
            made = maker(program, things)
        except Exception as error:  # no token is free, a client was closed …
            program.judge(error, maker.__name__)
            made = None
        if made is not None:
            things.append(made)
            graph.append(made)
    for thing in graph:
        if isinstance(thing.value, Trap):  # it was made before some of what it is to use
            thing.value.things = random.sample(things, min(len(things), random.randint(1, 6)))
    close_cycles(random, graph)
    for _ in range(random.randrange(6)):
        program.perform(random.choice(things), random, finalising=False)
    return graph


def add_root(
    program: Program, things: list[Thing], graph: list[Thing], maker: Callable[..., Thing], anchored: bool
) -> None:
    """Makes a client or a pool, or takes one that is anchored from before."""
    if anchored and program.anchors and program.random.random() < 0.5:
        things.append(program.random.choice(program.anchors))
        return
    made = maker(program, list(things), anchored=anchored)
    made.anchored = anchored
    things.append(made)
    (program.anchors if anchored else graph).append(made)


def close_cycles(random: Random, graph: list[Thing]) -> None:
    """Lets things refer to each other."""
    boxes: list[list[object]] = [[] for _ in range(random.choice((1, 1, 2)))]
    for thing in graph:
        box = random.choice(boxes)
        box.append(thing)
        thing.links.append(box)
        thing.links += random.sample(graph, random.randrange(min(len(graph), 3)))


def run(program: Program) -> None:
    """Builds graphs, lets go of each, and looks at what becomes of the tokens."""
    random = program.random
    for _ in range(random.randint(1, 3)):
        build(program)
        if random.random() < 0.5:
            gc.collect()
        program.use_kept()
        program.check_held()
    program.finish()


_local = threading.local()
_global: list[object] = []
_telemetry: OnEvent | None = None


def run_to_the_end(program: Program) -> str:
    """Builds graphs, and leaves the last one alive in some way. Returns how the process is to end."""
    random = program.random
    for _ in range(random.randrange(2)):
        build(program)
    if random.random() < 0.5:
        gc.disable()  # or what is garbage already would not be there any more
    graph = build(program)
    _global.append(program)
    place = random.randrange(4)
    if place == 0:
        _global.append(graph)
    elif place == 1:
        _local.graph = graph
    elif place == 2:
        module = ModuleType("kept_to_the_end")
        module.graph = graph  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
    program.busy += 1  # from here on the library may have locks in this thread, as it ends its own threads
    return random.choice(WAYS_TO_END)


def warm_up() -> None:
    """Imports what programs use, so that each need not do so in its own process."""
    global _telemetry
    for module in MODULES:  # those that the library imports on first use
        importlib.import_module(f"jobserver_ffi.{module}")
    with suppress(ImportError):
        _telemetry = importlib.import_module("jobserver_ffi.opentelemetry").opentelemetry_events()
    with Client(1) as client, client.acquire(timeout=0):
        client.configure()


def calls_of(kind: str | None, random: Random, *, threads: bool) -> dict[str, list[Call]]:
    """The calls, each as often as its weight says. Calls that start a process (weight 0) are in few programs only.

    Args:
        kind: Of handles: calls that use others are left out. None for all.
        random: Chooses.
        threads: Whether there may be threads.
    """
    rare = random.random() < 0.15
    return {
        name: [
            call
            for call in calls
            if (kind is None or kind in call.touches) and (threads or call.do is not new_users)
            for _ in range(call.weight or (1 if rare else 0))
        ]
        for name, calls in CALLS.items()
    }


def new_program(
    seed: int, kind: str | None, report: Report, *, owns_slot: bool, forked: bool, at_exit: bool
) -> Program:
    """A program that has not begun; see there for the arguments."""
    program = Program(seed, report, owns_slot=owns_slot, forked=forked, at_exit=at_exit)
    program.kind = kind
    program.threads |= kind in THREADED
    program.telemetry = _telemetry
    program.ways = KINDS[kind].ways
    program.calls = calls_of(kind, program.random, threads=program.threads)
    return program
