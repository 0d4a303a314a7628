"""Do the maps of attention in the authors' notebook follow the digit, by our measures?

    python benchmarks/authors_saliency.py saliency-map-hsv.ipynb \\
        results/reference/wide/models/translation/*/seed0/saliency.h5

The notebook, in the folder notebooks/ of the authors' repository, shows maps of R-PMG for a digit
at three places. They are pictures: the hue is that of the point, the saturation the map in ten
levels, and pixels of the digit are black. Maps from files are turned into such pictures before they
are measured. What lies under the digit is taken to be as what is seen around it, in its box.
results/reference/README.md has what came out.
"""

import argparse
import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.colors import rgb_to_hsv
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.errors import UserError, first_line  # noqa: E402
from mg.evaluation.attention import (  # noqa: E402
    POINT_NAMES,
    attention_ratio,
    attention_shift,
    bounding_box,
    read,
)
from mg.report.figures.saliency import HUES, saliency_image  # noqa: E402

Maps = dict[str, np.ndarray]
"""`input` (K, 1, H, W) and `map` (K, 7, H, W), as `mg.evaluation.attention.read` gives them."""


def pictures_of(notebook: Path) -> Iterator[list[np.ndarray]]:
    """The pictures (H, W, 3) in [0, 1] of each place of the digit; its name precedes them.

    Raises:
        UserError: it cannot be read, or is no notebook with pictures.
    """
    found: list[np.ndarray] = []
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{notebook} is no readable notebook: {first_line(error)}") from error
    if "image/png" not in str(cells):
        raise UserError(f"{notebook} shows no pictures; run its cells, then save it")
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                content = io.BytesIO(base64.b64decode(data["image/png"]))
                found.append(np.asarray(Image.open(content).convert("RGB")) / 255)
            elif found:
                yield found
                found = []
    if found:
        yield found


def drawn_of(maps: Maps) -> Iterator[list[np.ndarray]]:
    """Maps as the notebook draws them: those of an input together."""
    for image, of_points in zip(maps["input"], maps["map"], strict=True):
        digit = (image[0] >= 0.5).astype(float)
        yield [saliency_image(m, digit, hue) for m, hue in zip(of_points, HUES, strict=True)]


def seen(places: Iterator[list[np.ndarray]]) -> Maps:
    """Digits and maps as pictures show them; a point without a picture has an empty map."""
    inputs, found = [], []
    for pictures in places:
        of_points = np.zeros((len(POINT_NAMES), *pictures[0].shape[:2]))
        for picture in pictures:
            hue, level, value = np.moveaxis(rgb_to_hsv(picture), -1, 0)
            if not np.isin(value, (0, 1)).all() or not level.any():
                continue  # the input or the output
            digit = value == 0
            level[digit] = level[bounding_box(digit) & ~digit].mean()
            angle = np.abs(np.subtract(HUES, np.median(hue[level > 0.3])))
            of_points[np.minimum(angle, 1 - angle).argmin()] = level
            shown = digit
        inputs.append(shown[None])
        found.append(of_points)
    return {"input": np.array(inputs), "map": np.array(found)}


def row(name: str, maps: Maps) -> str:
    drawn = maps["map"][maps["map"].any((2, 3))]
    ratio, shift = attention_ratio(maps), attention_shift(maps)
    return f"| {name} | {len(drawn)} | {(drawn > 0).mean():.0%} | {ratio:.2f} | {shift:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path, help="saliency-map-hsv.ipynb of the authors")
    parser.add_argument("saliency", type=Path, nargs="*", help="files of maps to compare with")
    settings = parser.parse_args()
    try:
        rows = [row("R-PMG in the authors' notebook", seen(pictures_of(settings.notebook)))]
        rows += [row(str(path), seen(drawn_of(read(path)))) for path in settings.saliency]
    except UserError as error:
        sys.exit(f"authors_saliency.py: {error}")
    print("| maps of | maps | canvas coloured | ratio | shift |\n|---|---:|---:|---:|---:|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
