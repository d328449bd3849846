"""How large is the compiled extension?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from .rows import Row

TITLE = "Size"


def rows() -> Iterator[Row]:
    file = importlib.import_module("jobserver_ffi._core").__file__
    assert file is not None
    yield Row(Path(file).name, Path(file).stat().st_size / 1024, "KiB", 150)
