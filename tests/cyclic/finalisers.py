"""What runs while the collector works: `__del__`, suspended generators and coroutines, tracebacks, callbacks."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any

from jobserver_ffi import Acquired

from .program import Program, Thing


class Trap:
    """An object whose `__del__` uses things, brings them back to life, or makes new ones."""

    def __init__(self, program: Program, things: list[Thing]) -> None:
        self.program = program
        # Of its own: so what it does is the same in whatever order the collector comes to it.
        self.random = Random(program.random.randrange(1 << 30))
        self.things = things

    def __del__(self) -> None:
        spring(self.program, self.random, self.things)


def spring(program: Program, random: Random, things: list[Thing]) -> None:
    """Uses some of these things in some way."""
    if program.ended or not things:
        return
    for _ in range(random.randint(1, 4)):
        what = random.randrange(12)
        thing = random.choice(things)
        if what == 0:
            gc.collect()
        elif what == 1:
            program.kept.append(thing)
        else:
            program.perform(thing, random)


def some(program: Program, things: list[Thing]) -> list[Thing]:
    """A few things."""
    return program.random.sample(things, min(len(things), program.random.randint(1, 5)))


def make_trap(program: Program, things: list[Thing]) -> Thing:
    """An object with `__del__`."""
    return program.thing("trap", Trap(program, some(program, things)))


class Hook:
    """An `on_event`. It uses things in the midst of what they do."""

    def __init__(self, program: Program, things: list[Thing]) -> None:
        self.program = program
        self.random = Random(program.random.randrange(1 << 30))
        self.things = things
        self.within = False

    def __call__(self, event: object) -> None:
        if self.within or self.program.ended:
            return
        self.within = True
        try:
            what = self.random.randrange(8)
            if what == 0:
                gc.collect()
            elif what == 1 and self.things:
                self.program.perform(self.random.choice(self.things), self.random)
            elif what == 2:
                box: list[object] = [event]
                box.append(box)
            else:
                str(event)
        finally:
            self.within = False


def hold_in_with(program: Program, me: Thing, client: Thing, way: int, things: list[Thing]) -> Generator[None]:
    """Holds a token, a batch or a slot for as long as it is suspended, and may acquire again when it is closed."""
    random = Random(program.random.randrange(1 << 30))
    take: Callable[[], Any] = (
        (lambda: client.value.acquire(timeout=0)),
        (lambda: client.value.slot(timeout=0)),
        (lambda: client.value.acquire_many(2, timeout=0)),
    )[way]
    try:
        with take() as held:
            me.inside = int(not held.implicit) if isinstance(held, Acquired) else len(held)
            try:
                yield
            finally:
                me.inside = 0
                spring(program, random, things)
        yield
    except Exception as error:
        program.judge(error, "a generator")


def hold_in_finally(program: Program, me: Thing, token: Thing, things: list[Thing]) -> Generator[None]:
    """Uses a token, and others, when it is closed."""
    random = Random(program.random.randrange(1 << 30))
    try:
        yield
    finally:
        program.perform(token, random)
        spring(program, random, things)


def make_generator(program: Program, things: list[Thing]) -> Thing | None:
    """A generator that has begun and has not ended."""
    random = program.random
    client = pick(program, things, "client")
    tokens = [thing for thing in things if thing.name in ("token", "batch", "lease", "lease arguments", "arguments")]
    made = program.thing("generator", None, client)
    if tokens and (client is None or random.random() < 0.4):
        made.value = hold_in_finally(program, made, random.choice(tokens), some(program, things))
    elif client is not None and program.ways:
        made.value = hold_in_with(program, made, client, random.choice(program.ways), some(program, things))
    else:
        return None
    next(made.value, None)
    return made


def pick(program: Program, things: list[Thing], name: str) -> Thing | None:
    """A thing of this name, or None if there is none."""
    found = [thing for thing in things if thing.name == name]
    return program.random.choice(found) if found else None


class FailedError(Exception):
    """What the programs raise themselves."""


def make_error(program: Program, things: list[Thing]) -> Thing:
    """An exception whose traceback has frames that hold things."""

    def fail(held: list[Thing], deeper: int) -> None:
        generator = make_generator(program, held)
        if deeper:
            fail(held, deeper - 1)
        raise FailedError(generator)

    try:
        fail(some(program, things), program.random.randrange(3))
    except FailedError as error:
        return program.thing("error", error)
    raise AssertionError("it was raised")


class Waiter:
    """A coroutine's awaitable that nobody ever wakes."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def suspended(program: Program, me: Thing, client: Thing, things: list[Thing]) -> None:
    """Holds a token in a coroutine of no event loop."""
    random = Random(program.random.randrange(1 << 30))
    try:
        with client.value.acquire(timeout=0):
            me.inside = 1
            try:
                await Waiter()
            finally:
                me.inside = 0
                spring(program, random, things)
    except Exception as error:
        program.judge(error, "a coroutine")


def make_coroutine(program: Program, things: list[Thing]) -> Thing | None:
    """A coroutine that has begun, and that no loop knows."""
    client = pick(program, things, "client")
    if client is None:
        return None
    made = program.thing("generator", None, client)
    coroutine: Coroutine[Any, Any, None] = suspended(program, made, client, some(program, things))
    made.value = Driven(coroutine)
    next(made.value, None)
    return made


class Driven:
    """A coroutine that is driven as a generator is."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.coroutine = coroutine

    def __next__(self) -> None:
        self.coroutine.send(None)

    def __iter__(self) -> Driven:
        return self

    def close(self) -> None:
        """Ends it."""
        self.coroutine.close()


def make_callback(program: Program, things: list[Thing]) -> Thing | None:
    """A weak reference to a new thing, whose callback uses anchored things, or by `weakref.finalize` a token.

    Both are outside of the cycle, so that they are called; what they use is alive as long as they are.
    """
    random = Random(program.random.randrange(1 << 30))
    if not program.anchors:
        return None
    used: list[Thing] = some(program, program.anchors)
    watched = program.thing("trap", None)
    if random.random() < 0.5:

        def callback(reference: object) -> None:
            spring(program, random, used)

        program.outside.append(weakref.ref(watched, callback))
    else:
        weakref.finalize(watched, spring, program, random, used)
    return watched


def watch_for_stray_errors(program: Callable[[], Program | None]) -> None:
    """Counts what is raised where nobody catches it."""

    def unraisable(found: Any) -> None:
        error, current = found.exc_value, program()
        if current is not None and not isinstance(error, Warning):
            what = f"{type(found.object).__name__} {getattr(found.object, '__qualname__', '')}"
            current.judge_stray(error, f"{found.err_msg or 'Exception ignored'} in {what}")

    def in_thread(found: threading.ExceptHookArgs) -> None:
        current = program()
        if current is not None and found.exc_value is not None:
            name = found.thread.name if found.thread is not None else "a thread"
            current.judge_stray(found.exc_value, f"the thread {name}")

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread
