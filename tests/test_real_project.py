"""A project that nobody here wrote, built under the command by each make, as the README shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .conftest import Tool, missing

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "build_lua.py"


def compiler() -> list[str]:
    """Options for another compiler than the system's: TinyCC for Windows, if TINYCC names the folder that it is in."""
    folder = os.environ.get("TINYCC")
    if folder is None:
        return []
    programs, include = Path(folder, "amd64"), Path(folder, "include")
    return [
        f"--compiler={programs / 'tcc.exe'}",
        f"CFLAGS=-I{include} -I{include / 'winapi'}",
        f"LIBS=-L{programs / 'lib'}",
        f"AR={programs / 'tiny_libmaker.exe'}",
        "RANLIB=rem",
    ]


def sources() -> list[str]:
    """The sources are downloaded unless LUA_SOURCES names them."""
    folder = os.environ.get("LUA_SOURCES")
    return [f"--sources={folder}"] if folder else []


def test_lua_is_built_by_four_compilers_at_once_and_no_token_is_lost(gnu_make: Tool) -> None:
    command = [sys.executable, str(EXAMPLE), f"--make={gnu_make.path}", *sources(), *compiler()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    if "could not be downloaded" in done.stderr:
        missing("the sources of Lua, from the package index")
    if " is not installed" in done.stderr:
        missing(f"what the example needs: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "35 compilers ran" in done.stdout
    assert "4 at once, and every token came back" in done.stdout
    assert "Lua 5.4 says hello" in done.stdout
