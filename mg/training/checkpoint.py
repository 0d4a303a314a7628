"""Checkpoints: the two newest states of a training, refused when they belong to another one."""

import fcntl
import io
import os
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from mg.errors import UserError, first_line, short_of_memory
from mg.files import atomic_path

FORMAT = "mg-checkpoint-6"
LOCK = "lock"
_TRIES = 1000  # to make a folder that others remove at the same time


def read_torch(path: Path) -> Any:
    """Read a file of `write_torch` without executing anything that it holds.

    Raises:
        UserError: missing, damaged, or holding more than tensors and plain values. Too little
            memory is none of these: it is raised as it comes.
    """
    try:
        _verify(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # damaged bytes make the reader stumble in every way there is
        if short_of_memory(error):
            raise
        raise UserError(
            f"{path} is damaged or no file of mg ({first_line(error)}); if mg wrote it, delete it "
            "and make it again"
        ) from error


def write_torch(path: Path, content: Any) -> None:
    """Write what `torch.save` makes of `content`, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    saved = _saved(content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(saved)


def _saved(content: Any) -> memoryview:
    """What torch.save would write to a file; there it tells of a full disk in no way to catch."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def _verify(path: Path) -> None:
    """Compare the checksums in the file, which torch.load ignores: flipped bits become weights."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} differs")


@contextmanager
def sole_training(output: Path, log: Callable[[str], None]) -> Iterator[bool]:
    """Hold the folder of a training, so that two never write into it at once.

    Where another process holds it, wait until that ends, however it ends. Gives whether it had to.
    Of several processes of one training the first holds it for all.
    """
    if os.environ.get("RANK", "0") != "0":
        yield False
        return
    folder = output / "checkpoints"
    try:
        handle, waited = _lock(folder, log)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    try:
        yield waited
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        for unused in (folder, output):
            with suppress(OSError):
                unused.rmdir()
        os.close(handle)


def _lock(folder: Path, log: Callable[[str], None]) -> tuple[int, bool]:
    waited = False
    path = folder / LOCK
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            log(f"{holder} is training into {folder.parent}; waiting until it ends")
            fcntl.flock(handle, fcntl.LOCK_EX)
            waited = True
        except OSError as error:
            log(f"two trainings into {folder.parent} would not notice each other: {error.strerror}")
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        except FileNotFoundError:
            pass
        os.close(handle)  # who held it took it away at the end
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle, waited


def _open(path: Path) -> int:
    """A handle to a file that is made, and its folder, if they are not there."""
    for left in reversed(range(_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):  # who ended just now has removed the folder
            if not left:
                raise


class Checkpoints:
    """The newest two states of one training, in a folder of its own.

    Args:
        directory: where they lie; made when the first one is saved.
        settings: what the training is (plain values). A checkpoint of other settings is refused.
    """

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self.newest = directory / "checkpoint.pt"
        self.previous = directory / "checkpoint-previous.pt"
        self.settings = settings
        self._damaged = False  # the newest: nothing to fall back to

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`; the last checkpoint becomes the one to fall back to."""
        content = _saved({"format": FORMAT, "settings": self.settings, **state})
        with atomic_path(self.newest) as temporary:
            temporary.write_bytes(content)
            if self.newest.exists() and not self._damaged:
                os.replace(self.newest, self.previous)
        self._damaged = False

    def remove(self) -> None:
        """Delete all of the folder but the lock of `sole_training`, which is somebody's."""
        folder = self.newest.parent
        with suppress(OSError):
            for path in folder.iterdir():
                if path.name != LOCK:
                    path.unlink()
            folder.rmdir()

    def load(self, log) -> dict[str, Any] | None:
        """The newest readable state, or None if there is none.

        Raises:
            UserError: it belongs to a training with other settings.
        """
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = read_torch(path)
                if not isinstance(state, dict) or state.get("format") != FORMAT:
                    raise UserError(f"{path} is not a checkpoint that this version of mg reads")
            except UserError as error:
                log(f"ignored: {error}")
                self._damaged |= path == self.newest
                continue
            if state["settings"] != self.settings:
                raise UserError(
                    f"{path} belongs to another training ("
                    + "; ".join(differences(state["settings"], self.settings))
                    + f"); delete {path.parent} to start anew"
                )
            return state
        return None


def differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    """Each setting that is not the same, as `name: A there, B here`."""
    found = []
    for name in sorted({*there, *here}):
        a, b = there.get(name), here.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name}: {a} there, {b} here")
    return found
