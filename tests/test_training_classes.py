"""Classifiers train through the same loop: archives in, model out, resumed bit for bit."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch

from mg.data import cifar
from mg.errors import UserError
from mg.evaluation.evaluate import evaluate
from mg.training import loop
from mg.training.checkpoint import read_torch
from mg.training.objective import CLASSES
from mg.training.recipe import Recipe
from mg.training.training import Training

NARROW = [[8, 4, 2], [8, 4, 2], [8, 4, 2], [16, 8, 4], [16, 8]]
WIDTHS = {
    "vgg": [8, 8, 8, 16, 16],
    "resnet": [8, 8, 8, 16, 16],
    **dict.fromkeys(("mg", "r_mg", "pmg", "r_pmg"), NARROW),
}
RECIPE = Recipe(
    optimizer="adamw", schedule="one_cycle", learning_rate=0.01, epochs=3, iterations=45, batch=16
)


@pytest.fixture(scope="module")
def digits(mnist_directory, tmp_path_factory):
    """A folder with train, valid and test files: MNIST's digits from an archive of CIFAR-10's."""
    folder = tmp_path_factory.mktemp("digits")
    cifar.fetch("cifar10", folder, [f"mnist:{mnist_directory}"], lambda line: None)
    for split, count in (("train", 1500), ("valid", 200), ("test", 300)):
        cifar.prepare("cifar10", split, folder, folder / f"{split}.h5", count)
    return folder


def of(digits, output, network="mg", recipe=RECIPE, **changes):
    """A training of digits."""
    arguments = {
        "options": {"width": WIDTHS[network]},
        "seed": 0,
        "train_files": [digits / "train.h5"],
        "valid_file": digits / "valid.h5",
        "preparation": "plain",
        **changes,
    }
    return Training(network, "cifar10", recipe=recipe, output=output, **arguments)


def train(digits, output, *arguments, log=lambda line: None, **changes):
    training = of(digits, output, *arguments, **changes)
    loop.train(training, torch.device("cpu"), threads=1, log=log)
    return read_torch(output / "model.pt")["state_dict"]


def history(output):
    with open(output / "history.csv", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("network", WIDTHS)
def test_every_network_learns_digits(digits, tmp_path, network):
    """Chance is an error of 0.9; 2,160 images take every network far below it."""
    train(digits, tmp_path, network)
    rows = history(tmp_path)
    assert tuple(rows[0]) == CLASSES.history
    assert float(rows[-1]["valid_top1_error"]) < 0.6
    record = evaluate(
        tmp_path / "model.pt",
        digits / "test.h5",
        metrics_path=tmp_path / "metrics.json",
        predictions_path=tmp_path / "predictions.h5",
    )
    assert record["top1_error"] < 0.6 and record["top5_error"] < record["top1_error"]
    assert record["test_images"] == 300 and record["unreadable_images"] == 0


def test_predictions_are_the_measured_probabilities(digits, tmp_path):
    import h5py

    from mg.data import hdf5

    train(digits, tmp_path, recipe=Recipe(epochs=1, iterations=4, batch=16))
    paths = {"metrics_path": tmp_path / "m.json", "predictions_path": tmp_path / "p.h5"}
    record = evaluate(tmp_path / "model.pt", digits / "test.h5", batch=64, **paths)
    labels = hdf5.load(digits / "test.h5", layout=hdf5.IMAGES).y
    with h5py.File(tmp_path / "p.h5") as file:
        probability = file["prediction"][:]
        assert hdf5.read_attributes(file)["classes"] == [f"digit {i}" for i in range(10)]
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
    assert record["top1_error"] == pytest.approx(np.mean(probability.argmax(1) != labels))
    entropy = -np.log(probability[np.arange(300), labels]).mean()
    assert record["cross_entropy"] == pytest.approx(entropy, rel=1e-4)


def interrupted_once(start, output):
    """Run `start(log)` into a signal at the end of its first epoch."""

    def log(line):
        if line.startswith("epoch   1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(loop.Interrupted):
        start(log)
    assert (output / "checkpoints/checkpoint.pt").exists()


def test_a_resumed_training_ends_with_the_same_weights(digits, tmp_path):
    """With dropout, crops, flips and balanced draws all going on where they were."""
    recipe = Recipe(epochs=2, iterations=6, batch=16, accumulate=2)
    settings = {
        "network": "resnet",
        "recipe": recipe,
        "options": {"width": WIDTHS["resnet"], "dropout": True},
    }
    whole = train(digits, tmp_path / "whole", **settings)
    interrupted_once(
        lambda log: train(digits, tmp_path / "cut", log=log, **settings), tmp_path / "cut"
    )
    resumed = train(digits, tmp_path / "cut", **settings)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_whitened_images_are_trained_on_and_kept_with_the_model(digits, tmp_path):
    """The paper's preparation, fitted to the training images alone, travels in model.pt."""
    small = tmp_path / "small.h5"
    cifar.prepare("cifar10", "valid", digits, small, count=60)
    train(
        digits,
        tmp_path,
        recipe=Recipe(epochs=1, iterations=2, batch=8),
        preparation="whitened",
        valid_file=small,
    )
    kept = read_torch(tmp_path / "model.pt")["preparation"]
    assert kept["kind"] == "whitened" and kept["scale"].shape == (3072, 3072)
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["data"][0]["preparation"] == "whitened"
    record = evaluate(tmp_path / "model.pt", small, metrics_path=tmp_path / "metrics.json")
    assert record["top1_error"] == float(history(tmp_path)[0]["valid_top1_error"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"preparation": "grey"}, "choose plain or whitened"),
        ({"options": {"width": WIDTHS["mg"], "classes": 7}}, "the data have 10 classes"),
        ({"recipe": Recipe(output_prior=True)}, "output_prior is for pixels"),
        ({"network": "unet", "options": {}}, "no network 'unet'"),
    ],
)
def test_settings_that_do_not_fit_are_named(digits, tmp_path, changes, message):
    if "network" in changes:
        WIDTHS["unet"] = None
    with pytest.raises(UserError, match=message):
        train(digits, tmp_path, **changes)
    WIDTHS.pop("unet", None)


@pytest.fixture
def shown(digits, tmp_path):
    """Writes the validation set as somebody else has it: classes, order, size or colour."""
    from mg.data import hdf5

    def write(change):
        data = hdf5.load(digits / "valid.h5", layout=hdf5.IMAGES)
        x, y, classes = change(data.x, data.y, data.attributes["classes"])
        attributes = {**data.attributes, "classes": classes}
        hdf5.write(tmp_path / "other.h5", [(x, y)], attributes, layout=hdf5.IMAGES)
        return tmp_path / "other.h5"

    return write


UNLIKE = {
    "fewer classes": (lambda x, y, names: (x, y % 2, names[:2]), "2 classes, the training"),
    "more classes": (lambda x, y, names: (x, y, [*names, "none"]), "11 classes, the training"),
    "another order": (lambda x, y, names: (x, y, names[::-1]), "number 0 is 'digit 9'"),
    "smaller": (lambda x, y, names: (x[:, :, 2:30, 2:30], y, names), "28 x 28 pixels"),
    "grey": (lambda x, y, names: (x[:, :1], y, names), "images of 1 channels"),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_what_could_not_be_measured_is_neither_trained_nor_evaluated(digits, tmp_path, shown, kind):
    """Nothing is trained before a validation set that does not fit is found."""
    change, said = UNLIKE[kind]
    other, lines = shown(change), []
    recipe = Recipe(epochs=1, iterations=1, batch=8)
    with pytest.raises(UserError) as caught:
        train(digits, tmp_path / "a", recipe=recipe, valid_file=other, log=lines.append)
    assert said in str(caught.value) and str(caught.value).startswith(str(other))
    assert lines == [] and not (tmp_path / "a").exists()

    train(digits, tmp_path / "b", recipe=recipe, valid_file=None)
    with pytest.raises(UserError) as again:
        evaluate(tmp_path / "b/model.pt", other, metrics_path=tmp_path / "metrics.json")
    assert str(again.value) == str(caught.value)


def test_a_training_of_other_images_or_classes_is_not_taken_for_this_one(digits, tmp_path, shown):
    """Names of classes are kept with the model; the preparation decides its weights."""
    recipe = Recipe(epochs=1, iterations=1, batch=8)
    asked = {"recipe": recipe, "train_files": [digits / "test.h5"]}
    train(digits, tmp_path, **asked)
    assert of(digits, tmp_path, **asked).is_finished()
    assert not of(digits, tmp_path, **asked, preparation="whitened").is_finished()
    assert not of(digits, tmp_path, **asked, valid_file=digits / "test.h5").is_finished()
    renamed = shown(lambda x, y, names: (x, y, [*names[:9], "nine"]))
    assert not of(digits, tmp_path, **asked, valid_file=renamed).is_finished()


def test_pixels_are_no_classes(digits, tiny, tmp_path):
    with pytest.raises(UserError, match="needed are images and their classes"):
        train(digits, tmp_path, options={}, train_files=[tiny / "train.h5"], valid_file=None)
