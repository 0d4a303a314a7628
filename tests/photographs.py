"""A folder in ImageNet's layout, of small generated images: coloured shapes on noise."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01", "n02", "n03", "n04")
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (230, 220, 40))


def write_photographs(folder: Path, train: int = 50, test: int = 6) -> Path:
    """train/<class>/ with `train` JPEG files each and val/<class>/ with `test`, of varied sizes."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", test)):
        for name, colour in zip(CLASSES, COLOURS, strict=True):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = random.integers(40, 100, 2)
                image = random.integers(0, 120, (height, width, 3), np.uint8)
                top, left = random.integers(0, height // 3), random.integers(0, width // 3)
                image[top : top + height // 2, left : left + width // 2] = colour
                path = folder / split / name / f"{name}_{i:03d}.JPEG"
                Image.fromarray(image).save(path, quality=90)
    return folder


def damage(path: Path) -> None:
    """Cut a file in the middle of its pixels."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flatten_validation(folder: Path) -> list[str]:
    """Move val/<class>/* into val/, as the official archive has it; the classes in that order."""
    classes = []
    for number, path in enumerate(sorted((folder / "val").glob("*/*"))):
        classes.append(path.parent.name)
        path.rename(folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for name in CLASSES:
        shutil.rmtree(folder / "val" / name)
    return classes
