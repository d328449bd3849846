"""`Instant`: calls something in the middle of the library's methods, as the garbage collector does with finalisers.

The collector runs finalisers wherever an object is made or a call returns. Here a trace function stands for it: it
counts those instants in some modules, and calls something at one of them.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any

from jobserver_ffi import JobserverError

Finaliser = Callable[[], object]


# Instructions of CPython, by what their names begin with, after which no finaliser can run: they make no object that
# the collector knows of and end none. A counter, say, is read and written without a finaliser in between.
QUIET: tuple[str, ...] = ("LOAD_", "COMPARE_", "CONTAINS_", "IS_", "BINARY_", "INPLACE_", "UNARY_", "TO_BOOL")
QUIET += ("POP_JUMP_", "JUMP_FORWARD", "JUMP_IF_", "COPY", "SWAP", "DUP_", "ROT_", "PUSH_", "PRECALL", "KW_NAMES")
QUIET += ("CACHE", "NOP", "NOT_TAKEN", "EXTENDED_ARG")


@cache
def instants(code: CodeType) -> frozenset[int]:
    """The instructions of a function before which finalisers can run."""
    before = "RESUME"
    found = set()
    for instruction in dis.get_instructions(code):
        if not before.startswith(QUIET):
            found.add(instruction.offset)
        before = instruction.opname
    return frozenset(found)


class Instant:
    """Calls a finaliser once, at an instant at which the garbage collector could.

    Args:
        number: Which one, of those that come in some modules, in whatever thread.
        finaliser: What to call there.
        modules: Those modules.
    """

    def __init__(self, number: int, finaliser: Finaliser, *modules: Any) -> None:
        self.number = number
        self.finaliser = finaliser
        self.files = {module.__file__ for module in modules}
        self.count = 0
        self.reached = False
        self.where = "nowhere"
        self.failure: BaseException | None = None

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in self.files or self.reached:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in instants(frame.f_code):
            self.count += 1
            if self.count == self.number:
                self.reached = True  # first: what is called is not counted
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}, in {threading.current_thread().name}"
                try:
                    self.finaliser()
                except (JobserverError, RuntimeError):  # as documented, for what was closed
                    pass
                except BaseException as error:
                    self.failure = error
        return self.trace

    @contextmanager
    def traced(self, threads: bool = True) -> Iterator[None]:
        """Counts in this thread and in those that are started meanwhile, or in this one only."""
        before = sys.gettrace()
        threading.settrace(self.trace if threads else before)
        sys.settrace(self.trace)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before)
        if self.failure is not None:
            raise self.failure


def at_each_instant(scenario: Callable[[int], bool], step: int = 1) -> None:
    """Runs a scenario again and again, each time with another instant, until it ends before that."""
    scenario(1)  # CPython 3.12 tells of no instruction of the first function that is traced
    number = 1
    while scenario(number):
        number += step
    assert number > 1, "there was none in the modules"
