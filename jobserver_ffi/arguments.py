"""Checks of the arguments that users give, with messages that name the argument and the value."""

from __future__ import annotations

NO_LIMIT = -1  # nanoseconds
LARGEST_LIMIT = 2**31 - 1

_LONGEST = 2**63 - 1  # nanoseconds; the core takes what is beyond its clock for no limit


def nanoseconds(timeout: float | None) -> int:
    """A timeout in seconds as the core wants it, after a check.

    Returns:
        Nanoseconds; -1 for None and infinity.

    Raises:
        ValueError: It is negative or NaN.
        TypeError: It is no number.
    """
    if timeout is None:
        return NO_LIMIT
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout={timeout!r}: a number of seconds or None is wanted, not {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"timeout={timeout!r}: a number of seconds from 0 on is wanted, or None to wait for ever")
    if timeout == float("inf"):
        return NO_LIMIT
    return min(int(timeout * 1_000_000_000), _LONGEST) if timeout < _LONGEST else _LONGEST


def whole_number(name: str, value: object) -> int:
    """The value, if it is a whole number.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: a whole number is wanted, not {type(value).__name__}")
    return value


def pool_limit(limit: object) -> int:
    """The limit of a pool, if there can be such a one.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative or beyond what any system can hold.
    """
    number = whole_number("limit", limit)
    if not 0 <= number <= LARGEST_LIMIT:
        raise ValueError(f"limit={number}: a number of tokens from 0 to {LARGEST_LIMIT} is wanted")
    return number


def batch_size(maximum: object, minimum: object, limit: int | None) -> tuple[int, int]:
    """How many tokens to take at once, if a pool with this limit (None: not known) can give so many.

    Raises:
        TypeError: One is no whole number.
        ValueError: The minimum is below 1, above the maximum or above the limit.
    """
    most, fewest = whole_number("maximum", maximum), whole_number("minimum", minimum)
    if not 1 <= fewest <= most:
        raise ValueError(f"minimum={fewest}, maximum={most}: the minimum must be from 1 to the maximum")
    if limit is not None and fewest > limit:
        raise ValueError(f"minimum={fewest}: this pool has only {limit} tokens, so they never come")
    return most, fewest
