"""The recipes of docs/building.md for other build back ends, each with a small project in a fresh environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from .building import OURS, Environment, Project, built
from .command import Done, Running
from .conftest import Tool, long_form
from .overlap import JobCounter

pytestmark = pytest.mark.needs("sh", "fifo", "signals")

UNITS = 5


PYPROJECT = """\
[build-system]
requires = ["{backend}"]
build-backend = "{module}"
[project]
name = "{name}"
version = "1"
"""

MESON = """\
project('one', 'c')
py = import('python').find_installation(pure: false)
py.extension_module('one', {sources}, install: true)
"""

CMAKE = """\
cmake_minimum_required(VERSION 3.20)
project(one LANGUAGES C)
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
Python_add_library(one MODULE {sources} WITH_SOABI)
install(TARGETS one DESTINATION .)
"""


class BackendProject(Project):
    """A project with one extension of UNITS sources, built by pip."""

    def __init__(self, directory: Path, environment: Environment) -> None:
        super().__init__(directory, environment, UNITS)
        (directory / "setup.py").unlink()
        self.sources = sorted(path.name for path in directory.glob("unit_*.c"))

    def meson(self) -> None:
        self.write("meson.build", MESON.format(sources=", ".join(map(repr, self.sources))))
        self.write("pyproject.toml", PYPROJECT.format(backend="meson-python", module="mesonpy", name="one"))

    def cmake(self) -> None:
        self.write("CMakeLists.txt", CMAKE.format(sources=" ".join(self.sources)))
        text = PYPROJECT.format(backend="scikit-build-core", module="scikit_build_core.build", name="one")
        self.write("pyproject.toml", text)

    def pip_wheel(self, *options: str) -> list[str]:
        pip = [self.environment.python, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
        return [*pip, "-w", str(self.directory / "wheels"), *options, str(self.directory)]

    def run(self, command: list[str], **variables: str) -> Done:
        environment = {**self.environment.variables, **variables}
        with Running(command, cwd=self.directory, env=environment) as running:
            done = built(running.finish())
        assert list(self.directory.glob("wheels/*.whl"))
        return done


@pytest.fixture
def project(building: Environment, tmp_path: Path) -> BackendProject:
    return BackendProject(tmp_path, building)


def jobserver(project: Project, *words: str) -> list[str]:
    return [project.environment.python, "-m", "jobserver_ffi.cli", *words]


def test_meson_python_joins(project: BackendProject) -> None:
    """Its ninja reads a fifo; the descriptors of a pipe would be closed by pip."""
    project.meson()
    with JobCounter(UNITS, 3, lambda: 0) as counter:
        command = jobserver(project, "run", "-j3", "--style=fifo", "--check", "--", *project.pip_wheel())
        project.run(command, **project.counted(counter))
    counter.check()


def test_meson_python_is_told_a_number(project: BackendProject) -> None:
    project.meson()
    with JobCounter(UNITS, 3, lambda: 0) as counter:
        pip = project.pip_wheel("-Ccompile-args=-j{}")
        inner = jobserver(project, "exec", "--max=3", "--format={}", "--", *pip)
        project.run(jobserver(project, "run", "-j4", "--check", "--", *inner), **project.counted(counter))
    counter.check()


def test_scikit_build_core_with_ninja_joins(project: BackendProject) -> None:
    project.cmake()
    with JobCounter(UNITS, 3, lambda: 0) as counter:
        command = jobserver(project, "run", "-j3", "--style=fifo", "--check", "--", *project.pip_wheel())
        project.run(command, CMAKE_GENERATOR="Ninja", **project.counted(counter))
    counter.check()


def test_scikit_build_core_with_make_joins(project: BackendProject, make441: Tool) -> None:
    project.cmake()
    with JobCounter(UNITS, 3, lambda: 0) as counter:
        command = jobserver(project, "run", "-j3", "--style=fifo", "--check", "--", *project.pip_wheel())
        variables = {"CMAKE_GENERATOR": "Unix Makefiles", "CMAKE_ARGS": f"-DCMAKE_MAKE_PROGRAM={make441.path}"}
        project.run(command, **variables, **project.counted(counter))
    counter.check()


@pytest.mark.parametrize("generator", [pytest.param("Ninja", marks=long_form), "Unix Makefiles"])
def test_scikit_build_core_is_told_a_number(project: BackendProject, make43: Tool, generator: str) -> None:
    """By CMAKE_BUILD_PARALLEL_LEVEL, whatever the make."""
    project.cmake()
    program = {} if generator == "Ninja" else {"CMAKE_ARGS": f"-DCMAKE_MAKE_PROGRAM={make43.path}"}
    with JobCounter(UNITS, 3, lambda: 0) as counter:
        inner = jobserver(project, "exec", "--max=3", "--", *project.pip_wheel())
        command = jobserver(project, "run", "-j4", "--check", "--", *inner)
        project.run(command, CMAKE_GENERATOR=generator, **program, **project.counted(counter))
    counter.check()


NINJA_SETUP = """\
# What PyTorch's BuildExtension does: it writes a build.ninja, and starts ninja with -j of MAX_JOBS.
import os, subprocess
from setuptools import setup
from setuptools.command.build_ext import build_ext
class BuildExtension(build_ext):
    def build_extensions(self):
        self.compiler.compile = self.ninja_compile
        super().build_extensions()
    def ninja_compile(self, sources, output_dir=None, **_):
        rule = "rule cc\\n command = $CC -fPIC $flags -c $in -o $out\\n".replace("$CC", os.environ["CC"])
        includes = " ".join(f"-I{{place}}" for place in self.compiler.include_dirs)
        rule = rule.replace("$flags", includes)
        objects = [f"{{os.path.abspath(output_dir)}}/{{source}}.o" for source in sources]
        lines = [f"build {{o}}: cc {{os.path.abspath(s)}}\\n" for o, s in zip(objects, sources)]
        with open("build.ninja", "w") as file:
            file.write(rule + "".join(lines))
        subprocess.run(["ninja", "-v", "-j", os.environ["MAX_JOBS"]], check=True)
        return objects
from setuptools import Extension
setup(name="one", version="1", py_modules=[], ext_modules=[Extension("one", {sources})],
      cmdclass={{"build_ext": BuildExtension}})
"""


def test_max_jobs_of_pytorch(project: BackendProject) -> None:
    project.write("setup.py", NINJA_SETUP.format(sources=project.sources))
    with JobCounter(UNITS, 3, lambda: 0) as counter:
        inner = jobserver(project, "exec", "--max=3", "--", *project.pip_wheel())
        command = jobserver(project, "run", "-j4", "--check", "--", *inner)
        project.run(command, **project.counted(counter))
    counter.check()


def test_wheels_of_several_packages_share_one_pool(building: Environment, tmp_path: Path) -> None:
    """Three back ends at the same time, two slots."""
    projects = [BackendProject(tmp_path / name, building) for name in ("meson", "cmake", "setuptools")]
    projects[0].meson()
    projects[1].cmake()
    projects[2].setup(OURS)
    # None waits for another: a ninja that found no token asks for one only when one of its jobs has ended.
    with JobCounter(3 * UNITS, 1, lambda: 0) as counter:
        variables = projects[0].counted(counter)
        words: list[str] = []
        for project in projects:
            words += ["---", *project.pip_wheel()]
        command = jobserver(projects[0], "run", "-j2", "--style=fifo", "--check", *words[1:])
        environment = {**building.variables, "CMAKE_GENERATOR": "Ninja", **variables}
        with Running(command, cwd=tmp_path, env=environment) as running:
            built(running.finish())
    assert (counter.jobs, counter.stuck) == (3 * UNITS, False)
    assert counter.peak <= 2
    assert all(list(project.directory.glob("wheels/*.whl")) for project in projects)


def test_make_builds_wheels_at_the_same_time(building: Environment, tmp_path: Path, make441: Tool) -> None:
    """A makefile's recipes: with a fifo, which passes through pip, and without a + there."""
    projects = [BackendProject(tmp_path / name, building) for name in ("first", "second")]
    for project in projects:
        project.setup(OURS)
    with JobCounter(2 * UNITS, 2, lambda: 0) as counter:
        variables = projects[0].counted(counter)
        rules = "".join(f"{p.directory.name}:\n\t{' '.join(p.pip_wheel())}\n" for p in projects)
        (tmp_path / "Makefile").write_text(f"all: first second\n.PHONY: all first second\n{rules}")
        command = [make441.path, "-j2", "-s", "--jobserver-style=fifo"]
        with Running(command, cwd=tmp_path, env={**building.variables, **variables}) as running:
            done = built(running.finish())
    assert "jobserver" not in done.stderr
    assert (counter.jobs, counter.stuck) == (2 * UNITS, False)
    assert counter.peak <= 2
