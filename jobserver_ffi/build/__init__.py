"""Building Python extensions on the slots of a jobserver: for setup scripts and build back ends.

`build_ext` is setuptools's command of that name, `ParallelBuild` makes any other `build_ext` work in the same way, and
`cythonize` is Cython's. setuptools and Cython are imported when the first of these names is used, from where they are.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .extensions import ParallelBuild, build_ext
    from .modules import cythonize

__all__ = ["ParallelBuild", "build_ext", "cythonize"]

_ON_FIRST_USE = {"ParallelBuild": ".extensions", "build_ext": ".extensions", "cythonize": ".modules"}


def __getattr__(name: str) -> object:
    """Imports on first use what needs setuptools or Cython."""
    module = _ON_FIRST_USE.get(name)
    if module is not None:
        from importlib import import_module

        return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names too, although they are imported on first use."""
    return sorted({*globals(), *__all__})
