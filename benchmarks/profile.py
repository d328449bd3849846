"""In which functions are the instructions of a pair? `python -m benchmarks.profile`, for docs/profile.md."""

from __future__ import annotations

from collections import Counter

from . import peers
from .counted import LOOPS_OF
from .counts import needs, profiles

LEAST = 0.015  # of all instructions: what is less is added up


def main() -> None:
    peers.install()
    if not needs("instructions"):
        return
    found = profiles("everybody")
    for contestant in found:
        name, _, pairs = contestant.partition("|")
        if pairs == str(LOOPS_OF[1]):
            short, long = (found[f"{name}|{count}"] for count in LOOPS_OF)
            print_profile(
                name, {function: (long[function] - short[function]) / (LOOPS_OF[1] - LOOPS_OF[0]) for function in long}
            )


def print_profile(name: str, functions: dict[str, float]) -> None:
    total = sum(functions.values())
    print(f"\n{name}: {total:,.0f} instructions")
    shown = {function: count for function, count in functions.items() if count >= LEAST * total}
    for function, count in Counter(shown).most_common():
        print(f"  {count:8,.0f}  {function}")
    print(f"  {total - sum(shown.values()):8,.0f}  (others)")


if __name__ == "__main__":
    main()
