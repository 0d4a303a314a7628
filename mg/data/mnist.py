"""MNIST: fetch from a configured source, verify, read."""

import hashlib
from pathlib import Path

import numpy as np

from mg.errors import UserError

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SPLITS = ("train", "valid", "test")
VALIDATION = 10_000  # the last images of the training file


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}; "
            "fetch MNIST with `mg fetch` or name the directory with the idx files"
        ) from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(
            f"{path} is not an idx file of unsigned bytes with {dimensions} dimension(s); "
            "replace it with an uncompressed file in MNIST's layout"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dimensions, offset=4))
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise UserError(
            f"{path} declares {shape} and should have {expected} bytes but has {len(content)}; "
            "it is truncated or damaged: supply it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def split_files(directory: str | Path, split: str) -> tuple[Path, Path]:
    """The files with a split's images and labels."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    names = list(SHA256)[2:] if split == "test" else list(SHA256)[:2]
    return Path(directory) / names[0], Path(directory) / names[1]


def load_split(directory: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split from the idx files in `directory` (MNIST or anything in its layout).

    train is the training file without its last 10,000 images, valid those 10,000, test the test
    file.

    Returns:
        images (N, 28, 28) uint8 and labels (N,) uint8.

    Raises:
        UserError: unknown split; a file is missing or not in the expected layout.
    """
    images_path, labels_path = split_files(directory, split)
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise UserError(f"{images_path} holds images of {images.shape[1:]}; they must be 28x28")
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels; "
            "supply files that belong together"
        )
    if split == "test":
        part = slice(None)
    elif split == "valid":
        part = slice(-VALIDATION, None)
    else:
        part = slice(None, -VALIDATION)
    if not len(images[part]) or (split != "test" and len(images) <= VALIDATION):
        raise UserError(
            f"{images_path} holds {len(images)} images: too few, the last {VALIDATION} of the "
            "training file are the validation split"
            if split != "test"
            else f"{images_path} holds no images"
        )
    return images[part], labels[part]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
