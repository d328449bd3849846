"""`build_ext` whose compilers run at the same time, each on a slot of a jobserver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from functools import partial
from typing import TYPE_CHECKING, Any

import setuptools.command.build_ext
from setuptools import Extension
from setuptools.errors import ExecError, OptionError
from setuptools.extension import Library

# The same as the distutils that setuptools uses, once that was imported.
from distutils import log  # isort: skip

from .crew import Crew, current_batch, hand_out
from .jobs import find_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .jobs import Jobs

    _Base = setuptools.command.build_ext.build_ext
else:
    _Base = object


class ParallelBuild(_Base):
    """Makes any `build_ext` compile on slots of a jobserver: derive from this and from that one, in this order.

    Every compiler and linker is a process on a slot of its own: those of several extensions, and those of the sources
    of each. The jobserver is the one around this process, else one of its own with the CPUs that may be used; the
    environment (`JOBSERVER_FFI_JOBS`, `MAX_JOBS`) or `-j` says how many jobs there are at most. What is built, the
    order in which it is linked, and the errors are those of the command alone. The first error ends the processes that
    still run, and so does Ctrl-C; every token is given back.

    The Python code of the command runs as if it was alone: extensions take turns, and change only where one waits for
    its compilers. While the sources of an extension are compiled, the compiler object must not be changed.
    """

    def build_extensions(self) -> None:
        """Builds all extensions.

        Raises:
            OptionError: A number of jobs is none; cffi's own command was replaced, which writes the sources.
            CompileError, LinkError: As the command alone; no compiler runs any more, and the jobserver is whole.
        """
        if any("$PLACEHOLDER" in (extension.sources or ()) for extension in self.extensions):
            raise OptionError(
                "cffi_modules go with a build_ext that setup() is given, not with one in [tool.setuptools.cmdclass], "
                "which replaces cffi's: write setup(cmdclass={'build_ext': jobserver_ffi.build.build_ext}, ...)"
            )
        wanted = None if self.parallel is True or not self.parallel else int(self.parallel)
        try:
            jobs = find_jobs(wanted, self.warn)
        except ValueError as error:
            raise OptionError(str(error)) from None
        self._jobs = jobs
        with jobs.client:
            compilers = [compiler for compiler in (self.compiler, getattr(self, "shlib_compiler", None)) if compiler]
            hired = [HiredCompiler(compiler, jobs) for compiler in compilers]
            try:
                super().build_extensions()
            finally:
                for compiler in hired:
                    compiler.dismiss()

    def _build_extensions_serial(self) -> None:
        """In the place of what distutils's `build_extensions` calls for the extensions one after the other."""
        Crew(self._jobs).run([partial(self._build_one, ext) for ext in self.extensions], built_after(self.extensions))

    _build_extensions_parallel = _build_extensions_serial  # and for their threads

    def _build_one(self, ext: Extension) -> None:
        with self._filter_build_errors(ext):  # type: ignore[attr-defined] # of distutils, as the two above
            self.build_extension(ext)


class build_ext(ParallelBuild, setuptools.command.build_ext.build_ext):
    """The command `build_ext` of setuptools (with Cython's in it, where Cython is installed), see `ParallelBuild`."""


def built_after(extensions: Sequence[Extension]) -> list[frozenset[int]]:
    """For each extension the places of those that must be linked before it is compiled.

    Two that share a source share its object file, which each compiles for itself. An extension may be linked with a
    library in the same list.
    """
    if any(isinstance(extension, Library) for extension in extensions):
        return [frozenset(range(place)) for place in range(len(extensions))]
    users: dict[str, set[int]] = {}
    after = []
    for place, extension in enumerate(extensions):
        stems = {os.path.normcase(os.path.normpath(os.path.splitext(source)[0])) for source in extension.sources or ()}
        after.append(frozenset().union(*(users.get(stem, ()) for stem in stems)))
        for stem in stems:
            users.setdefault(stem, set()).add(place)
    return after


class HiredCompiler:
    """A compiler object of distutils whose processes run on slots, until it is dismissed.

    Args:
        compiler: The object: its methods `compile`, and `spawn` or `call`, are replaced in it.
        jobs: The slots.
    """

    def __init__(self, compiler: Any, jobs: Jobs) -> None:
        self._compiler, self._jobs = compiler, jobs
        self._own_compile: Callable[..., list[str]] = compiler.compile
        # Since setuptools 84 `call` starts the processes and lets the errors of subprocess through.
        methods = {"compile": self._compile, **({"call": self._call} if hasattr(compiler, "call") else {})}
        if "call" not in methods:
            methods["spawn"] = self._spawn
        self._before = {name: vars(compiler).get(name) for name in methods}
        vars(compiler).update(methods)

    def dismiss(self) -> None:
        """Makes the object what it was."""
        for name, method in self._before.items():
            if method is None:
                vars(self._compiler).pop(name, None)
            else:
                vars(self._compiler)[name] = method

    def _compile(self, sources: Sequence[str], *args: Any, **kwargs: Any) -> list[str]:
        """In the place of `compile`: each source by itself, in a call of its own, as if it was the only one.

        That goes through whatever a class of compilers does with a source, and gives the objects in the same order.
        """
        sources = list(sources)
        if len(sources) < 2 or not self._have_objects_of_their_own(sources):
            return self._own_compile(sources, *args, **kwargs)
        if getattr(self._compiler, "initialized", True) is False:
            self._compiler.initialize()
        calls = [partial(self._own_compile, [source], *args, **kwargs) for source in sources]
        return [found for objects in hand_out(self._jobs, calls) for found in objects]

    def _have_objects_of_their_own(self, sources: Sequence[str]) -> bool:
        try:
            objects = self._compiler.object_filenames(sources)
        except Exception:  # compile itself will raise what is wrong
            return False
        return len(set(objects)) == len(sources)

    def _call(self, cmd: Sequence[Any], *, env: Any = None, **kwargs: Any) -> None:
        """In the place of `call`."""
        if kwargs:
            subprocess.check_call(cmd, env=env, **kwargs)
            return
        command = [os.fspath(word) for word in cmd]
        status = self._run(command, env)
        if status:
            raise subprocess.CalledProcessError(status, command)

    def _spawn(self, cmd: Sequence[Any], **kwargs: Any) -> None:
        """In the place of `spawn`, with its errors."""
        command = [os.fspath(word) for word in cmd]
        if getattr(self._compiler, "dry_run", False):
            log.info("%s", subprocess.list2cmdline(command))
            return
        found = shutil.which(command[0])
        shown, command[0] = list(command), found or command[0]
        try:
            status = self._run(command, kwargs.get("env"), shown)
        except OSError as error:
            raise ExecError(f"command {command[0]!r} failed: {error.args[-1]}") from error
        if status:
            raise ExecError(f"command {command[0]!r} failed with exit code {status}")

    def _run(self, command: list[str], env: Any, shown: list[str] | None = None) -> int:
        """Runs a process on a slot: that of the call which needs it, or one of its own. Returns its exit status."""
        announce = partial(log.info, "%s", subprocess.list2cmdline(shown or command))
        environment = self._environment(env)

        def run() -> int:
            return current_batch().run(command, self._jobs.client, environment, announce)

        (status,) = hand_out(self._jobs, [run])
        return int(status)

    def _environment(self, env: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """The environment of a process, as distutils has it."""
        update = {}
        paths = getattr(self._compiler, "_paths", None)  # where Microsoft's tools are
        if env is None and paths:
            update["PATH"] = str(paths)
        if sys.platform == "darwin" and "MACOSX_DEPLOYMENT_TARGET" not in os.environ:
            target = sysconfig.get_config_var("MACOSX_DEPLOYMENT_TARGET")
            update.update({"MACOSX_DEPLOYMENT_TARGET": str(target)} if target else {})
        return {**(os.environ if env is None else env), **update} if update else env
