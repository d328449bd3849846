"""Runs the standard library's own tests of executors, with `JobserverExecutor` in the place of its classes.

A program: `python -m tests.stdlib_executors PREFIX EXCLUDED...` runs the test cases whose names begin with the prefix,
and prints what became of each as JSON. `test.test_concurrent_futures` must be importable.

Imported, it only puts the classes in place: the tests start programs which need that too.
"""

from __future__ import annotations

import concurrent.futures
import gc
import importlib
import json
import os
import pkgutil
import sys
import time
import unittest
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

from jobserver_ffi import Client, JobserverExecutor
from jobserver_ffi.work_queue import WorkQueue
from jobserver_ffi.worker_processes import WorkerProcesses
from jobserver_ffi.worker_threads import WorkerThreads

SLOTS = 5  # as many as most of the tests have workers
GUARD = 120

started: list[tuple[weakref.ref[WorkQueue], Client]] = []
"""Those that the running test has started, not kept alive: a test waits a second for threads that are referred to."""


class ThreadPoolExecutor(JobserverExecutor):
    """Has the arguments of the standard library's class, a pool of its own, and those attributes that tests read."""

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(
            Client(SLOTS),
            max_workers,
            thread_name_prefix=thread_name_prefix,
            initializer=initializer,
            initargs=initargs,
        )
        assert isinstance(self._queue, WorkerThreads)
        started.append((weakref.ref(self._queue), self._queue.client))
        self._threads = self._queue.threads

    @property
    def _broken(self) -> bool:
        return self._queue is not None and self._queue.broken is not None


class ProcessPoolExecutor(JobserverExecutor):
    """The same for processes."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        super().__init__(
            Client(SLOTS),
            max_workers,
            kind="process",
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
        )
        assert isinstance(self._queue, WorkerProcesses)
        started.append((weakref.ref(self._queue), self._queue.client))
        self._max_workers = self._queue.max_workers
        self._mp_context = self._queue.pool._mp_context

    @property
    def _broken(self) -> bool:
        return self._queue is not None and self._queue.broken is not None

    def _of_pool(self, name: str) -> Any:
        """An attribute of the pool within, which is started by the first item that has its slot, not by `submit`."""
        assert isinstance(self._queue, WorkerProcesses)
        end = time.monotonic() + GUARD
        while self._queue.threads and not has_begun(self._queue.pool._executor_manager_thread):
            assert time.monotonic() < end, "the first item was never handed over"
            time.sleep(0.001)
        return getattr(self._queue.pool, name)

    @property
    def _processes(self) -> Any:
        return self._of_pool("_processes")

    @property
    def _executor_manager_thread(self) -> Any:
        return self._of_pool("_executor_manager_thread")

    @property
    def _call_queue(self) -> Any:
        return self._of_pool("_call_queue")


concurrent.futures.ThreadPoolExecutor = ThreadPoolExecutor  # type: ignore[assignment, misc]
concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[assignment, misc]


def has_begun(thread: Any) -> bool:
    """Whether it was started, so that it can be waited for. A pool has its thread an instant before."""
    try:
        if thread is not None:
            thread.join(0)
    except RuntimeError:
        return False
    return thread is not None


def all_whole() -> None:
    """After a test all its executors can be ended, and each has given all its tokens back."""
    gc.collect()
    while started:
        reference, client = started.pop()
        queue = reference()  # is there as long as one of its threads runs
        if queue is not None:
            queue.close()
            queue.join()
        assert client.available() == SLOTS, f"{client} lost tokens, or made some up"
        client.close()


def modules() -> Iterator[ModuleType]:
    """The standard library's tests: one file, or since Python 3.12 a package."""
    found = importlib.import_module("test.test_concurrent_futures")
    yield found
    for module in pkgutil.iter_modules(getattr(found, "__path__", [])):
        if module.name.startswith("test_"):
            yield importlib.import_module(f"{found.__name__}.{module.name}")


def with_our_classes(assert_python_ok: Callable[..., Any]) -> Callable[..., Any]:
    """Lets the programs that a test starts have our classes too."""

    def run(option: str, program: str) -> Any:
        return assert_python_ok(option, f"import {__spec__.name}\n{program}", PYTHONPATH=os.environ["PYTHONPATH"])

    return run


def select(prefix: str, excluded: list[str]) -> Iterator[unittest.TestCase]:
    """The tests of the classes whose names begin with the prefix, without those that are excluded by name."""
    for module in modules():
        if hasattr(module, "assert_python_ok"):
            vars(module)["assert_python_ok"] = with_our_classes(module.assert_python_ok)
        for name, case in list(vars(module).items()):
            ours = isinstance(case, type) and issubclass(case, unittest.TestCase) and case.__module__ == module.__name__
            if ours and name.startswith(prefix) and not name.startswith(prefix + "server"):
                for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
                    assert isinstance(test, unittest.TestCase)
                    if test._testMethodName not in excluded:
                        test.addCleanup(all_whole)
                        yield test


def main(prefix: str, *excluded: str) -> None:
    """Runs them; standard error tells how it goes."""
    suite = unittest.TestSuite(select(prefix, list(excluded)))
    result = unittest.TextTestRunner(sys.stderr, verbosity=2).run(suite)
    failed = [str(test) for test, _ in result.failures + result.errors]
    failed += [str(test) for test in result.unexpectedSuccesses]
    skipped = {str(test): reason for test, reason in result.skipped}
    print(json.dumps({"ran": result.testsRun, "failed": failed, "skipped": skipped}))


if __name__ == "__main__":
    main(*sys.argv[1:])
