"""Who is measured beside jobserver-ffi: pinned, and installed where the command can do that."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from . import PEERS

PINS = Path(__file__).with_name("peers.txt")
CRATE = Path(__file__).parent / "crate" / "Cargo.toml"
OTHERS = ("cffi", "pytest-benchmark", "psutil")


def pinned() -> dict[str, str]:
    """The version of each peer that is a Python package."""
    return dict(re.findall(r"^([\w-]+)==(\S+)", PINS.read_text(), re.MULTILINE))


def install() -> None:
    """Installs the pinned packages into a folder of their own, unless they are there. Says so if that fails."""
    stamp = PEERS / "installed.txt"
    if stamp.exists() and stamp.read_text() == PINS.read_text():
        return
    shutil.rmtree(PEERS, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(PEERS), "--requirement", str(PINS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    importlib.invalidate_caches()
    if done.returncode == 0:
        stamp.write_text(PINS.read_text())
    else:
        last = done.stdout.strip().rpartition("\n")[2]
        left_out(f"the peers of {PINS.name} could not be installed and are left out: {last}")


def peer(package: str) -> Any | None:
    """A peer's module, or None where it is not installed (gnumake-tokenpool needs Python 3.11, for example)."""
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


def find_make(version: str) -> str | None:
    """A GNU make of this version: one that is a peer, or beside this Python, or on the path."""
    places = [
        str(PEERS / "bin"),
        str(Path(sys.executable).parent),
        *os.environ.get("PATH", os.defpath).split(os.pathsep),
    ]
    for place in places:
        program = shutil.which("make", path=place)
        if program is not None and f"GNU Make {version}".encode() in output([program, "--version"]):
            return program
    return None


def output(command: list[str]) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout


@cache
def notice(text: str) -> None:
    """Tells once what a user should know."""
    print(f"NOTICE: {text}", file=sys.stderr, flush=True)


def left_out(text: str) -> None:
    """Tells once what is not on this machine, so that its rows are left out; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        raise RuntimeError(text)
    notice(text)


def environment() -> dict[str, str]:
    """Where the figures come from: the machine, its system, and the version of everything that is measured."""
    found = {
        "processor": f"{processor()}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": output(["cc", "--version"]).decode().partition("\n")[0] if shutil.which("cc") else "none",
        "jobserver-ffi": version("jobserver-ffi"),
        "jobserver (Rust)": re.findall(r'^jobserver = "=(.*)"', CRATE.read_text(), re.MULTILINE)[0],
    }
    if shutil.which("cargo") is None:
        found["jobserver (Rust)"] = "no cargo"
    return found | {name: version(name) for name in (*pinned(), *OTHERS)}


def processor() -> str:
    names = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
