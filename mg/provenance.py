"""Where a result came from: commit, versions, device, time."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that runs, with `+changes` if files differ from it; None outside git.

    A container or an installed package has no git folder: there MG_COMMIT, set when it was built,
    speaks for it.
    """

    def git(*arguments: str) -> str | None:
        # By itself git reads no checkout of another user, although its code runs here already.
        command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not (ROOT / ".git").exists():
        return os.environ.get("MG_COMMIT")
    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return os.environ.get("MG_COMMIT")
    return head + ("+changes" if git("status", "--porcelain", "--", "mg", "workflow") else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    packages = ("torch", "numpy", "numba", "h5py")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
