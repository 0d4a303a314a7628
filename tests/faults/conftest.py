"""Finished runs to damage, and file systems to fill."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from configurations import write_configuration
from photographs import write_photographs
from PIL import Image
from processes import evaluate, prepare, run_mg, saliency, train, train_classifier

from mg.data import cifar


@pytest.fixture(scope="session")
def whole(tiny, tmp_path_factory) -> Path:
    """A folder with everything that a run makes: data, model, metrics, predictions, maps."""
    run = _empty(tmp_path_factory, "translation/pmg")
    shutil.copy(tiny / "train.h5", run)
    shutil.copy(tiny / "valid.h5", run / "test.h5")
    assert run_mg(*train(run, run / "train.h5")).code == 0
    assert run_mg(*evaluate(run)).code == 0
    assert run_mg(*saliency(run)).code == 0
    return run


def _empty(tmp_path_factory, model: str) -> Path:
    """The folder of a model, in one of a run that has a configuration."""
    top = tmp_path_factory.mktemp("whole") / "r"
    run = top / "models" / model / "seed0"
    run.mkdir(parents=True)
    write_configuration(top / "configuration.yaml")
    return run


@pytest.fixture(scope="session")
def classified(tmp_path_factory) -> Path:
    """The same of a classifier, beside the archive of CIFAR's format that it was trained on."""
    run = _empty(tmp_path_factory, "cifar10/mg")
    random = np.random.default_rng(0)
    parts = [
        (random.integers(0, 256, (count, 3, 32, 32), np.uint8), np.arange(count) % 10)
        for count in (40, 20)
    ]
    archive = run / cifar.ARCHIVES["cifar10"].file
    cifar.write_archive("cifar10", archive, *parts, [f"kind {i}" for i in range(10)])
    for split in ("train", "test"):
        assert run_mg(*prepare("cifar10", split, run, run / f"{split}.h5")).code == 0
    Image.fromarray(parts[1][0][0].transpose(1, 2, 0)).save(run / "image.png")
    assert run_mg(*train_classifier(run, "cifar10", run / "train.h5")).code == 0
    assert run_mg(*evaluate(run)).code == 0
    return run


@pytest.fixture(scope="session")
def photographed(tmp_path_factory) -> Path:
    """The same of a classifier of photographs, beside its folder of images."""
    run = _empty(tmp_path_factory, "imagenet/r_mg")
    write_photographs(run / "images", train=10, test=3)
    for split in ("train", "test"):
        done = run_mg(*prepare("imagenet", split, run / "images", run / f"{split}.h5"))
        assert done.code == 0, done.err
    assert run_mg(*train_classifier(run, "imagenet", run / "train.h5")).code == 0
    assert run_mg(*evaluate(run)).code == 0
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
