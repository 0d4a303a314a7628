"""Numbers at the edge: what is undefined is said to be, and the smallest data go all the way."""

import json

import numpy as np
import pytest
import torch
from processes import evaluate, run_mg, saliency, train

from mg.data import hdf5


def data(path, x, y, task="translation"):
    attributes = {"task": task, "split": "test", "mode": "independent", "seed": 0}
    hdf5.write(path, [(x, y)], attributes | {"canvas": x.shape[-1]})


def squares(count, classes=1):
    y = np.zeros((count, classes, 16, 16), np.uint8)
    y[:, 0, 4:10, 5:12] = 1
    return y.max(1, keepdims=True).astype(np.float32), y


def test_one_example_goes_all_the_way(tmp_path):
    """Trained on in batches larger than the data, measured, mapped, and put into tables."""
    run = tmp_path / "translation/pmg/seed0"
    run.mkdir(parents=True)
    for name in ("train.h5", "test.h5"):
        data(run / name, *squares(1))
    for step in (train(run, run / "train.h5", "--valid", run / "test.h5"), evaluate(run)):
        assert run_mg(*step).code == 0
    assert run_mg(*saliency(run)).code == 0
    record = json.loads((run / "metrics.json").read_text())
    assert record["test_images"] == 1 and 0 <= record["mean_iu"] <= 1
    for kind in ("results", "claims", "networks"):
        table = ("table", kind, "--metrics", run / "metrics.json", "--output", tmp_path / kind)
        name = () if kind == "networks" else ("--name", "one")
        assert run_mg(*table, *name).code == 0
    curves = ("figure", "curves", "--history", run / "history.csv", "--output", tmp_path / "c")
    assert run_mg(*curves).code == 0


def test_a_loss_that_is_no_number_stops_the_training(whole, tmp_path):
    run = tmp_path / "run"
    ended = run_mg(*train(run, whole / "train.h5", "--learning-rate", "1e30"))
    began, line = ended.lines
    assert began.startswith("pmg translation seed 0: ")
    assert "no longer finite in epoch 1 at learning rate" in line
    assert not (run / "model.pt").exists()


@pytest.fixture
def silent(whole, tmp_path):
    """A model that predicts nothing anywhere, beside a test set."""
    run = tmp_path / "translation/pmg/seed0"
    run.mkdir(parents=True)
    content = torch.load(whole / "model.pt", weights_only=True)
    state = content["state_dict"]
    name = [name for name in state if name.endswith("bn.bias")][-1]
    state[name].fill_(-1e4)
    state[name.replace("bias", "weight")].zero_()
    torch.save(content, run / "model.pt")
    data(run / "test.h5", *squares(3))
    return run


def test_predictions_that_are_empty_are_measured_and_said(silent, tmp_path):
    assert run_mg(*evaluate(silent)).code == 0
    record = json.loads((silent / "metrics.json").read_text())
    assert record["mean_iu"] == record["recall"] == 0
    assert record["mean_acc"] is None, "a precision of nothing is undefined"
    assert run_mg(*saliency(silent)).code == 0
    table = ("table", "results", "--metrics", silent / "metrics.json", "--name", "r")
    assert run_mg(*table, "--output", tmp_path / "t").code == 0
    assert "nan" not in (tmp_path / "t.csv").read_text().lower()
    for kind, option, name in (("cost", "metrics", "json"), ("saliency", "saliency", "h5")):
        figure = ("figure", kind, f"--{option}", silent / f"{option}.{name}")
        assert run_mg(*figure, "--output", tmp_path / kind).code == 0


def test_a_class_that_never_appears_has_no_number(tmp_path):
    run = tmp_path / "segmentation/pmg/seed0"
    run.mkdir(parents=True)
    for name in ("train.h5", "test.h5"):
        data(run / name, *squares(4, 10), task="segmentation")
    arguments = train(run, run / "train.h5")
    arguments[arguments.index("translation")] = "segmentation"
    assert run_mg(*arguments).code == 0
    content = torch.load(run / "model.pt", weights_only=True)
    names = [name for name in content["state_dict"] if name.endswith("bn.bias")]
    content["state_dict"][names[-1]][1:] = -1e4  # nothing of these is predicted either
    torch.save(content, run / "model.pt")
    assert run_mg(*evaluate(run)).code == 0
    record = json.loads((run / "metrics.json").read_text())
    assert record["per_class_iu"][1:] == [None] * 9
    figure = ("figure", "classes", "--metrics", run / "metrics.json", "--output", tmp_path / "f")
    assert run_mg(*figure).code == 0


def test_a_batch_of_one_on_the_coarsest_pixel_ends_in_one_line(tmp_path):
    """Batch norm has no spread to divide by: said before hours are lost, not by a traceback."""
    y = np.zeros((4, 1, 2, 2), np.uint8)
    data(tmp_path / "train.h5", y.astype(np.float32), y)
    ended = run_mg(*train(tmp_path / "run", tmp_path / "train.h5", "--batch", "1"))
    began, line = ended.lines
    assert began.startswith("pmg translation seed 0: ") and "raise the batch" in line
