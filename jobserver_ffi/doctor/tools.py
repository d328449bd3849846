"""The build tools on PATH: their versions, and the styles of jobserver that each was seen to join."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..create import STYLES
from .finding import Finding
from .trials import DISTURBING, LONGEST, Trial, try_cargo, try_cmake, try_ctest, try_gcc, try_make, try_ninja

_Try = Callable[[str, str, Path, Mapping[str, str]], Trial]

# Names of programs; those of one line are the same program where they are the same file.
_TRIALS: list[tuple[tuple[str, ...], _Try]] = [
    (("make", "gmake", "gnumake", "remake"), try_make),
    (("ninja", "ninja-build", "samu", "n2"), try_ninja),
    (("ctest",), try_ctest),
]
# These need a shell to stand between.
_TRIALS_WITH_SHELL: list[tuple[tuple[str, ...], _Try]] = [
    (("cargo",), try_cargo),
    (("gcc",), try_gcc),
    (("cmake",), try_cmake),
]

_TOGETHER = 4  # tools; their jobs only wait


@dataclass(frozen=True)
class Tool:
    """A tool that was found and tried.

    Attributes:
        name: Its name.
        path: Where it is.
        version: What it says of itself; empty if it says nothing.
        styles: For each style of this system what it did with a pool of that style.
    """

    name: str
    path: str
    version: str
    styles: dict[str, Trial]


def survey(environ: Mapping[str, str] | None = None) -> list[Tool]:
    """Finds the tools on PATH and tries each: takes some seconds, and ends a tool that hangs.

    Nothing of the jobserver around this process is touched: the pools are made for the trials.

    Args:
        environ: What to use instead of `os.environ`.
    """
    environ = os.environ if environ is None else environ
    environ = {name: value for name, value in environ.items() if name not in DISTURBING}
    trials = _TRIALS + ([] if os.name == "nt" else _TRIALS_WITH_SHELL)
    found = [(name, path, attempt) for names, attempt in trials for name, path in _on_path(names, environ)]
    with ThreadPoolExecutor(_TOGETHER) as threads:
        return [tool.result() for tool in [threads.submit(_tried, *tool, environ) for tool in found]]


def _on_path(names: tuple[str, ...], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The programs of these names, none twice."""
    seen: set[str] = set()
    for name in names:
        path = shutil.which(name, path=environ.get("PATH"))
        if path is not None and os.path.realpath(path) not in seen:
            seen.add(os.path.realpath(path))
            yield name, path


def _tried(name: str, path: str, attempt: _Try, environ: Mapping[str, str]) -> Tool:
    styles = {}
    version = _version(path, environ)
    for style in STYLES:
        with tempfile.TemporaryDirectory(prefix="trial-", ignore_cleanup_errors=True) as place:
            try:
                styles[style] = attempt(path, style, Path(place).resolve(), environ)
            except OSError as error:
                styles[style] = Trial("stops", f"cannot be run: {error.strerror}")
    return Tool(name, path, version, styles)


def _version(path: str, environ: Mapping[str, str]) -> str:
    """The first version number that a program prints."""
    try:
        done = subprocess.run(
            [path, "--version"],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+(\.\d+)+", re.sub(r"\(.*?\)", "", done.stdout) or done.stderr)
    return found.group() if found else ""


def findings_of_tools(tools: list[Tool], style: str | None) -> Iterator[Finding]:
    """What the tools that were tried mean for the jobserver around this process, which is of that style."""
    for tool in tools:
        trial = tool.styles.get(style or "")
        if trial is None or trial.outcome == "joins":
            continue
        others = [other for other, seen in tool.styles.items() if seen.outcome == "joins"]
        title = f"{tool.name} {tool.version}".strip()
        blamed = "make" if tool.name == "cmake" else tool.name
        if trial.outcome == "ignores":
            yield Finding(
                "tool-ignores-jobserver",
                False,
                f"{title} ({tool.path}) does not join this {style}: it counts its jobs by itself",
                f"when it was tried with a {style}, it took no token" + (f" (`{trial.says}`)" if trial.says else ""),
                _mend(blamed, others),
            )
        else:
            yield Finding(
                "tool-stops",
                True,
                f"{title} ({tool.path}) does not run under this {style}",
                f"when it was tried with a {style}, it ran nothing" + (f": `{trial.says}`" if trial.says else ""),
                _mend(blamed, others),
            )


def _mend(name: str, others: list[str]) -> str:
    """What to write where a tool does not join a style; it joins the others."""
    if "pipe" in others:
        return (
            "have the jobserver be a pipe: `make --jobserver-style=pipe -jN` (make 4.4 and newer), or `jobserver run "
            "--style pipe`; or install a newer " + name
        )
    if others:
        return (
            "have the jobserver be a fifo: `make -jN` from version 4.4 on, or `jobserver run --style fifo`; or install "
            "a newer " + name
        )
    return (
        f"give it a number of jobs that fits: `jobserver exec --format {{}} -- {name} -j{{}} …` takes slots for it and "
        f"puts in how many they are; or install a newer {name}"
    )
