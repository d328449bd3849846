"""`Program`: what one random program has, and what must be so when it has ended."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import TracebackType
from typing import Any, TypeVar

from jobserver_ffi import AcquireTimeout, Client, JobserverError, Pool
from jobserver_ffi.aio import AsyncClient
from jobserver_ffi.hooks import OnEvent

from .witness import Report, Witness

T = TypeVar("T")

GUARD = 50.0  # seconds for what ends at once, unless the machine is loaded
DEEPEST = 12  # finalisers within finalisers that still do something

_DOCUMENTED = (JobserverError, OSError, ValueError, concurrent.futures.TimeoutError, concurrent.futures.CancelledError)
_OF_CLOSED_THINGS = re.compile(
    "cannot schedule new futures|belongs to the process that forked|Event loop is closed|no running event loop"
    "|is bound to another event loop|cannot reuse already awaited coroutine|can't .* new thread"
)


def documented(error: BaseException) -> bool:
    """Whether a public method may raise this."""
    if isinstance(error, RuntimeError):
        return _OF_CLOSED_THINGS.search(str(error)) is not None
    return isinstance(error, (*_DOCUMENTED, CancelledError))


def places(found: TracebackType | None) -> str:
    """The innermost frames of a traceback."""
    frames = traceback.extract_tb(found)[-4:]
    return " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def alive(kind: type[T]) -> list[T]:
    """All objects of a class. An object that was brought back to life has lost its weak references."""
    return [found for found in gc.get_objects() if isinstance(found, kind)]


def reap() -> int:
    """Reaps children that were dropped, which the standard library keeps until then. Returns how many still run."""
    getattr(subprocess, "_cleanup", int)()
    return len(getattr(subprocess, "_active", None) or ())


class Thing:
    """An object of the library, or a user of such objects, in the program's graph.

    Attributes:
        name: What it is, by which its methods are found in `calls.CALLS`.
        value: The object.
        owner: The client or pool that it was made of.
        witness: The pool that it has tokens of.
        links: Other things: this makes the cycles.
        raw: Bytes of raw tokens that a client has out.
        inside: How many tokens a generator holds.
        anchored: Whether it stands outside of all cycles; then it has no links.
    """

    __slots__ = ("__weakref__", "anchored", "inside", "links", "name", "owner", "raw", "value", "witness")

    def __init__(self, name: str, value: Any, owner: Thing | None, witness: Witness | None) -> None:
        self.name = name
        self.value = value
        self.owner = owner
        self.links: list[object] = []
        self.raw: list[int] = []
        self.inside = 0
        self.anchored = False
        self.witness = witness  # last: a thing without one is not complete

    def holds(self) -> int:
        """How many tokens it says it holds."""
        if self.name == "token":
            return int(" held" in repr(self.value) and not self.value.implicit)
        return len(self.value) if self.name == "batch" else self.inside


class Call:
    """A public method that a finaliser may call.

    Args:
        do: Calls it. It may return a new thing.
        touches: The kinds of handles that it uses.
        weight: How often it is chosen, beside the others of the same object.
        waits: It waits for another thread, or uses an event loop, which belongs to one thread. A finaliser calls it in
            the main thread only, and outside of such calls: two threads that wait for each other are the program's
            own fault.
    """

    __slots__ = ("do", "touches", "waits", "weight")

    def __init__(
        self, do: Callable[[Thing, Program, Random], Thing | None], touches: str, weight: int = 4, waits: bool = False
    ) -> None:
        self.do = do
        self.touches = frozenset(touches.split())
        self.weight = weight
        self.waits = waits


class Nested(threading.local):
    """How many finalisers run within each other in a thread."""

    depth = 0


class Program:
    """One random program.

    Args:
        seed: What all choices follow from.
        report: Where to tell what is wrong.
        owns_slot: Whether this process may own an implicit slot: not if it was forked since it loaded the library.
        forked: Whether a process of its own runs it.
        at_exit: Whether it ends with its objects alive.
    """

    def __init__(self, seed: int, report: Report, *, owns_slot: bool, forked: bool, at_exit: bool) -> None:
        self.random = Random(seed)
        self.report = report
        self.calls: dict[str, list[Call]] = {}  # of each kind of thing, each as often as its weight says
        self.owns_slot = owns_slot
        self.forked = forked
        self.at_exit = at_exit
        self.witnesses: list[Witness] = []
        self.anchors: list[Thing] = []  # clients and pools that are in no cycle; these have no links
        self.kept: list[Thing] = []  # what finalisers brought back to life, or made
        self.outside: list[object] = []  # weak references with callbacks
        self.pipes: list[int] = []  # descriptors of pools that the program was started under
        # Whether there are threads, which may hold tokens. They refer to a client, so its hook must not refer to them.
        self.threads = self.random.random() < 0.6
        self.lent = False  # whether the implicit slot may have been put into a pool
        self.inherited: Witness | None = None
        self.auths: dict[int, str] = {}  # addresses of those pools, by the number of the witness
        self.kind: str | None = None  # of handles that the program is restricted to
        self.telemetry: OnEvent | None = None
        self.ways: tuple[int, ...] = (0, 1, 2)  # how generators hold tokens, see finalisers.hold_in_with
        self.main = threading.current_thread()
        self.busy = 0  # calls in the main thread that wait
        self.nested = Nested()
        self.ended = False

    def thing(self, name: str, value: Any, owner: Thing | None = None, witness: Witness | None = None) -> Thing:
        """Wraps a new object."""
        if name in ("arguments", "child"):
            self.report.holds()
        return Thing(name, value, owner, witness if witness is not None or owner is None else owner.witness)

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """While the main thread runs an event loop, or starts or ends threads."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def perform(self, thing: Thing, random: Random, *, finalising: bool = True) -> None:
        """Calls a random method of a thing."""
        calls = self.calls.get(thing.name)
        if not calls or self.nested.depth > DEEPEST:
            return
        call = random.choice(calls)
        main = threading.current_thread() is self.main
        if call.waits and finalising and (not main or self.busy):
            return
        self.nested.depth += 1
        self.busy += call.waits and main
        try:
            made = call.do(thing, self, random)
            if made is not None:
                self.accept(made, thing, random)
        except Exception as error:
            self.judge(error, f"a method of {thing.name}")
        finally:
            self.nested.depth -= 1
            self.busy -= call.waits and main

    def judge(self, error: BaseException, where: str, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Tells of an error that is not documented. While the interpreter ends, names may be None: that is no fault."""
        if not documented(error) and not finalizing():
            self.report.fault(f"{type(error).__name__}: {error} in {where}: {places(error.__traceback__)}")

    def judge_stray(self, error: BaseException, where: str, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Tells of an error that nobody could catch, but for those that are the standard library's own.

        A coroutine that was not awaited is warned of by an import, which CPython 3.10 cannot do where it collects while
        a named tuple is made: that code has no `__import__`. An event loop that is dropped closes itself, perhaps after
        its sockets have.
        """
        own = repr(error) == "KeyError('__import__')" or where.endswith("BaseEventLoop.__del__")
        if not finalizing() and not own:
            self.report.fault(f"{type(error).__name__}: {error} in {where}: {places(error.__traceback__)}")

    def accept(self, made: Thing, owner: Thing, random: Random) -> None:
        """Does something with a new thing: keeps it, puts it into a cycle, uses it, or drops it."""
        fate = random.randrange(6)
        if fate == 0:
            self.kept.append(made)
        elif fate == 1 and not owner.anchored:
            owner.links.append(made)
            made.links.append(owner)
        elif fate == 2:
            made.links.append(made)
        elif fate < 5:
            self.perform(made, random)

    def check_held(self) -> None:
        """Tells of tokens that are held twice, or of more than there are. Objects without references are gone now.

        While this looks, a thread may take or release a token: then it looks again.
        """
        for _ in range(2):
            gc.collect()
        wrong = self.wrongly_held()
        for _ in range(20 if self.threads else 0):
            if wrong:
                time.sleep(0)
                wrong = self.wrongly_held()
        if wrong:
            self.report.fault(wrong)

    def wrongly_held(self) -> str:
        """What is wrong with the numbers of tokens at this moment. A thread may have some that are in no thing yet."""
        held: dict[int, int] = {}
        for thing in alive(Thing):
            owed = getattr(thing, "witness", None)
            if owed is not None:
                held[id(owed)] = held.get(id(owed), 0) + thing.holds()
        for witness in self.witnesses:
            number, free = held.get(id(witness), 0), witness.free()
            if number + free > witness.whole or (number + free < witness.whole and not self.threads):
                return f"{number} held and {free} free of {witness.whole} ({witness.limit} at first)"
        return ""

    def use_kept(self) -> None:
        """Uses what was brought back to life, and drops some of it."""
        random = self.random
        for thing in self.kept[-20:]:
            self.perform(thing, random, finalising=False)
        random.shuffle(self.kept)
        del self.kept[random.randint(0, 6) :]

    def finish(self) -> None:
        """Drops everything, and tells of tokens that are not back, of threads that do not end, and the like."""
        self.outside.clear()
        self.kept.clear()
        pools = [thing.value for thing in self.anchors if thing.name == "pool"]
        self.anchors.clear()
        end = time.monotonic() + GUARD
        while not self.settled(pools) and time.monotonic() < end:
            pass
        for pool in pools:
            self.check_pool(pool)
        del pools
        self.ended = True
        self.check_threads()
        gc.collect()
        for witness in self.witnesses:
            if witness.free() != witness.whole:
                self.report.fault(f"{witness.free()} in the pool of {witness.whole} ({witness.limit} at first)")
            if witness.path and os.path.exists(witness.path):
                self.report.fault(f"the fifo {witness.path} is left")
        self.check_implicit_slot()
        for witness in self.witnesses:
            witness.close()
        for descriptor in self.pipes:
            os.close(descriptor)

    def check_threads(self) -> None:
        """Tells of threads that do not end."""
        for thread in threading.enumerate():
            if thread is not self.main:
                thread.join(GUARD)  # those of a pool that was dropped end by themselves
            if thread is not self.main and thread.is_alive():
                stack = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))[-1:]
                self.report.fault(f"a thread that does not end: {thread.name} {stack}")

    def settled(self, pools: list[Pool]) -> bool:
        """Lets what was dropped end. Whether all of it has."""
        for client in alive(AsyncClient):  # its thread keeps it alive while tasks wait
            try:
                client.close()
            except Exception as error:
                self.judge(error, "close")
            del client
        self.kept.clear()
        for witness in self.witnesses:
            witness.repay()
        for _ in range(3):
            gc.collect()
        running = reap()
        others = [thread for thread in threading.enumerate() if thread is not self.main]
        names = {"jobserver pool", "jobserver bridge", "jobserver gates", "jobserver events"} if pools else set()
        waited = [thread for thread in others if thread.name not in names]
        if waited:
            waited[0].join(0.05)
        if waited or running or self.kept:
            return False
        found = [pool.status() for pool in pools if "closed" not in repr(pool)]
        return not any(status.in_use or status.queued or status.leases for status in found)

    def check_pool(self, pool: Pool) -> None:
        """Tells of slots that no lease has, and that are not back; then ends the pool."""
        try:
            if "closed" not in repr(pool):
                status = pool.status()
                if status.in_use or status.queued or status.leases:
                    self.report.fault(f"a pool whose leases are gone has {status}")
            pool.close()
        except Exception as error:
            self.judge(error, "the end of a pool")

    def check_implicit_slot(self) -> None:
        """Tells if the implicit slot cannot be taken, or more than once."""
        witness = self.inherited
        if witness is None or not self.owns_slot:
            return
        environ = {"MAKEFLAGS": f" -j --jobserver-auth={','.join(map(str, witness.ends))}"}
        client = Client.from_env(environ)
        assert client is not None
        found = []
        for _ in range(2):
            try:
                found.append(client.slot(timeout=0))
            except AcquireTimeout:
                break
        implicit = [slot.implicit for slot in found]
        if True in implicit[1:] or (implicit[:1] != [True] and not self.lent):
            self.report.fault(f"the implicit slot: {implicit}, lent: {self.lent}")
        for slot in found:
            slot.release()
        client.close()
