"""What C and Cython extensions need of this package; docs/embedding.md shows how they use it."""

from __future__ import annotations

import os
from pathlib import Path

from ._core import ffi, lib

FUNCTION_TABLE = int(ffi.cast("intptr_t", lib.jobserver_functions()))
"""The address of the core's `struct jobserver_table`, which `jobserver_import()` of jobserver_import.h looks for."""


def get_include() -> str:
    """The directory of the C headers: jobserver.h, jobserver_table.h and jobserver_import.h."""
    here = Path(__file__).parent
    installed = here / "include"
    return str(installed if installed.is_dir() else here.parent / "csrc")


def copy_sources(directory: str | os.PathLike[str]) -> list[str]:
    """Copies the core's C files and headers into a project that compiles them into its own extension.

    Setuptools takes only files of the project itself. What is there already and the same is not written again.

    Args:
        directory: Where to; it is made if need be.

    Returns:
        The C files there, `directory` before each name; all belong into every build, on every system.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    sources = []
    for original in sorted(Path(get_include()).glob("*.[ch]")):
        copy = Path(directory, original.name)
        text = original.read_bytes()
        if not copy.is_file() or copy.read_bytes() != text:
            copy.write_bytes(text)
        if copy.suffix == ".c":
            sources.append(copy.as_posix())
    return sources
