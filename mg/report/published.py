"""The numbers that the authors printed; reading them needs no network."""

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

UNNAMED = "(network not named)"
"""The name of results of which the authors do not say which of their networks it is."""


@cache
def published_results() -> tuple[dict[str, Any], ...]:
    """The numbers that the authors printed, one dict per result.

    Keys: name, dataset, network (None if `UNNAMED` or not one of ours), options, parameters_M,
    multiply_adds_M (None if not printed), metric, value, source.
    """
    text = Path(__file__).with_name("published.csv").read_text(encoding="utf-8")
    result = []
    for line in csv.DictReader(io.StringIO(text)):
        option, setting = line.pop("option"), line.pop("setting")
        for key in ("parameters_M", "multiply_adds_M", "value"):
            line[key] = float(line[key]) if line[key] else None
        line["network"] = line["network"] or None
        result.append({**line, "options": {option: int(setting)} if option else {}})
    return tuple(result)


def difference_percent(counted: int | None, printed_M: float | None) -> float | None:
    """By how many percent a count differs from the authors', which is in millions."""
    if counted is None or printed_M is None:
        return None
    return round(100 * (counted / 1e6 / printed_M - 1), 2) + 0.0  # no -0.0
