"""ImageNet's networks on a folder of generated photographs: trained, evaluated, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from photographs import CLASSES, damage, write_photographs

from mg.data import SPLITS, hdf5, imagenet
from mg.data.imagenet_preparation import Photographs
from mg.evaluation.evaluate import evaluate
from mg.training import loop
from mg.training.checkpoint import read_torch
from mg.training.recipe import Recipe
from mg.training.training import Training

R_MG = {"width": [[16, 8, 4], [16, 8, 4], [32, 16], [64]]}
R_PMG_SEG = {"width": [[16, 8, 4, 4], [16, 16, 16, 32], [16, 16, 32, 64], [16, 32, 64, 64]]}
NETWORKS = {
    "r_mg 18": ("r_mg", R_MG | {"depth": 18}),
    "r_mg 34": ("r_mg", R_MG | {"depth": 34}),
    "r_pmg_seg 30 A": ("r_pmg_seg", R_PMG_SEG | {"depth": 30, "shortcut": "A"}),
    "r_pmg_seg 30 B": ("r_pmg_seg", R_PMG_SEG | {"depth": 30, "shortcut": "B"}),
    "r_pmg_seg 52 A": ("r_pmg_seg", R_PMG_SEG | {"depth": 52, "shortcut": "A"}),
    "r_pmg_seg 52 B": ("r_pmg_seg", R_PMG_SEG | {"depth": 52, "shortcut": "B"}),
}
RECIPE = Recipe(schedule="every_30", weight_decay=1e-4, epochs=2, iterations=2, batch=8,
                accumulate=2, precision="bfloat16")  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with lists train, valid and test of 208 images, one of each damaged."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder / "images", train=46, test=6)
    for path in ("train/n01/n01_001.JPEG", "train/n01/n01_024.JPEG", "val/n02/n02_001.JPEG"):
        damage(folder / "images" / path)
    for split in SPLITS:
        imagenet.prepare(split, folder / "images", folder / f"{split}.h5", crop=32)
    return folder


def of(photographs, output, name, recipe=RECIPE, seed=0):
    network, options = NETWORKS[name]
    files = [photographs / "train.h5"], output, photographs / "valid.h5"
    return Training(network, "imagenet", options, recipe, seed, *files)


def train(photographs, output, name, recipe=RECIPE, log=lambda line: None):
    training = of(photographs, output, name, recipe)
    loop.train(training, torch.device("cpu"), threads=1, log=log)
    return read_torch(output / "model.pt")["state_dict"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_resumes_and_is_measured(photographs, tmp_path, name):
    whole = train(photographs, tmp_path / "whole", name)

    def log(line):
        if line.startswith("epoch   1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(loop.Interrupted):
        train(photographs, tmp_path / "cut", name, log=log)
    resumed = train(photographs, tmp_path / "cut", name)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    # Although the data have four classes, of which the options say nothing.
    assert of(photographs, tmp_path / "whole", name).is_finished()
    assert not of(photographs, tmp_path / "whole", name, seed=1).is_finished()

    paths = {key: tmp_path / key for key in ("metrics.json", "predictions.h5")}
    record = evaluate(
        tmp_path / "whole/model.pt",
        photographs / "test.h5",
        metrics_path=paths["metrics.json"],
        predictions_path=paths["predictions.h5"],
        ten_crops=True,
    )
    assert record["test_images"] == 23 and record["unreadable_images"] == 1
    assert 0 <= record["top1_error"] <= 1 and 0 <= record["top1_error_10crop"] <= 1
    assert record["top5_error"] == 0  # of four classes
    with h5py.File(paths["predictions.h5"]) as file:
        rows = file["prediction"][:]
        attributes = hdf5.read_attributes(file)
        assert rows.shape == (24, 4) and attributes["unreadable_images"] == 1
        unread = np.isnan(rows).all(1)
        assert unread.nonzero()[0].tolist() == [7]  # n02_001, after six of n01 and one of n02
        np.testing.assert_allclose(rows[~unread].sum(1), 1, atol=1e-5)
        assert attributes["classes"] == list(CLASSES)
    labels = hdf5.load(photographs / "test.h5", layout=hdf5.FILES).y
    wrong = rows[~unread].argmax(1) != labels[~unread]
    assert record["top1_error"] == pytest.approx(wrong.mean())


def test_the_colours_are_learnt_and_damaged_files_counted(photographs, tmp_path, capfd):
    recipe = Recipe(optimizer="adamw", schedule="one_cycle", learning_rate=0.01, epochs=2,
                    iterations=25, batch=16)  # fmt: skip
    train(photographs, tmp_path, "r_mg 18", recipe)
    record = evaluate(
        tmp_path / "model.pt", photographs / "test.h5", metrics_path=tmp_path / "metrics.json"
    )
    assert record["top1_error"] < 0.4  # chance: 0.75
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["unreadable_images"] == 1
    warnings = [line for line in capfd.readouterr().err.splitlines() if "n01_001.JPEG" in line]
    assert len(warnings) == 1 and "left out" in warnings[0]


def test_ten_crops_are_averaged(photographs, tmp_path):
    """The measure is that of the mean of the logits of the ten crops, computed one by one."""
    from mg.training.model import load_model

    train(photographs, tmp_path, "r_mg 18")
    record = evaluate(
        tmp_path / "model.pt",
        photographs / "test.h5",
        metrics_path=tmp_path / "metrics.json",
        ten_crops=True,
    )
    model, _ = load_model(tmp_path / "model.pt")
    data = hdf5.load(photographs / "test.h5", layout=hdf5.FILES)
    images = Photographs(data, training=False, ten_crops=True)
    entropies = []
    for i in range(len(data.x)):
        crops, label, _ = images[i, None]
        if label >= 0:
            with torch.no_grad():
                logits = torch.cat([model(crop[None]) for crop in crops]).mean(0)
            entropies.append(-float(logits.log_softmax(0)[label]))
    assert record["cross_entropy_10crop"] == pytest.approx(np.mean(entropies), rel=1e-3)


def command(photographs, output, *more):
    return [
        *(sys.executable, "-m", "mg", "train", "--network", "r_mg", "--task", "imagenet"),
        *("--options", json.dumps(NETWORKS["r_mg 18"][1]), "--epochs", "1", "--iterations", "40"),
        *("--batch", "4", "--threads", "1", "--device", "cpu", "--workers", "2"),
        *("--train", str(photographs / "train.h5"), "--output", str(output), *more),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes as Linux lists them")
def test_a_worker_that_the_system_kills_is_explained(photographs, tmp_path):
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        command(photographs, cut, "--checkpoint-seconds", "0.2", "--iterations", "100000"),
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not (cut / "checkpoints/checkpoint.pt").exists() and time.monotonic() < end:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2, messages
    said = [line for line in messages.splitlines() if line.startswith("mg train: error: ")]
    assert len(said) == 1 and "not enough memory" in said[0], messages
    assert "Traceback" not in messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_all_processes_ends_in_a_checkpoint(photographs, tmp_path, number):
    """As a terminal or a cluster sends it: the processes that decode get it too."""
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        command(photographs, cut, "--checkpoint-seconds", "0.2"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not (cut / "checkpoints/checkpoint.pt").exists() and time.monotonic() < end:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, messages
    assert "the same command goes on" in messages and "Traceback" not in messages
    for output in (cut, tmp_path / "whole"):
        subprocess.run(command(photographs, output), check=True, capture_output=True)
    weights = [read_torch(o / "model.pt")["state_dict"] for o in (cut, tmp_path / "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
