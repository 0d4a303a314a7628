"""Evaluating a stored model: exact, bounded, and one line for every kind of damaged file."""

import json
import zlib

import h5py
import numpy as np
import pytest
import torch

from mg import networks
from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.evaluate import evaluate
from mg.evaluation.pixels import forward, half_sigmoid
from mg.metrics import MEASURES, Metrics, constant_answer
from mg.networks.counting import count, layers, longest_path
from mg.training.model import load_model

OPTIONS = {"width": [4, 2], "grids": 2}


def save_model(path, dataset="segmentation", **changes):
    torch.manual_seed(0)
    options = changes.get("options", OPTIONS)
    content = {
        "format": "mg-model-1",
        "network": "pmg",
        "dataset": dataset,
        "options": options,
        "label": "pmg_small",
        "seed": 3,
        "state_dict": networks.build("pmg", dataset, **options).state_dict(),
    }
    torch.save({**content, **changes}, path)
    return path


def save_data(path, task="segmentation", n=11, size=16):
    rng = np.random.default_rng(0)
    channels = 10 if task == "segmentation" else 1
    x = rng.random((n, 1, size, size), np.float32)
    x[0, :, :2] = 0  # what the first shows does not lie where that of the others does
    y = (rng.random((n, channels, size, size)) < 0.2).astype(np.uint8)
    attributes = {"task": task, "split": "test", "canvas": size, "scale": [0.5, 1.5]}
    hdf5.write(path, [(x, y)], attributes)
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    return save_model(folder / "model.pt"), save_data(folder / "test.h5")


def test_metrics_and_predictions_agree(stored, tmp_path):
    model_path, data_path = stored
    metrics_path, predictions_path = tmp_path / "metrics.json", tmp_path / "predictions.h5"
    evaluate(
        model_path, data_path, metrics_path=metrics_path, predictions_path=predictions_path, batch=4
    )
    record = json.loads(metrics_path.read_text())
    data = hdf5.load(data_path)
    expected = {"dataset": "segmentation", "network": "pmg_small", "seed": 3}
    expected["inputs_crc32"] = zlib.crc32(data.x)
    with h5py.File(predictions_path) as file:
        prediction = file["prediction"][:]
        assert hdf5.read_attributes(file) == expected
    assert prediction.shape == data.y.shape

    model, _ = load_model(model_path)
    with torch.inference_mode():
        logits = forward(model, torch.from_numpy(data.x))
    np.testing.assert_allclose(prediction, logits.sigmoid().numpy(), atol=1e-3)
    metrics = Metrics()  # of the file's numbers, thresholded: the reported measures exactly
    metrics.update(torch.from_numpy(prediction).float() - 0.5, torch.from_numpy(data.y))
    again = metrics.compute()
    for name in ("mean_iu", "mean_acc", "recall", "image_iu", "per_class_iu"):
        assert record[name] == pytest.approx(again[name], rel=1e-12), name
    assert all(record[name] is not None for name in MEASURES)
    assert record["params"] == sum(p.numel() for p in model.parameters())
    assert record["macs"] == count(model, (1, 16, 16)).multiply_adds
    assert record["depth"] == longest_path(layers(model, (1, 16, 16)))
    assert record["constant_answer"] == constant_answer(data.y)
    assert record["architecture"] == "pmg"
    assert (record["network"], record["seed"], record["test_images"]) == ("pmg_small", 3, 11)
    assert record["train_images"] is record["device"] is None
    assert record["settings"]["test"]["scale"] == [0.5, 1.5]


def test_a_log_shows_how_far_it_is_and_what_came_out(stored, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("mg.progress._SECONDS", 0)
    record = evaluate(*stored, metrics_path=tmp_path / "metrics.json", batch=8)
    *lines, last = capfd.readouterr().err.splitlines()
    name = "pmg_small segmentation"
    assert lines == [f"{name}: 8 of 11 images", f"{name}: 11 of 11 images"]
    assert last.startswith(f"{name}: 11 images in ")
    assert last.endswith(f" s, mean IU {record['mean_iu']:.4f}")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(stored, tmp_path, capfd):
    blocked = tmp_path / "metrics.json"
    blocked.mkdir()
    predictions = tmp_path / "predictions.h5"
    with pytest.raises(UserError, match=f"cannot write {blocked}: Is a directory"):
        evaluate(*stored, metrics_path=blocked, predictions_path=predictions)
    with pytest.raises(UserError, match="cannot write .*: Not a directory"):
        evaluate(*stored, metrics_path=tmp_path / "m.json", predictions_path=stored[0] / "p.h5")
    assert list(tmp_path.iterdir()) == [blocked]
    assert capfd.readouterr().err == ""


def test_nothing_is_written_over_what_is_read_or_over_another_result(stored, tmp_path):
    model, data = stored
    before = model.read_bytes(), data.read_bytes()
    same = tmp_path / "folder" / ".." / "m.json"
    for metrics, predictions, named in (
        (tmp_path / "m.json", same, "m.json would be written over .*m.json; name another file"),
        (tmp_path / "m.json", data, "would be written over"),
        (model, tmp_path / "p.h5", "would be written over"),
    ):
        with pytest.raises(UserError, match=named):
            evaluate(*stored, metrics_path=metrics, predictions_path=predictions)
    assert (model.read_bytes(), data.read_bytes()) == before


RUN = {
    **{"dataset": "segmentation", "label": "pmg_small", "seed": 3, "data": [], "versions": {}},
    **{"images": 640, "seconds": 2.5, "device": "a card", "commit": "abc"},
    **{"settings": {"a": 1}, "attempts": 1, "started": "2026", "finished": "2026"},
}


@pytest.mark.parametrize("split", ["train", "test"])
def test_it_is_said_where_a_network_is_measured_on_what_it_was_trained_on(
    stored, tmp_path, capfd, split
):
    model_path = save_model(tmp_path / "model.pt")
    trained = {"task": "segmentation", "split": split, "canvas": 16}
    trained |= {"examples": 11, "crc32": [1, 2]}
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"data": [trained]}))
    evaluate(model_path, stored[1], metrics_path=tmp_path / "metrics.json")
    said = "these are examples that it was trained on" in capfd.readouterr().err
    assert said is (split == "test")  # what the test set says of itself


def test_training_costs_come_from_the_run(stored, tmp_path):
    model_path = save_model(tmp_path / "model.pt")
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    record = evaluate(model_path, stored[1], metrics_path=tmp_path / "metrics.json")
    assert (record["train_images"], record["train_seconds"]) == (640, 2.5)
    assert (record["device"], record["commit"]) == ("a card", "abc")
    assert record["settings"]["training"] == {"a": 1}
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"commit": None}))
    record = evaluate(model_path, stored[1], metrics_path=tmp_path / "metrics.json")
    assert record["commit"] is None  # not that of the evaluation


def test_rounding_never_crosses_the_threshold():
    logits = torch.tensor([-9.0, -1e-3, -1e-5, -1e-9, -0.0, 0, 1e-9, 1e-5, 1e-3, 9])
    half = half_sigmoid(logits)
    assert half.dtype == torch.float16
    assert torch.equal(half >= 0.5, logits >= 0)
    torch.testing.assert_close(half.float(), logits.sigmoid(), atol=3e-4, rtol=0)


def test_model_and_test_set_must_belong_together(stored, tmp_path):
    other = save_data(tmp_path / "rotation.h5", "rotation")
    with pytest.raises(UserError, match="trained for segmentation but .* holds rotation"):
        evaluate(stored[0], other, metrics_path=tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_targets_of_other_classes_are_refused(stored, tmp_path):
    path = tmp_path / "own.h5"
    x, y = np.zeros((2, 1, 16, 16), np.float32), np.zeros((2, 3, 16, 16), np.uint8)
    hdf5.write(path, [(x, y)], {"task": "segmentation", "split": "test", "canvas": 16})
    said = "own.h5 has inputs of 1 and targets of 3 channels; segmentation needs 1 and 10"
    with pytest.raises(UserError, match=said):
        evaluate(stored[0], path, metrics_path=tmp_path / "metrics.json")


def test_a_canvas_that_the_network_cannot_halve_is_refused(stored, tmp_path):
    odd = save_data(tmp_path / "odd.h5", size=15)
    with pytest.raises(UserError, match="cannot work on a canvas of 15 pixels"):
        evaluate(stored[0], odd, metrics_path=tmp_path / "metrics.json")


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(path):
    path.write_text("not a model")


def _pickle(path):
    torch.save({"format": "mg-model-1", "network": print}, path)


def _rename(path):
    content = torch.load(path, weights_only=True)
    torch.save({**content, "dataset": "cats"}, path)


DAMAGES = {
    "truncated": _cut,
    "text": _text,
    "code": _pickle,
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "other content": lambda path: torch.save([1, 2], path),
    "other format": lambda path: save_model(path, format="mg-model-0"),
    "no weights": lambda path: save_model(path, state_dict=None),
    "weights of another width": lambda path: save_model(
        path, state_dict=networks.build("pmg", "segmentation", width=[4, 4]).state_dict()
    ),
    "weights are numbers": lambda path: save_model(path, state_dict={"a": 1}),
    "keys are numbers": lambda path: save_model(path, state_dict={1: torch.zeros(1)}),
    "unknown network": lambda path: save_model(path, network="lenet"),
    "unknown data set": _rename,
    "seed is a list": lambda path: save_model(path, seed=[1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_models_are_refused_in_one_line(damage, tmp_path):
    path = save_model(tmp_path / "model.pt")
    DAMAGES[damage](path)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_cause_another_error(tmp_path):
    path = save_model(tmp_path / "model.pt")
    whole = path.read_bytes()
    rng = np.random.default_rng(20)
    refused = 0
    for _ in range(120):
        content = bytearray(whole)
        for place in rng.integers(0, 3000, size=10):  # where the structure is, not the weights
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            load_model(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 60
