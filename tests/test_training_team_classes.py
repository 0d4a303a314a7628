"""Two processes on one classifier: the weights of one, also when stopped and resumed."""

import json
import os
import signal
import subprocess
import sys

import torch
from photographs import damage, write_photographs
from test_training_loop import wait_for
from test_training_team import of_rank

from mg import networks
from mg.cli import main
from mg.data import cifar, imagenet
from mg.training.checkpoint import read_torch

# Distance of their weights, in units of the way that training took them. One step leaves less than
# 1e-4 of it; rounding grows from step to step, above all where batch norm sees few values.
CLOSE = 0.05
NARROW = [[8, 4, 2], [8, 4, 2], [8, 4, 2], [16, 8, 4], [16, 8]]


def command(files, network, task, options, output, *more):
    return [
        *(sys.executable, "-m", "mg", "train", "--network", network, "--task", task),
        *("--options", json.dumps(options), "--learning-rate", "0.0001", "--epochs", "2"),
        *("--iterations", "15", "--batch", "16", "--accumulate", "2", "--device", "cpu"),
        *("--threads", "2", "--train", str(files / "train.h5"), "--output", str(output), *more),
    ]


def distance(one, other):
    """Root of the summed squares of the differences of all parameters."""
    a, b = one["state_dict"], other["state_dict"]
    names = [name for name in a if "running" not in name and "tracked" not in name]
    return sum(float((a[name] - b[name]).square().sum()) for name in names) ** 0.5


def untrained(model):
    torch.manual_seed(0)
    network = networks.build(model["network"], model["dataset"], **model["options"])
    return {"state_dict": network.state_dict()}


def compare_with_one(tmp_path, stop, *arguments):
    """Train in one process, and in two that `stop(launcher)` stops after a checkpoint."""
    one, two = tmp_path / "one", tmp_path / "two"
    main(command(*arguments[:-1], one, *arguments[-1])[3:])
    again = command(*arguments[:-1], two, *arguments[-1], "--processes", "2")
    launcher = subprocess.Popen(
        [*again, "--checkpoint-seconds", "0"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(two / "checkpoints/checkpoint.pt", launcher)
    stop(launcher)
    _, messages = launcher.communicate(timeout=120)
    assert launcher.returncode == 128 + signal.SIGTERM, messages
    assert messages.count("SIGTERM at epoch") == 2 and "Traceback" not in messages
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = [json.loads((folder / "run.json").read_text()) for folder in (one, two)]
    assert (runs[1]["processes"], runs[1]["attempts"]) == (2, 2)
    assert runs[0]["unreadable_images"] == runs[1]["unreadable_images"]
    models = [read_torch(folder / "model.pt") for folder in (one, two)]
    apart, moved = (distance(models[0], other) for other in (models[1], untrained(models[0])))
    assert apart < CLOSE * moved
    return runs[1]


def test_images_of_cifar_drawn_evenly(mnist_directory, tmp_path):
    """Cropped and flipped at random; a signal to the second process stops both."""
    cifar.fetch("cifar10", tmp_path, [f"mnist:{mnist_directory}"], lambda line: None)
    cifar.prepare("cifar10", "train", tmp_path, tmp_path / "train.h5", 300)
    compare_with_one(
        tmp_path,
        lambda launcher: os.kill(of_rank(1, launcher), signal.SIGTERM),
        *(tmp_path, "mg", "cifar10", {"width": NARROW}, ["--preparation", "plain"]),
    )


def test_photographs_that_workers_decode(tmp_path):
    """One is damaged; a signal to all of them, as a terminal or a cluster sends it."""
    images = write_photographs(tmp_path / "images", train=26, test=1)
    damage(images / "train/n01/n01_001.JPEG")
    imagenet.prepare("train", images, tmp_path / "train.h5", crop=32)
    options = {"depth": 18, "width": [[8, 4, 4], [8, 4, 4], [8, 8], [16]]}
    run = compare_with_one(
        tmp_path,
        lambda launcher: os.killpg(launcher.pid, signal.SIGTERM),
        *(tmp_path, "r_mg", "imagenet", options, ["--workers", "2"]),
    )
    assert run["unreadable_images"] == 1
