"""How large are the compiled extension and the wheel?"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import ROOT
from .harness import quick
from .peers import notice
from .rows import Row

TITLE = "Size"


def rows() -> Iterator[Row]:
    file = importlib.import_module("jobserver_ffi._core").__file__
    assert file is not None
    yield Row(Path(file).name, Path(file).stat().st_size / 1024, "KiB", 150)
    if quick():
        notice("a quick run builds no wheel: no row of its size")
        return
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, str(ROOT)]
        subprocess.run(command, check=True)
        (wheel,) = Path(directory).glob("*.whl")
        yield Row(wheel.name, wheel.stat().st_size / 1024, "KiB")
