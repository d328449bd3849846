"""The programs of docs/examples, run as a reader would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import TokenPipe

pytestmark = pytest.mark.needs("sh")

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
FILES = sorted(str(path) for path in Path(__file__).parent.glob("test_r*.py"))


@pytest.mark.parametrize("name", ["task_group.py", "scheduler.py"])
@pytest.mark.parametrize("inherited", [False, True])
def test_compiling_some_of_this_folder(whole: type[TokenPipe], name: str, inherited: bool, tmp_path: Path) -> None:
    if name == "task_group.py" and sys.version_info < (3, 11):
        pytest.skip("asyncio.TaskGroup came with Python 3.11")
    pipe = whole(b"ab")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), **(pipe.environ if inherited else {})}
    command = [sys.executable, str(EXAMPLES / name), *FILES]
    subprocess.run(command, env=environment, pass_fds=(pipe.read_fd, pipe.write_fd), check=True, timeout=120)
    assert len(list(tmp_path.rglob("*.pyc"))) >= len(FILES)


@pytest.mark.parametrize("name", ["task_group.py", "scheduler.py"])
def test_a_job_that_fails(whole: type[TokenPipe], name: str, tmp_path: Path) -> None:
    if name == "task_group.py" and sys.version_info < (3, 11):
        pytest.skip("asyncio.TaskGroup came with Python 3.11")
    bad = tmp_path / "bad.py"
    bad.write_text("this is no Python")
    pipe = whole(b"ab")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), **pipe.environ}
    command = [sys.executable, str(EXAMPLES / name), str(bad), *FILES]
    done = subprocess.run(command, env=environment, pass_fds=(pipe.read_fd, pipe.write_fd), timeout=120)
    assert done.returncode != 0
