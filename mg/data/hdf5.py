"""The file of a data set: HDF5 with inputs `x`, targets `y` and attributes that say what made them.

Any HDF5 reader opens it: chunks have the standard filters deflate and fletcher32. They are written
and read directly, by ISA-L (igzip level 1), which packs these sparse images five times faster than
zlib's level 1, and smaller. Shuffling bytes first made them larger and slower, and is not done.
Fletcher's checksum notices every changed byte; that of deflate, Adler-32, misses one flipped bit in
some ten thousand. The layout is that of HDF5 1.10, which checksums its own structures. Texts have a
fixed length: HDF5 keeps others in a heap without a checksum, where a flipped bit can make it loop
for ever.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib

from mg.data.parallel import in_order
from mg.errors import UserError, first_line
from mg.files import atomic_path


@dataclass(frozen=True)
class Layout:
    """What the two data sets of a file hold, in words; type and number of dimensions of each."""

    format: str
    words: str
    x: tuple[type, int]
    y: tuple[type, int]

    def items(self) -> Iterator[tuple[str, np.dtype, int]]:
        """Name, type and number of dimensions of each data set."""
        for name in ("x", "y"):
            kind, dimensions = getattr(self, name)
            yield name, np.dtype(kind), dimensions


PIXELS = Layout("mg-data-1", "images and maps of their pixels", (np.float32, 4), (np.uint8, 4))
"""x (N, 1, H, W) in [0, 1]; y (N, C, H, W), 0 or 1."""
IMAGES = Layout("mg-images-1", "images and their classes", (np.uint8, 4), (np.uint16, 1))
"""x (N, 3, H, W), RGB in 0..255; y (N,), the class."""
FILES = Layout("mg-files-1", "paths of images and their classes", (np.uint8, 2), (np.uint16, 1))
"""x (N, L), paths of image files, as the system has them, padded with zeros; y (N,), the class."""

_LAYOUTS = {layout.format: layout for layout in (PIXELS, IMAGES, FILES)}
CHECKSUM = "attributes_crc32"
_OWN = "mg.data.hdf5.write"  # named to those who bring data of their own
_NAMES = ("task", "split", "mode")  # messages quote them: no line breaks, no control characters
_KINDS = dict.fromkeys((*_NAMES, "directory"), str) | {
    "canvas": int,
    "seed": int,
    "classes": list,
}
_WORDS = {1: "one dimension", 2: "two dimensions", 4: "four dimensions"}
_CHUNK_BYTES = 2**18  # of x in one chunk; y has as many examples
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_DATA_FILTERS = [h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32]
_LARGEST_CHUNK = 2**24  # bytes
_MOST_CHUNKS = 2**20  # 256 GB of x
_DEFLATE_LIMIT = 1032  # deflate makes nothing smaller than this
_LARGEST_ATTRIBUTE = 2**24  # bytes
_PLAIN = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM}  # h5py's bool is one

Block = tuple[np.ndarray, np.ndarray]


class Attributes(dict[str, Any]):
    """Those of the file at `path`; to ask for one that it lacks is a UserError."""

    def __init__(self, path: str | os.PathLike, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"{self.path} does not say its {name}; make it again with that attribute, data of "
            f"your own with `{_OWN}`"
        )


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    x, y: as their layout says; attributes: task, split, mode, seed, canvas, ... as written by
    whatever made the file.
    """

    x: np.ndarray
    y: np.ndarray
    attributes: Attributes


def write(
    path: str | os.PathLike,
    blocks: Iterable[Block],
    attributes: Mapping[str, Any],
    workers: int = 1,
    layout: Layout = PIXELS,
) -> None:
    """Write blocks of examples (x, y), of the types of `layout`, one after the other.

    Memory stays bounded by a few blocks. `workers` threads compress.

    Raises:
        UserError: there are no examples, blocks do not fit `layout` or each other, the file cannot
            be written, or would round what are whole numbers in it.
    """
    checksums = dict.fromkeys(("x", "y"), 0)
    with atomic_path(path) as temporary, _created(temporary) as file:

        def pieces() -> Iterator[tuple[h5py.h5d.DatasetID, int, np.ndarray, int]]:
            sets = {}
            first = 0
            for block in _whole_chunks(_alike(blocks, layout, path)):
                step = _chunk_length(block[0])
                for (name, kind, _), part in zip(layout.items(), block, strict=True):
                    part = _converted(part, kind, f"{path}: {name}")
                    checksums[name] = isal_zlib.crc32(part, checksums[name])
                    if name not in sets:
                        sets[name] = _create(file, name, part, step)
                    sets[name].set_extent((first + len(part), *part.shape[1:]))
                    for i in range(0, len(part), step):
                        yield sets[name], first + i, part[i : i + step], step
                first += len(block[0])

        for data, first, content in in_order(_compress, pieces(), workers):
            data.write_direct_chunk((first, *(0,) * (data.rank - 1)), content)
        if not len(file):
            raise UserError(f"there are no examples to write into {path}")
        for name, checksum in checksums.items():
            write_attributes(file[name], {"crc32": np.uint32(checksum)})
        write_attributes(file, {**attributes, "format": layout.format})


def write_attributes(of: h5py.File | h5py.Dataset, values: Mapping[str, Any]) -> None:
    """Give a file or data set these attributes, and a checksum of all that it has.

    The checksum is for large ones, such as the names of ImageNet's classes: HDF5 has none of its
    own for what exceeds 64 KB.
    """
    for name, value in values.items():
        array = np.asarray(value)
        if array.dtype.kind == "U":
            array = np.strings.encode(array, "utf-8", "surrogateescape")
            if array.nbytes > _LARGEST_ATTRIBUTE:
                raise UserError(
                    f"{of.file.filename}: {name} would take {array.nbytes / 1e6:.0f} MB, each entry"
                    f" as much as the longest, and {_LARGEST_ATTRIBUTE / 1e6:.0f} is the most; "
                    "shorten the longest"
                )
            length = max(1, array.dtype.itemsize)
            of.attrs.create(name, array, dtype=h5py.string_dtype("utf-8", length))
        else:
            of.attrs.create(name, array)
    everything = _attributes(of)
    everything.pop(CHECKSUM, None)
    of.attrs[CHECKSUM] = np.uint32(_checksum(everything))


def read_attributes(of: h5py.File | h5py.Dataset) -> dict[str, Any]:
    """The attributes of a file or data set as text, numbers and lists of Python.

    Raises:
        ValueError: one was altered, is gigantic, or of a type that `write_attributes` does not
            write; of the latter two no value is read.
    """
    values = _attributes(of)
    if values.pop(CHECKSUM, None) not in (None, _checksum(values)):
        raise ValueError("the checksum of its attributes differs")
    return values


def _attributes(of: h5py.File | h5py.Dataset) -> dict[str, Any]:
    values = {}
    for index in range(h5py.h5a.get_num_attrs(of.id)):
        attribute = h5py.h5a.open(of.id, index=index)
        name, kind, space = attribute.name.decode(), attribute.get_type(), attribute.get_space()
        if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
            raise ValueError(f"its {name} is text of variable length, as earlier versions wrote it")
        if kind.get_class() not in _PLAIN or attribute.shape is None:
            raise ValueError(f"its {name} is neither text nor numbers")
        if kind.get_size() * space.get_simple_extent_npoints() > _LARGEST_ATTRIBUTE:
            raise ValueError(f"its {name} is larger than any that `mg` writes")
        array = np.empty(attribute.shape, attribute.dtype)
        attribute.read(array)
        if array.dtype.kind == "S":
            array = np.strings.decode(array, "utf-8", "surrogateescape")
        values[name] = array.tolist()
    return values


def _checksum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


@contextmanager
def _created(path: Path) -> Iterator[h5py.File]:
    """A new file; without time stamps, so that the same content gives the same bytes."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_file_locking(False, False)  # a file of one writer, on systems that know no locks too
    file = h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))
    try:
        yield file
    except OSError as error:
        raise OSError(_reason(error)) from error
    finally:
        try:
            file.close()
        except RuntimeError as error:  # what h5py raises when the last writes fail
            raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What the system said, if HDF5's long message tells, else its first line."""
    number = re.search(r"errno = (\d+)", str(error))
    return os.strerror(int(number[1])) if number else first_line(error).strip("'\"")


def _alike(blocks: Iterable[Block], layout: Layout, path: str | os.PathLike) -> Iterator[Block]:
    """The blocks, each after a look at its shapes."""
    examples = None
    for number, block in enumerate(blocks):
        place = f"cannot write {path}: in block {number}"
        for (name, _, dimensions), part in zip(layout.items(), block, strict=True):
            if part.ndim != dimensions:
                raise UserError(
                    f"{place} {name} has shape {part.shape}; needed are {_WORDS[dimensions]}"
                )
        x, y = block
        if len(x) != len(y):
            raise UserError(f"{place} are {len(x)} inputs x and {len(y)} targets y; give as many")
        shapes = x.shape[1:], y.shape[1:]
        examples = examples or shapes
        if shapes != examples:
            raise UserError(
                f"{place} examples have shapes {shapes}, in the first {examples}; give equal ones"
            )
        yield block


def _chunk_length(x: np.ndarray) -> int:
    """How many examples make a chunk."""
    return max(1, _CHUNK_BYTES // x[0].nbytes)


def _whole_chunks(blocks: Iterable[Block]) -> Iterator[Block]:
    """Cut the blocks anew, so that all but the last fill their chunks."""
    rest: Block | None = None
    for x, y in blocks:
        if not len(x):
            continue
        if rest is not None:
            x, y = np.concatenate([rest[0], x]), np.concatenate([rest[1], y])
        whole = len(x) - len(x) % _chunk_length(x)
        if whole:
            yield x[:whole], y[:whole]
        rest = (x[whole:], y[whole:]) if whole < len(x) else None
    if rest is not None:
        yield rest


def _converted(part: np.ndarray, kind: np.dtype, where: str) -> np.ndarray:
    """`part` as an array of `kind`; only what it stores as floating point may be rounded."""
    result = np.ascontiguousarray(part, kind)
    if kind.kind == "u" and part.dtype != kind and not np.array_equal(result, part):
        raise UserError(
            f"cannot write {where} has values that are no whole numbers from 0 to "
            f"{np.iinfo(kind).max}; give it such"
        )
    return result


def _create(file: h5py.File, name: str, part: np.ndarray, step: int) -> h5py.h5d.DatasetID:
    shape = part.shape[1:]
    return file.create_dataset(
        name,
        shape=(0, *shape),
        maxshape=(None, *shape),
        chunks=(step, *shape),
        dtype=part.dtype,
        compression="gzip",
        compression_opts=1,
        fletcher32=True,
    ).id


def _compress(
    piece: tuple[h5py.h5d.DatasetID, int, np.ndarray, int],
) -> tuple[h5py.h5d.DatasetID, int, bytes]:
    data, first, part, step = piece
    if len(part) < step:  # HDF5 stores the last chunk whole
        part = np.concatenate([part, np.zeros((step - len(part), *part.shape[1:]), part.dtype)])
    content = isal_zlib.compress(part, 1)
    return data, first, content + _fletcher(content)


def _fletcher(content: bytes) -> bytes:
    """What HDF5's filter fletcher32 appends."""
    words = np.frombuffer(content + bytes(len(content) % 2), ">u2").astype(np.uint64)
    weights = np.arange(len(words), 0, -1, dtype=np.uint64)
    low, high = (int(total) for total in (words.sum(), words @ weights))
    folded = [(total - 1) % 0xFFFF + 1 if total else 0 for total in (low, high)]
    return (folded[1] << 16 | folded[0]).to_bytes(4, "little")


def load(
    path: str | os.PathLike,
    count: int | None = None,
    layout: Layout = PIXELS,
) -> Dataset:
    """Read a data set of a layout, or its first `count` examples, into memory.

    Raises:
        UserError: the file is missing, truncated, altered, no data set of this layout, or holds
            images and maps of other values than those of `PIXELS` or of another canvas than it
            says, or images of other channels than those of `IMAGES`.
    """
    with _opened(path, layout) as file:
        arrays = {}
        for name in ("x", "y"):
            data = file[name]
            length = len(data) if count is None else min(count, len(data))
            arrays[name] = _read(data, length)
            whole = length == len(data)
            if whole and isal_zlib.crc32(arrays[name]) != read_attributes(data)["crc32"]:
                raise ValueError(f"the checksum of {name} differs")
        attributes = read_attributes(file)
        _check_attributes(attributes, arrays["y"])
    if layout is PIXELS:
        _check_values(path, **arrays, canvas=attributes.get("canvas"))
    return Dataset(arrays["x"], arrays["y"], Attributes(path, attributes))


def inputs_checksum(path: str | os.PathLike) -> int:
    """The checksum (CRC-32) of all inputs of a `PIXELS` file, by which others refer to them.

    Raises:
        UserError: as for `load`.
    """
    with _opened(path, PIXELS) as file:
        return int(read_attributes(file["x"])["crc32"])


def _check_attributes(attributes: dict[str, Any], y: np.ndarray) -> None:
    for name, value in attributes.items():
        sound = isinstance(value, _KINDS.get(name, object))
        if not sound or (name in _NAMES and not value.isprintable()):
            raise ValueError(f"its {name} is {value!r:.60}")
    names = attributes.get("classes")
    if names is not None:
        if not all(isinstance(name, str) for name in names):
            raise ValueError("its classes are not names")
        if y.max(initial=0) >= len(names):
            raise ValueError(f"it has images of more than its {len(names)} classes")


def _check_values(
    path: str | os.PathLike, x: np.ndarray, y: np.ndarray, canvas: int | None
) -> None:
    """Refuse sound files of another canvas than they say, or of other numbers than a network takes.

    The loss of targets of 255 falls without end.
    """
    if canvas not in (None, x.shape[-1]):
        raise UserError(
            f"{path} says that its canvas is {canvas}, but has images {x.shape[-1]} pixels wide; "
            "write it again with that canvas"
        )
    if (highest := y.max(initial=0)) > 1:
        raise UserError(
            f"{path} has targets of up to {highest}; they must be 0 or 1, write it again with such"
        )
    low, high = (x.min(), x.max()) if x.size else (0, 0)
    if not (low >= 0 and high <= 1):  # both are NaN where any input is
        raise UserError(
            f"{path} has inputs from {low:g} to {high:g}; they must be numbers from 0 to 1, write "
            "it again with such"
        )


@contextmanager
def _opened(path: str | os.PathLike, layout: Layout) -> Iterator[h5py.File]:
    """Open a file of ours; whatever is wrong with it becomes one line.

    Only a file with our mark is said to be deleted: another may be all that its owner has.
    """
    path = Path(path)
    maker = "generate" if layout is PIXELS else "prepare"
    again = f"make it again with `mg {maker}`, data of your own with `{_OWN}`"
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        with h5py.File(path, "r", locking=False) as file:
            if _is_marked(file, layout):
                again = f"delete it and {again}"
            _check(file, size, layout)
            yield file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, isal_zlib.error) as error:
        message = f"{path} is no intact data set of `mg`: {_reason(error)}; {again}"
        raise UserError(message) from error


def _is_marked(file: h5py.File, layout: Layout) -> bool:
    """Whether a file says that it is of `layout`, whatever else is in it."""
    if "format" not in file.attrs or h5py.h5a.open(file.id, b"format").dtype.kind != "S":
        return False  # of texts of variable length HDF5 may read for ever
    return np.array_equal(file.attrs["format"], layout.format.encode())


def _check(file: h5py.File, size: int, layout: Layout) -> None:
    """Refuse what `write` does not make, before anything is allocated for it."""
    if "format" not in file.attrs:
        raise ValueError(f"it is not marked {layout.format}")
    mark = read_attributes(file)["format"]
    if isinstance(mark, str) and mark in _LAYOUTS and mark != layout.format:
        raise UserError(f"{file.filename} holds {_LAYOUTS[mark].words}; needed are {layout.words}")
    if mark != layout.format:
        raise ValueError(f"it is not marked {layout.format}")
    for name, dtype, dimensions in layout.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no data set {name} of its own")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.dtype != dtype or data.ndim != dimensions:
            raise ValueError(f"{name} is not a data set of {dtype} with {_WORDS[dimensions]}")
        if data.chunks is None or data.chunks[1:] != data.shape[1:]:
            raise ValueError(f"{name} is not stored in chunks of whole examples")
        stored = data.id.get_create_plist()
        if [stored.get_filter(i)[0] for i in range(stored.get_nfilters())] != _DATA_FILTERS:
            raise ValueError(f"{name} is not stored with the filters deflate and fletcher32")
        chunks = -(-len(data) // data.chunks[0])
        size_of_all = chunks * int(np.prod(data.chunks, dtype=object)) * dtype.itemsize
        # A file may have holes: its size says little, and counting its chunks takes long.
        few = chunks <= _MOST_CHUNKS and size_of_all <= _DEFLATE_LIMIT * size
        if not few or data.id.get_num_chunks() != chunks:
            raise ValueError(f"{name} declares {data.shape}, more than the file holds")
    alike = layout is not PIXELS or file["x"].shape[2:] == file["y"].shape[2:]
    if len(file["x"]) != len(file["y"]) or not alike:
        raise ValueError(f"x {file['x'].shape} and y {file['y'].shape} do not belong together")
    if layout is IMAGES and (channels := file["x"].shape[1]) != 3:
        raise UserError(
            f"{file.filename} has images of {channels} channels; they must have 3, red, green and "
            "blue, write it again with such"
        )


def _read(data: h5py.Dataset, length: int) -> np.ndarray:
    result = np.empty((length, *data.shape[1:]), data.dtype)
    step = data.chunks[0]
    chunk_bytes = int(np.prod(data.chunks)) * data.dtype.itemsize
    for first in range(0, length, step):
        skipped, raw = data.id.read_direct_chunk((first, *(0,) * (data.ndim - 1)))
        inflater = isal_zlib.decompressobj()
        sound = not skipped and _fletcher(raw[:-4]) == raw[-4:]
        content = inflater.decompress(raw[:-4], chunk_bytes) if sound else b""
        if len(content) != chunk_bytes or not inflater.eof:
            raise ValueError(f"the chunk of {data.name} at example {first} is damaged")
        part = result[first : first + step]
        part[:] = np.frombuffer(content, data.dtype).reshape(data.chunks)[: len(part)]
    return result


# Files of results: predictions, saliency maps, and whatever else is given for one.


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[h5py.File]:
    """A file to fill in memory, written whole at the end.

    Where the disk is full HDF5 cannot close a file, and crashes when Python frees it. Its data sets
    need the filter fletcher32, as above.

    Raises:
        UserError: it cannot be written.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fapl_core(2**20, False)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    with h5py.File(h5py.h5f.create(b"memory", h5py.h5f.ACC_TRUNC, creation, access)) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def results(path: str | os.PathLike, what: str) -> Iterator[h5py.File]:
    """Open a file to read; whatever is wrong with it, also inside the block, becomes one line.

    Args:
        what: what the file should be, and how it is made again, for the message.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    try:
        with open(path, "rb"):
            pass
        with h5py.File(path, "r", locking=False) as file:
            read_attributes(file)  # refuse what cannot be read, before anything else is
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; it should be {what}") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not {what} ({_reason(error)})") from error


def part(file: h5py.File, name: str) -> h5py.Dataset:
    """The data set `name` of a file, if all of it lies in this file and can be as large as it says.

    Raises:
        ValueError: a link elsewhere, a view of other files, no numbers, or a size that the file
            cannot hold.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"it has no data set {name} of its own")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "biuf":
        raise ValueError(f"{name} is no data set of numbers")
    stored = data.id.get_create_plist()
    filters = {stored.get_filter(i)[0] for i in range(stored.get_nfilters())}
    if data.is_virtual or data.external or not filters <= _FILTERS:
        raise ValueError(f"{name} is not stored in it plainly")
    if data.shape is None or data.nbytes > _DEFLATE_LIMIT * os.path.getsize(file.filename):
        raise ValueError(f"{name} declares {data.shape}, more than the file holds")
    if data.chunks and int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize > max(
        _LARGEST_CHUNK, 2 * data.nbytes
    ):
        raise ValueError(f"{name} declares chunks of {data.chunks}, larger than itself")
    return data
