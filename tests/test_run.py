"""`jobserver run`: what a command sees of it, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobserver_ffi.cpus import usable_cpus
from jobserver_ffi.makeflags import parse

from .command import JOBSERVER, Done, Running, descriptors_of, python, run, script
from .conftest import missing

pytestmark = pytest.mark.needs("sh")

# A command that tells what it sees of its surroundings.
WITNESS = """\
import json, os, sys
told = {"arguments": sys.argv[1:], "environment": dict(os.environ), "group": os.getpgrp(), "parent": os.getppid()}
if os.path.isdir("/proc/self/fd"):
    # The listing's own descriptor is closed again.
    told["descriptors"] = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
with os.fdopen(int(os.environ.get("TELL", 1)), "w") as out:
    json.dump(told, out)
"""


def witness(*words: str, command: list[str] | None = None, **popen_kwargs: Any) -> dict[str, Any]:
    """What a command under `jobserver run WORDS` sees; it must end well, with nothing on stderr."""
    done = run(*words, *(python(WITNESS) if command is None else command), **popen_kwargs)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(params=["own", "joined", "broken"])
def around(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """How to start the command so that it makes a jobserver, joins one, and finds one that cannot be used."""
    pool, other = socket.socketpair()
    number = pool.fileno() if request.param == "joined" else 99
    given = {} if request.param == "own" else {"MAKEFLAGS": f"--jobserver-auth={number},{number}"}
    with pool, other:
        yield {"env": {**os.environ, **given}, "pass_fds": (pool.fileno(),)}


@pytest.fixture
def proc() -> None:
    """Skips where a process cannot look at itself."""
    if not os.path.isdir("/proc/self/fd"):
        missing("/proc")


# Status


@pytest.mark.parametrize("status", [0, 1, 3, 70, 255])
def test_status_is_the_commands(status: int) -> None:
    done = run("sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.needs("signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGSEGV", "SIGPIPE"])
def test_status_of_a_command_that_a_signal_ended(name: str) -> None:
    number = signal.Signals[name]
    assert run("sh", "-c", f"kill -{number} $$").returncode == 128 + number


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("no-such-program", 127, "there is no such program in PATH"),
        ("./no-such-program", 127, "No such file or directory"),
        ("", 127, "there is no such program in PATH"),
        (".", 126, "Permission denied"),
        ("./plain", 126, "Permission denied"),
        ("plain", 126, "Permission denied"),
        ("./plain/below", 126, "Not a directory"),
        ("./orphan", 127, "the interpreter that its first line or its header names does not exist"),
    ],
)
def test_command_that_cannot_be_run(
    around: dict[str, Any], name: str, status: int, reason: str, tmp_path: Path
) -> None:
    """The status is the one that `env` ends with."""
    script(tmp_path / "plain", "exit 0\n", 0o644)
    script(tmp_path / "orphan", "#!/no/such/interpreter\n")
    around["env"]["PATH"] = f"{tmp_path}:/bin:/usr/bin"
    assert subprocess.run(["env", name], cwd=tmp_path, capture_output=True, **around).returncode == status
    done = run("--", name, cwd=tmp_path, **around)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == f"jobserver: cannot run `{name}`: {reason}"


def test_name_in_a_message_is_on_one_line_and_not_too_long(around: dict[str, Any]) -> None:
    for name in ("no\nsuch\x1b[31m", "no" * 1000, "no\udcff"):
        done = run("--", name, **around)
        assert done.returncode in (126, 127)
        assert all(line.isprintable() and len(line) < 500 for line in done.stderr.splitlines())
        assert done.stderr.splitlines()[-1].startswith("jobserver: cannot run `")


@pytest.mark.parametrize("name", ["./list", "list"])
def test_script_without_interpreter_is_run_by_a_shell(name: str, tmp_path: Path) -> None:
    """As execvp does it, so `env` and make too."""
    script(tmp_path / "list", 'echo "$0" "$@"\n')
    done = run("-j2", name, "a b", "-c", cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:/bin:/usr/bin"})
    place = "." if name.startswith(".") else tmp_path
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{place}/list a b -c\n", "")


def test_forbidden_place_in_path_hides_no_later_one(tmp_path: Path) -> None:
    script(tmp_path / "echo", "exit 1\n", 0o644)
    done = run("echo", "found", env={**os.environ, "PATH": f"{tmp_path}:{tmp_path}/no:/bin:/usr/bin"})
    assert (done.returncode, done.stdout) == (0, "found\n")


# Arguments


@pytest.mark.parametrize(
    ("words", "limit", "arguments"),
    [
        (["-j3"], 3, []),
        (["-j", "3"], 3, []),
        (["--jobs=3"], 3, []),
        (["--jobs", "03"], 3, []),
        (["-j1"], 1, []),
        ([], usable_cpus(), []),
        (["--"], usable_cpus(), ["--"]),
        (["--", *[]], usable_cpus(), ["-j2", "--style", "x", "--check", "-k"]),
        (["-j3", "--check", "--style", "pipe"], 3, ["-j2", "--jobs", "2", "--", "--help"]),
        (["-j3", "--style=auto", "--"], 3, ["--version", "--", "-h"]),
    ],
)
def test_arguments(words: list[str], limit: int, arguments: list[str]) -> None:
    """What stands behind CMD is CMD's."""
    told = witness(*words, command=[*python(WITNESS), *arguments])
    assert told["arguments"] == arguments
    flags = parse(told["environment"]["MAKEFLAGS"])
    assert (flags.jobs, flags.auth is None) == (limit, False)
    assert told["environment"]["CARGO_MAKEFLAGS"] == told["environment"]["MAKEFLAGS"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-j0 make", "argument -j/--jobs: '0' is no number of slots: give a whole number from 1 on"),
        ("-j 0 make", "'0' is no number of slots"),
        ("-j -1 make", "'-1' is no number of slots"),
        ("-j-1 make", "'-1' is no number of slots"),
        ("-j make", "'make' is no number of slots"),
        ("-j 1.5 make", "'1.5' is no number of slots"),
        ("-j ² make", "'²' is no number of slots"),
        ("-j ٣ make", "'٣' is no number of slots"),
        ("--jobs= make", "'' is no number of slots"),
        (f"-j{'9' * 5000} make", "slots are more than a pipe can hold: give a smaller number"),
        ("-j", "expected one argument"),
        ("", "no CMD given: name the command to run, as in `jobserver run -j4 make`"),
        ("-j4", "no CMD given"),
        ("--check --", "no CMD given"),
        ("-4 make", "unrecognized arguments: -4"),
        ("--chek make", "unrecognized arguments: --chek"),
        ("--che make", "unrecognized arguments: --che"),
        ("--version", "unrecognized arguments: --version"),
        ("--style make", "argument --style: invalid choice: 'make'"),
        ("--style semaphore make", "argument --style: invalid choice: 'semaphore'"),
    ],
)
def test_wrong_arguments(words: str, message: str) -> None:
    done = run(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    usage, error = done.stderr.splitlines()
    assert usage == "usage: jobserver run [OPTION ...] [--] CMD [ARGUMENT ...] [--- CMD ...]..."
    assert error.startswith("jobserver run: error: ") and message in error
    assert len(error) < 400


def test_no_subcommand() -> None:
    with Running(JOBSERVER) as running:
        done = running.finish()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("jobserver: error: the following arguments are required: SUBCOMMAND\n")


def test_unknown_subcommand() -> None:
    with Running([*JOBSERVER, "runn", "make"]) as running:
        done = running.finish()
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'runn' (choose from" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["run", "-h", "make"]])
def test_help(words: list[str]) -> None:
    with Running([*JOBSERVER, *words]) as running:
        done = running.finish()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: jobserver ")


def test_version() -> None:
    from importlib.metadata import version

    with Running([*JOBSERVER, "--version"]) as running:
        done = running.finish()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"jobserver {version('jobserver-ffi')}\n", "")


def test_importing_the_package_imports_no_subcommand() -> None:
    program = "import sys, jobserver_ffi.cli; print(*sys.modules)"
    with Running([sys.executable, "-c", program]) as running:
        imported = running.finish().stdout.split()
    assert not {"argparse", "jobserver_ffi.cli.run"} & set(imported) and "jobserver_ffi.cli" in imported


# What the command inherits


def test_environment_is_the_callers() -> None:
    """But for the variables; LC_CTYPE is one that Python sets for itself in the C locale."""
    environment = {"PATH": os.defpath, "WORD": "a b", "BYTES": os.fsdecode(b"\xff\xfe")}
    for given in (environment, {**environment, "LC_CTYPE": "C"}, {**environment, "LC_CTYPE": "C.UTF-8"}):
        done = run("-j3", "env", "-0", env=given, errors="surrogateescape")
        told = dict(entry.split("=", 1) for entry in done.stdout.split("\0")[:-1])
        flags = {told.pop("MAKEFLAGS"), told.pop("CARGO_MAKEFLAGS")}
        assert told == given and len(flags) == 1


def test_flags_around_are_kept() -> None:
    given = {
        **os.environ,
        "MAKEFLAGS": "ks -j7 -- CC=my\\ cc",
        "CARGO_MAKEFLAGS": "-j --jobserver-fds=98,99 --jobserver-auth=98,99",
        "MFLAGS": "-ks -j7 --jobserver-auth=98,99",
    }
    done = run("-j3", *python(WITNESS), env=given)
    environment = json.loads(done.stdout)["environment"]
    auth = parse(environment["MAKEFLAGS"]).auth
    assert environment["MAKEFLAGS"] == f"ks -j3 --jobserver-auth={auth} -- CC=my\\ cc"
    assert environment["CARGO_MAKEFLAGS"] == f" -j3 --jobserver-auth={auth}"
    assert environment["MFLAGS"] == "-ks"


def test_standard_streams_and_directory_are_the_callers(tmp_path: Path) -> None:
    done = run("sh", "-c", "cat; pwd; echo wrong >&2", given="through\n", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"through\n{tmp_path}\n", "wrong\n")


@pytest.mark.usefixtures("proc")
@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_descriptors_are_the_callers_and_the_advertised_ones(style: str) -> None:
    with open(os.devnull) as file:
        told = witness("-j3", "--style", style, pass_fds=(file.fileno(),))
        auth = parse(told["environment"]["MAKEFLAGS"]).auth or ""
        advertised = [] if style == "fifo" else [int(number) for number in auth.split(",")]
        assert sorted(told["descriptors"]) == sorted([0, 1, 2, file.fileno(), *advertised])


@pytest.mark.usefixtures("proc")
@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_closed_standard_descriptors_stay_closed(style: str) -> None:
    """A pool must not get their numbers: what a tool prints would become tokens."""
    read_fd, write_fd = os.pipe()
    command = [*JOBSERVER, "run", "-j3", "--check", "--style", style, *python(WITNESS)]
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    with Running(closing, pass_fds=(write_fd,), env={**os.environ, "TELL": str(write_fd)}) as running:
        assert running.finish().returncode == 0
    os.close(write_fd)
    with os.fdopen(read_fd) as out:
        told = json.load(out)
    auth = parse(told["environment"]["MAKEFLAGS"]).auth or ""
    advertised = [] if style == "fifo" else [int(number) for number in auth.split(",")]
    assert sorted(told["descriptors"]) == sorted([write_fd, *advertised])
    assert all(number > 2 for number in advertised)


@pytest.mark.usefixtures("proc")
def test_signals_are_set_as_the_caller_had_them(around: dict[str, Any]) -> None:
    ignored = [int(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2, signal.SIGCONT)]
    caller = (
        f"import os, signal, sys\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])\n"
        f"for number in {ignored}: signal.signal(number, signal.SIG_IGN)\n"
        f"for number in signal.SIGPIPE, signal.SIGXFSZ: signal.signal(number, signal.SIG_DFL)\n"
        f"os.execvp(sys.argv[1], sys.argv[1:])"
    )
    looking = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    found = []
    for command in (["env", *looking], [*JOBSERVER, "run", *looking]):
        with Running([*python(caller), *command], **around) as running:
            found.append(running.finish().stdout)
    assert found[0] == found[1] and found[0].count("\n") == 2


def test_command_is_in_the_callers_process_group() -> None:
    with Running([*JOBSERVER, "run", "-j2", *python(WITNESS)]) as running:
        told = json.loads(running.finish().stdout)
        assert (told["group"], told["parent"]) == (running.pid, running.pid)


def test_status_survives_a_stderr_that_is_gone() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    try:
        assert (
            run(
                "-j2",
                "--check",
                "--style",
                "fifo",
                "sh",
                "-c",
                "printf + > ${MAKEFLAGS##*fifo:}; exit 3",
                stderr=write_fd,
            ).returncode
            == 3
        )
        assert run("-j2", "make", "-j4", "--version", stderr=write_fd).returncode == 0
    finally:
        os.close(write_fd)


@pytest.mark.parametrize("ends", ["exit 0", "exit 1", "kill -9 $$"])
def test_fifo_is_removed(ends: str, tmp_path: Path) -> None:
    given = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    looking = 'test -p "${MAKEFLAGS##*fifo:}" && echo there'
    done = run("-j2", "--style", "fifo", "sh", "-c", f"{looking}; {ends}", env=given)
    assert done.stdout == "there\n"
    assert list(tmp_path.iterdir()) == []


def prepared(preparation: str, *words: str) -> Done:
    """Runs the command in a process in which something else has been done before."""
    program = (
        f"import sys, jobserver_ffi.create, jobserver_ffi.children, jobserver_ffi.cli.supervise\n{preparation}\n"
        "sys.exit(jobserver_ffi.cli.main())"
    )
    with Running([sys.executable, "-c", program, *words]) as running:
        return running.finish()


@pytest.mark.parametrize(
    ("descriptors", "style", "status", "message"),
    [
        (4, "pipe", 125, f"cannot make a jobserver of style pipe: {os.strerror(errno.EMFILE)}"),
        (4, "fifo", 125, f"cannot make a jobserver of style fifo: {os.strerror(errno.EMFILE)}"),
        (9, "pipe", 125, f"cannot make a jobserver of style pipe: {os.strerror(errno.EMFILE)}"),
    ],
)
def test_too_few_descriptors(descriptors: int, style: str, status: int, message: str) -> None:
    preparation = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))"
    done = prepared(preparation, "run", "-j2", "--style", style, "true")
    assert (done.returncode, done.stderr) == (status, f"jobserver: {message}\n")


def test_no_place_for_a_fifo(tmp_path: Path) -> None:
    """No directory is made where one cannot be, and the message names the mend."""
    preparation = f"jobserver_ffi.create.fifo_directories = lambda _: [{str(tmp_path / 'none')!r}]"
    done = prepared(preparation, "run", "-j2", "--style", "fifo", "true")
    assert (done.returncode, done.stderr) == (
        125,
        "jobserver: cannot make a jobserver of style fifo: No such file or directory: let TMPDIR name a directory that "
        "may be written\n",
    )


def test_nothing_of_ours_stays_open(tmp_path: Path) -> None:
    """The helpers of this file leave no descriptor behind either."""
    if os.path.isdir("/proc/self/fd"):
        before = descriptors_of()
        run("true")
        assert descriptors_of() == before
