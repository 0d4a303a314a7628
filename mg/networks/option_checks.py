"""Checks of the values of network options; every failure is one line for the user."""

from collections.abc import Sequence
from typing import Any

from mg.errors import UserError

MOST_LAYERS, WIDEST = 1_000, 100_000  # more is a slip of the keyboard that would take for ever


def whole_number(name: str, value: Any, *, minimum: int = 1, maximum: int) -> int:
    """`value` if it is an int of at least `minimum` and at most `maximum`.

    Raises:
        UserError: otherwise.
    """
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
        return value
    raise UserError(
        f"option {name}: expected a whole number from {minimum} to {maximum}, got {value!r}"
    )


def how_many(name: str, value: Any, minimum: int = 1) -> int:
    """`value` if it is a number of layers, grids or blocks, from `minimum` to `MOST_LAYERS`.

    Raises:
        UserError: otherwise.
    """
    return whole_number(name, value, minimum=minimum, maximum=MOST_LAYERS)


def widths(
    value: Any, name: str = "width", *, minimum: int = 1, length: int | None = None
) -> list[int]:
    """`value` if it is a list of at least `minimum` (or exactly `length`) ints from 1 to `WIDEST`.

    Raises:
        UserError: otherwise.
    """
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and (len(value) >= minimum if length is None else len(value) == length)
        and all(isinstance(w, int) and not isinstance(w, bool) and 0 < w <= WIDEST for w in value)
    ):
        return list(value)
    size = f"{minimum} or more" if length is None else length
    raise UserError(
        f"option {name}: expected a list of {size} whole numbers from 1 to {WIDEST}, got {value!r}"
    )


def choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """`value` if it is one of `choices` (and of the same type: True is not 1).

    Raises:
        UserError: otherwise.
    """
    if any(value == c and type(value) is type(c) for c in choices):
        return value
    raise UserError(
        f"option {name}: expected one of {', '.join(map(repr, choices))}; got {value!r}"
    )


def nested_widths(value: Any, like: Sequence[Sequence[int]]) -> list:
    """`value`, a `width`, if it is lists of positive ints, as many and as long as those of `like`.

    Raises:
        UserError: otherwise.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if is_list and len(value) == len(like):
        blocks = [widths(v, f"width, block {b}") for b, v in enumerate(value, start=1)]
        if list(map(len, blocks)) == list(map(len, like)):
            return blocks
    raise UserError(
        f"option width: expected {len(like)} lists (one per block) of "
        f"{', '.join(str(len(w)) for w in like)} widths (one per grid), got {value!r}"
    )
