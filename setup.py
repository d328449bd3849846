"""Builds the C core as a cffi extension, and makes the README an index's page of it.

Everything else about the project is declared in pyproject.toml.
"""

import os
import platform
import re
import sysconfig
from pathlib import Path

from cffi import FFI
from setuptools import setup

CORE = Path(__file__).parent / "csrc"
OPENING, CLOSING = "/* [declarations]", "/* [/declarations] */"

# cffi uses the limited API on its own; only the tag of the wheel must be asked for, where there is a limited API.
LIMITED_API = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

# For developers: JOBSERVER_FFI_CFLAGS adds compiler and linker flags, to try sanitizers or JOBSERVER_PORTABLE.
EXTRA_FLAGS = os.environ.get("JOBSERVER_FFI_CFLAGS", "").split()
# The calls between the core's files show in the cost of a token. Only gcc is sure to have what it needs to link.
LINK_TIME = ["-flto"] if "gcc" in os.environ.get("CC", sysconfig.get_config_var("CC") or "").split(" ")[0] else []
# The core's names would be a tenth of the extension. Who debugs it builds it with flags, or compiles csrc/ alone.
STRIP = ["-Wl,-s"] if sysconfig.get_platform().startswith("linux") and not EXTRA_FLAGS else []
UNIX_FLAGS = ["-std=c11", "-fvisibility=hidden", "-g0", "-Wall", "-Wextra"]
MICROSOFT_FLAGS = ["/std:c11", "/experimental:c11atomics"]


def declarations(header: str = "jobserver.h") -> str:
    """The part of a header that cffi is to read: between the marks, from the line after the first one."""
    text = CORE.joinpath(header).read_text(encoding="utf-8")
    text = text[text.index(OPENING) : text.index(CLOSING)]
    return text.partition("*/")[2]


def cython_declarations() -> str:
    """The same for Cython: the .pxd, in which each function is reached through the table of jobserver_import.h."""
    text = re.sub(r"/\*.*?\*/|^#.*$", "", declarations(), flags=re.DOTALL | re.MULTILINE)
    lines = [
        "# Made by setup.py from csrc/jobserver.h, which says what these do. docs/embedding.md shows how to use them.",
        "from libc.stdint cimport int64_t, intptr_t\n",
        'cdef extern from "jobserver_import.h":',
        "    int jobserver_import() except -1",
        "    jobserver_client *jobserver_client_of(object client) except NULL\n",
        'cdef extern from "jobserver_import.h" nogil:',
    ]
    for declaration in re.findall(r"[^;{]+(?:\{[^}]*\}[^;]*)?;", text):
        words = " ".join(declaration.removesuffix(";").split())
        head, _, members = words.partition("{")
        if "jobserver_table" in head:
            continue  # the table is jobserver_import()'s affair
        if "(" in head:
            arguments = head.replace("(void)", "()")
            lines.append(re.sub(r"jobserver_(\w+)\(", r'jobserver_\1 "jobserver->\1"(', "    " + arguments, count=1))
        elif head.startswith("enum"):
            names = re.findall(r"(\w+)(?: = -?\d+)?,?", members.partition("}")[0])
            lines += [f"    {head.strip()}:", *(f"        {name}" for name in names if not name.isdigit())]
        elif members:
            fields = members.partition("}")[0].split(";")
            lines.append(f"    {head.replace('typedef', 'ctypedef').strip()}:")
            lines += [f"        {field.strip()}" for field in fields if field.strip()]
        else:
            lines.append(f"    ctypedef struct {words.split()[-1]}")
    return "\n".join(lines) + "\n"


def long_description(readme: str, address: str | None, version: str) -> str:
    """The README as an index shows it, where a link within the repository would lead nowhere.

    Args:
        readme: Its text.
        address: Where the repository is, or None: then links within it become their words, and pictures are left out.
        version: That of the package, whose tag the links lead to.
    """

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        return f"[{words}]({address}/blob/v{version}/{target})" if address else words

    def picture(found: re.Match[str]) -> str:
        return f'<img alt="{found[1]}" src="{address}/raw/v{version}/{found[2]}">' if address else ""

    text = re.sub(r'<picture>.*?<img alt="([^"]*)" src="([^"]*)">\s*</picture>', picture, readme, flags=re.DOTALL)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)", link, text)


def declared(name: str) -> str | None:
    """What pyproject.toml says behind a name, if it does; Python 3.10 has nothing in its library that reads it."""
    text = Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf'^{name} = "(.*)"$', text, re.MULTILINE)
    return found and found[1]


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.cdef(declarations("owned.h"))
ffibuilder.cdef("#define ETIMEDOUT ...")  # of the C library, which on Windows has another one than Python's errno
ffibuilder.set_source(
    "jobserver_ffi._core",
    '#include <errno.h>\n#include "owned.h"',
    include_dirs=["csrc"],
    sources=sorted(f"csrc/{path.name}" for path in CORE.glob("*.c")),
    depends=sorted(f"csrc/{path.name}" for path in CORE.glob("*.h")),
    extra_compile_args=(MICROSOFT_FLAGS if os.name == "nt" else UNIX_FLAGS + LINK_TIME) + EXTRA_FLAGS,
    extra_link_args=([] if os.name == "nt" else ["-pthread"]) + LINK_TIME + STRIP + EXTRA_FLAGS,
    libraries=["advapi32"] if os.name == "nt" else [],
)

if __name__ == "__main__":
    Path(__file__).with_name("jobserver_ffi").joinpath("__init__.pxd").write_text(
        cython_declarations(), encoding="utf-8"
    )
    setup(
        cffi_modules=["setup.py:ffibuilder"],
        options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED_API else {},
        long_description=long_description(
            Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
            declared("Source"),
            declared("version") or "",
        ),
        long_description_content_type="text/markdown",
    )
