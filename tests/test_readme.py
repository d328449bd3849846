"""The README leads where it says: on an index, and in the repository."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
LINK = re.compile(r"""\]\((?P<link>[^)]+)\)|(?:src|srcset|href)="(?P<source>[^"]+)\"""")


def targets(text: str) -> list[str]:
    """Where links and pictures lead."""
    return [found["link"] or found["source"] for found in LINK.finditer(text)]


def relative(text: str) -> list[str]:
    return [target for target in targets(text) if not re.match(r"https?://|#", target)]


@pytest.mark.quick
def test_an_index_shows_no_link_into_the_repository() -> None:
    shown = metadata("jobserver-ffi")["Description"]
    assert "No token is lost or made up" in shown
    assert not relative(shown)


@pytest.mark.needs("the repository")
def test_with_an_address_links_lead_to_the_tag_of_the_version() -> None:
    found = importlib.util.spec_from_file_location("setup", REPOSITORY / "setup.py")
    assert found is not None
    assert found.loader is not None
    setup = importlib.util.module_from_spec(found)
    found.loader.exec_module(setup)
    text = README.read_text("utf-8")
    shown = setup.long_description(text, "https://example.org/it", "1.2.3")
    assert not relative(shown)
    assert "(https://example.org/it/blob/v1.2.3/docs/tutorial.md)" in shown
    assert len(targets(shown)) == len(targets(text)) - shown.count("<img"), "a link was lost"


@pytest.mark.needs("the repository")
@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_in_the_repository_each_link_leads_to_a_file_and_to_a_heading_of_it(page: str) -> None:
    for target in relative((REPOSITORY / page).read_text("utf-8")):
        name, _, heading = target.partition("#")
        path = REPOSITORY / name
        assert path.exists(), f"{page} links {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-") for words in headings]
            assert heading in anchors, f"{page} links {target}"
