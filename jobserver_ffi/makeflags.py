"""Read and rewrite the value of MAKEFLAGS the way GNU make does.

The rules are the manual's ("Communicating Options to a Sub-make", "POSIX Jobserver Interaction") and, where it is
silent, what GNU make 4.3 and 4.4.1 were measured to do:
- Space and TAB separate words, a newline does not; white space of any kind is skipped in front of the first word.
- A backslash takes the next character literally, `$$` stands for `$`. Any other `$` stays as it is (make expands it).
- A first word without `-` and `=` is a bundle of letters. The word `--` ends the flags.
- Flags that need an argument take the next word for it, even `--`, where none is attached. `-j` takes only a next word
  of digits, `-l` one that starts like a number. Long names may be abbreviated.
"""

from __future__ import annotations

_BLANKS = " \t"
_LEADING = " \t\n\v\f\r"
_ESCAPED = _LEADING + "\\"
_DIGITS = "0123456789"
_AUTH = ("auth", "fds")
_WITH_ARGUMENT = "CEIOWfjlo"
_REQUIRED = ("C", "E", "I", "W", "f", "o", "auth", "fds", "other")

# The long names that mean a dry run or take an argument; of the others nothing needs to be known.
_LONG = {
    "C": "directory",
    "E": "eval",
    "I": "include-dir",
    "W": "assume-new new-file what-if",
    "f": "file makefile",
    "j": "jobs",
    "l": "load-average max-load",
    "n": "dry-run just-print recon",
    "o": "assume-old old-file",
    "auth": "jobserver-auth",
    "fds": "jobserver-fds",
    "other": "jobserver-style sync-mutex temp-stdin",
}
_SHORT = {long: short for short, names in _LONG.items() for long in names.split()}


class MakeFlags:
    """What a MAKEFLAGS value says about the jobserver; cannot be changed.

    Attributes:
        auth: the value of the last `--jobserver-auth`, else of the last `--jobserver-fds`, unescaped, or None.
        dry_run: whether recipes are only printed (`-n`).
        jobs: N of the last `-jN`; 0 for a bare `-j`, which is unlimited; None without one.
        load: N of the last `-lN`; None without one, and for a bare or negative one, which lift the limit.
    """

    __slots__ = ("auth", "dry_run", "jobs", "load")
    auth: str | None
    dry_run: bool
    jobs: int | None
    load: float | None

    def __init__(self, auth: str | None, dry_run: bool, jobs: int | None, load: float | None) -> None:
        for name, value in zip(self.__slots__, (auth, dry_run, jobs, load), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"MakeFlags cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other) if isinstance(other, MakeFlags) else NotImplemented

    def __repr__(self) -> str:
        return f"MakeFlags(auth={self.auth!r}, dry_run={self.dry_run}, jobs={self.jobs}, load={self.load})"


class _Scan:
    """The words of a value, raw with the blanks before them (chunks) and unescaped (words), and the flags among them.

    The tail, chunks[end:], is the word `--` and what follows it. A flag that can have an argument is (name, argument,
    first, last, stem): words[first:last] are its own, except for the stem, the letters before it in its word.
    """

    def __init__(self, value: str) -> None:
        self.chunks = _split(value)
        self.words = [_unescape(chunk.lstrip(_BLANKS)) for chunk in self.chunks]
        self.flags: list[tuple[str, str | None, int, int, str]] = []
        self.dry_run = False
        self.end = 0
        while self.end < len(self.words) and self.words[self.end] != "--":
            self.end = self._read(self.end)
        tail = "".join(self.chunks[self.end :])
        self.tail = tail if tail[:1] in _BLANKS else " " + tail

    def _read(self, at: int) -> int:
        word = self.words[at]
        if word.startswith("--"):
            name, equals, argument = word[2:].partition("=")
            return self._take(_short(name), argument if equals else None, at, "")
        if word[0] != "-" and (at > 0 or "=" in word):
            return at + 1
        for i in range(word[0] == "-", len(word)):
            if word[i] in _WITH_ARGUMENT:
                return self._take(word[i], word[i + 1 :] or None, at, word[: i if i > 1 or word[0] != "-" else 0])
            self.dry_run = self.dry_run or word[i] == "n"
        return at + 1

    def _take(self, name: str, argument: str | None, at: int, stem: str) -> int:
        after = at + 1
        if argument is None and after < len(self.words) and _takes(name, self.words[after]):
            argument, after = self.words[after], after + 1
        self.dry_run = self.dry_run or name == "n"
        if name:
            self.flags.append((name, argument, at, after, stem))
        return after

    def without(self, names: tuple[str, ...]) -> list[str]:
        """The chunks before the end without the flags NAMES; what stays means what it meant."""
        kept: list[str] = []
        at = 0
        for name, _, first, last, stem in self.flags:
            if name in names:
                kept += self.chunks[at:first]
                if stem:
                    kept.append((" " if first or stem[0] == "-" else "") + escape(stem))
                elif last < self.end and _is_exposed(self.words[last]):
                    kept.append(" -")
                at = last
        return kept + self.chunks[at : self.end]


def parse(value: str) -> MakeFlags:
    """Read a value of MAKEFLAGS, MFLAGS or CARGO_MAKEFLAGS.

    Args:
        value: the variable's value; bytes that are not UTF-8 as surrogate escapes.
    Returns:
        What it says about the jobserver. What make would refuse is passed over (`-j0`, `-jx`, `-lx`, unknown flags).
    """
    scan = _Scan(value)
    auth: dict[str, str] = {}
    jobs, load = None, None
    for name, argument, *_ in scan.flags:
        if name in _AUTH and argument is not None:
            auth[name] = argument
        elif name == "j":
            jobs = 0 if argument is None else _jobs(argument) or jobs
        elif name == "l":
            load = _load(argument)
    return MakeFlags(auth.get("auth", auth.get("fds")), scan.dry_run, jobs, load)


def merge(value: str, auth: str, jobs: int | None) -> str:
    """Put a jobserver in place of whatever jobserver a value names.

    Args:
        value: the value of MAKEFLAGS; its other flags, its variables and all after `--` stay as they are written.
        auth: the jobserver for `--jobserver-auth`, not escaped.
        jobs: N of the `-jN` to show (make obeys the tokens alone), 0 for a bare `-j`; None keeps the value's own.
    Returns:
        The new value. Added flags start with a blank, as make's do, so that they are not taken for bundled letters.
    """
    scan = _Scan(value)
    names = _AUTH if jobs is None else (*_AUTH, "j")
    kept = scan.without(names)
    added = ("" if jobs is None else f" -j{jobs or ''}") + f" --jobserver-auth={escape(auth)}"
    name, argument, *_ = scan.flags[-1] if scan.flags else ("", "")
    if argument is None and name in _REQUIRED and name not in names:
        # The last word lacks its argument and would take what is put behind it.
        last = kept.pop().lstrip(_BLANKS)
        return "".join((*kept, added, " " if scan.words[-1][0] == "-" else " -", last))
    kept[-1:] = map(_closed, kept[-1:])
    return "".join((*kept, added, scan.tail))


def remove_auth(value: str) -> str:
    """Take the jobserver out of a value.

    Args:
        value: the value of MAKEFLAGS.
    Returns:
        The value without `--jobserver-auth`, `--jobserver-fds` and, if it had one of them, `-jN`; else unchanged.
    """
    scan = _Scan(value)
    if not any(flag[0] in _AUTH for flag in scan.flags):
        return value
    return "".join((*scan.without((*_AUTH, "j")), scan.tail))


def escape(auth: str) -> str:
    """Write a text as part of a word of MAKEFLAGS, so that make reads the same text.

    Make 4.3 and 4.4.1 write blanks and backslashes so, and `$` in variables; 4.4.1 forgets it in its own fifo's path.
    They leave other white space as it is but read it so too, and at the start of a value only so.
    """
    return "".join("\\" + character if character in _ESCAPED else character for character in auth.replace("$", "$$"))


def _unescape(raw: str) -> str:
    characters = iter(raw.replace("$$", "$"))
    # A backslash at the very end stands for itself.
    return "".join(next(characters, "\\") if character == "\\" else character for character in characters)


def _split(value: str) -> list[str]:
    """Cut a value into words, each with the blanks before it."""
    text = value.lstrip(_LEADING)
    if value[: len(value) - len(text)].strip(_BLANKS):
        value = " " + text
    chunks = []
    start, at = 0, len(value) - len(text)
    while at < len(value):
        while at < len(value) and value[at] not in _BLANKS:
            at += 2 if value[at] == "\\" else 1
        chunks.append(value[start:at])
        start = at
        while at < len(value) and value[at] in _BLANKS:
            at += 1
    return chunks


def _closed(raw: str) -> str:
    """RAW with its last backslash or `$` doubled, if that would take in what is put behind it."""
    mark = raw[-1]
    return raw + mark if mark in "\\$" and (len(raw) - len(raw.rstrip(mark))) % 2 else raw


def _is_exposed(word: str) -> bool:
    """Whether a word could become a bundle, or the argument of a bare -j or -l, once the one before it is gone."""
    return word[0] != "-" and ("=" not in word or word[0] in _LEADING + _DIGITS + ".")


def _short(name: str) -> str:
    """The key in _LONG of a long name, which may be abbreviated; empty if it is none of them."""
    found = [name] if name in _SHORT else [long for long in _SHORT if long.startswith(name)]
    return _SHORT[found[0]] if len(found) == 1 else ""


def _takes(name: str, word: str) -> bool:
    """Whether a flag without an attached argument takes the next word for it."""
    if name == "j":
        return not word.strip(_DIGITS)
    return word[0] in _DIGITS + "." if name == "l" else name in _REQUIRED


def _jobs(argument: str) -> int:
    # More digits overflow make's int; int() itself refuses very long ones.
    return int(argument) if 0 < len(argument) < 10 and not argument.strip(_DIGITS) else 0


def _load(argument: str | None) -> float | None:
    try:
        return float(argument) if argument and argument[0] != "-" and not argument.strip(_DIGITS + ".eE+-") else None
    except ValueError:
        return None
