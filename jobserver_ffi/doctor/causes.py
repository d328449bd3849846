"""Why a process has no jobserver, and what to write instead."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..cli.tools import own_jobs
from ..environment import VARIABLES, FromEnvErrorKind, address_in
from ..makeflags import parse
from ..style import is_make
from .finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..environment import FromEnvError
    from ..processes import Process

_PLUS = (
    "put a `+` in front of the recipe line: `<TAB>+COMMAND`. Every program between make and this one must keep the "
    "descriptors open, too. A fifo, which make 4.4 and newer use by default, needs neither"
)
_MAKE_HIDES = (
    "make hands its pipe only to recipe lines that begin with `+` or contain `$(MAKE)`; others are taken to "
    "know no jobserver"
)
_PYTHON_CLOSES = (
    "Python's subprocess closes all descriptors but 0, 1 and 2 in its children (close_fds=True is the default)"
)
_SUDO_WRITE = (
    "let sudo start the whole build (`sudo make -jN`), or give what runs under sudo a jobserver of its own: `sudo "
    "jobserver run -jN -- COMMAND`"
)
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_SUDOS = ("sudo", "doas", "pkexec", "su", "runuser")


class Scene:
    """What is around this process.

    Attributes:
        environ: Its environment.
        above: The processes above it, its parent first.
        make: The nearest of them that is a make, or None.
    """

    def __init__(self, environ: Mapping[str, str], above: list[Process]) -> None:
        self.environ = environ
        self.above = above
        self.make = next((process for process in above if is_make(process.program)), None)

    @property
    def in_container(self) -> bool:
        """Whether this process is in a container that says so: that of podman, docker or systemd."""
        return "container" in self.environ or any(map(os.path.exists, _CONTAINER_FILES))

    def sudo_below(self, process: Process | None) -> str | None:
        """The program that changes users between a process above (None: any) and this one, if there is one."""
        between = self.above if process is None else self.above[: self.above.index(process)]
        found = next((other.program for other in between if other.program in _SUDOS), None)
        if found is not None or "SUDO_COMMAND" not in self.environ:
            return found
        # sudo may have become its command. A whole build that was started by sudo has the variable everywhere.
        environ = None if process is None else process.environment()
        return None if environ is not None and "SUDO_COMMAND" in environ else "sudo"

    def below(self, process: Process) -> str:
        """The process that one of those above started on the way to this one."""
        index = self.above.index(process)
        return str(self.above[index - 1]) if index else "this process"

    def line(self, auth: str) -> list[Process]:
        """The processes that handed an address down to this one, its parent first; the last is its maker."""
        for index, process in enumerate(self.above):
            if address_in(process.environment() or {}) != auth:
                return self.above[: index + 1]
        return self.above


def cause(error: FromEnvError, scene: Scene) -> Finding:
    """The reason that stands behind an error of `Client.from_env_ext`."""
    kind = error.kind
    if kind in (FromEnvErrorKind.NO_ENV_VAR, FromEnvErrorKind.NO_JOBSERVER):
        return _nothing_offered(error, scene)
    auth = address_in(scene.environ) or ""
    others = overriding(error.variable, scene)
    if others is not None:
        return others
    if kind is FromEnvErrorKind.NEGATIVE_FD:
        return Finding("missing-plus", True, error.problem, _MAKE_HIDES, _PLUS)
    if kind is FromEnvErrorKind.UNSUPPORTED:
        return _unknown_style(error, auth)
    if kind is FromEnvErrorKind.CANNOT_PARSE:
        why = "something has written or cut the value: neither make nor this package writes such an address"
        return Finding("unreadable", True, error.problem, why, f"see what sets {error.variable}, and take that out")
    if os.name == "nt":
        why = (
            "the program that made it has ended and the pool with it, or it belongs to another user or another session"
        )
        return Finding("maker-gone", True, error.problem, why, "start the build anew, as this user and in this session")
    if auth.startswith("fifo:"):
        return _bad_path(error, auth.removeprefix("fifo:"), scene)
    return _bad_descriptors(error, auth, scene)


def overriding(variable: str | None, scene: Scene) -> Finding | None:
    """The finding that a variable that is looked at first hides the jobserver of another one."""
    hidden = next((name for name in VARIABLES if name != variable and parse(scene.environ.get(name, "")).auth), None)
    # make writes MFLAGS beside MAKEFLAGS, with the same words.
    if hidden is None or variable is None or parse(scene.environ[hidden]).auth == parse(scene.environ[variable]).auth:
        return None
    auth = parse(scene.environ[variable]).auth
    return Finding(
        "overridden",
        True,
        f"{hidden} names a jobserver ({parse(scene.environ[hidden]).auth}), but {variable} "
        f"{'names none' if auth is None else f'names another one, which cannot be used ({auth})'}",
        f"programs look at {', '.join(VARIABLES)} in that order, and the first that is not empty decides",
        f"take {variable} out of the environment: `env -u {variable} COMMAND`",
    )


def _nothing_offered(error: FromEnvError, scene: Scene) -> Finding:
    """Which tool should have made a jobserver, or what took its address away."""
    found = overriding(error.variable, scene)
    if found is not None:
        return found
    giver = next((process for process in scene.above if address_in(process.environment() or {})), None)
    make = scene.make
    if make is not None and "MAKEFLAGS" in scene.environ:
        return _make_without(make, error)
    source = make or giver
    if source is not None or (not scene.above and scene.sudo_below(None)):
        return _cleared(source, error, scene)
    if error.variable is not None and parse(error.value or "").jobs is not None:
        return Finding(
            "jobs-by-hand",
            True,
            error.problem,
            f"{error.variable} was set by hand, and there is no make above this process: a -j in it asks the makes "
            f"below to make a jobserver, it is none itself",
            f"start this from a recipe of that make, or under `jobserver run -j{parse(error.value or '').jobs or 'N'}`",
        )
    return Finding(
        "not-under-a-jobserver",
        True,
        error.problem,
        (
            "nothing that makes a jobserver is above this process"
            if scene.above
            else "nothing that makes a jobserver has started this process, or the address was taken out on the way"
        )
        + (
            "; into this container variables come only by name (`docker run -e MAKEFLAGS`)"
            if scene.in_container
            else ""
        ),
        "start this from a recipe of `make -jN`, or as `jobserver run -jN -- COMMAND`",
    )


def _make_without(make: Process, error: FromEnvError) -> Finding:
    """Of a make that has no jobserver for its recipes."""
    jobs = own_jobs(make.command)
    outer = address_in(make.environment() or {})
    if jobs is not None and outer is not None:
        return Finding(
            "own-jobs",
            True,
            error.problem,
            f"{make} was started as `{make.program} {jobs}` inside a jobserver ({outer}); a -j on its command line "
            f"makes it leave that one",
            "call make without -j there: it takes its slots from the jobserver around it (`$(MAKE)` in a recipe)",
        )
    if jobs == "-j":
        return Finding(
            "make-without-limit",
            True,
            error.problem,
            f"{make} was started with a bare -j: it runs as many jobs as there are, so it has no tokens to give",
            "start it as `make -jN`, with N at least 2",
        )
    return Finding(
        "make-without-jobs",
        True,
        error.problem,
        f"{make} runs one job at a time, so it has no jobserver: it was started "
        f"{'without -j' if jobs is None else f'with {jobs}'}",
        "start it as `make -jN`, with N at least 2",
    )


def _cleared(giver: Process | None, error: FromEnvError, scene: Scene) -> Finding:
    """Of an environment from which something between a make and this process took the address."""
    sudo = scene.sudo_below(giver)
    if sudo is not None:
        return Finding(
            "environment-cleared",
            True,
            error.problem,
            f"{sudo} gives its command a new environment, and closes the descriptors of the jobserver",
            _SUDO_WRITE,
        )
    assert giver is not None, "nobody else is known to have had an address"
    return Finding(
        "environment-cleared",
        True,
        error.problem,
        f"{giver} hands MAKEFLAGS to all that it starts, but something between it and this process cleared the "
        f"environment (`env -i`, a tool that gives its commands a clean one)",
        "let MAKEFLAGS and CARGO_MAKEFLAGS through there (in tox `pass_env = MAKEFLAGS`, in Python "
        "`env={**os.environ, …}`)",
    )


def _unknown_style(error: FromEnvError, auth: str) -> Finding:
    if ":" in auth:
        why = "a newer make, or another tool, made a jobserver of a style that this version does not know"
        write = "ask that tool for another style (`make --jobserver-style=fifo`), or install a newer jobserver-ffi"
        return Finding("unknown-style", True, error.problem, why, write)
    if os.name == "nt":
        return Finding("unknown-style", True, error.problem, error.mend, "use a make for Windows, not one of MSYS")
    return Finding(
        "windows-name",
        True,
        error.problem,
        "a make for Windows writes such names; they mean nothing on this system, not under WSL either",
        f"start this from a make of this system, or take {error.variable} out of the environment: "
        f"`env -u {error.variable} COMMAND`",
    )


def _bad_path(error: FromEnvError, path: str, scene: Scene) -> Finding:
    """Of a fifo that cannot be opened."""

    def found(name: str, why: str, write: str) -> Finding:
        return Finding(name, True, error.problem, why, write)

    if error.kind is FromEnvErrorKind.NOT_A_PIPE:
        return found("not-a-fifo", "another file was put at that path", "start the build anew")
    if error.kind is not FromEnvErrorKind.CANNOT_OPEN_PATH:
        return found("unusable", error.problem, error.mend)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return _missing_path(found, path, scene)
    except PermissionError:
        sudo = scene.sudo_below(scene.make)
        changed = f" ({sudo} changed the user)" if sudo else ""
        return found(
            "no-permission",
            f"the fifo is another user's, and this process runs as user {os.geteuid()}{changed}",
            f"run this as the user who started the build; or {_SUDO_WRITE}",
        )
    except OSError:
        pass
    return found("unusable", "see the system's error", error.mend)


def _missing_path(found: Callable[[str, str, str], Finding], path: str, scene: Scene) -> Finding:
    """Of a fifo that is not there: or is it, for others?"""
    outside = next((process for process in scene.above if process.sees(path)), None)
    directory = os.path.dirname(path)
    mount = f"make the directory visible here, at the same path (`docker run -v {directory}:{directory} …`)"
    if outside is not None:
        why = f"{outside}, above this process, sees the fifo; this process is in a container or chroot where it is not"
        return found("path-not-here", why, mount)
    return found(
        "maker-gone",
        "the program that made this jobserver has ended and removed it, or it was made outside of a container and this "
        f"process is inside{' (which it is)' if scene.in_container else ''}",
        f"start the build anew; in a container, {mount}",
    )


def _bad_descriptors(error: FromEnvError, auth: str, scene: Scene) -> Finding:
    """Of descriptors that are closed, or are something else."""
    read_fd, write_fd = map(int, auth.split(","))
    line = scene.line(auth)
    holder = next((process for process in line if process.pool_at(read_fd, write_fd)), None)
    if _all_open(read_fd, write_fd):
        return Finding(
            "another-file",
            True,
            error.problem,
            "the descriptor was closed on the way to this process and its number was taken for another file"
            + (f"; {holder} has the jobserver there" if holder else ""),
            _PLUS if holder is None or is_make(holder.program) else "hand it on, in Python with `pass_fds`",
        )
    name, why, write = _who_closed(holder, read_fd, write_fd, scene)
    return Finding(name, True, error.problem, why, write)


def _all_open(*descriptors: int) -> bool:
    try:
        for descriptor in descriptors:
            os.fstat(descriptor)
    except OSError:
        return False
    return True


def _who_closed(holder: Process | None, read_fd: int, write_fd: int, scene: Scene) -> tuple[str, str, str]:
    """The name of the finding, the reason, and what to write; `holder` is the last that had them open."""
    if holder is not None:
        here = f"{holder} has the jobserver open, and {scene.below(holder)}, which it started, has not"
        if is_make(holder.program):
            return "missing-plus", f"{here}; {_MAKE_HIDES}", _PLUS
        if holder.program.startswith(("python", "pypy")):
            write = (
                f"in that program `subprocess.run(COMMAND, pass_fds=({read_fd}, {write_fd}))`, or with this package "
                f"`Client.from_env().run(COMMAND)`"
            )
            return "closed-by-python", f"{here}; {_PYTHON_CLOSES}", write
        if scene.sudo_below(holder) is None:
            write = f"have {holder} keep the descriptors open for what it starts"
            return "descriptors-closed", here, write
    sudo = scene.sudo_below(holder or scene.make)
    if sudo is not None:
        return "closed-by-sudo", f"{sudo} closes all descriptors but 0, 1 and 2", _SUDO_WRITE
    return (
        "descriptors-closed",
        "one of these closed it: make, for recipe lines that neither begin with `+` nor contain `$(MAKE)`; "
        "Python's subprocess, which closes all but 0, 1 and 2 (close_fds=True is the default); sudo; on macOS, "
        "programs that use posix_spawn",
        f"{_PLUS}. In Python, `pass_fds` keeps descriptors open",
    )
