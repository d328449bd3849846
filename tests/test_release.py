"""`.ci/release`, which keeps a tag from being published before the changelog tells of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("the repository")

SCRIPT = Path(__file__).parent.parent / ".ci" / "release"
WRITTEN = """# Changelog

## [Unreleased]

## [1.2.3] - 2027-01-31

### Added

- Something.

## [1.2.2] - 2026-01-01
"""


@pytest.mark.parametrize(
    ("tag", "changelog", "complaint"),
    [
        ("v1.2.3", WRITTEN, ""),
        ("v1.2.4", WRITTEN, "the version in pyproject.toml 1.2.3"),
        ("1.2.3", WRITTEN, "the tag is 1.2.3"),
        ("v1.2.3", WRITTEN.replace("[1.2.3]", "[1.2.30]"), "has no section '## [1.2.3] - YYYY-MM-DD'"),
        ("v1.2.3", WRITTEN.replace("1.2.3] - 2027-01-31", "1.2.3]"), "has no section"),
        ("v1.2.3", WRITTEN.replace("- Something.", ""), "says nothing about 1.2.3"),
    ],
)
def test_what_may_be_released(tmp_path: Path, tag: str, changelog: str, complaint: str) -> None:
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "example"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    done = subprocess.run([sys.executable, script, tag], capture_output=True, text=True, timeout=120)
    assert complaint in done.stderr
    assert (done.returncode == 0) is (complaint == "")
    assert (done.stderr == "") is (complaint == "")
