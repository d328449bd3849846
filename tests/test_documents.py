"""Every example of the README and of docs is run, or is named in `examples_not_run.toml` with the reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .conftest import PATH, missing
from .documents import PAGES, REPOSITORY, Reader, examples, pairs, programs, same

if os.name == "nt":
    pytest.skip("needs sh", allow_module_level=True)

tomllib = pytest.importorskip("tomllib", reason="needs tomllib, of Python 3.11")

LIST = Path(__file__).with_name("examples_not_run.toml")
NOT_RUN: dict[str, dict[str, str]] = tomllib.loads(LIST.read_text("utf-8"))
KINDS = {page: {example.title: example.kind for example in examples(page)} for page in PAGES}
WALKS = [
    page
    for page, kinds in KINDS.items()
    if any(kind == "commands" and title not in NOT_RUN.get(page, {}) for title, kind in kinds.items())
]


@pytest.mark.parametrize("page", WALKS)
def test_what_a_page_tells_to_type_prints_what_it_shows(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    places = []
    for name in programs(page):
        if name == "make":
            places.append(os.path.dirname(request.getfixturevalue("make441").path))
        elif not shutil.which(name, path=PATH):
            missing(name)
    with Reader(tmp_path, places) as reader:
        for example, shown in pairs(page):
            if example.title in NOT_RUN.get(page, {}):
                continue
            if example.kind == "file":
                assert example.name is not None
                reader.write(example.name, example.text)
            elif example.kind == "commands":
                printed = reader.type(example.text)
                if shown is not None:
                    assert same(shown.text, printed), f"{example.text}printed\n{printed}not\n{shown.text}"


def test_nothing_else_is_shown() -> None:
    """A fence that is neither run nor a file nor in the list would be believed and not known."""
    loose = {
        f"{page}: {title}"
        for page, kinds in KINDS.items()
        for title, kind in kinds.items()
        if (kind == "loose" or (kind == "file" and page not in WALKS)) and title not in NOT_RUN.get(page, {})
    }
    assert not loose, f"give these a file's name (`NAME`: in front of the fence), or a line in {LIST.name}"


def test_the_list_is_short_of_nothing_and_has_nothing_left_over() -> None:
    for page, reasons in NOT_RUN.items():
        for title, reason in reasons.items():
            assert title in KINDS[page], f"{LIST.name} names an example that {page} does not show: {title}"
            for word in reason.split():
                if word.startswith(("tests/", ".ci/")) and (REPOSITORY / ".ci").is_dir():
                    assert (REPOSITORY / word.rstrip(",")).exists(), f"{word}, which should run {title} of {page}"
