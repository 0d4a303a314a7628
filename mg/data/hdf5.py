"""The file of a data set: HDF5 with inputs `x`, targets `y` and attributes that say what made it."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mg.errors import UserError
from mg.files import atomic_path

FORMAT = "mg-data-1"


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    x: (N, 1, H, W) float32 in [0, 1]; y: (N, C, H, W) uint8, 0 or 1; attributes: task, split, mode,
    seed, canvas, … as written by the generator.
    """

    x: np.ndarray
    y: np.ndarray
    attributes: dict[str, Any]


def write(
    path: str | Path,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    attributes: Mapping[str, Any],
) -> None:
    """Write blocks of (x, y) one after the other, so that memory stays bounded.

    Raises:
        UserError: the file cannot be written.
    """
    checksum = {"x": 0, "y": 0}
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for block in blocks:
            for name, part in zip(("x", "y"), block, strict=True):
                if name not in file:
                    file.create_dataset(
                        name,
                        data=part,
                        maxshape=(None, *part.shape[1:]),
                        chunks=(min(len(part), 16), *part.shape[1:]),
                        compression="gzip",
                        compression_opts=1,
                        shuffle=part.itemsize > 1,
                    )
                else:
                    file[name].resize(len(file[name]) + len(part), axis=0)
                    file[name][-len(part) :] = part
                checksum[name] = zlib.crc32(np.ascontiguousarray(part), checksum[name])
        file.attrs.update(attributes)
        file.attrs["format"] = FORMAT
        file.attrs["crc32_x"], file.attrs["crc32_y"] = checksum["x"], checksum["y"]


def load(path: str | Path, verify: bool = True, count: int | None = None) -> Dataset:
    """Read a data set, or its first `count` examples, into memory.

    Args:
        verify: compare the content with the checksum in the file (only if all of it is read).

    Raises:
        UserError: the file is missing, truncated, altered, or no data set of ours.
    """
    try:
        with h5py.File(path, "r") as file:
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
            if attributes.get("format") != FORMAT or "x" not in file or "y" not in file:
                raise UserError(f"{path} is not a data set made by `mg generate`; make it again")
            x, y = file["x"][:count], file["y"][:count]
            whole = len(x) == len(file["x"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}; make it again with `mg generate`") from error
    if verify and whole:
        if (zlib.crc32(x), zlib.crc32(y)) != (attributes["crc32_x"], attributes["crc32_y"]):
            raise UserError(
                f"{path} was altered: its checksum differs; delete it and make it again"
            )
    return Dataset(x, y, attributes)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
