"""`show` on every kind of file that a run leaves behind, whole and damaged."""

import numpy as np
import pytest
import torch
from test_evaluation_predict import save_data, save_model

from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.predict import evaluate
from mg.evaluation.saliency import saliency
from mg.report.show import show, show_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    for task in ("segmentation", "translation"):
        save_data(folder / f"{task}.h5", task, n=3)
        save_model(folder / f"{task}.pt", task)
        evaluate(
            folder / f"{task}.pt",
            folder / f"{task}.h5",
            metrics_path=folder / f"{task}.json",
            predictions_path=folder / f"{task}-predictions.h5",
        )
    saliency(
        folder / "translation.pt",
        folder / "translation.h5",
        folder / "saliency.h5",
        count=2,
        window=4,
        stride=4,
    )
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n10,0.25\n")
    torch.save({"format": "mg-checkpoint-1", "epoch": 3, "order": None}, folder / "checkpoint.pt")
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("segmentation.h5", ["task: segmentation", "x: 3 x 1 x 16 x 16, float32, 0", "y: 3 x 10"]),
        ("segmentation-predictions.h5", ["network: pmg_small", "prediction: 3 x 10 x 16 x 16"]),
        ("saliency.h5", ["map: 2 x 7 x 16 x 16", "point_names: ['centre'"]),
        ("segmentation.json", ["mean_iu: 0.", "settings:\n", "network: pmg_small"]),
        ("history.csv", ["epoch  loss\n  1      0.5"]),
        ("segmentation.pt", ["format: mg-model-1", "label: pmg_small", "state_dict: "]),
        ("checkpoint.pt", ["epoch: 3"]),
    ],
)
def test_every_kind_of_file_is_described(run, name, said):
    text = show(run / name)
    assert text.startswith(str(run / name))
    for part in said:
        assert part in text
    assert max(map(len, text.splitlines())) < 400


@pytest.mark.parametrize(
    "name", ["segmentation.h5", "segmentation-predictions.h5", "translation-predictions.h5"]
)
def test_images_on_request(run, name, tmp_path):
    show_images(run / name, tmp_path / "image", count=2)
    assert (tmp_path / "image.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "image.svg").read_text()


def test_saliency_images(run, tmp_path):
    show_images(run / "saliency.h5", tmp_path / "image", count=1)
    assert "middle left" in (tmp_path / "image.svg").read_text()


@pytest.mark.parametrize("suffix", [".h5", ".json", ".pt"])
def test_damaged_files_are_refused(suffix, tmp_path):
    path = tmp_path / f"damaged{suffix}"
    path.write_text("{nothing")
    with pytest.raises(UserError, match="damaged"):
        show(path)


def test_what_is_not_ours_is_refused(run, tmp_path):
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(UserError, match="none of"):
        show(tmp_path / "text.txt")
    with pytest.raises(UserError, match="does not exist"):
        show(tmp_path / "absent.json")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(UserError, match="neither"):
        show(tmp_path / "list.pt")
    with pytest.raises(UserError, match="readable HDF5"):
        show_images(run / "segmentation.json", tmp_path / "image")


def test_files_of_classifiers_are_described_not_drawn(tmp_path):
    x = np.zeros((4, 3, 32, 32), np.uint8)
    attributes = {"task": "cifar10", "split": "test", "canvas": 32, "classes": ["cat", "dog"]}
    path = tmp_path / "test.h5"
    hdf5.write(path, [(x, np.arange(4))], attributes, layout=hdf5.IMAGES)
    assert "x: 4 x 3 x 32 x 32, uint8" in show(path)
    with pytest.raises(UserError, match="of a classifier"):
        show_images(path, tmp_path / "sheet")
