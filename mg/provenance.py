"""Where a result came from: commit, versions, device, time."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import zlib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that runs; None outside git.

    With `+changes` if files differ from it, and a checksum of the package's code as it is then;
    with `+unknown` if git does not say.

    A container or an installed package has no git folder: there MG_COMMIT, set when it was built,
    speaks for it.
    """

    def git(*arguments: str) -> str | None:
        # By itself git reads no checkout of another user, although its code runs here already.
        # A lock that it need not take would stand in the way of who works there.
        command = ["git", "--no-optional-locks", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
        try:
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not (ROOT / ".git").exists():
        return os.environ.get("MG_COMMIT") or None
    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return os.environ.get("MG_COMMIT") or None
    changed = git("status", "--porcelain", "--", "mg", "workflow")
    if changed:
        return f"{head}+changes-{_checksum_of_code():08x}"
    return head if changed == "" else f"{head}+unknown"


def _checksum_of_code() -> int:
    checksum = 0
    for path in sorted((ROOT / "mg").rglob("*.py")):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return checksum


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    packages = ("torch", "numpy", "numba", "h5py")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
