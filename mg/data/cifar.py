"""CIFAR-10 and CIFAR-100: bring the archive, read it, write digits as one.

The archives are those of https://www.cs.toronto.edu/~kriz/cifar.html, "python version": gzipped tar
files of pickles that Python 2 wrote. They are never unpacked, and their pickles never executed
(`cifar_pickle.py`). How networks are given the images is in `cifar_preparation.py`.
"""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mg.data import SPLITS, cifar_pickle, hdf5, mnist
from mg.data.download import PIECE, SourceError, download, pieces, readable, sha256, store
from mg.errors import UserError
from mg.files import atomic_path

SIZE = 32
HELD_OUT = 10  # the last tenth of the training images is the validation set
SOURCES = ("https://www.cs.toronto.edu/~kriz/",)
AS_IS = "as-is"  # the source of those who put an archive of their own in place
DIGITS = "mnist:"  # and a folder of MNIST: its digits are written as an archive


@dataclass(frozen=True)
class Archive:
    """One of the two official archives.

    Attributes:
        name: of the data set, in messages.
        file, sha256, size: of the archive. The page of the data sets gives its MD5:
            c58f30108f718f92721af3b95e74349a (CIFAR-10), eb9058c3a382ffc7106e4002c42a8d85
            (CIFAR-100); the SHA-256 is the one that torchvision and Keras check.
        folder: in the archive, of all files.
        train, test, meta: files with the training and test images and the names of classes.
        labels, names: keys of the classes and of their names.
        classes: their number.
    """

    name: str
    file: str
    sha256: str
    size: int
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes
    classes: int


ARCHIVES = {
    "cifar10": Archive(
        "CIFAR-10",
        "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170_498_071,
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "batches.meta",
        b"labels",
        b"label_names",
        10,
    ),
    "cifar100": Archive(
        "CIFAR-100",
        "cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        169_001_437,
        "cifar-100-python",
        ("train",),
        "test",
        "meta",
        b"fine_labels",
        b"fine_label_names",
        100,
    ),
}

# ------------------------------------------------------------------------ bringing


def fetch(
    dataset: str,
    directory: str | PathLike,
    sources: Iterable[str] = SOURCES,
    log: Callable[[str], None] = print,
) -> str:
    """Bring the archive of `dataset` into `directory`, verified by its SHA-256.

    An archive that is there and right is left alone.

    Args:
        dataset: cifar10 or cifar100.
        sources: tried in turn; each is an address ending in / under which the archive lies, or a
            directory that has it; or, alone, "as-is": the archive in `directory` is taken whatever
            it holds, if its layout is right; or, alone, "mnist:DIRECTORY": MNIST's digits are
            written as such an archive, over none but an earlier one of them.

    Returns:
        The source that served, or "already present".

    Raises:
        UserError: no source served, with all that is needed to supply it by hand; or an archive
            that is in the way; or it cannot be written.
    """
    archive, sources = ARCHIVES[dataset], list(sources)
    path = Path(directory) / archive.file
    if sources == [AS_IS]:
        for split in SPLITS:
            read(dataset, directory, split)
        log(f"{path} used as it is")
        return AS_IS
    if len(sources) == 1 and sources[0].startswith(DIGITS):
        if path.exists() and not _holds_digits(dataset, path):
            raise UserError(
                f"{path} is no archive of MNIST's digits; move it away, or write them to another "
                "folder"
            )
        write_digits(dataset, sources[0].removeprefix(DIGITS), path)
        log(f"MNIST's digits written to {path}")
        return sources[0]
    if path.is_file():
        if sha256(path) == archive.sha256:
            log(f"{archive.name} is in {directory}, verified")
            return "already present"
        raise UserError(
            f"{path} is not {archive.name}'s archive (SHA-256 differs); move it away to fetch it, "
            f"or, to use one of your own in its format, give {AS_IS} as the only source"
        )
    failures = []
    for source in sources:
        try:
            store(_content(source, archive), path, archive.sha256, archive.size, archive.name)
        except SourceError as error:
            failures.append(f"{source}: {error}")
            log(f"{archive.name} not from {failures[-1]}")
        else:
            log(f"{archive.name} fetched from {source} into {directory}, verified")
            return source
    raise UserError(_advice(archive, path, failures))


def _content(source: str, archive: Archive) -> Iterator[bytes]:
    if source.startswith(("http://", "https://")):
        address = f"{source.rstrip('/')}/{archive.file}"
        return download(address, archive.size, archive.name)
    if not Path(source).is_dir():
        raise SourceError(
            f"neither an http(s) address nor a directory ({AS_IS} and {DIGITS}DIRECTORY must stand "
            "alone)"
        )
    return pieces(Path(source) / archive.file)


def _advice(archive: Archive, path: Path, failures: list[str]) -> str:
    return "\n".join(
        [
            f"{archive.name} could not be fetched; tried:",
            *(f"  {failure}" for failure in failures or ["nothing, the list of sources is empty"]),
            f"To supply it by hand, download {SOURCES[0]}{archive.file} elsewhere "
            f"({archive.size / 1e6:.0f} MB, SHA-256 {archive.sha256}) and put it at {path}; what "
            "is made of it takes as much disk again.",
            "To see the same networks and rules at work without it, on MNIST's digits: "
            "snakemake --cores all --configfile config/cifar-digits.yaml",
        ]
    )


# ------------------------------------------------------------------------ reading


def prepare(
    dataset: str,
    split: str,
    directory: str | PathLike,
    output: str | PathLike,
    count: int | None = None,
) -> None:
    """Write a split, or its first `count` images, from the archive in `directory` as HDF5.

    Raises:
        UserError: the archive is missing or damaged, or has fewer images.
    """
    x, y, names = read(dataset, directory, split)
    if count is not None and count > len(x):
        raise UserError(
            f"{directory} has {len(x):,} images for {dataset} {split}, not {count:,}; ask for fewer"
        )
    attributes = {"task": dataset, "split": split, "canvas": SIZE, "classes": names}
    hdf5.write(output, [(x[:count], y[:count])], attributes, layout=hdf5.IMAGES)


def read(
    dataset: str, directory: str | PathLike, split: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One split of the archive in `directory`.

    valid is the last tenth of the training images (the last 5,000 of the official 50,000), train
    the others.

    Returns:
        images (N, 3, 32, 32) uint8, classes (N,) uint16, names of the classes.

    Raises:
        UserError: the archive is missing, damaged, or holds what it should not.
    """
    archive = ARCHIVES[dataset]
    path = Path(directory) / archive.file
    wanted = [archive.test] if split == "test" else list(archive.train)
    found = _members(path, archive, {*wanted, archive.meta})
    try:
        names = _names(cifar_pickle.loads(found[archive.meta], archive.meta), archive)
        parts = [_batch(cifar_pickle.loads(found[name], name), archive, name) for name in wanted]
    except ValueError as error:
        raise UserError(f"{path} is not {archive.name} in its python version: {error}") from error
    x = np.concatenate([x for x, _ in parts])
    y = np.concatenate([y for _, y in parts])
    held_out = len(x) // HELD_OUT
    if split != "test" and not held_out:
        raise UserError(f"{path} holds {len(x)} training images; it must hold {HELD_OUT} or more")
    part = {
        "train": slice(None, -held_out),
        "valid": slice(-held_out, None),
        "test": slice(None),
    }[split]
    return x[part], y[part], names


def _members(path: Path, archive: Archive, wanted: set[str]) -> dict[str, bytes]:
    """The content of the files with these names; nothing is unpacked to where the archive says."""
    largest, found = 2 * archive.size, {}
    try:
        with readable(), gzip.open(path) as packed, tarfile.open(fileobj=packed, mode="r:") as file:
            for member in file:
                place = Path(member.name)
                if (
                    place.is_absolute()
                    or ".." in place.parts
                    or not (member.isreg() or member.isdir())
                ):
                    raise SourceError(
                        f"it holds {member.name!r}, which is no file of its own folder"
                    )
                if member.size > largest:
                    raise SourceError(f"it holds a file of {member.size:,} bytes")
                if (
                    member.isreg()
                    and place.parts[:-1] == (archive.folder,)
                    and place.name in wanted
                ):
                    found[place.name] = file.extractfile(member).read()
            while packed.read(PIECE):  # to the end, where the checksum is
                pass
    except SourceError as error:
        if not path.exists():
            raise UserError(
                f"{path} does not exist; fetch it with `mg fetch --data` or put it there"
            ) from error
        raise UserError(f"{path} cannot be used: {error}; supply it again") from error
    if missing := sorted(wanted - found.keys()):
        raise UserError(f"{path} has no {archive.folder}/{missing[0]}; it is not {archive.name}'s")
    return found


def _batch(content: Any, archive: Archive, name: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(content, dict):
        raise ValueError(f"{name} is no dictionary")
    data, labels = content.get(b"data"), content.get(archive.labels)
    if not isinstance(data, cifar_pickle.Array) or not isinstance(labels, list):
        raise ValueError(f"{name} has no data and {archive.labels.decode()}")
    x = data.array()
    if x.ndim != 2 or x.shape[1] != 3 * SIZE**2 or len(x) != len(labels):
        raise ValueError(
            f"{name} holds images of shape {x.shape} and {len(labels)} classes; there must be "
            f"{3 * SIZE**2} bytes per image"
        )
    if not all(type(label) is int and 0 <= label < archive.classes for label in labels):
        raise ValueError(f"{name} has classes that are not numbers below {archive.classes}")
    return x.reshape(-1, 3, SIZE, SIZE), np.array(labels, np.uint16)


def _names(content: Any, archive: Archive) -> list[str]:
    names = content.get(archive.names) if isinstance(content, dict) else None
    if not isinstance(names, list) or len(names) != archive.classes:
        raise ValueError(f"{archive.meta} does not name {archive.classes} classes")
    if not all(
        isinstance(name, bytes) and name.isascii() and 0 < len(name) < 100 for name in names
    ):
        raise ValueError(f"{archive.meta} has names of classes that are no short words")
    return [name.decode() for name in names]


# ------------------------------------------------------------------------ writing


def write_digits(dataset: str, mnist_directory: str | PathLike, path: Path) -> None:
    """Write MNIST's digits as an archive of `dataset`: 28x28 in the middle of 3x32x32, all grey.

    50,000 training and 10,000 test images, as in the official archives; of CIFAR-100's classes the
    first ten are used.

    Raises:
        UserError: a file of MNIST is missing or damaged, its labels are no digits, or `path` cannot
            be written.
    """
    parts = {split: mnist.load_split(mnist_directory, split) for split in ("train", "test")}
    largest = max(int(labels.max()) for _, labels in parts.values())
    if largest >= 10:
        raise UserError(f"{mnist_directory} has labels up to {largest}; needed are digits, 0 to 9")
    border = (SIZE - 28) // 2
    images = {
        split: np.pad(x, ((0, 0), (border, border), (border, border)))[:, None].repeat(3, axis=1)
        for split, (x, _) in parts.items()
    }
    write_archive(
        dataset,
        path,
        (images["train"], parts["train"][1]),
        (images["test"], parts["test"][1]),
        _digit_names(dataset),
    )


def _digit_names(dataset: str) -> list[str]:
    return [f"digit {i}" if i < 10 else f"unused {i}" for i in range(ARCHIVES[dataset].classes)]


def _holds_digits(dataset: str, path: Path) -> bool:
    """Whether an archive is one that `write_digits` made, by the names of its classes."""
    archive = ARCHIVES[dataset]
    try:
        content = _members(path, archive, {archive.meta})[archive.meta]
        return _names(cifar_pickle.loads(content, archive.meta), archive) == _digit_names(dataset)
    except (UserError, ValueError):
        return False


def write_archive(
    dataset: str,
    path: Path,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: list[str],
) -> None:
    """Write images and classes of your own in the format of the official archive.

    Args:
        train, test: images (N, 3, 32, 32) uint8 and classes (N,).
        names: of all classes.
    """
    archive = ARCHIVES[dataset]
    content = {archive.meta: {archive.names: [name.encode() for name in names]}}
    sets = [(archive.test, *test)]
    for name, x, y in zip(
        archive.train,
        np.array_split(train[0], len(archive.train)),
        np.array_split(train[1], len(archive.train)),
        strict=True,
    ):
        sets.append((name, x, y))
    for name, x, y in sets:
        content[name] = {
            b"batch_label": name.encode(),
            archive.labels: [int(label) for label in y],
            b"data": x.reshape(len(x), -1),
            b"filenames": [f"{name}_{i:05d}.png".encode() for i in range(len(x))],
        }
    with atomic_path(path) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as file:
        for name, values in content.items():
            data = cifar_pickle.dumps(values)
            member = tarfile.TarInfo(f"{archive.folder}/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
