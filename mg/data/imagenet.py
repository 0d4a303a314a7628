"""ImageNet (ILSVRC 2012), or any photographs in its folders: list them.

Layout, as the official archives unpack: `train/<class>/*.JPEG`, `val/<class>/*.JPEG`. A flat folder
of validation images, as the official archive has it, is read too if beside it lies one of the lists
of their classes: `LOC_val_solution.csv` (Kaggle's copy) or
`imagenet_2012_validation_synset_labels.txt` (a class per line, in the order of the files).
"""

import csv
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from mg.data import MOST_CLASSES, hdf5
from mg.errors import UserError

HELD_OUT = 25  # every 25th training image is for validation
CROP = 224
SUFFIXES = (".jpeg", ".jpg", ".png")


def prepare(
    split: str,
    directory: str | PathLike,
    output: str | PathLike,
    count: int | None = None,
    crop: int = CROP,
) -> None:
    """List the images of a split, or the first `count` of an even choice, in an HDF5 file.

    train are the training images without every 25th, valid those, test the validation images (the
    test images have no public classes). With `count` the images are chosen evenly over their
    list, class by class: of a small class there may be none.

    Args:
        crop: side of the crops that a network gets, in pixels.

    Raises:
        UserError: there are no such images, or fewer than `count`, or too many classes.
    """
    if crop < 32 or crop % 32:
        raise UserError(f"crops of {crop} pixels do not fit the networks; take a multiple of 32")
    directory = Path(directory).resolve()
    classes = _classes(directory)
    if split == "test":
        images = list(_test_images(directory, classes))
    else:
        everything = [
            (path, number)
            for number, name in enumerate(classes)
            for path in _images(directory / "train" / name)
        ]
        held_out = slice(HELD_OUT - 1, None, HELD_OUT)
        images = everything[held_out]
        if split == "train":
            del everything[held_out]
            images = everything
    if not images:
        raise UserError(f"{directory} has no images for {split}; add some or leave that split out")
    if count is not None:
        if count > len(images):
            raise UserError(
                f"{directory} has {len(images):,} images for {split}, not {count:,}; ask for fewer"
            )
        images = [images[i * len(images) // count] for i in range(count)]
    paths = [os.fsencode(path.relative_to(directory)) for path, _ in images]
    x = np.zeros((len(paths), max(map(len, paths))), np.uint8)
    for row, path in zip(x, paths, strict=True):
        row[: len(path)] = list(path)
    y = np.array([number for _, number in images], np.uint16)
    attributes = {
        "task": "imagenet",
        "split": split,
        "canvas": crop,
        "directory": str(directory),
        "classes": _names(directory, classes),
    }
    hdf5.write(output, [(x, y)], attributes, layout=hdf5.FILES)


def _classes(directory: Path) -> list[str]:
    train = directory / "train"
    classes = (
        sorted(folder.name for folder in train.iterdir() if folder.is_dir())
        if (train.is_dir())
        else []
    )
    if not classes:
        raise UserError(_advice(directory))
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{train} has {len(classes):,} classes; at most {MOST_CLASSES:,} can be told apart"
        )
    return classes


def _advice(directory: Path) -> str:
    return (
        f"ImageNet is not in {directory}: there is no train/<class>/ with images. It cannot be "
        "fetched without an account: register at https://image-net.org/download-images, download "
        "ILSVRC2012_img_train.tar (138 GB, 1,281,167 images) and ILSVRC2012_img_val.tar (6.3 GB, "
        f"50,000 images), unpack them as {directory}/train/<class>/*.JPEG and "
        f"{directory}/val/<class>/*.JPEG, or name another folder as imagenet.directory. Any "
        "photographs in such folders will do. To see classifiers at work without it: snakemake "
        "--cores all --configfile config/cifar-digits.yaml"
    )


def _images(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error


def _test_images(directory: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    folder, numbers = directory / "val", {name: i for i, name in enumerate(classes)}
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; unpack the validation images there")

    def number(name: str, where: Path) -> int:
        if name not in numbers:
            raise UserError(f"{where} names the class {name!r}, which {directory}/train lacks")
        return numbers[name]

    flat = _images(folder)
    if not flat:
        for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
            for path in _images(sub):
                yield path, number(sub.name, folder)
        return
    solution = directory / "LOC_val_solution.csv"
    synsets = directory / "imagenet_2012_validation_synset_labels.txt"
    try:
        if solution.exists():
            with solution.open(newline="") as file:
                found = {
                    row["ImageId"]: row["PredictionString"].split()[0]
                    for row in csv.DictReader(file)
                }
            names, where = [found.get(path.stem, "") for path in flat], solution
        elif synsets.exists():
            names, where = synsets.read_text().split(), synsets
        else:
            raise UserError(
                f"{folder} holds images without folders of classes; sort them into val/<class>/, "
                f"or put {solution.name} or {synsets.name} into {directory}"
            )
    except (OSError, UnicodeError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{directory} has a list of classes that is damaged: {error}") from error
    if len(names) != len(flat):
        raise UserError(f"{where} names {len(names):,} classes for {len(flat):,} images")
    for path, name in zip(flat, names, strict=True):
        yield path, number(name, where)


def _names(directory: Path, classes: list[str]) -> list[str]:
    """Words for the classes, if Kaggle's list of them is there."""
    try:
        lines = (directory / "LOC_synset_mapping.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return classes
    words = dict(line.split(" ", 1) for line in lines if " " in line)
    return [words.get(name, name) for name in classes]
