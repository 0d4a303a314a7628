"""What a test set gave, of pixels or of classes."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a test gave.

    Attributes:
        measures: by name, as metrics.json holds them.
        images: how many were measured.
        shape: (C, H, W) of a network's input.
        attributes: of the test set, in plain values.
    """

    measures: dict[str, Any]
    images: int
    shape: tuple[int, int, int]
    attributes: dict[str, Any]
