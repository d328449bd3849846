"""How long does a whole process take that only imports the package?"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from .harness import either
from .rows import Row, Times

TITLE = "A process that imports; `import _cffi_backend` = 1.00"
TURNS = either(100, 5)
STATEMENTS = ("import _cffi_backend", "import jobserver_ffi", "pass")


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        python = clean_python(Path(directory))
        turns = [[process_time(python, statement) for statement in STATEMENTS] for _ in range(TURNS)]
    for index, most in ((1, 1.6), (2, None)):
        ratio = statistics.median(turn[index] / turn[0] for turn in turns)
        times = Times.of([turn[index] * 1e9 for turn in turns])
        yield Row(f"python -I -c '{STATEMENTS[index]}'", ratio, "", most, times=times)


def clean_python(directory: Path) -> Path:
    """An environment with nothing in it but the package and cffi's extension.

    The hooks of other packages and of an editable installation run in every process, and would make the ratio smaller.
    """
    venv.create(directory, symlinks=True)
    places = sysconfig.get_paths(vars={"base": str(directory), "platbase": str(directory)})
    for name in ("jobserver_ffi", "_cffi_backend"):
        file = importlib.import_module(name).__file__
        assert file is not None
        path = Path(file).parent if file.endswith("__init__.py") else Path(file)
        Path(places["platlib"], path.name).symlink_to(path)
    return Path(places["scripts"], Path(sys.executable).name)


def process_time(python: Path, statement: str) -> float:
    """Seconds from the start of a process to its end."""
    start = time.perf_counter()
    subprocess.run([python, "-I", "-c", statement], check=True)
    return time.perf_counter() - start
