"""The gates of a pool on a command line; `run` and `serve` take the same."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from ..errors import Unsupported
from .messages import shown

if TYPE_CHECKING:
    from ..gates import Gate

_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PRESSURES = ("cpu", "memory", "io")


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --max-load, --min-memory and --max-pressure."""
    group = parser.add_argument_group("gates", "hold tokens back while the machine suffers; each CMD keeps one slot")
    group.add_argument("--max-load", metavar="L", type=_number, help="while more than L processes run or want to")
    group.add_argument(
        "--min-memory",
        metavar="SIZE",
        type=_memory,
        help="while less memory is available: bytes, with K, M, G or T, or a percentage (2G, 10%%)",
    )
    group.add_argument(
        "--max-pressure",
        metavar="RESOURCE=P",
        type=_pressure,
        action="append",
        help="while tasks are stalled for want of cpu, memory or io for more than P percent of the time; may be "
        "repeated (Linux)",
    )


def has_gates(arguments: argparse.Namespace) -> bool:
    """Whether any of the options of `add_gate_arguments` was given."""
    return any((arguments.max_load, arguments.min_memory, arguments.max_pressure))


def gates_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[Gate]:
    """The gates that the options name; the parser ends the program where the system has no such thing."""
    from ..gates import MaxLoad, MaxPressure, MinMemory

    gates: list[Gate] = []
    try:
        if arguments.max_load is not None:
            gates.append(MaxLoad(arguments.max_load))
        if arguments.min_memory is not None:
            gates.append(MinMemory(arguments.min_memory))
        gates.extend(MaxPressure(resource, percent) for resource, percent in arguments.max_pressure or ())
    except Unsupported as error:
        parser.error(str(error))
    return gates


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no limit: give a number above 0")
    return number


def _memory(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([KMGT]?)(?:i?B)?|(%))", text, re.ASCII | re.IGNORECASE)
    number = float(found[1]) if found else 0.0
    if found is None or number <= 0 or (found[3] and number >= 100):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no amount of memory: give one as 2G, 500M or 10%")
    return number / 100 if found[3] else max(number * _BYTES[(found[2] or "").upper()], 1.0)


def _pressure(text: str) -> tuple[str, float]:
    resource, _, percent = text.partition("=")
    try:
        number = float(percent)
    except ValueError:
        number = 0.0
    if resource not in _PRESSURES or not 0 < number < 100:
        raise argparse.ArgumentTypeError(
            f"{shown(text)!r} is no pressure: give cpu, memory or io, and percent below 100, as in cpu=50"
        )
    return resource, number
