"""The reference of the site has every public name, and what it has of each is complete."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from pathlib import Path

import pytest

from .test_public_names import MODULES, members

PACKAGE = Path(importlib.import_module("jobserver_ffi").__file__ or "").parent
REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. auto(?:class|exception|function|data):: (?P<name>[\w.]+)$", re.MULTILINE)

if not REFERENCE.is_dir():
    pytest.skip("needs the documentation", allow_module_level=True)

pytestmark = pytest.mark.needs("the repository")

SHOWN = [found for path in sorted(REFERENCE.glob("*.md")) for found in DIRECTIVE.findall(path.read_text("utf-8"))]
PUBLIC = {f"{name}.{item}": name for name in MODULES for item in importlib.import_module(name).__all__}


def undocumented(cls: type) -> list[str]:
    """The public members of a class that neither have a text of their own nor are told of in the text of a class."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("jobserver_ffi")]
    texts = "\n".join(inspect.getdoc(base) or "" for base in ours)
    sources = "\n".join(inspect.getsource(base) for base in ours)

    def has_text(name: str, member: object) -> bool:
        itself = inspect.getdoc(member) if callable(member) or isinstance(member, (classmethod, property)) else None
        listed = re.search(rf"^ +{name}: ", texts, re.MULTILINE)
        beneath = re.search(rf"^ +{name}\b.* = .*\n +\"\"\"", sources, re.MULTILINE)
        return bool(itself or listed or beneath)

    return [name for name, member in members(cls).items() if not (name.startswith("_") or has_text(name, member))]


def test_each_public_name_has_one_place() -> None:
    wrong = [name for name in PUBLIC if SHOWN.count(name) != 1]
    assert not wrong, "show them once in docs/reference, by `.. autoclass:: NAME` or its like"


def test_each_of_its_members_has_a_text() -> None:
    """What has none the site leaves out. (Members of an enum it shows by their values.)"""
    values = {
        name: getattr(importlib.import_module(module), name.rpartition(".")[2]) for name, module in PUBLIC.items()
    }
    classes = {name: cls for name, cls in values.items() if isinstance(cls, type) and not issubclass(cls, enum.Enum)}
    wrong = {name: left_out for name, cls in classes.items() if (left_out := undocumented(cls))}
    assert not wrong, "give them docstrings"


def test_modules_that_name_what_is_public_are_looked_at() -> None:
    names = {
        ".".join(["jobserver_ffi", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^__all__ = ", path.read_text("utf-8"), re.MULTILINE)
    }
    assert names == set(MODULES)


def test_the_command_and_the_header_are_whole() -> None:
    """Both are made when the site is: out of the parsers, and of the header itself."""
    assert "```{commands}" in (REFERENCE / "command.md").read_text("utf-8")
    assert "```{literalinclude} ../../csrc/jobserver.h\n" in (REFERENCE / "c.md").read_text("utf-8")
