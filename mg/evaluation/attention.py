"""What maps of saliency say: files of them, read, and two measures of where the attention lies.

Needs no network: pages, tables and figures that show maps start without PyTorch.
"""

import math
import os

import numpy as np

from mg.data import hdf5
from mg.errors import UserError

POINT_NAMES = (
    "centre",
    "top left",
    "middle left",
    "bottom left",
    "top right",
    "middle right",
    "bottom right",
)
_ARRAYS = ("index", "input", "output", "points", "map", "skipped")
_FACTS = {"dataset": str, "network": str, "seed": int, "window": int, "stride": int}


def read(path: str | os.PathLike) -> dict:
    """A file of `mg.evaluation.saliency` as arrays and attributes, by name.

    Raises:
        UserError: missing, damaged, or not such a file.
    """
    with hdf5.results(path, "a file of saliency maps; make it again with `mg saliency`") as file:
        arrays = {name: hdf5.part(file, name)[:] for name in _ARRAYS}
        attributes = hdf5.read_attributes(file)
    size = len(arrays["index"])
    sound = all(isinstance(attributes.get(name), kind) for name, kind in _FACTS.items())
    if not sound or any(len(arrays[name]) != size for name in _ARRAYS[:-1]):
        raise UserError(f"{path} is not a whole saliency file; make it again with `mg saliency`")
    return arrays | attributes


def attention_ratio(maps: dict) -> float | None:
    """How much more of the saliency lies on an input's digit than on the digits of other inputs.

    The share of a map inside the bounding box of what its input shows, over the share inside the
    boxes of the other inputs of the file; both are means over maps that are not empty. 1 says that
    attention does not depend on where the digit is.

    Args:
        maps: what `read` gives.

    Returns:
        The ratio, infinite if nothing lies elsewhere; None for empty maps, or if all boxes are the
        same (one input, or images without an empty background).
    """
    boxes = np.array([bounding_box(image[0]) for image in maps["input"]])
    if (boxes == boxes[:1]).all():
        return None
    own, other = [], []
    for i, of_points in enumerate(maps["map"]):
        for attention in of_points:
            if total := attention.sum(dtype=np.float64):
                shares = (boxes * attention).sum((1, 2), dtype=np.float64) / total
                own.append(shares[i])
                other.append(np.delete(shares, i).mean())
    if not np.any(own) and not np.any(other):
        return None
    return float(np.mean(own) / np.mean(other)) if np.any(other) else math.inf


def attention_shift(maps: dict) -> float | None:
    """How far a map moves when the digit does: 1 says as far, 0 that it stays where it is.

    The slope of a least-squares line through the centres of the maps (weighted by saliency) over
    the centres of their inputs' digits, over inputs, points and both directions. Of maps that are
    even but for a part on the digit, it is the share of that part.

    Args:
        maps: what `read` gives.

    Returns:
        The slope; None for fewer than two maps of a point, or digits that all lie in one place.
    """
    boxes = [bounding_box(image[0]) for image in maps["input"]]
    digits = np.array([_centre(box) for box in boxes]).reshape(-1, 2)
    together, alone = 0.0, 0.0
    for of_inputs in np.moveaxis(maps["map"], 1, 0):
        used = of_inputs.any((1, 2)) & np.isfinite(digits).all(1)
        if used.sum() < 2:
            continue
        centres = np.array([_centre(attention) for attention in of_inputs[used]])
        moved = digits[used] - digits[used].mean(0)
        together += float((moved * (centres - centres.mean(0))).sum())
        alone += float((moved**2).sum())
    return together / alone if alone else None


def _centre(weights: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of mass of `weights` (H, W); not a number if all are zero."""
    weights = weights.astype(np.float64)
    with np.errstate(invalid="ignore"):
        share = weights / weights.sum()
    rows, columns = (np.arange(size) for size in weights.shape)
    return float(share.sum(1) @ rows), float(share.sum(0) @ columns)


def bounding_box(image: np.ndarray) -> np.ndarray:
    """The smallest box that holds all of `image` (H, W) but zeros: (H, W), true inside."""
    rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
    box = np.zeros(image.shape, bool)
    if len(rows):
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box
