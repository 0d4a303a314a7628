"""Bringing a file from a server or a folder: in pieces, bounded in size and time, verified."""

import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from mg.errors import UserError
from mg.files import atomic_path
from mg.progress import Progress

PIECE = 1 << 16  # bytes

_CONNECT_SECONDS = 3
_SILENCE_SECONDS = 20
_FILE_SECONDS = 900
_SLOWEST = 50_000  # bytes per second, of files that are too large for that time


class SourceError(Exception):
    """Why a source cannot serve a file."""


def store(content: Iterable[bytes], path: Path, digest: str, size: int, owner: str) -> None:
    """Write the pieces of `content` to `path` if they are `owner`'s file of that name.

    Args:
        digest: the SHA-256 it must have.
        size: the bytes it must have.

    Raises:
        SourceError: they are another file.
    """
    name = path.name
    found, received = hashlib.sha256(), 0
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        Progress(name, size, "bytes") as progress,
    ):
        for piece in content:
            received += len(piece)
            if received > size:
                raise SourceError(f"{name} is larger than {owner}'s")
            found.update(piece)
            file.write(piece)
            progress.advance(len(piece))
        if received < size:
            raise SourceError(f"{name} ends after {received:,} of {size:,} bytes")
        if found.hexdigest() != digest:
            raise SourceError(f"{name} has the right size but is not {owner}'s (SHA-256 differs)")


def pieces(path: Path) -> Iterator[bytes]:
    """The content of a file of this machine.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise SourceError(f"cannot read {path.name}: {error.strerror}") from error


def download(address: str, limit: int, owner: str) -> Iterator[bytes]:
    """The body at `address`; `limit` bytes do not compress to noticeably more.

    Raises:
        SourceError: it cannot be had whole, at a bearable pace.
    """
    name = address.rpartition("/")[2]
    seconds = max(_FILE_SECONDS, limit // _SLOWEST)
    end = time.monotonic() + seconds
    received = 0
    try:
        with _asked(address) as response:
            length = response.length
            while piece := response.read1(PIECE):
                received += len(piece)
                if received > 1.01 * limit + PIECE:
                    raise SourceError(f"{name} is larger than {owner}'s")
                if time.monotonic() > end:
                    raise SourceError(f"{name} took longer than {seconds} s")
                yield piece
    except urllib.error.HTTPError as error:
        raise SourceError(f"{name}: HTTP status {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise SourceError(f"{name}: silent for {_SILENCE_SECONDS} s") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            reason = f"no connection within {_CONNECT_SECONDS} s"
        raise SourceError(f"cannot be reached for {name} ({reason})") from error
    if length is not None and received < length:
        raise SourceError(f"{name}: connection ended after {received:,} of {length:,} bytes")


def _asked(address: str) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(_HTTPHandler, _HTTPSHandler)
    try:
        return opener.open(address, timeout=_SILENCE_SECONDS)
    except ValueError as error:  # of this address, or of one that the server refers to
        raise SourceError(f"it is no valid address ({error})") from error


def _hurried(kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
    """A connection that is given up sooner while it is being made than when it is used."""

    class Hurried(kind):
        def connect(self) -> None:
            patience, self.timeout = self.timeout, _CONNECT_SECONDS
            super().connect()
            self.sock.settimeout(patience)

    return Hurried


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_hurried(http.client.HTTPConnection), request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_hurried(http.client.HTTPSConnection), request)


@contextmanager
def readable() -> Iterator[None]:
    """Turn what a damaged tar archive raises into a `SourceError`."""
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise SourceError(f"the archive is damaged ({error})") from error


def sha256(path: str | PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
