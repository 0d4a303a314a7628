"""What several tests share: one thread per process, and a small data set."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

# Several tests compare results bit for bit; threads of a shared machine only slow them down.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with train.h5 and valid.h5: 64 and 32 images of 16x16, squares as targets."""
    from mg.data import hdf5

    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    for split, count in (("train", 64), ("valid", 32)):
        y = np.zeros((count, 1, 16, 16), np.uint8)
        for image, (top, left) in zip(y, random.integers(0, 10, (count, 2)), strict=True):
            image[0, top : top + 6, left : left + 6] = 1
        x = np.clip(y * 0.8 + random.uniform(0, 0.2, y.shape), 0, 1).astype(np.float32)
        attributes = {"task": "translation", "split": split, "mode": "independent", "seed": 0}
        hdf5.write(folder / f"{split}.h5", [(x, y)], attributes | {"canvas": 16})
    return folder


@pytest.fixture(scope="session")
def mnist_directory() -> Path:
    """The folder of the real MNIST files, fetched if they are not there yet."""
    from mg.data import mnist

    folder = Path(__file__).parent.parent / "resources/mnist"
    mnist.fetch(folder, mnist.SOURCES)
    return folder
