"""`jobserver doctor` for tests: run in recipes of real makes, and compared with what it should say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .command import Running
from .conftest import PATH, Tool, missing

DOCTOR = [sys.executable, "-m", "jobserver_ffi.cli", "doctor", "--no-tools"]
GOLDEN = Path(__file__).parent / "doctor"

# What a doctor runs as that first changes its user or its root directory. It is run once before, so that all that it
# needs is loaded: that user may not be able to read it, and that directory is empty.
AS_ANOTHER = """\
import contextlib, os, sys
from jobserver_ffi.cli import main
sys.argv[1:] = ["doctor", "--no-tools", *sys.argv[1:]]
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    main()
{change}
sys.exit(main())
"""


def doctor_after(change: str) -> list[str]:
    """The command of a doctor whose process first changes itself."""
    return [sys.executable, "-c", AS_ANOTHER.format(change=change)]


BECOME_ANOTHER = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"


def need_root() -> None:
    if os.geteuid() != 0:
        missing("root, to become another user")


def need_sudo() -> str:
    need_root()
    return shutil.which("sudo", path=PATH) or missing("sudo")


def python_script(directory: Path, program: str, name: str = "program.py") -> str:
    """The command, for a shell, of a piece of Python."""
    (directory / name).write_text(program)
    return shlex.join([sys.executable, str(directory / name)])


class Seen:
    """What a doctor said, twice: as JSON and as text.

    Attributes:
        status: The exit status, of both.
        found: The JSON.
        text: The text, without what is different each time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.found: dict[str, Any] = json.loads((directory / "json").read_text())
        self.text = plain((directory / "text").read_text(), directory)
        statuses = [int((directory / f"{name}.status").read_text()) for name in ("json", "text")]
        assert statuses[0] == statuses[1]
        self.status = statuses[0]

    @property
    def names(self) -> list[str]:
        """The names of the findings."""
        return [finding["name"] for finding in self.found["findings"]]

    def check(self, golden: str) -> None:
        """Compares it with the files of that name; with JOBSERVER_FFI_GOLDEN=write it makes them."""
        found = plain(json.dumps(self.found, indent=2), self.directory) + "\n"
        for suffix, seen in (("json", found), ("txt", self.text)):
            path = GOLDEN / f"{golden}.{suffix}"
            if os.environ.get("JOBSERVER_FFI_GOLDEN") == "write":
                path.write_text(seen)
            assert seen == path.read_text()
        assert self.status == (0 if self.found["usable"] else 1)


def plain(text: str, directory: Path) -> str:
    """A text without what is different each time: processes, paths, names of Pythons, and where lines are broken."""
    for pattern, fixed in (
        (r"(?<=[^\n])\n {12}(?=\S)", " "),
        (r"(?<=[^\n])\n(?=[^\s{}\"])(?!NOTE|PROBLEM)", " "),
        (re.escape(str(directory)), "DIRECTORY"),
        (r"process \d+", "process N"),
        (r"GMfifo\d+", "GMfifoN"),
        (r"`python[\d.]*`", "`python`"),
        (r" \(which it is\)", ""),
        (r"; into this container variables .*MAKEFLAGS`\)", ""),
        (r"\b1\.13\.\d+", "1.13.N"),
    ):
        text = re.sub(pattern, fixed, text)
    return text


def shell(doctor: list[str], before: str = "") -> str:
    """A shell script that runs a doctor for JSON and for text in the working directory; `before` stands before it."""
    once = before + shlex.join(doctor)
    return "; ".join(
        f"{once} {option} > {name}; echo $? > {name}.status" for name, option in (("json", "--json"), ("text", ""))
    )


def in_recipe(
    make: Tool, arguments: str, script: str, directory: Path, prefix: str = "+", environ: dict[str, str] | None = None
) -> Seen:
    """Runs a doctor's script in a recipe.

    Args:
        make: Which make.
        arguments: Its arguments.
        script: What the recipe's shell runs, as `shell` makes it.
        directory: Where the makefile is put.
        prefix: What stands before the recipe's line.
        environ: Variables for that make, beside those of this process.
    """
    (directory / "script").write_text(script + "\n")
    (directory / "Makefile").write_text(f"all:\n\t{prefix}@sh script; true\n")
    # make 4.4 and newer put their fifo there.
    environ = {**os.environ, "TMPDIR": str(directory), **(environ or {})}
    with Running([make.path, *shlex.split(arguments)], cwd=directory, env=environ, stdin=subprocess.DEVNULL) as running:
        running.finish()
    return Seen(directory)


def alone(directory: Path, environ: dict[str, str], doctor: list[str] = DOCTOR) -> Seen:
    """Runs a doctor below no make, whatever started the tests: its parent ends before."""
    detach = "import os, sys\nif os.fork():\n    os._exit(0)\nos.execvp('sh', ['sh', '-c', sys.argv[1]])"
    command = [sys.executable, "-I", "-S", "-c", detach, shell(doctor)]
    with Running(command, cwd=directory, env={**os.environ, **environ}) as running:
        running.finish()  # The doctor has the other end of its output open until it has ended.
    return Seen(directory)
