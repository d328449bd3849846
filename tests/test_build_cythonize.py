"""`jobserver_ffi.build.cythonize`: modules compiled by Cython in processes, each on a slot."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from jobserver_ffi import Client

from .building import Environment, Project, built
from .command import Done, Running
from .conftest import long_form
from .overlap import JobCounter

pytestmark = pytest.mark.needs("sh", "pipe")

# Each compilation of a module is a job of the counter's first.
PROGRAM = """\
import shlex, subprocess, sys
from Cython.Compiler import Main
compile_single = Main.compile_single
def counted(*args, **kwargs):
    subprocess.run(shlex.split({command!r}), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return compile_single(*args, **kwargs)
if {command!r}:
    Main.compile_single = counted
{imports}
if __name__ == "__main__":
    for extension in cythonize({modules}, {options}):
        print("result", extension.name, extension.sources)
"""
OURS = "from jobserver_ffi.build import cythonize"
THEIRS = "from Cython.Build import cythonize"


class Modules(Project):
    """A directory with Cython modules."""

    def __init__(self, directory: Path, environment: Environment, count: int) -> None:
        super().__init__(directory, environment)
        for number in range(count):
            self.write(f"module{number}.pyx", f"def function(int x):\n    return x + {number}\n")

    def command_for(
        self, imports: str = OURS, options: str = "", command: str = "", modules: str = "['*.pyx']"
    ) -> list[str]:
        text = PROGRAM.format(command=command, imports=imports, options=options, modules=modules)
        self.write("program.py", text)
        return [self.environment.python, "program.py"]

    def run(self, command: list[str], client: Client | None = None, **variables: str) -> Done:
        with Running(command, **self.options(client, variables)) as running:
            return running.finish()


def test_modules_fill_the_slots(building: Environment, tmp_path: Path) -> None:
    modules = Modules(tmp_path, building, 5)
    with Client(3) as client, JobCounter(5, 3, client.available) as counter, client.acquire():
        done = built(modules.run(modules.command_for(command=counter.command), client))
        assert client.available() == 2
    counter.check()
    assert done.stdout.count("result") == 5
    assert len(list(tmp_path.glob("*.c"))) == 5


@pytest.mark.parametrize(
    ("options", "variables"), [("nthreads=2", {"MAX_JOBS": "1"}), pytest.param("", {"MAX_JOBS": "2"}, marks=long_form)]
)
def test_jobserver_of_its_own(building: Environment, tmp_path: Path, options: str, variables: dict[str, str]) -> None:
    modules = Modules(tmp_path, building, 3)
    with JobCounter(3, 2, lambda: 0) as counter:
        built(modules.run(modules.command_for(command=counter.command, options=options), None, **variables))
    counter.check()


@pytest.mark.parametrize(
    "options", ["", pytest.param("build_dir='temp', exclude=['module1.pyx']", marks=long_form), "exclude_failures=True"]
)
def test_returns_and_writes_what_cython_does(building: Environment, tmp_path: Path, options: str) -> None:
    found = []
    for imports in (THEIRS, OURS):
        modules = Modules(tmp_path / imports.split(".")[0].split()[1], building, 3)
        done = built(modules.run(modules.command_for(imports, options)))
        again = built(modules.run(modules.command_for(imports, options)))
        found.append((sorted(done.stdout.splitlines()), sorted(again.stdout.splitlines()), modules.files("**/*.c")))
    assert found[0] == found[1]
    assert len(found[0][2]) == (2 if "exclude=" in options else 3)


@pytest.mark.parametrize("options", ["", "exclude_failures=True"])
def test_error_is_that_of_cython(building: Environment, tmp_path: Path, options: str) -> None:
    found = []
    for imports in (THEIRS, OURS):
        modules = Modules(tmp_path / imports.split(".")[0].split()[1], building, 1)
        modules.write("wrong.pyx", "def function(:\n")
        with Client(2) as client, client.acquire():
            done = modules.run(modules.command_for(imports, options, modules="['wrong.pyx', 'module0.pyx']"), client)
            assert client.available() == 1
        complaint = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
        found.append((done.returncode, complaint, [line for line in done.stdout.splitlines() if "[" not in line]))
    assert found[0] == found[1]
    # Cython itself fails to leave out the extensions of setuptools 84, which cannot be hashed.
    assert found[0][0] == 1 or options


def test_interrupt_ends_the_processes(building: Environment, tmp_path: Path) -> None:
    modules = Modules(tmp_path, building, 4)
    job = f"import time; open({str(tmp_path / 'started')!r}, 'a').write('x'); time.sleep(1000)"
    with Client(2) as client, client.acquire():
        (tmp_path / "sleep.py").write_text(job)
        command = f"{sys.executable} {tmp_path / 'sleep.py'}"
        with Running(modules.command_for(command=command), **modules.options(client, {})) as running:
            wait_for(tmp_path / "started", 2)
            os.kill(running.pid, signal.SIGINT)
            done = running.finish()
        assert client.available() == 1
    assert done.returncode not in (0, None)
    assert "KeyboardInterrupt" in done.stderr


def wait_for(file: Path, size: int) -> None:
    import time

    from .overlap import GUARD

    end = time.monotonic() + GUARD
    while not file.exists() or file.stat().st_size < size:
        assert time.monotonic() < end, "the processes did not start"
        time.sleep(0.01)
