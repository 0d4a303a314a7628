"""CIFAR-10 and CIFAR-100: bring the archive, read it without executing it, prepare its images.

The archives are those of https://www.cs.toronto.edu/~kriz/cifar.html, "python version": gzipped tar
files of pickles that Python 2 wrote. They are never unpacked, and nothing in their pickles is
called: stand-ins of this module take the place of numpy's classes, and anything else is refused.

Two preparations of the images exist. `plain` is today's usual one: RGB in [0, 1], less the mean and
divided by the standard deviation of each channel; in training, a random crop of the image with four
pixels of the mean colour around it, and a random flip (fb.resnet.torch).

`whitened` is the paper's: the authors trained on "cifar100_whitened.t7" of the Wide Residual
Networks (Zagoruyko and Komodakis, 2016), which pylearn2's make_cifar10_gcn_whitened.py made. What
that does is computed here: global contrast normalisation (each image less its mean, scaled to norm
55, no bias under the root), then ZCA whitening, P = V (D + 0.1 I)^-1/2 V^T with V D V^T the
covariance of the training images less their mean. Then as the authors: channels in order B, G, R;
enlarged to 36x36 (bilinear, corners aligned, Torch7's `image.scale`); in training a random crop of
32x32 and a random flip, in testing the crop at the centre.
"""

import gzip
import io
import pickle
import pickletools
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mg.data import SPLITS, hdf5, mnist
from mg.data.download import PIECE, SourceError, download, pieces, readable, sha256, store
from mg.errors import UserError
from mg.files import atomic_path

SIZE = 32
HELD_OUT = 10  # the last tenth of the training images is the validation set
SOURCES = ("https://www.cs.toronto.edu/~kriz/",)
AS_IS = "as-is"  # the source of those who put an archive of their own in place
DIGITS = "mnist:"  # and a folder of MNIST: its digits are written as an archive
PREPARATIONS = ("plain", "whitened")
_PART = 1000  # images that are prepared at once
BORDER = 4  # pixels around a plain image that a training crop may reach into


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
        names = _names(_unpickle(found[archive.meta], archive.meta), archive)
        parts = [_batch(_unpickle(found[name], name), archive, name) for name in wanted]
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
    if not isinstance(data, _Array) or not isinstance(labels, list):
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


# What a pickle of those archives consists of: dictionaries, lists, numbers, strings, and one array.
_OPCODES = frozenset(
    """
    PROTO STOP MARK EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1
    SHORT_BINSTRING BINSTRING BINUNICODE BINPUT LONG_BINPUT BINGET LONG_BINGET
    GLOBAL REDUCE BUILD
    """.split()
)
_MOST_MEMOS = 1_000_000  # a reader makes room for the largest number at once


@dataclass
class _Type:
    """What stands in for numpy.dtype: it is one type, or an error."""

    name: bytes | str
    align: Any = None
    copy: Any = None

    def __post_init__(self) -> None:
        if self.name not in (b"u1", "u1"):
            raise ValueError(f"it holds an array of type {self.name!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and such; bytes have none


@dataclass
class _Array:
    """What stands in for numpy.ndarray: shape and content, checked before they meet numpy."""

    state: tuple = field(default=())

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        try:
            _, shape, _, fortran, content = self.state
            sizes = [int(n) for n in shape if type(n) is int and n >= 0]
        except (TypeError, ValueError) as error:
            raise ValueError("it holds an array without a state") from error
        if len(sizes) != len(shape) or not isinstance(content, bytes):
            raise ValueError("it holds an array without shape or content")
        if int(np.prod(sizes, dtype=object)) != len(content):
            raise ValueError(f"it declares an array of {tuple(sizes)} in {len(content):,} bytes")
        return np.frombuffer(content, np.uint8).reshape(sizes, order="F" if fortran else "C")


class _Function:
    """What stands in for a function: it can be called, not changed."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes a function")


class _Reconstruct(_Function):
    def __call__(self, kind: Any, shape: Any, code: Any) -> _Array:
        if kind is not _Array:
            raise ValueError("it makes something else than an array")
        return _Array()


class _Encode(_Function):
    """How Python 3 writes bytes for Python 2."""

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise ValueError("it encodes something else than bytes")
        return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    _STAND_INS = {
        ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
        ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _Encode(),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._STAND_INS[module, name]
        except KeyError:
            raise ValueError(f"it asks for {module}.{name}, which is refused") from None


def _unpickle(content: bytes, name: str) -> Any:
    """The plain values in a pickle of these archives.

    Raises:
        ValueError: it is damaged, or holds anything else; nothing of it was executed.
    """
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name not in _OPCODES:
                raise ValueError(f"it uses {opcode.name}, which is refused")
            if opcode.name.endswith("PUT") and argument > _MOST_MEMOS:
                raise ValueError(f"it numbers its parts up to {argument:,}")
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged bytes make the reader stumble in every way there is
        reason = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{name}: {reason[0][:200]}") from error


# ------------------------------------------------------------------------ writing


def write_digits(dataset: str, mnist_directory: str | PathLike, path: Path) -> None:
    """Write MNIST's digits as an archive of `dataset`: 28x28 in the middle of 3x32x32, all grey.

    50,000 training and 10,000 test images, as in the official archives; of CIFAR-100's classes the
    first ten are used.

    Raises:
        UserError: a file of MNIST is missing or damaged, or `path` cannot be written.
    """
    parts = {split: mnist.load_split(mnist_directory, split) for split in ("train", "test")}
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
        return _names(_unpickle(content, archive.meta), archive) == _digit_names(dataset)
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
            data = io.BytesIO()
            data.write(b"\x80\x02")  # protocol 2, as Python 2 wrote it
            _pickle(values, data)
            data.write(b".")
            member = tarfile.TarInfo(f"{archive.folder}/{name}")
            member.size = data.tell()
            data.seek(0)
            file.addfile(member, data)


def _pickle(value: Any, to: IO[bytes]) -> None:
    """Write a value as Python 2's cPickle did: its `str` are bytes."""
    if isinstance(value, dict):
        to.write(b"}(")
        for pair in value.items():
            for part in pair:
                _pickle(part, to)
        to.write(b"u")
    elif isinstance(value, list):
        to.write(b"](")
        for part in value:
            _pickle(part, to)
        to.write(b"e")
    elif isinstance(value, int):
        to.write(b"J" + struct.pack("<i", value))
    elif isinstance(value, bytes):
        to.write(b"T" + struct.pack("<i", len(value)) + value)
    else:  # an array of bytes
        to.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\x00tU\x01b\x87R")
        to.write(b"(K\x01(")
        for size in value.shape:
            _pickle(size, to)
        to.write(
            b"tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        )
        to.write(b"K\x00tb\x89")
        _pickle(value.tobytes(), to)
        to.write(b"tb")


# ------------------------------------------------------------------------ preparing


def global_contrast_normalise(x: Tensor, scale: float = 55.0) -> Tensor:
    """Each row of `x` (N, D) less its mean, scaled to norm `scale`; a constant row becomes 0."""
    x = x - x.mean(1, keepdim=True)
    norm = x.square().sum(1, keepdim=True).sqrt() / scale
    return x / norm.where(norm >= 1e-8, 1.0)


def zca(x: Tensor, bias: float = 0.1) -> tuple[Tensor, Tensor]:
    """The mean (D,) of `x` (N, D), and the symmetric matrix (D, D) that whitens what is less it.

    `bias` is added to the variances; directions of little variance are mostly noise. Computed in
    float64, a part of `x` at a time: as a whole CIFAR would take gigabytes.
    """
    mean = x.mean(0, dtype=torch.float64)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in x.split(_PART):
        centred = part - mean
        covariance.addmm_(centred.T, centred)
    covariance /= len(x)
    covariance.diagonal().add_(bias)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, (vectors * values.rsqrt()) @ vectors.T


@dataclass(frozen=True)
class Preparation:
    """How uint8 images become network inputs; fitted on training images, kept with the model.

    Attributes:
        kind: plain or whitened.
        mean, scale: plain: of each channel (3, 1, 1) and its inverse standard deviation; whitened:
            of each value (D,) and the whitening matrix (D, D).
    """

    kind: str
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, kind: str, images: np.ndarray) -> "Preparation":
        """The preparation for training on `images` (N, 3, H, W) uint8.

        Computed on the processor, so that every process and every resumed training has the same.
        Whitening 50,000 images of 3x32x32 takes a minute on one core.
        """
        x = torch.from_numpy(images)
        if kind == "plain":
            sums = sum(
                torch.stack([part.double().sum((0, 2, 3)), part.double().square().sum((0, 2, 3))])
                for part in x.split(_PART)
            )
            mean, square = sums / (x.numel() // 3) / torch.tensor([[255.0], [255.0**2]])
            std = (square - mean**2).clamp(min=1e-12).sqrt()
            return cls(kind, mean.float().view(3, 1, 1), (1 / std).float().view(3, 1, 1))
        parts = (part.flatten(1).float() for part in x.split(_PART))
        mean, matrix = zca(torch.cat([global_contrast_normalise(part) for part in parts]))
        return cls(kind, mean.float(), matrix.float())

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Preparation":
        """The preparation with this `state`.

        Raises:
            UserError: it is none.
        """
        kind, mean, scale = (state.get(name) for name in ("kind", "mean", "scale"))
        if kind in PREPARATIONS and isinstance(mean, Tensor) and isinstance(scale, Tensor):
            shapes = {"plain": ((3, 1, 1),) * 2, "whitened": (mean.shape[:1], mean.shape * 2)}
            if (mean.shape, scale.shape) == shapes[kind]:
                return cls(kind, mean, scale)
        raise UserError("the model does not say how its images are prepared; train it again")

    def to(self, device: torch.device) -> "Preparation":
        """The same on a device."""
        return Preparation(self.kind, self.mean.to(device), self.scale.to(device))

    def apply(self, images: Tensor) -> Tensor:
        """What is kept on the device of `images` (N, 3, H, W) uint8: float32, for `crop` to cut."""
        if self.kind == "plain":
            return (images.float() / 255 - self.mean) * self.scale
        x = global_contrast_normalise(images.flatten(1).float())
        x = ((x - self.mean) @ self.scale).view(images.shape).flip(1)  # B, G, R
        return F.interpolate(x, _enlarged(images.shape[-1]), mode="bilinear", align_corners=True)

    def crop(self, x: Tensor, size: int, changes: Tensor | None = None) -> Tensor:
        """Crops (B, 3, size, size) of prepared images: at the centre, or as `changes` say.

        Args:
            changes: (B, 3) top, left, flip as `draw` gives them.
        """
        if changes is None:
            start = (x.shape[-1] - size) // 2
            return x[..., start : start + size, start : start + size]
        if self.kind == "plain":
            x = F.pad(x, (BORDER,) * 4)
        top, left, flip = changes.unbind(1)
        along = torch.arange(size, device=x.device)
        rows = top[:, None] + along
        columns = left[:, None] + torch.where(flip[:, None] > 0, along.flip(0), along)
        return x[
            torch.arange(len(x), device=x.device)[:, None, None, None],
            torch.arange(3, device=x.device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]

    def draw(self, number: int, size: int, random: torch.Generator) -> Tensor:
        """(number, 3) random corners and flips of training crops of images of side `size`."""
        room = 2 * BORDER if self.kind == "plain" else _enlarged(size) - size
        corners = torch.randint(room + 1, (number, 2), generator=random)
        return torch.cat([corners, torch.randint(2, (number, 1), generator=random)], 1)

    def state(self) -> dict[str, Any]:
        """As plain values and tensors, for model.pt."""
        return {"kind": self.kind, "mean": self.mean.cpu(), "scale": self.scale.cpu()}


def _enlarged(size: int) -> int:
    return size * 36 // 32


def draw_balanced(labels: Tensor, number: int, random: torch.Generator) -> Tensor:
    """(number,) indices, classes evenly: every run of as many draws as classes has each once.

    Args:
        labels: (N,) classes, on the processor; those without an example are passed over.
    """
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    classes = counts.nonzero()[:, 0]
    rounds = -(-number // len(classes))
    turns = torch.rand(rounds, len(classes), generator=random).argsort(1).flatten()[:number]
    chosen = classes[turns]
    within = (torch.rand(number, generator=random, dtype=torch.float64) * counts[chosen]).long()
    return order[starts[chosen] + within]
