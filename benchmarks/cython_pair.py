"""What does a token cost that Cython takes and gives back without the GIL, beside C and the Rust crate?"""

from __future__ import annotations

import importlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jobserver_ffi
from jobserver_ffi import Client

from .rows import Row

CRATE = "0.1.35"
TITLE = f"A token taken and given back in Cython, `nogil`; `read` and `write` in C, and the crate {CRATE}, = 1.00"
TOKENS = 64
PAIRS = 500  # in a turn: a third of a millisecond, in which others seldom get the processor
TURNS = 1000
FIRST_TURNS = 50  # not counted
FLOOR = "read(), write() in C"

SETUP = """\
from Cython.Build import cythonize
from setuptools import Extension, setup
extension = Extension("cython_pair", ["cython_pair.pyx"], include_dirs=[{headers!r}], extra_compile_args=["-O2"])
modules = cythonize([extension], include_path=[{declarations!r}], language_level=3)
setup(ext_modules=modules, script_args=["build_ext", "-i"])
"""

CARGO = f"""\
[package]
name = "pair"
version = "0.0.0"
edition = "2021"

[dependencies]
jobserver = "={CRATE}"

[profile.release]
opt-level = 3
"""

MAIN = f"""\
use std::io::{{stdin, stdout, BufRead, Write}};
use std::time::Instant;

fn main() {{
    let client = jobserver::Client::new({TOKENS}).unwrap();
    for line in stdin().lock().lines() {{
        let pairs = line.unwrap().trim().parse::<u32>().unwrap();
        let start = Instant::now();
        for _ in 0..pairs {{
            drop(client.acquire().unwrap());
        }}
        println!("{{}}", start.elapsed().as_nanos() as f64 / f64::from(pairs));
        stdout().flush().unwrap();
    }}
}}
"""

Turn = Callable[[], float]


def rows() -> Iterator[Row]:
    cargo = shutil.which("cargo")
    with ExitStack() as stack:
        module = build_module(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        client = stack.enter_context(Client(TOKENS))
        read_fd, write_fd = bare = os.pipe()
        for descriptor in bare:
            stack.callback(os.close, descriptor)
        os.write(write_fd, b"+" * TOKENS)
        turns: dict[str, Turn] = {
            FLOOR: lambda: float(module.floor(read_fd, write_fd, PAIRS)),
            "acquire, release": lambda: float(module.acquire(client, -1, PAIRS)),
            "acquire with a timeout, release": lambda: float(module.acquire(client, 60 * 10**9, PAIRS)),
        }
        crate = f"the crate {CRATE}"
        if cargo is not None:
            program = build_crate(cargo, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            theirs = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(theirs)
            turns[crate] = lambda: ask(theirs)
        measured = in_turns(turns)
    yield (
        row(f"{crate} / C", measured, crate, FLOOR)
        if cargo
        else Row("no cargo here to build the crate with", float("nan"))
    )
    yield row("acquire, release / C", measured, "acquire, release", FLOOR, 1.05)
    yield row("acquire with a timeout, release / C", measured, "acquire with a timeout, release", FLOOR)
    if cargo is not None:
        yield row("acquire, release / the crate", measured, "acquire, release", crate, 0.97)


def row(name: str, measured: dict[str, list[float]], mine: str, other: str, most: float | None = None) -> Row:
    """The median over all turns of the ratio of two neighbours."""
    ratios = [one / two for one, two in zip(measured[mine], measured[other], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    fastest = statistics.quantiles(measured[mine], n=10)[0] / statistics.quantiles(measured[other], n=10)[0]
    note = f"half of all turns {low:.2f} to {high:.2f}, the fastest tenths {fastest:.3f}"
    return Row(name, middle, "", most, note)


def in_turns(turns: dict[str, Turn]) -> dict[str, list[float]]:
    """Nanoseconds of a pair, for each turn; they alternate, so that what slows one down slows all."""
    measured: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(FIRST_TURNS + TURNS):
        for name, turn in turns.items():
            nanoseconds = turn()
            if number >= FIRST_TURNS:
                measured[name].append(nanoseconds)
    return measured


def build_module(directory: Path) -> Any:
    """Builds the extension as its user would, and imports it."""
    shutil.copy(Path(__file__).with_suffix(".pyx"), directory)
    declarations = str(Path(jobserver_ffi.__file__).parent.parent)
    setup = SETUP.format(headers=jobserver_ffi.get_include(), declarations=declarations)
    Path(directory, "setup.py").write_text(setup)
    done = subprocess.run(
        [sys.executable, "setup.py"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout)
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module("cython_pair")
    finally:
        sys.path.remove(str(directory))


def build_crate(cargo: str, directory: Path) -> Path:
    Path(directory, "Cargo.toml").write_text(CARGO)
    Path(directory, "src").mkdir()
    Path(directory, "src", "main.rs").write_text(MAIN)
    subprocess.run([cargo, "build", "--release", "--quiet"], cwd=directory, check=True)
    return directory / "target" / "release" / "pair"


def ask(theirs: subprocess.Popen[str]) -> float:
    """One turn of the crate."""
    assert theirs.stdin is not None
    assert theirs.stdout is not None
    theirs.stdin.write(f"{PAIRS}\n")
    theirs.stdin.flush()
    return float(theirs.stdout.readline())
