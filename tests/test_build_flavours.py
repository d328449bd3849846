"""`build_ext` on slots over the build_ext of others: Cython's, pybind11's, cffi's; and this package builds itself."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from jobserver_ffi import Client

from .building import OURS, SERIAL, SOURCES, Environment, Project, built, commands_in
from .command import Running
from .conftest import long_form
from .overlap import JobCounter

pytestmark = pytest.mark.needs("sh", "pipe")

MIXIN = 'type("build_ext", (ParallelBuild, {base}), {{}})'

# Where the other command comes from, and its name.
CYTHON = {
    "setuptools": OURS,
    "new_build_ext": (
        "from Cython.Distutils.build_ext import new_build_ext\nfrom jobserver_ffi.build import ParallelBuild",
        f'cmdclass={{"build_ext": {MIXIN.format(base="new_build_ext")}}}',
    ),
    "old_build_ext": (
        "import warnings\nwarnings.simplefilter('ignore')\nfrom Cython.Distutils.old_build_ext import old_build_ext\n"
        "from jobserver_ffi.build import ParallelBuild",
        f'cmdclass={{"build_ext": {MIXIN.format(base="old_build_ext")}}}',
    ),
}


@pytest.mark.parametrize("command", ["setuptools", *(pytest.param(name, marks=long_form) for name in list(CYTHON)[1:])])
def test_cython(building: Environment, tmp_path: Path, command: str) -> None:
    project = Project(tmp_path, building)
    for name in ("one", "two"):
        project.write(f"{name}.pyx", f"cdef extern int unit_{name}()\nvalue = unit_{name}()\n")
        project.write(f"unit_{name}.c", f"int unit_{name}(void) {{ return {len(name)}; }}\n")
    extensions = [f"Extension({name!r}, ['{name}.pyx', 'unit_{name}.c'])" for name in ("one", "two")]
    project.setup(CYTHON[command], *extensions)
    with Client(3) as client:
        done = built(project.build_on_token(client))
        assert client.available() == 3
    assert len(commands_in(done.stdout)) == 6
    assert [project.value(name) for name in ("one", "two")] == [3, 3]


def test_pybind11(building: Environment, tmp_path: Path) -> None:
    """Its build_ext tries out what the compiler can, before there is a job."""
    project = Project(tmp_path, building)
    project.write(
        "one.cpp",
        '#include <pybind11/pybind11.h>\nint unit_one();\nPYBIND11_MODULE(one, m) { m.attr("value") = unit_one(); }\n',
    )
    project.write("unit_one.cpp", "int unit_one() { auto value = 7; return value; }\n")
    project.setup(
        (
            "from pybind11.setup_helpers import Pybind11Extension, build_ext\n"
            "from jobserver_ffi.build import ParallelBuild",
            f'cmdclass={{"build_ext": {MIXIN.format(base="build_ext")}}}',
        ),
        "Pybind11Extension('one', ['one.cpp', 'unit_one.cpp'])",
    )
    with Client(2) as client:
        built(project.build_on_token(client))
        assert client.available() == 2
    assert project.value("one") == 7


FFI = """\
from cffi import FFI
ffi = FFI()
ffi.cdef("int unit_one(void);")
ffi.set_source("one_ffi", "int unit_one(void);", sources=["unit_one.c", "unit_more.c"])
"""


def cffi_project(directory: Path, environment: Environment) -> Project:
    project = Project(directory, environment)
    project.write("build_one.py", FFI)
    project.write("unit_one.c", "int unit_more(void);\nint unit_one(void) { return unit_more(); }\n")
    project.write("unit_more.c", "int unit_more(void) { return 9; }\n")
    return project


def test_cffi(building: Environment, tmp_path: Path) -> None:
    project = cffi_project(tmp_path, building)
    imports, arguments = OURS
    project.setup((imports, f'{arguments}, cffi_modules=["build_one.py:ffi"]'), "")
    (tmp_path / "setup.py").write_text((tmp_path / "setup.py").read_text().replace("    ,\n", ""))
    with Client(3) as client, JobCounter(2, 2, lambda: 0) as counter:
        done = built(project.build_on_token(client, **project.counted(counter)))
        assert client.available() == 3
    counter.check()
    assert len(commands_in(done.stdout)) == 4
    (library,) = tmp_path.glob("build/lib*")
    program = f"import sys; sys.path.insert(0, {str(library)!r}); import one_ffi; print(one_ffi.lib.unit_one())"
    found = subprocess.run([building.python, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "9\n"


def test_cffi_whose_command_was_replaced(building: Environment, tmp_path: Path) -> None:
    project = cffi_project(tmp_path, building)
    project.setup((SERIAL[0], 'cffi_modules=["build_one.py:ffi"]'), "")
    (tmp_path / "setup.py").write_text((tmp_path / "setup.py").read_text().replace("    ,\n", ""))
    project.write(
        "pyproject.toml",
        '[project]\nname = "project"\nversion = "1"\n'
        '[tool.setuptools.cmdclass]\nbuild_ext = "jobserver_ffi.build.build_ext"\n',
    )
    done = project.build()
    assert done.returncode == 1
    assert "write setup(cmdclass={'build_ext': jobserver_ffi.build.build_ext}, ...)" in done.stderr


def test_this_package_builds_itself(building: Environment, tmp_path: Path) -> None:
    if not (SOURCES / "csrc").is_dir():
        pytest.skip("needs the sources of this package")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("contrib", "csrc", "jobserver_ffi"):
        shutil.copytree(SOURCES / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "_core.c"))
    for name in ("pyproject.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"):
        shutil.copy(SOURCES / name, tree)
    setup = (SOURCES / "setup.py").read_text()
    ours = setup.replace(
        "    setup(\n", '    from jobserver_ffi.build import build_ext\n    setup(cmdclass={"build_ext": build_ext},\n'
    )
    assert ours != setup
    (tree / "setup.py").write_text(ours)
    (tree / "csrc" / "wait.c").write_text((SOURCES / "csrc" / "wait.c").read_text() + '\n#warning "seen once"\n')
    program = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    with Client(2) as client, client.acquire():
        options = client.configure(cwd=tree, env=building.variables, stdout=-1, stderr=-1, text=True)
        with Running([building.python, "-I", "-c", program], **options) as running:
            done = built(running.finish())
        assert client.available() == 1
    sources = {path.name for path in (SOURCES / "csrc").glob("*.c")}
    compiled = [Path(command[command.index("-c") + 1]).name for command in commands_in(done.stdout) if "-c" in command]
    assert sorted(compiled) == sorted([*sources, "jobserver_ffi._core.c"])
    assert (done.stdout + done.stderr).count("seen once") >= 1
    (wheel,) = tree.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    program = (
        "import jobserver_ffi as j; c = j.Client(3); c.acquire().release(); print(c.available(), j.__file__); c.close()"
    )
    command = [
        building.python,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); {program}",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == "3" and str(tmp_path) in found.stdout
