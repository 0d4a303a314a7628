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

from mg.evaluation.attention import (  # noqa: E402
    POINT_NAMES,
    attention_ratio,
    attention_shift,
    read,
)
from mg.report.figures.saliency import HUES, saliency_image  # noqa: E402

Maps = dict[str, np.ndarray]
"""`input` (K, 1, H, W) and `map` (K, 7, H, W), as `mg.evaluation.attention.read` gives them."""


def pictures_of(notebook: Path) -> Iterator[list[np.ndarray]]:
    """The pictures (H, W, 3) in [0, 1] of each place of the digit; its name precedes them."""
    found: list[np.ndarray] = []
    for cell in json.loads(notebook.read_text())["cells"]:
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
            rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            level[digit] = level[box][~digit[box]].mean()
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
    print("| maps of | maps | canvas coloured | ratio | shift |\n|---|---:|---:|---:|---:|")
    print(row("R-PMG in the authors' notebook", seen(pictures_of(settings.notebook))))
    for path in settings.saliency:
        print(row(str(path), seen(drawn_of(read(path)))))


if __name__ == "__main__":
    main()
