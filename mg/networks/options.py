"""Checks of the values of network options; every failure is one line for the user."""

from collections.abc import Sequence
from typing import Any

from mg.errors import UserError


def whole_number(name: str, value: Any, minimum: int = 1) -> int:
    """`value` if it is an int of at least `minimum`.

    Raises:
        UserError: otherwise.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
        return value
    raise UserError(f"option {name}: expected a whole number from {minimum} on, got {value!r}")


def widths(value: Any, name: str = "width", *, minimum: int = 1) -> list[int]:
    """`value` if it is a list of at least `minimum` positive ints.

    Raises:
        UserError: otherwise.
    """
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) >= minimum
        and all(isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in value)
    ):
        return list(value)
    raise UserError(
        f"option {name}: expected a list of {minimum} or more positive whole numbers, got {value!r}"
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
