"""Builds the C core as a cffi extension. Everything else about the project is declared in pyproject.toml."""

import os
import platform
import re
import sysconfig
from pathlib import Path

from cffi import FFI
from setuptools import setup

CORE = Path(__file__).parent / "csrc"
HEADER = CORE / "jobserver.h"
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


def declarations() -> str:
    """The part of the public header that cffi is to read: between the marks, from the line after the first one.

    And a number of the C library that on Windows is not the one of Python's errno.
    """
    text = HEADER.read_text(encoding="utf-8")
    text = text[text.index(OPENING) : text.index(CLOSING)]
    return text.partition("*/")[2] + "#define ETIMEDOUT ...\n"


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


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "jobserver_ffi._core",
    '#include <errno.h>\n#include "jobserver.h"',
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
    )
