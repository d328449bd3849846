"""Loops in C and Rust, built once and loaded into this process: so they take turns with loops in Python."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from ctypes import CDLL, POINTER, c_bool, c_int, c_int64, c_long, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import jobserver_ffi

from . import BUILD, ROOT
from .peers import left_out

HERE = Path(__file__).parent
LOOPS = HERE / "native"
CFLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra")

LATENCIES, WAITS = 1 << 15, 1 << 10  # as in worker.h


class Shared(ctypes.Structure):
    """What the processes of one pool share; see worker.h."""

    _fields_ = (("released", c_int64), ("count", c_int64), ("latencies", c_int64 * LATENCIES))


class Worker(ctypes.Structure):
    """One process; see worker.h."""

    _fields_ = (
        ("shared", POINTER(Shared)),
        ("hold", c_int64),
        ("began", c_int64),
        ("taken", c_int64),
        ("tokens", c_int64),
        ("waits", c_int64 * WAITS),
        ("go", c_int),
        ("times", c_int),
    )


def core_folder() -> Path:
    """The C sources of the package that is measured: those that it brought, or the checkout's if it is editable."""
    brought = Path(jobserver_ffi.__file__).with_name("include")
    return brought if brought.is_dir() else ROOT / "csrc"


def build(name: str, sources: list[Path], *flags: str) -> Path:
    """Compiles C into a shared library, unless the same was compiled before."""
    content = hashlib.sha256(" ".join(flags).encode())
    for path in sorted({header for source in sources for header in source.parent.glob("*.h")}) + sources:
        content.update(path.read_bytes())
    library = BUILD / f"{name}-{content.hexdigest()[:16]}.so"
    if not library.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CC", "cc"), *CFLAGS, *flags, *map(str, sources), "-o", str(unfinished)]
        subprocess.run(command, check=True)
        unfinished.rename(library)
    return library


@cache
def limit() -> CDLL:
    """The bare system calls in C: what counts as 1.00."""
    library = CDLL(str(build("limit", [LOOPS / "limit.c"])))
    library.limit_pairs.argtypes = [c_int, c_int, c_long]
    library.limit_batches.argtypes = [c_int, c_int, c_long, c_int]
    library.limit_wait.argtypes = [c_int, c_int, POINTER(Worker)]
    return library


@cache
def core() -> CDLL:
    """Our own C functions, compiled as the package compiles them."""
    folder = core_folder()
    flags = ("-flto", "-fvisibility=hidden", f"-I{folder}")
    library = CDLL(str(build("core", [*sorted(folder.glob("*.c")), LOOPS / "core.c"], *flags)))
    library.core_open.argtypes = [c_int, c_int]
    library.core_open.restype = c_void_p
    library.core_close.argtypes = [c_void_p]
    library.core_pairs.argtypes = library.core_raw_pairs.argtypes = [c_void_p, c_long]
    library.core_wait.argtypes = [c_void_p, POINTER(Worker), c_void_p, c_void_p]
    return library


@cache
def crate() -> CDLL | None:
    """The Rust crate; None, with a left_out, where it cannot be built."""
    cargo = shutil.which("cargo")
    if cargo is None:
        left_out("no cargo on this machine: the Rust crate is left out")
        return None
    manifest, target = HERE / "crate" / "Cargo.toml", BUILD / "crate"
    command = [cargo, "build", "--release", "--quiet", f"--manifest-path={manifest}", f"--target-dir={target}"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        left_out(f"the Rust crate could not be built and is left out: {done.stderr.strip()}")
        return None
    library = CDLL(str(target / "release" / "libcrate_loops.so"))
    library.crate_open.restype = library.crate_helper.restype = c_void_p
    library.crate_close.argtypes = library.crate_helper_ask.argtypes = [c_void_p]
    library.crate_pairs.argtypes = library.crate_raw_pairs.argtypes = [c_void_p, c_int64]
    library.crate_wait.argtypes = [c_void_p, c_bool, POINTER(Worker), c_void_p, c_void_p]
    library.crate_helper_ask.restype = c_uint64
    return library


def address(function: object) -> int:
    """Where a C function is, to hand it to another one."""
    found = ctypes.cast(function, c_void_p).value  # type: ignore[arg-type]
    assert found is not None
    return found
