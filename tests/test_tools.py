"""What the command knows of make and ninja."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from jobserver_ffi.cli.messages import say
from jobserver_ffi.cli.tools import is_ninja, own_jobs
from jobserver_ffi.style import is_make, make_version, style_for

from .command import script
from .conftest import PATH, Tool


@pytest.mark.parametrize(
    "program", ["make", "gmake", "/usr/bin/make", "./make", "gnumake", "bmake", "make-4.3", "gmake4", "remake"]
)
def test_makes_are_known_by_their_name(program: str) -> None:
    assert is_make(program)


@pytest.mark.parametrize(
    "program", ["cmake", "automake", "make.sh", "makeinfo", "make/", "", "qmake", "ninja", "make-"]
)
def test_others_are_no_makes(program: str) -> None:
    assert not is_make(program)


def test_ninjas_are_known_by_their_name() -> None:
    assert is_ninja("/opt/ninja") and is_ninja("ninja-build") and not is_ninja("ninjatool")


def test_version_of_real_makes(gnu_make: Tool) -> None:
    assert make_version(gnu_make.path, {"PATH": PATH}, say) == gnu_make.version


@pytest.mark.needs("sh")
def test_version_is_asked_without_the_flags_around(tmp_path: Path) -> None:
    make = script(tmp_path / "make", '#!/bin/sh\necho "GNU Make 4.3$MAKEFLAGS$GNUMAKEFLAGS$CARGO_MAKEFLAGS"\n')
    environment = {**os.environ, "MAKEFLAGS": "1", "GNUMAKEFLAGS": "2", "CARGO_MAKEFLAGS": "3"}
    assert make_version(str(make), environment, say) == (4, 3)


@pytest.mark.needs("sh")
@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("echo GNU Make 4.4", (4, 4)),
        ("echo GNU Make 4.4.0.91", (4, 4, 0, 91)),
        ("echo GNU Make 10.1", (10, 1)),
        ("echo bmake 20230909", ()),
        ("echo 'make: unknown option' >&2; exit 2", ()),
        ("echo GNU Make", ()),
        ("printf '\\377'", ()),
    ],
)
def test_version_as_it_is_answered(answer: str, version: tuple[int, ...], tmp_path: Path) -> None:
    make = script(tmp_path / "make", f"#!/bin/sh\n{answer}\n")
    assert make_version(str(make), dict(os.environ), say) == version


def test_version_of_what_is_not_there(tmp_path: Path) -> None:
    assert make_version(str(tmp_path / "make"), {}, say) is None


@pytest.mark.needs("sh")
def test_make_that_does_not_answer_is_given_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobserver_ffi.style._LONGEST_ANSWER", 0.01)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    make = script(tmp_path / "make", f"#!/bin/sh\nread line < {shlex.quote(str(fifo))}\n")
    assert style_for([str(make)], dict(os.environ), say) == "pipe"
    assert capfd.readouterr().err == (
        f"jobserver: `{make} --version` gave no answer in 0.01 s: using a pipe; name a style\n"
    )


@pytest.mark.parametrize(
    ("of_command", "in_path", "style"),
    [
        ("GNU Make 4.4", "GNU Make 4.3", "fifo"),
        ("GNU Make 4.3", "GNU Make 4.4", "pipe"),
        ("another make", "GNU Make 4.4", "pipe"),
        ("GNU Make 3.82", None, "pipe"),
        (None, "GNU Make 4.4.1", "fifo"),
        (None, "GNU Make 4.2.1", "pipe"),
        (None, "another make", "pipe"),
        (None, None, "fifo"),
    ],
)
def test_style(of_command: str | None, in_path: str | None, style: str, tmp_path: Path) -> None:
    """A make that is the command decides, else the make in PATH."""
    for place, version in (("own", of_command), ("path", in_path)):
        (tmp_path / place).mkdir()
        if version is not None:
            script(tmp_path / place / "make", f"#!/bin/sh\necho {version}\n")
    command = ["tool"] if of_command is None else [str(tmp_path / "own" / "make")]
    assert style_for(command, {"PATH": str(tmp_path / "path")}, say) == style


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ("make -j", "-j"),
        ("make -j4", "-j4"),
        ("make -j 4", "-j4"),
        ("make -j all", "-j"),
        ("make --jobs", "-j"),
        ("make --jobs=4", "-j4"),
        ("make --jobs 4", "-j4"),
        ("make -kj4", "-j4"),
        ("make -kj 4", "-j4"),
        ("make all -j4", "-j4"),
        ("make CC=gcc -j4", "-j4"),
        ("make -C dir -j4", "-j4"),
        ("make -C '' -j4", "-j4"),
        ("make -f 'my file' -j2 -j3", "-j3"),
        ("/usr/bin/gmake -j4", "-j4"),
        ("ninja -j4", "-j4"),
        ("ninja -j 4", "-j4"),
        ("ninja -vj4", "-j4"),
        ("ninja -C dir all -j0", "-j0"),
        ("ninja -k 0 --quiet -j4", "-j4"),
    ],
)
def test_own_jobs(words: str, jobs: str) -> None:
    assert own_jobs(shlex.split(words)) == jobs


@pytest.mark.parametrize(
    "words",
    [
        "make",
        "make -k",
        "make -C j4",
        "make -Cj4",
        "make -C -j4",
        "make -f -j",
        "make -If -j4x",
        "make -- -j4",
        "make --directory -j4",
        "make -l 4",
        "make -l4",
        "make -Oj4",
        "make jobs",
        "make X=-j4",
        "make 'X -j4'",
        "ninja",
        "ninja -C j4",
        "ninja -Cj4",
        "ninja -f -j4",
        "ninja -k 4",
        "ninja -- -j4",
        "ninja -t clean -j4",
        "ninja -d stats",
        "ninja j4",
        "cargo -j4",
        "cmake -j4",
        "sh -c 'make -j4'",
    ],
)
def test_no_jobs_of_its_own(words: str) -> None:
    assert own_jobs(shlex.split(words)) is None
