"""MAKEFLAGS: tables, and properties against a slow reference."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobserver_ffi.makeflags import MakeFlags, escape, merge, parse, remove_auth

pytestmark = pytest.mark.quick

# ---------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("value", "auth"),
    [
        ("", None),
        ("k", None),
        (" -j3 --jobserver-auth=3,4", "3,4"),
        ("--jobserver-auth=3,4", "3,4"),
        (" -j --jobserver-fds=3,4 --jobserver-auth=5,6", "5,6"),
        (" -j --jobserver-auth=5,6 --jobserver-fds=3,4", "5,6"),
        (" --jobserver-fds=1,2 --jobserver-fds=3,4", "3,4"),
        (" --jobserver-auth=1,2 --jobserver-auth=3,4", "3,4"),
        (" --jobserver-auth=1,2 --jobserver-auth=-2,-2", "-2,-2"),
        ("k\t-j3\t--jobserver-auth=3,4\t-s", "3,4"),
        (" -j3 --jobserver-auth=fifo:/a\\ b/c -- X=1", "fifo:/a b/c"),
        (" --jobserver-auth=fifo:/a\\\\\\\tb$$c$d", "fifo:/a\\\tb$c$d"),
        (" --jobserver-auth=fifo:/a\nb", "fifo:/a\nb"),
        (" --jobserver-auth=fifo:/\udcff\u00a0", "fifo:/\udcff\u00a0"),
        (" --jobserver-auth=fifo:/a\\", "fifo:/a\\"),
        (" --jobserver-auth=gmake_semaphore_1234", "gmake_semaphore_1234"),
        (" --jobserver-auth=", ""),
        (" --jobserver-auth", None),
        (" --jobserver-auth 3,4", "3,4"),
        (" --jobserver-au=3,4", "3,4"),
        (" --jobserver=3,4", None),
        (" -jobserver-auth=3,4", None),
        (" CFLAGS=--jobserver-auth=9,9", None),
        ("CFLAGS=--jobserver-auth=9,9", None),
        (" CFLAGS=x\\ --jobserver-auth=9,9", None),
        (" --jobserver-auth=3,4 -- --jobserver-auth=9,9", "3,4"),
        (" -- CFLAGS=x --jobserver-auth=9,9", None),
        (" -I --jobserver-auth=9,9", None),
        ("kI --jobserver-auth=9,9", None),
        (" --eval --jobserver-auth=9,9", None),
        (" --eval=--jobserver-auth=9,9", None),
        (" -I -- --jobserver-auth=3,4", "3,4"),
        (" -O --jobserver-auth=3,4", "3,4"),
        (" -j --jobserver-auth=3,4", "3,4"),
    ],
)
def test_auth(value: str, auth: str | None) -> None:
    assert parse(value).auth == auth


LONG_NAMES = [
    *("directory", "eval", "include-dir", "file", "makefile", "old-file", "assume-old"),
    *("what-if", "new-file", "assume-new", "jobserver-style", "sync-mutex", "temp-stdin"),
]


@pytest.mark.parametrize("name", [*(f"--{name}" for name in LONG_NAMES), *(f"-{letter}" for letter in "CEIWfo")])
def test_a_needed_argument_is_no_flag(name: str) -> None:
    assert parse(f" {name} --jobserver-auth=9,9") == MakeFlags(None, False, None, None)
    assert parse(f" {name} -n") == MakeFlags(None, False, None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("n", True),
        (" n", True),
        ("\nkn", True),
        ("kns -j3", True),
        (" -n", True),
        (" -k -sn", True),
        (" -j3 --dry-run", True),
        (" --just-print", True),
        (" --recon", True),
        (" --dry", True),
        ("", False),
        ("k n", False),
        ("n=1", False),
        ("CFLAGS=n", False),
        (" --no-print-directory", False),
        (" -- n", False),
        (" -- -n", False),
        ("-- n", False),
        ("kWn", False),
        ("kW n", False),
        (" -Ian -on -fn -Cn -En -On -ln -jn", False),
        (" -I -n", False),
    ],
)
def test_dry_run(value: str, expected: bool) -> None:
    assert parse(value).dry_run is expected


@pytest.mark.parametrize(
    ("value", "jobs", "load"),
    [
        ("", None, None),
        (" -j3 -l2.5", 3, 2.5),
        ("kj3", 3, None),
        ("j", 0, None),
        (" -j", 0, None),
        (" -j3 -j", 0, None),
        (" -j -j3", 3, None),
        (" -j 3", 3, None),
        ("kj 3", 3, None),
        (" -j 3x", 0, None),
        (" -j -l 4", 0, 4.0),
        (" --jobs=3 --load-average=1", 3, 1.0),
        (" --jobs 3 --max-load .5", 3, 0.5),
        (" --jobs", 0, None),
        (" -j2 -j0 -jx -j3x -j-1 --jobs= -j\u0663", 2, None),
        (" -j2 -j9999999999 -j" + "9" * 10_000, 2, None),
        (" -l1e+06", None, 1e6),
        (" -l2 -l", None, None),
        (" -l2 -l-1", None, None),
        (" -l2 -lx", None, None),
        (" -l1.2.3", None, None),
        (" -lnan", None, None),
        (" -- -j3 -l3", None, None),
        (" -I -j3", None, None),
    ],
)
def test_jobs_and_load(value: str, jobs: int | None, load: float | None) -> None:
    flags = parse(value)
    assert (flags.jobs, flags.load) == (jobs, load)


@pytest.mark.parametrize(
    ("value", "jobs", "expected"),
    [
        ("", 3, " -j3 --jobserver-auth=X"),
        ("", 0, " -j --jobserver-auth=X"),
        ("", None, " --jobserver-auth=X"),
        (" \n", 3, " -j3 --jobserver-auth=X"),
        ("k", 3, "k -j3 --jobserver-auth=X"),
        ("kj7", 3, "k -j3 --jobserver-auth=X"),
        ("kj 7 -s", 3, "k -s -j3 --jobserver-auth=X"),
        ("j7", 3, " -j3 --jobserver-auth=X"),
        (" -kj7", 3, " -k -j3 --jobserver-auth=X"),
        ("k -j7 --jobserver-auth=3,4", 3, "k -j3 --jobserver-auth=X"),
        ("k -j7 --jobserver-auth=3,4", None, "k -j7 --jobserver-auth=X"),
        (" -j --jobserver-fds=3,4 --jobserver-auth=3,4", 2, " -j2 --jobserver-auth=X"),
        (" -j7\t--trace  -s -- A=1 ", 3, "\t--trace  -s -j3 --jobserver-auth=X -- A=1"),
        (" -- -j7 --jobserver-auth=3,4", 3, " -j3 --jobserver-auth=X -- -j7 --jobserver-auth=3,4"),
        ("\n-- A=1", 3, " -j3 --jobserver-auth=X -- A=1"),
        ("-- A=1", 3, " -j3 --jobserver-auth=X -- A=1"),
        (" -j7 A=a\\ b\\\\", 3, " A=a\\ b\\\\ -j3 --jobserver-auth=X"),
        # What would swallow the new flags, or change its meaning beside them.
        (" -k\\", 3, " -k\\\\ -j3 --jobserver-auth=X"),
        (" A=$", 3, " A=$$ -j3 --jobserver-auth=X"),
        (" -k -I", 3, " -k -j3 --jobserver-auth=X -I"),
        ("kI", 3, " -j3 --jobserver-auth=X -kI"),
        (" \\-I", 3, " -j3 --jobserver-auth=X \\-I"),
        (" \nk", 3, " k -j3 --jobserver-auth=X"),
        ("\\kI", 3, " -j3 --jobserver-auth=X -\\kI"),
        (" --jobserver-auth", 3, " -j3 --jobserver-auth=X"),
        (" -j7 k", 3, " - k -j3 --jobserver-auth=X"),
        (" -j --jobserver-auth=3,4 5", None, " -j - 5 --jobserver-auth=X"),
        (" -l --jobserver-auth=3,4 5=", 3, " -l - 5= -j3 --jobserver-auth=X"),
        ("-j7 \nA=1", 3, " - \nA=1 -j3 --jobserver-auth=X"),
        ("\\\nj7", 3, "\\\n -j3 --jobserver-auth=X"),
        ("  -j7  -s", 3, "  -s -j3 --jobserver-auth=X"),
        ("k-j7", 3, "k- -j3 --jobserver-auth=X"),
        (" -k-j7", 3, " -k- -j3 --jobserver-auth=X"),
    ],
)
def test_merge(value: str, jobs: int | None, expected: str) -> None:
    assert merge(value, "X", jobs) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        (" -j7", " -j7"),
        ("kj7 -- --jobserver-auth=3,4", "kj7 -- --jobserver-auth=3,4"),
        (" -j7 --jobserver-auth=3,4", ""),
        ("kj7 --jobserver-auth=3,4 -s -- A=a\\ b ", "k -s -- A=a\\ b"),
        (" -l2 -j --jobserver-fds=3,4 --jobserver-auth=3,4 --trace", " -l2 --trace"),
        ("--jobserver-auth=3,4 k", " - k"),
        (" -I --jobserver-auth=3,4", " -I --jobserver-auth=3,4"),
    ],
)
def test_remove_auth(value: str, expected: str) -> None:
    assert remove_auth(value) == expected


def test_escape() -> None:
    assert escape("fifo:/a b\tc\\d$e\n") == "fifo:/a\\ b\\\tc\\\\d$$e\\\n"


def test_makeflags_is_a_value() -> None:
    flags = parse("n -j3 -l2 --jobserver-auth=3,4")
    assert repr(flags) == "MakeFlags(auth='3,4', dry_run=True, jobs=3, load=2.0)"
    assert flags == MakeFlags("3,4", True, 3, 2.0)
    for other in (("3,5", True, 3, 2.0), ("3,4", False, 3, 2.0), ("3,4", True, 4, 2.0), ("3,4", True, 3, None)):
        assert flags != MakeFlags(*other)
    assert flags != "n"
    with pytest.raises(AttributeError):
        flags.auth = None
    with pytest.raises(AttributeError):
        flags.extra = 1
    assert flags.auth == "3,4"


def test_importing_is_cheap() -> None:
    code = (
        "import sys; exec(open(sys.argv[1]).read()); print(sorted({'re', 'typing', 'enum', 'cffi'} & set(sys.modules)))"
    )
    module = sys.modules[parse.__module__].__file__
    assert module is not None
    command = [sys.executable, "-I", "-S", "-c", code, module]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


# ------------------------------------------------------------------------------------------------------ properties

_LETTERS_WITH_ARGUMENT = "CEIWfo"
_LONG_WITH_ARGUMENT = {
    *("directory", "eval", "include-dir", "file", "makefile", "old-file", "assume-old"),
    *("what-if", "new-file", "assume-new", "jobserver-auth", "jobserver-fds", "jobserver-style"),
    *("sync-mutex", "temp-stdin"),
}
_LONG_OTHER = {"jobs", "load-average", "max-load", "just-print", "dry-run", "recon"}


def full_name(name: str) -> str:
    names = _LONG_WITH_ARGUMENT | _LONG_OTHER
    matches = [n for n in names if n == name] or [n for n in names if n[: len(name)] == name]
    # Two names of one flag are as ambiguous as those of two.
    return matches[0] if len(matches) == 1 else "?"


def reference(value: str) -> tuple[list[tuple[str, str | None]], list[str]]:
    """All flags of a value in order, operands as ("", word), and the words after `--`."""
    text = re.sub(r"\$\$", "$", value).lstrip(" \t\n\v\f\r")
    words = [re.sub(r"\\(.)", r"\1", w, flags=re.S) for w in re.findall(r"(?:\\.|[^\\ \t]|\\\Z)+", text, re.S)]
    if words and "=" not in words[0] and not words[0].startswith("-"):
        words[0] = "-" + words[0]
    flags: list[tuple[str, str | None]] = []
    while words:
        word = words.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, argument = (*word[2:].split("=", 1), None)[:2]
            letters = [full_name(name or "")]
        elif word.startswith("-"):
            found = re.fullmatch(r"-([^CEIOWfjlo]*)(?:([CEIOWfjlo])(.+)?)?", word, re.S)
            assert found
            flags += [(letter, None) for letter in found[1]]
            letters, argument = [found[2]] if found[2] else [], found[3]
        else:
            flags.append(("", word))
            continue
        for letter in letters:
            if argument is None and words and _reference_takes(letter, words[0]):
                argument = words.pop(0)
            flags.append((letter, argument))
    return flags, words


def _reference_takes(flag: str, word: str) -> bool:
    if flag in ("j", "jobs"):
        return re.fullmatch("[0-9]+", word) is not None
    if flag in ("l", "load-average", "max-load"):
        return re.match("[0-9.]", word) is not None
    return flag in _LONG_WITH_ARGUMENT or flag in list(_LETTERS_WITH_ARGUMENT)


def reference_parse(value: str) -> MakeFlags:
    flags, _ = reference(value)
    jobs: int | None = None
    load: float | None = None
    for name, argument in flags:
        if name in ("j", "jobs"):
            if argument is None:
                jobs = 0
            elif re.fullmatch("[0-9]{1,9}", argument) and int(argument):
                jobs = int(argument)
        if name in ("l", "load-average", "max-load"):
            number = re.fullmatch(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", argument or "")
            load = float(number[0]) if number else None
    given_auth = [a for n, a in flags if n == "jobserver-auth" and a is not None]
    given_fds = [a for n, a in flags if n == "jobserver-fds" and a is not None]
    dry_run = any(n in ("n", "just-print", "dry-run", "recon") for n, _ in flags)
    auths = given_auth or given_fds
    return MakeFlags(auths[-1] if auths else None, dry_run, jobs, load)


def others(value: str, *, jobs: bool) -> list[tuple[str, str | None]]:
    """The flags that are not the jobserver's (nor -j, unless JOBS); a lone `-` says nothing."""
    gone = ["jobserver-auth", "jobserver-fds", *([] if jobs else ["j", "jobs"])]
    return [flag for flag in reference(value)[0] if flag[0] not in gone and flag != ("", "-")]


WORDS = st.sampled_from(
    [
        *(" --jobserver-auth=3,4", " --jobserver-auth=a\\ b", " --jobserver-fds=5,6", " --jobserver-auth"),
        *(
            " --jobserver-f=1",
            "--jobserver-auth= ",
            "k",
            "n",
            "j",
            "kj3",
            "I",
            "kI",
            "-j3",
            " -kj3",
            " -j",
            " -j 4",
            " -j x",
        ),
        *(
            " --jobs=3",
            " --jobs",
            " -l2.5",
            " -l",
            " -l 1",
            " --load-average 3",
            " -I",
            " -Ix",
            " -f",
            " -C",
            " --eval",
        ),
        *(
            " --eval=--jobserver-auth=9",
            " -O",
            " -Oline",
            " -n",
            " --dry-run",
            " --no-print-directory",
            " --trace",
            " --",
        ),
        *(" -- ", " -", " ---", " A=1", " A=a\\ --jobserver-auth=9", "3", " 3", "\\", "$", "$$", " ", "\t", "\n"),
    ]
)
SMALL = st.text(alphabet="jlnkIO-=a3. \t\n\\$\udcff", max_size=12)
VALUES = st.one_of(
    st.lists(st.one_of(WORDS, SMALL), max_size=8).map("".join),
    st.text(),
    st.text(st.characters(categories=["Cs", "L"])),
)
AUTHS = st.one_of(SMALL, st.text(st.characters(exclude_characters="\0")), st.sampled_from(["3,4", "fifo:/a b", "--"]))
JOBS = st.one_of(st.none(), st.integers(0, 999_999_999))


@given(VALUES)
@example("--d=")
@example("-j -l")
def test_parse_agrees_with_the_reference(value: str) -> None:
    assert parse(value) == reference_parse(value)


@given(VALUES, AUTHS, JOBS)
@example("$\\", "", None)
def test_merged_is_what_is_read(value: str, auth: str, jobs: int | None) -> None:
    before, after = parse(value), parse(merge(value, auth, jobs))
    assert after == MakeFlags(auth, before.dry_run, before.jobs if jobs is None else jobs, before.load)
    assert reference_parse(merge(value, auth, jobs)).auth == auth


@given(VALUES, AUTHS, JOBS)
def test_merging_twice_is_merging_once(value: str, auth: str, jobs: int | None) -> None:
    once = merge(merge(value, "9,9", 5 if jobs else jobs), auth, jobs)
    assert merge(once, auth, jobs) == once == merge(value, auth, jobs)


@given(VALUES, AUTHS, JOBS)
def test_merging_keeps_the_other_flags(value: str, auth: str, jobs: int | None) -> None:
    merged = merge(value, auth, jobs)
    assert others(merged, jobs=jobs is None) == others(value, jobs=jobs is None)
    assert reference(merged)[1] == reference(value)[1]


@given(VALUES)
def test_removing_keeps_the_other_flags(value: str) -> None:
    removed = remove_auth(value)
    assert parse(removed).auth is None
    assert remove_auth(removed) == removed
    had = any(flag in ("jobserver-auth", "jobserver-fds") for flag, _ in reference(value)[0])
    assert others(removed, jobs=not had) == others(value, jobs=not had)
    assert had or removed == value
    assert reference(removed)[1] == reference(value)[1]


@given(AUTHS)
def test_escaped_is_one_word(auth: str) -> None:
    assert reference(f" --eval={escape(auth)} -k") == ([("eval", auth), ("k", None)], [])


@pytest.mark.parametrize(
    "unit", ["\\", "$", " ", "n", "-", "\\ ", "a ", " -j", " -I", "--jobserver-auth=3,4 ", "1", " -kj3 k", "\\$ "]
)
def test_a_mebibyte_of_anything_is_read(unit: str) -> None:
    # What is not linear in time runs into the guard of the whole run.
    value = "-j" + unit * ((1 << 20) // len(unit))
    merged = merge(value, "3,4", 3)
    assert parse(merged).auth == "3,4"
    assert parse(remove_auth(value)).auth is None


def test_a_mebibyte_is_read() -> None:
    value = "k -j3 --jobserver-auth=3,4 -- " + "A=\\ \\\\ " * (1 << 18)
    assert len(value) > 1 << 20
    assert parse(value).auth == "3,4"
    assert merge(value, "5,6", None) == value.replace("3,4", "5,6").rstrip(" ")
