"""What users can name: each change of it shows in public_names.txt, and so in review.

After a change that is meant: python -m tests.test_public_names
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

SNAPSHOT = Path(__file__).with_name("public_names.txt")
MODULES = [
    "jobserver_ffi",
    "jobserver_ffi.aio",
    "jobserver_ffi.build",
    "jobserver_ffi.opentelemetry",
    "jobserver_ffi.timeline",
]


def signature(function: object) -> str:
    """As it is written in the sources; how `inspect` quotes annotations differs between Pythons."""
    assert callable(function)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))


def members(cls: type) -> dict[str, object]:
    """The members that we wrote, inherited ones too; those of other packages' classes are their affair."""
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("jobserver_ffi"):
            found |= vars(base)
    shown = ("__init__", "__enter__", "__aenter__", "__len__", "__iter__", "__await__")
    return {name: found[name] for name in sorted(found) if not name.startswith("_") or name in shown}


def describe_member(name: str, member: object) -> str:
    if isinstance(member, property):
        return f"{name}: property"
    if isinstance(member, (classmethod, staticmethod)):
        return f"{name}{signature(member.__func__)} {type(member).__name__}"
    if isinstance(member, types.FunctionType):
        return f"{name}{signature(member)}"
    return f"{name}: attribute"


def describe(name: str, value: object) -> Iterator[str]:
    """The lines about one public name."""
    if not isinstance(value, type):
        yield f"{name}{signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__)
    yield f"class {name}({bases})"
    if issubclass(value, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in value)
        return
    yield from (f"    {describe_member(*member)}" for member in members(value).items())


def describe_all() -> str:
    lines = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += ["", module_name, "=" * len(module_name)]
        for name in sorted(module.__all__):
            lines += describe(name, getattr(module, name))
    return "\n".join(lines[1:]) + "\n"


@pytest.mark.needs("fork")  # where this is not, some of the functions are others, with the same purpose
def test_no_name_or_signature_changed_unseen() -> None:
    assert describe_all() == SNAPSHOT.read_text("utf-8"), "if that is meant: python -m tests.test_public_names"


@pytest.mark.parametrize("name", MODULES)
def test_dir_shows_all_that_a_star_import_gives(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(dir(module))
    assert len(set(module.__all__)) == len(module.__all__)


if __name__ == "__main__":
    SNAPSHOT.write_text(describe_all(), "utf-8")
