"""In which functions are the instructions of a pair? `python -m benchmarks.profile`, for docs/profile.md."""

from __future__ import annotations

from collections import Counter

from . import peers
from .counted import LOOPS_OF
from .counts import Function, needs, profiles

LEAST = 0.015  # of all instructions: what is less is added up


def main() -> None:
    peers.install()
    if not needs("instructions"):
        return
    found = profiles("everybody")
    few, many = LOOPS_OF
    for name in dict.fromkeys(contestant.partition("|")[0] for contestant in found):
        short, long = found.get(f"{name}|{few}"), found.get(f"{name}|{many}")
        if short is not None and long is not None:
            print_profile(name, {function: (long[function] - short[function]) / (many - few) for function in long})


def print_profile(name: str, functions: dict[Function, float]) -> None:
    total = sum(functions.values())
    print(f"\n{name}: {total:,.0f} instructions")
    libraries: Counter[str] = Counter()
    for (library, _), count in functions.items():
        libraries[library] += count  # type: ignore[assignment]
    print_counts(dict(libraries.most_common()), total)
    print("  of them")
    most = sorted(functions.items(), key=lambda item: -item[1])
    print_counts({f"{function} ({library})": count for (library, function), count in most}, total)


def print_counts(counts: dict[str, float], total: float) -> None:
    for name, count in counts.items():
        if count >= LEAST * total:
            print(f"  {count:8,.0f}  {name}")


if __name__ == "__main__":
    main()
