"""Real builds of extensions for tests: a fresh environment, small projects, and a compiler that is counted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobserver_ffi
from jobserver_ffi import Client

from .command import Done, Running
from .conftest import PATH, missing
from .overlap import GUARD, JobCounter, captured

SOURCES = Path(__file__).parent.parent

BACK_ENDS = ("cmake", "meson-python", "ninja", "scikit-build-core")
LONG_GUARD = 4 * GUARD  # for what downloads and builds

COUNTED = """\
#!/bin/sh
case "$*" in
*" -c "*{pattern}*) exec {command} cc "$@" ;;
*) exec cc "$@" ;;
esac
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with packages from the index, in which `jobserver_ffi` is the one under test."""

    place: Path

    @property
    def python(self) -> str:
        return str(self.place / "bin" / "python")

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process in it."""
        return {
            **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CC", "MAX_JOBS")},
            "PATH": f"{self.place / 'bin'}{os.pathsep}{PATH}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def install(self, *packages: str) -> None:
        command = [self.python, "-m", "pip", "install", "--quiet", "--upgrade", *packages]
        done = subprocess.run(command, env=self.variables, timeout=LONG_GUARD, check=False, **captured({}))
        if done.returncode:
            missing(f"{', '.join(packages)} of the package index ({done.stderr[-300:]})")


def new_environment(place: Path, *packages: str) -> Environment:
    """Makes one. The package under test is there by its name only: what lies beside it stays out."""
    if sys.platform == "win32" or not shutil.which("cc", path=PATH):
        missing("cc")
    venv.create(place, with_pip=True, symlinks=True)
    environment = Environment(place)
    environment.install("setuptools", *packages)
    (library,) = place.glob("lib/python*/site-packages")
    package = Path(jobserver_ffi.__file__).parent
    (library / "jobserver_ffi").symlink_to(package, target_is_directory=True)
    script = place / "bin" / "jobserver"
    script.write_text(f"#!{environment.python}\nimport sys\nfrom jobserver_ffi.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return environment


MODULE = """\
#include <Python.h>
{declarations}
static struct PyModuleDef definition = {{PyModuleDef_HEAD_INIT, "{name}"}};
PyMODINIT_FUNC PyInit_{name}(void)
{{
    PyObject *module = PyModule_Create(&definition);
    PyModule_AddIntConstant(module, "value", {value});
    return module;
}}
"""

SETUP = """\
from setuptools import Extension, setup
{imports}
extensions = [
{extensions}
]
setup(name="project", version="1", py_modules=[], ext_modules=extensions, {arguments})
"""

OURS = ("from jobserver_ffi.build import build_ext", 'cmdclass={"build_ext": build_ext}')
SERIAL = ("", "")


class Project:
    """A project with extensions of several sources each, built by `setup.py build_ext`.

    Args:
        directory: Where it is written.
        environment: Where it is built.
        sources: How many sources each extension has; the extensions are called one, two, ...
    """

    NAMES = ("one", "two", "three", "four")

    def __init__(self, directory: Path, environment: Environment, *sources: int) -> None:
        self.directory, self.environment = directory, environment
        directory.mkdir(exist_ok=True)
        self.extensions: list[str] = []
        for name, count in zip(self.NAMES, sources, strict=False):
            files = [f"unit_{name}_{number}.c" for number in range(count)]
            functions = [Path(file).stem for file in files[1:]]
            declarations = "\n".join(f"int {function}(void);" for function in functions)
            value = " + ".join(["1", *(f"{function}()" for function in functions)])
            self.write(files[0], MODULE.format(name=name, declarations=declarations, value=value))
            for function in functions:
                self.write(f"{function}.c", f"int {function}(void) {{ return 1; }}\n")
            self.extensions.append(f"Extension({name!r}, {files!r})")
        self.setup(OURS)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def setup(self, command: tuple[str, str], *extensions: str) -> None:
        """Writes setup.py: with our command, or the serial one."""
        lines = "\n".join(f"    {extension}," for extension in extensions or self.extensions)
        self.write("setup.py", SETUP.format(imports=command[0], extensions=lines, arguments=command[1]))

    def counted(self, counter: JobCounter, pattern: str = "unit_") -> dict[str, str]:
        """Variables that make each compiler of such a source a job of the counter's. (Linkers wait for compilers.)"""
        script = self.directory / "counted-cc"
        script.write_text(COUNTED.format(command=counter.command, pattern=pattern))
        script.chmod(0o755)
        return {"CC": str(script)}

    def compiler(self, text: str) -> dict[str, str]:
        """Variables that make a shell script the compiler."""
        script = self.directory / "scripted-cc"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        return {"CC": str(script)}

    def command(self, *arguments: str) -> list[str]:
        return [self.environment.python, "setup.py", "build_ext", *arguments]

    def options(self, client: Client | None, variables: dict[str, str]) -> dict[str, Any]:
        environment = {**self.environment.variables, **variables}
        options = captured({"cwd": self.directory, "env": environment})
        return options if client is None else client.configure(**options)

    def build(self, client: Client | None = None, *arguments: str, **variables: str) -> Done:
        """Builds it, on a token of the client's if there is one."""
        options = self.options(client, variables)
        with Running(self.command(*arguments), **options) as running:
            return running.finish()

    def build_on_token(self, client: Client, *arguments: str, **variables: str) -> Done:
        """Builds it as a job of the client's pool."""
        with client.acquire():
            return self.build(client, *arguments, **variables)

    def value(self, name: str) -> int:
        """Imports a built extension in the environment and asks for its value."""
        (library,) = self.directory.glob("build/lib*")
        program = f"import sys; sys.path.insert(0, {str(library)!r}); import {name}; print({name}.value)"
        command = [self.environment.python, "-c", program]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=GUARD).stdout)

    def files(self, pattern: str) -> dict[str, bytes]:
        """The content of what was built, by its place."""
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in self.directory.glob(pattern)}


def commands_in(output: str) -> list[list[str]]:
    """The compilers and linkers that were printed."""
    lines = (line for line in output.splitlines() if " -o " in line and not line.startswith(("error", " ")))
    return [shlex.split(line) for line in lines]


def built(done: Done) -> Done:
    """Fails unless it ended well."""
    assert done.returncode == 0, f"{' '.join(map(str, done.args))}:\n{done.stdout}\n{done.stderr}"
    return done


def names(commands: Sequence[list[str]]) -> list[str]:
    """The sources that compilers were given."""
    return [Path(command[command.index("-c") + 1]).name for command in commands if "-c" in command]
