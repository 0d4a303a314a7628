"""What is in a file of a run, in words: HDF5, JSON, CSV, and trained models or checkpoints."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mg.data import hdf5
from mg.errors import UserError
from mg.files import read_json
from mg.text import aligned

SAMPLE = 256  # rows that the range of a data set is taken from
READABLE = "an intact HDF5 file of `mg`; if one of its commands wrote it, write it again"


def show(path: str | os.PathLike) -> str:
    """Describe the file at `path` in lines for a terminal.

    Raises:
        UserError: it is missing, damaged, or of another kind.
    """
    path = Path(path)
    kinds = {".h5": _hdf5, ".json": _json, ".csv": _csv, ".pt": _torch}
    if path.suffix not in kinds:
        raise UserError(f"mg show reads {', '.join(kinds)}, not {path}; other files are for people")
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file")
    size = f"{path.stat().st_size:,} bytes"
    return "\n".join([f"{path}  ({size})", *(f"  {line}" for line in kinds[path.suffix](path))])


def show_images(path: str | os.PathLike, prefix: str | os.PathLike) -> None:
    """Draw a page of examples of a data set, of predictions, or of saliency maps.

    Of the MNIST tasks they are the first, of classifiers evenly spread over the file. Writes
    `prefix`.png and `prefix`.svg.

    Raises:
        UserError: the file is damaged or holds no images.
    """
    # Heavy, and text does without.
    from mg.report.figures.saliency import saliency_panel
    from mg.report.figures.sheets import (
        dataset_sheet,
        image_sheet,
        prediction_sheet,
        probability_sheet,
    )

    if Path(path).suffix != ".h5":
        raise UserError(f"{path} holds no images; data sets, predictions and maps (.h5) do")
    with hdf5.results(path, READABLE) as file:
        names = set(file)
        classes = "classes" in hdf5.read_attributes(file)
    if {"x", "y"} <= names:
        if classes:
            image_sheet(path, prefix)
        else:
            dataset_sheet([path], prefix)
    elif "prediction" in names:
        draw = probability_sheet if classes else prediction_sheet
        draw(path, prefix)
    elif "map" in names:
        saliency_panel([path], prefix)
    else:
        raise UserError(f"{path} holds no images; it holds {', '.join(sorted(names)) or 'nothing'}")


def _hdf5(path: Path) -> Iterator[str]:
    with hdf5.results(path, READABLE) as file:
        for name, value in sorted(hdf5.read_attributes(file).items()):
            yield f"{name}: {value}"
        for name in sorted(file):
            data = hdf5.part(file, name)
            shape = " x ".join(map(str, data.shape)) or "scalar"
            line = f"{name}: {shape}, {data.dtype}"
            part = data[:SAMPLE] if data.ndim else data[()]
            if np.size(part) and np.issubdtype(data.dtype, np.number):
                part = np.asarray(part, float)
                missing = np.isnan(part)
                if not missing.all():
                    known = part[~missing]
                    line += f", {known.min():.4g} to {known.max():.4g}, mean {known.mean():.4g}"
                if missing.any():
                    line += f", {missing.sum():,} undefined"
                if data.ndim and len(data) > SAMPLE:
                    line += f" (first {SAMPLE})"
            yield line


def _json(path: Path) -> Iterator[str]:
    yield from _tree(read_json(path))


def _tree(value: Any, indent: str = "") -> Iterator[str]:
    """Entries of nested dicts, one per line; what is not a dict stays on its line."""
    if not isinstance(value, dict):
        yield f"{indent}{json.dumps(value)}"
        return
    for name, entry in value.items():
        if isinstance(entry, dict) and entry:
            yield f"{indent}{name}:"
            yield from _tree(entry, indent + "  ")
        else:
            yield f"{indent}{name}: {entry if isinstance(entry, str) else json.dumps(entry)}"


def _csv(path: Path) -> Iterator[str]:
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV file ({error})") from error
    if not rows:
        return
    columns = max(map(len, rows))
    rows = [row + [""] * (columns - len(row)) for row in rows]
    yield from aligned(rows, headed=False)


def _torch(path: Path) -> Iterator[str]:
    from mg.training.checkpoint import read_torch  # loads PyTorch

    content = read_torch(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is neither a trained model nor a checkpoint of mg")
    yield from _torch_tree(content)


def _torch_tree(value: dict, indent: str = "") -> Iterator[str]:
    """Plain entries as they are; dicts of tensors as their number and size."""
    import torch

    for name, entry in value.items():
        tensors = (
            [t for t in entry.values() if isinstance(t, torch.Tensor)]
            if isinstance(entry, dict)
            else []
        )
        if tensors:
            numbers = sum(tensor.numel() for tensor in tensors)
            yield f"{indent}{name}: {len(tensors)} tensors, {numbers:,} numbers"
        elif isinstance(entry, torch.Tensor):
            shape = " x ".join(map(str, entry.shape)) or "scalar"
            yield f"{indent}{name}: tensor {shape}, {entry.dtype}"
        elif isinstance(entry, dict) and entry:
            yield f"{indent}{name}:"
            yield from _torch_tree(entry, indent + "  ")
        elif isinstance(entry, list) and len(entry) > 8:
            yield f"{indent}{name}: {len(entry)} entries"
        else:
            yield f"{indent}{name}: {entry}"
