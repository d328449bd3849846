"""`cythonize` whose modules are compiled at the same time, each in a process that runs on a slot of a jobserver."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, wait
from typing import TYPE_CHECKING, Any

from Cython.Build import Dependencies
from Cython.Compiler.Errors import CompileError

from ..executor import JobserverExecutor
from .jobs import find_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .jobs import Jobs

# Held while a function of Cython's module is replaced.
_recording = threading.Lock()

_SMALLEST = 200  # bytes of a C file that Cython does not look into, in search of a dead one
_FAILED = "Failed compilations: "  # what Cython says of extensions that it leaves out


def cythonize(module_list: Any, exclude: Any = None, nthreads: int = 0, **options: Any) -> list[Any]:
    """`Cython.Build.cythonize`, with as many processes as there are slots.

    Each module that has to be compiled is compiled in a process which runs on a slot: of the jobserver around this one,
    else of one of its own, as for `build_ext`. What a module prints comes in one piece. The first error stops the rest,
    and so does Ctrl-C; every token is given back.

    Args:
        module_list: As in `Cython.Build.cythonize`.
        exclude: As there.
        nthreads: How many processes at most, whatever is free; 0: `JOBSERVER_FFI_JOBS` or `MAX_JOBS`, else no limit
            but the slots.
        **options: All others, as there.

    Returns:
        The extensions, as `Cython.Build.cythonize` does.

    Raises:
        ValueError: A number of jobs is none.
        CompileError: As `Cython.Build.cythonize` without `nthreads`.
    """
    module_list = [module_list] if isinstance(module_list, str) else list(module_list)
    jobs = find_jobs(nthreads or None, _warn)
    with jobs.client:
        extensions, to_compile, printed = _look_for_work(module_list, exclude, options, write=True)
        print(printed, end="", flush=True)
        _compile_all(to_compile, jobs)
    if options.get("exclude_failures"):
        extensions, _, printed = _look_for_work(module_list, exclude, {**options, "quiet": True}, write=False)
        print(*(line for line in printed.splitlines(keepends=True) if line.startswith(_FAILED)), sep="", end="")
    return extensions


def _warn(text: str) -> None:
    print(f"jobserver_ffi: {text}", file=sys.stderr)


def _look_for_work(
    module_list: list[Any], exclude: Any, options: dict[str, Any], *, write: bool
) -> tuple[list[Any], list[tuple[Any, ...]], str]:
    """Lets Cython find out what is to be compiled, without compiling.

    With `exclude_failures` it leaves out the extensions whose C file does not exist in the end. So each that is to be
    written exists meanwhile.

    Returns:
        The extensions; the arguments of `cythonize_one` for each module that has to be compiled; what was printed.
    """
    to_compile: list[tuple[Any, ...]] = []

    in_their_place: list[str] = []

    def record(*args: Any) -> None:
        to_compile.append(args)
        if write and not os.path.exists(args[1]):
            in_their_place.append(args[1])
            with open(args[1], "w") as file:
                file.write(" " * _SMALLEST)

    printed = io.StringIO()
    with _recording, contextlib.redirect_stdout(printed):
        compile_one = Dependencies.cythonize_one
        Dependencies.cythonize_one = record
        try:
            extensions = Dependencies.cythonize(  # type: ignore[no-untyped-call,unused-ignore]
                module_list, exclude=exclude, nthreads=0, **options
            )
        finally:
            Dependencies.cythonize_one = compile_one
            for c_file in in_their_place:
                os.remove(c_file)
    return extensions, to_compile, printed.getvalue()


def _compile_all(to_compile: list[tuple[Any, ...]], jobs: Jobs) -> None:
    """Compiles modules in processes."""
    if not to_compile:
        return
    before = set(multiprocessing.active_children())
    with _executor(jobs, min(jobs.most or len(to_compile), len(to_compile)), before) as executor:
        waiting = {executor.submit(_compile_one, args): args for args in to_compile}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                args = waiting.pop(future)
                if not _show(future.result()):
                    raise CompileError(None, args[0])  # type: ignore[no-untyped-call,unused-ignore]


@contextlib.contextmanager
def _executor(jobs: Jobs, most: int, before: set[Any]) -> Iterator[JobserverExecutor]:
    """Processes, which are ended at once if something fails."""
    executor = JobserverExecutor(jobs.client, most, kind="process", initializer=_begin_worker)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        executor.shutdown()


def _begin_worker() -> None:
    """A key that is pressed at the terminal is for the process that waits for this one, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


Compiled = tuple[bool, str, str]
"""Whether a module could be compiled, and what it printed on stdout and stderr."""


def _compile_one(args: tuple[Any, ...]) -> Compiled:
    """In a process: compiles a module."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            Dependencies.cythonize_one(*args)
        except CompileError:  # it cannot be sent to another process
            return False, out.getvalue(), err.getvalue()
    return True, out.getvalue(), err.getvalue()


def _show(compiled: Compiled) -> bool:
    """Prints what a module printed. Returns whether it could be compiled."""
    well, out, err = compiled
    sys.stdout.write(out)
    sys.stdout.flush()
    sys.stderr.write(err)
    return well
