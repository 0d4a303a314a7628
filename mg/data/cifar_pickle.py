"""The pickles in CIFAR's archives: read without executing them, and written as Python 2 did.

Nothing in a pickle is called: stand-ins of this module take the place of numpy's classes, and
anything else is refused.
"""

import io
import pickle
import pickletools
import struct
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from mg.errors import first_line

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
class Array:
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
    def __call__(self, kind: Any, shape: Any, code: Any) -> Array:
        if kind is not Array:
            raise ValueError("it makes something else than an array")
        return Array()


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
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _Encode(),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._STAND_INS[module, name]
        except KeyError:
            raise ValueError(f"it asks for {module}.{name}, which is refused") from None


def loads(content: bytes, name: str) -> Any:
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
        raise ValueError(f"{name}: {first_line(error):.200}") from error


def dumps(value: Any) -> bytes:
    """A pickle of `value` as Python 2's cPickle wrote it: its `str` are bytes.

    Args:
        value: of dictionaries, lists, whole numbers of 32 bits, bytes, and arrays of bytes.
    """
    to = io.BytesIO()
    to.write(b"\x80\x02")  # protocol 2
    _write(value, to)
    to.write(b".")
    return to.getvalue()


def _write(value: Any, to: IO[bytes]) -> None:
    if isinstance(value, dict):
        to.write(b"}(")
        for pair in value.items():
            for part in pair:
                _write(part, to)
        to.write(b"u")
    elif isinstance(value, list):
        to.write(b"](")
        for part in value:
            _write(part, to)
        to.write(b"e")
    elif isinstance(value, int):
        to.write(b"J" + struct.pack("<i", value))
    elif isinstance(value, bytes):
        to.write(b"T" + struct.pack("<i", len(value)) + value)
    else:  # an array of bytes
        to.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\x00tU\x01b\x87R")
        to.write(b"(K\x01(")
        for size in value.shape:
            _write(size, to)
        to.write(
            b"tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        )
        to.write(b"K\x00tb\x89")
        _write(value.tobytes(), to)
        to.write(b"tb")
