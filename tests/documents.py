"""The examples in the README and in docs: which code a page shows, and a reader who types it in."""

from __future__ import annotations

import doctest
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .conftest import PATH
from .overlap import GUARD

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted(
    str(path.relative_to(REPOSITORY)) for path in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
)

FENCE = re.compile(r"^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(
    r"`(?P<name>[\w/-]+\.\w+|[\w/]*Makefile)`[^`]*:\s*$"
)  # "This is the build, `build.py`:", and then the file
OUTPUT = ("", "text")
COMPARED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Example:
    """One fence of a page.

    Attributes:
        language: What stands behind the three backticks.
        text: What is in it.
        name: The file that it is, by the words in front of it.
    """

    language: str
    text: str
    name: str | None

    @property
    def title(self) -> str:
        """The first line, which tells it from the others of its page."""
        return self.text.partition("\n")[0]

    @property
    def kind(self) -> str:
        """What is done with it: nothing, as with an "output" and a "directive", or one of three ways to run it."""
        if self.language.startswith("{"):
            return "directive"
        if self.language in OUTPUT:
            return "output"
        if ">>> " in self.text:
            return "doctest"
        if self.language == "sh":
            return "commands"
        return "file" if self.name else "loose"


def examples(page: str) -> list[Example]:
    """All fences of a page, in their order."""
    text = (REPOSITORY / page).read_text("utf-8")
    found = []
    for fence in FENCE.finditer(text):
        named = NAMED.search(text[: fence.start()].rpartition("```\n")[2])
        found.append(Example(fence["language"].strip(), fence["text"], named["name"] if named else None))
    return found


class Reader:
    """Types a page's files and commands into a folder of its own, and compares what is printed with what is shown.

    What a page installs is there already, as this checkout.
    """

    def __init__(self, folder: Path, places: list[str]) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([*places, PATH]),
            "XDG_RUNTIME_DIR": str(folder / ".run"),
            "CARGO_TARGET_DIR": str(folder / ".target"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.runtime = folder / ".run"
        self.runtime.mkdir(mode=0o700)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the servers of pools, which would wait a minute for the next build."""
        for socket in self.runtime.glob("jobserver/*.socket"):
            with suppress(RuntimeError):
                os.kill(
                    int(json.loads(self.type(f"jobserver status --pool {socket} --json"))["pools"][0]["process"]),
                    signal.SIGTERM,
                )

    def write(self, name: str, text: str) -> None:
        """Makes a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def type(self, commands: str) -> str:
        """Runs commands as a shell does.

        Returns:
            What they printed, errors too.

        Raises:
            RuntimeError: One of them failed.
        """
        lines = [line for line in commands.splitlines() if not line.startswith("pip install ")]
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * GUARD,
        )
        if done.returncode:
            raise RuntimeError(f"{commands}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout


def same(shown: str, printed: str) -> bool:
    """Whether an output is the one that the page shows, in which `...` stands for anything."""
    return doctest.OutputChecker().check_output(shown, printed, COMPARED)


def pairs(page: str) -> Iterator[tuple[Example, Example | None]]:
    """Each example, with the output that follows it."""
    found = examples(page)
    for example, following in zip(found, [*found[1:], None], strict=True):
        shown = following is not None and following.kind == "output" and example.kind == "commands"
        yield example, following if shown else None


def programs(page: str) -> list[str]:
    """The tools that a page's commands call, of those that a machine may lack."""
    words = "\n".join(example.text for example in examples(page) if example.kind == "commands")
    return [name for name in ("cc", "make", "ninja", "cargo") if re.search(rf"\b{name}\b", words)]
