"""A project that nobody here wrote, built under the command by each make, as the README shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Tool, missing

pytestmark = pytest.mark.needs("sh")

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "build_lua.py"


def test_lua_is_built_by_four_compilers_at_once_and_no_token_is_lost(gnu_make: Tool) -> None:
    command = [sys.executable, str(EXAMPLE), "--make", gnu_make.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    if "could not be downloaded" in done.stderr:
        missing("the sources of Lua, from the package index")
    assert done.returncode == 0, done.stderr
    assert "35 compilers ran" in done.stdout
    assert "4 at once, and every token came back" in done.stdout
    assert "Lua 5.4 says hello" in done.stdout
