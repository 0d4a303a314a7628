"""Whole files or none: everything is written under a temporary name, synced, then renamed."""

import errno
import json
import os
import secrets
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mg.errors import UserError

CHECKSUM = "crc32"  # name of the entry in a JSON object
LARGEST = 10**30  # number in a JSON file: sums and means of such stay numbers


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    The temporary name keeps the suffix of `path`, because writers choose their format by it. Data
    and directory entry are synced, so that a power cut leaves the old file or the new one.

    Raises:
        UserError: the directory cannot be written, or the disk is full.
    """
    path = Path(path)
    # The name is known before there is a file: a signal at any moment finds what to remove.
    temporary = path.parent / f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}"
    try:
        _make_folder(path.parent)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # there may be nothing, nor a place for it
            temporary.unlink()


def check_place(*paths: str | os.PathLike | None, inputs: Iterable[str | os.PathLike] = ()) -> None:
    """Find out before long work, not after it, that `paths` cannot be written (None: not asked).

    Raises:
        UserError: a directory cannot be made or written, or stands in the place of the file; or the
            file is one of `inputs`, or the same as another.
    """
    taken = {os.path.realpath(path): path for path in inputs}
    for path in map(Path, filter(None, paths)):
        place = os.path.realpath(path)
        if place in taken:
            raise UserError(f"{path} would be written over {taken[place]}; name another file")
        taken[place] = path
        try:
            _make_folder(path.parent)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # that is what the system calls a file in the place of a folder
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused rather than written.

    An object is given a checksum, which `read_json` verifies and takes away.
    """
    if isinstance(value, dict):
        value = value | {CHECKSUM: _checksum(value)}
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, unreadable, not JSON, or altered since it was written.
    """
    try:
        value = json.loads(
            Path(path).read_text(encoding="utf-8"),
            parse_constant=_refuse,
            parse_int=lambda text: _bounded(int, text),
            parse_float=lambda text: _bounded(float, text),
        )
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); if mg wrote it, delete it and make it again"
        ) from error
    if isinstance(value, dict) and value.pop(CHECKSUM, None) not in (None, _checksum(value)):
        raise UserError(f"{path} was altered: its checksum differs; delete it and make it again")
    return value


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        UserError: as `read_json`, or it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; delete it and make it again")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _bounded(kind: type, text: str) -> int | float:
    """A number up to `LARGEST`."""
    number = kind(text)
    if abs(number) > LARGEST:
        raise ValueError(f"{text:.20} … is no number of `mg`")
    return number


def _checksum(value: dict[str, Any]) -> str:
    """The CRC-32 of a JSON object; what is read gives the same as what was written."""
    return f"{zlib.crc32(json.dumps(value).encode()):08x}"
