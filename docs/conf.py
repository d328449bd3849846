"""How Sphinx makes the site out of the Markdown files beside this one, which are written for GitHub's eyes too.

sphinx-build -W -b html docs build/site
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tomllib
from pygments.lexers import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "reference"))
METADATA = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]

project = METADATA["name"]
author = METADATA["authors"][0]["name"]
version = release = METADATA["version"]
copyright = f"{author}, {METADATA['license']}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "commands"]
exclude_patterns = ["examples"]
root_doc = "index"
highlight_language = "text"  # of a fence that names none
default_role = "py:obj"  # so `Client` in a docstring leads to the class, and `R,W` is just code
suppress_warnings = ["myst.header"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = project
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
if "Source" in METADATA.get("urls", {}):
    html_theme_options |= {"source_repository": METADATA["urls"]["Source"], "source_branch": "main"}
    html_theme_options["source_directory"] = "docs/"

# What is checked by the scheduled workflow; CI has no network. The first ones are examples and need an account.
linkcheck_ignore = [r"http://localhost"]
linkcheck_anchors = False
linkcheck_timeout = 30

# Files beside `docs` that are pages of the site, and where a link to the README leads.
PAGES = {
    "CHANGELOG.md": "project/changes",
    "CONTRIBUTING.md": "project/contributing",
    "SECURITY.md": "project/security",
}
PICTURE = re.compile(
    r'<picture>\s*<source[^>]*srcset="(?P<dark>[^"]+)">'
    r'\s*<img alt="(?P<alt>[^"]*)" src="(?P<light>[^"]+)"[^>]*>\s*</picture>'
)
SECTION = re.compile(r"^## (?P<caption>.+)\n(?P<text>(?:(?!## ).*\n)*)", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def in_both_colours(found: re.Match[str]) -> str:
    """The two forms of a picture, of which the theme shows the one that fits what the reader has chosen."""
    return "".join(
        f"```{{image}} {found[form]}\n:alt: {found['alt']}\n:class: only-{form}\n```\n" for form in ("light", "dark")
    )


def tree(text: str, *options: str, more: tuple[str, ...] = ()) -> str:
    """The navigation to all pages that a text links."""
    pages = [found["path"].removesuffix(".md") for found in LINK.finditer(text) if found["path"].endswith(".md")]
    return "\n".join(["", "```{toctree}", ":hidden:", *options, "", *pages, *more, "```", ""])


def contents(index: str) -> str:
    """A tree for each section of the first page. The last one also has the pages that the first page does not link."""
    sections = list(SECTION.finditer(index))
    trees = [tree(found["text"], f":caption: {found['caption']}") for found in sections[:-1]]
    last = sections[-1]
    return "".join(trees) + tree(last["text"], f":caption: {last['caption']}", ":glob:", more=("*",))


def relinked(text: str, here: Path, page: str) -> str:
    """A text whose links lead to pages of the site. It comes from the folder `here`, and becomes `page`."""

    def lead(found: re.Match[str]) -> str:
        target = (here / found["path"]).resolve()
        anchor = found["anchor"] or ""
        if target.parent == HERE.parent and target.name in PAGES:
            target = HERE / f"{PAGES[target.name]}.md"
        elif target == HERE.parent / "README.md":
            target, anchor = HERE / "index.md", ""
        return f"]({os.path.relpath(target, (HERE / page).parent)}{anchor})"

    return LINK.sub(lead, text)


def for_the_site(_: Sphinx, page: str, source: list[str]) -> None:
    """What differs between a page on GitHub and on the site."""
    origin = next((HERE.parent / name for name, made in PAGES.items() if made == page), HERE / f"{page}.md")
    text = origin.read_text("utf-8")
    text = relinked(PICTURE.sub(in_both_colours, text), origin.parent, page)
    if page == "index":
        text += contents(text)
    elif page.endswith("README"):
        text += tree(text)
    source[0] = text


def literal(_: Sphinx, __: str, ___: str, ____: object, _____: object, lines: list[str]) -> None:
    """A word like `.name` in a docstring means an attribute of what is spoken of: just code, no reference."""
    lines[:] = [re.sub(r"(?<!`)`(\.\w[\w.()]*)`(?!`)", r"``\1``", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", for_the_site)
    app.connect("autodoc-process-docstring", literal, priority=100)
    app.add_lexer("ninja", TextLexer)
