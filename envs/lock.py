"""Pin every package that pyproject.toml asks for, at the newest versions that satisfy it.

Writes requirements.txt (to run), what comes besides in requirements-dev.txt (to test) and
requirements-slurm.txt (to run on SLURM), and the pins to run into mg.yaml (for conda). Run it with
`make lock`, then run the tests.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What the CUDA build of torch brings depends on the machine; pip adds it there.
MACHINE = ("nvidia", "cuda", "triton", "pip", "setuptools", "wheel", "mg")


def resolve(folder: Path, extras: str) -> list[str]:
    """Install `mg[extras]` in a fresh environment and list what came."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"{HERE.parent}[{extras}]"], check=True
    )
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    pins = [line.split("+")[0] for line in listed.stdout.splitlines()]
    return [pin for pin in pins if not pin.lower().startswith(MACHINE)]


def main() -> None:
    """Write the four files."""
    head = "# Written by envs/lock.py from pyproject.toml; do not edit.\n"
    with tempfile.TemporaryDirectory() as folder:
        run = resolve(Path(folder) / "run", "workflow")
        (HERE / "requirements.txt").write_text(head + "\n".join(run) + "\n")
        for name in ("dev", "slurm"):
            pins = resolve(Path(folder) / name, f"workflow,{name}")
            lines = ["-r requirements.txt", *(pin for pin in pins if pin not in run)]
            (HERE / f"requirements-{name}.txt").write_text(head + "\n".join(lines) + "\n")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [head.rstrip(), "channels:", "  - conda-forge", "dependencies:"]
    lines += [f"  - python={python}", "  - pip", "  - pip:"] + [f"      - {pin}" for pin in run]
    (HERE / "mg.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
