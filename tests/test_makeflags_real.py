"""MAKEFLAGS: both real makes as the judge of what is read and written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobserver_ffi.makeflags import MakeFlags, merge, parse, remove_auth

from .conftest import Tool

pytestmark = pytest.mark.needs("sh")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_make(gnu_make: Tool, tmp_path: Path) -> Run:
    """Run the make on a makefile; its `dump` shows MAKEFLAGS and FOO as a recipe gets them."""
    dump = tmp_path / "dump.py"
    dump.write_text(
        "import os; open('seen', 'wb').write(b'%s|%s' % tuple(map(os.environb.get, (b'MAKEFLAGS', b'FOO'))))"
    )

    def run(
        *arguments: str, makefile: str = "all:\n\t+@$(dump)\n", pass_fds: tuple[int, ...] = (), **environ: str
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "seen").unlink(missing_ok=True)
        (tmp_path / "Makefile").write_text(f"dump := '{sys.executable}' -S dump.py\n{makefile}")
        unwanted = ("MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "MAKELEVEL", "POSIXLY_CORRECT", "FOO")
        env = {name: text for name, text in os.environ.items() if name not in unwanted}
        env.update({"LC_ALL": "C", "FOO": "-", **environ})
        return subprocess.run(
            [gnu_make.path, *arguments],
            cwd=tmp_path,
            env=env,
            pass_fds=pass_fds,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=120,
            check=False,
        )

    return run


def seen(tmp_path: Path) -> tuple[str, str]:
    makeflags, _, foo = os.fsdecode((tmp_path / "seen").read_bytes()).rpartition("|")
    return makeflags, foo


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-j3"], MakeFlags("X", False, 3, None)),
        (["-j3", "-k", "-l2.5", "-s"], MakeFlags("X", False, 3, 2.5)),
        (["-j3", "-kn"], MakeFlags("X", True, 3, None)),
        (["-j3", "-l1000000", "-Orecurse", "-In", "-I", "a b", "-Wx", "--trace"], MakeFlags("X", False, 3, 1e6)),
        (["-j3", "FOO=--jobserver-auth=9,9", "BAR=n -n\n--jobserver-auth=9,9"], MakeFlags("X", False, 3, None)),
        (["-j3", "--eval=FOO = a --jobserver-auth=9,9 $$"], MakeFlags("X", False, 3, None)),
        (["-j"], MakeFlags(None, False, 0, None)),
        (["-n"], MakeFlags(None, True, None, None)),
        ([], MakeFlags(None, False, None, None)),
        (["FOO=n"], MakeFlags(None, False, None, None)),
    ],
)
@pytest.mark.parametrize("style", ["default", "pipe"])
def test_what_make_writes(
    gnu_make: Tool, run_make: Run, tmp_path: Path, style: str, arguments: list[str], expected: MakeFlags
) -> None:
    is_fifo = gnu_make.version >= (4, 4)
    if style == "pipe" and is_fifo:
        arguments = ["--jobserver-style=pipe", *arguments]
    odd = tmp_path / "a b\\c"
    odd.mkdir()
    result = run_make(*arguments, TMPDIR=str(odd))
    assert result.returncode == 0, result.stderr
    flags = parse(seen(tmp_path)[0])
    if expected.auth is not None:
        auth = rf"fifo:{re.escape(str(odd))}/\w+" if is_fifo and style == "default" else r"\d+,\d+"
        assert flags.auth is not None and re.fullmatch(auth, flags.auth)
        expected = MakeFlags(flags.auth, expected.dry_run, expected.jobs, expected.load)
    assert flags == expected


def told(result: subprocess.CompletedProcess[str]) -> str | None:
    """The jobserver that make read: neither make knows these, both name them."""
    match = re.search("invalid --jobserver-auth string '([^']*)'", result.stderr)
    return match[1] if match else None


# 4.4.1 stops at a flag that it does not know and at a word that is none, 4.3 does not.
REFUSED = [
    " -I",
    "kI",
    "\\kI",
    " -k\\",
    " -k -f",
    " --jobserver-auth",
    " -j4 k --jobserver-auth=zz",
    " -j --jobserver-auth=zz 5",
    " -j5x --jobserver-auth=zz",
    " --jobserver=yy --jobserver-auth=zz",
]
READ = [
    "",
    " -k",
    " -j3 --jobserver-auth=zz",
    "k --jobserver-auth=zz -s",
    "kj3 --jobserver-auth=zz",
    "kj 3 --jobserver-auth=zz",
    "-j\t3\t\t--jobserver-auth=zz",
    "\n\v k --jobserver-auth=zz",
    " --jobserver-auth=y --jobserver-auth=zz",
    " --jobserver-fds=y --jobserver-auth=zz",
    " --jobserver-fds=y --jobserver-fds=zz",
    " --jobserver-fds zz",
    " --jobserver-au=zz",
    " -j3 --jobserver-auth=z\\ z\\\\z\\zz$$z\\$$\\\tz",
    " -j3 --jobserver-auth=z\nz",
    " -j3 --jobserver-auth=z\u00a0z\udca0",
    " -j3 --jobserver-auth=zz\\",
    " -j3 --jobserver-auth=zz$",
    " A=1 --jobserver-auth=zz -- B=2 --jobserver-auth=9",
    "A=--jobserver-auth=9 -- --jobserver-auth=9",
    " -- --jobserver-auth=9",
    " -I --jobserver-auth=9",
    "kI --jobserver-auth=9",
    " -I -- --jobserver-auth=zz -- A=1",
    " --include-dir --jobserver-auth=9",
    " --eval --jobserver-auth=9",
    " -W --jobserver-auth=9 -o --jobserver-auth=9",
    " -O --jobserver-auth=zz",
    " -j --jobserver-auth=zz",
    " -l --jobserver-auth=zz",
    " --jobs --jobserver-auth=zz",
    " - --jobserver-auth=zz",
    " --jobserver-auth=zz -\\- --jobserver-auth=9",
    " A=1\\",
    " A=1$",
]


@pytest.mark.parametrize("value", READ)
def test_reads_as_make_does(run_make: Run, value: str) -> None:
    assert told(run_make(MAKEFLAGS=value)) == parse(value).auth


@pytest.mark.parametrize("value", READ + REFUSED)
def test_make_reads_what_was_merged(run_make: Run, value: str) -> None:
    refuses = "Usage:" in run_make(MAKEFLAGS=value).stderr
    for auth in ("zz1", "z z\\\t$y$$\\z\n\u00e4\udcff"):
        for jobs in (None, 3):
            result = run_make(MAKEFLAGS=merge(value, auth, jobs))
            assert told(result) == auth or (refuses and "Usage:" in result.stderr), result.stderr


@pytest.mark.parametrize("value", [v for v in READ + REFUSED if "zz" in v])
def test_make_sees_no_jobserver_once_removed(run_make: Run, value: str) -> None:
    before = run_make(MAKEFLAGS=value)
    assert told(before) is not None or "Usage:" in before.stderr
    assert told(run_make(MAKEFLAGS=remove_auth(value))) is None


@pytest.mark.parametrize(
    "value",
    [
        *(
            "n",
            " n",
            "kn",
            "\tkn",
            " -n",
            " --dry-run",
            " --dry",
            " --just-print",
            " --recon",
            "kWn",
            "kW n",
            " -- n=1",
        ),
        *(" -j4", " -j 4", "j4", "kj 4", " -j4 -j", " --jobs=4", " --jobs 4", " -j004", " -j2 -j4", " -Ikn", " -I -n"),
        *(" -l2.5", " -l 2.5", " -l .5", " -l2 -l", " -l-1", " -l1e1", " --load-average=3", " --max-load 3", " -l+2"),
        *("kln", " -Oline", "n=1", "n\\=1", " -l 2 -j 3 -- A=1"),
    ],
)
def test_other_flags_are_read_as_make_does(run_make: Run, tmp_path: Path, value: str) -> None:
    result = run_make(MAKEFLAGS=value)
    assert result.returncode == 0, result.stderr
    by_make = parse(seen(tmp_path)[0])
    flags = parse(value)
    if value == "kln":  # Make takes a load that is no number for 0, which nobody can want.
        assert (flags.load, by_make.load) == (None, 0.0)
    else:
        assert flags == MakeFlags(flags.auth, by_make.dry_run, by_make.jobs, by_make.load)


MEETING = """
all: a b c d e f
	+@$(dump)
a b c d e f:
	@echo S >> log; for i in $$(seq 200); do \\
		test $$(grep -c S log) -ge 3 && echo E >> log && exit 0; sleep 0.05; done; exit 1
"""


def peak(log: Path) -> int:
    running = most = 0
    for line in log.read_text().split():
        running += 1 if line == "S" else -1
        most = max(most, running)
    return most


MERGED = pytest.mark.parametrize(
    ("value", "jobs"),
    [
        (value, jobs)
        for value in ("", "k -j9 --jobserver-auth=98,99 -- FOO=1", "j2", " -j1 -k")
        for jobs in (3, 0, None)
    ],
)


def obeys(run_make: Run, tmp_path: Path, auth: str, pool: tuple[int, int], value: str, jobs: int | None) -> None:
    """A make that is handed the merged value runs as many jobs as the pool has tokens, and one."""
    read, write = pool
    os.write(write, b"xy")
    result = run_make(makefile=MEETING, pass_fds=(read, write), MAKEFLAGS=merge(value, auth, jobs))
    assert (result.returncode, result.stderr) == (0, "")
    assert os.read(read, 100) == b"++"  # all came back, but both makes write `+` whatever they have read
    assert peak(tmp_path / "log") == 3  # two tokens and the implicit slot; each job waits until three have begun


@MERGED
def test_make_obeys_what_was_merged(run_make: Run, tmp_path: Path, value: str, jobs: int | None) -> None:
    read, write = os.pipe()
    try:
        obeys(run_make, tmp_path, f"{read},{write}", (read, write), value, jobs)
        assert parse(seen(tmp_path)[0]).auth == f"{read},{write}"
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("gnu_make", ["4.4.1"], indirect=True)
@MERGED
def test_make_obeys_a_fifo_that_was_merged(run_make: Run, tmp_path: Path, value: str, jobs: int | None) -> None:
    path = tmp_path / "a b$c"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        obeys(run_make, tmp_path, f"fifo:{path}", (descriptor, descriptor), value, jobs)
        assert "fifo:" in (parse(seen(tmp_path)[0]).auth or "")  # 4.4.1 does not escape `$` in what it hands on
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "foo", ["a b $$x", "a\\b\tc  ", "--jobserver-auth=9,9", "a\n-n", "$$$$x", "\\", "-- -n", "\u00e4 \udcff"]
)
def test_variables_and_keep_going_survive(run_make: Run, tmp_path: Path, foo: str) -> None:
    outer = run_make("-k", "-j2", "-I", "in c", f"FOO={foo}")
    assert outer.returncode == 0, outer.stderr
    makeflags, exported = seen(tmp_path)
    assert exported == foo.replace("$$", "$")
    read, write = os.pipe()
    try:
        merged = merge(makeflags, f"{read},{write}", 5)
        makefile = "all: bad good\nbad:\n\t@false\ngood:\n\t+@$(dump)\n"
        inner = run_make(makefile=makefile, pass_fds=(read, write), MAKEFLAGS=merged)
    finally:
        os.close(read)
        os.close(write)
    assert inner.returncode == 2
    assert seen(tmp_path) == (merged, exported)  # the make hands on exactly what it was handed


def test_dry_run_survives(run_make: Run, tmp_path: Path) -> None:
    makefile = "all:\n\t@touch made\n\t+@$(dump)\n"
    read, write = os.pipe()
    try:
        merged = merge("nk", f"{read},{write}", 5)
        result = run_make(makefile=makefile, pass_fds=(read, write), MAKEFLAGS=merged)
    finally:
        os.close(read)
        os.close(write)
    assert result.returncode == 0
    assert not (tmp_path / "made").exists()
    assert parse(seen(tmp_path)[0]) == MakeFlags(f"{read},{write}", True, 5, None)
