"""A finished run to damage, and file systems to fill."""

import shutil
import subprocess
from pathlib import Path

import pytest
from processes import evaluate, run_mg, saliency, train


@pytest.fixture(scope="session")
def whole(tiny, tmp_path_factory) -> Path:
    """A folder with everything that a run makes: data, model, metrics, predictions, maps."""
    run = tmp_path_factory.mktemp("whole") / "translation/pmg/seed0"
    run.mkdir(parents=True)
    shutil.copy(tiny / "train.h5", run)
    shutil.copy(tiny / "valid.h5", run / "test.h5")
    assert run_mg(*train(run, run / "train.h5")).code == 0
    assert run_mg(*evaluate(run)).code == 0
    assert run_mg(*saliency(run)).code == 0
    return run


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many kilobytes; it is gone after the test."""
    mounted = []

    def make(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def read_only(tmp_path):
    """Shows a folder in another place, where not even root can write, until the test ends."""
    mounted = []

    def show(folder: Path) -> Path:
        place = tmp_path / f"read only {len(mounted)}"
        place.mkdir()
        for step in (["--bind", folder, place], ["-o", "remount,ro,bind", place]):
            done = subprocess.run(["mount", *step], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
            mounted[:] = {*mounted, place}
        return place

    yield show
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)
