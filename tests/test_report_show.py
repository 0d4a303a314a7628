"""`show` on every kind of file that a run leaves behind, whole and damaged."""

import h5py
import numpy as np
import pytest
import torch
from photographs import damage, write_photographs
from PIL import Image
from test_evaluation_pixels import save_data, save_model

from mg.data import hdf5, imagenet
from mg.errors import UserError
from mg.evaluation.evaluate import evaluate
from mg.evaluation.saliency import saliency
from mg.report.figures.sheets import image_sheet
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
    show_images(run / name, tmp_path / "image")
    assert (tmp_path / "image.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "image.svg").read_text()


def test_saliency_images(run, tmp_path):
    show_images(run / "saliency.h5", tmp_path / "image")
    assert "middle left" in (tmp_path / "image.svg").read_text()


@pytest.mark.parametrize("suffix", [".h5", ".json", ".pt"])
def test_damaged_files_are_refused(suffix, tmp_path):
    path = tmp_path / f"damaged{suffix}"
    path.write_text("{nothing")
    with pytest.raises(UserError, match="damaged"):
        show(path)


def test_what_is_not_ours_is_refused(run, tmp_path):
    for name in ("configuration.yaml", "table.md", "overview.html"):
        (tmp_path / name).write_text("text")
        with pytest.raises(UserError, match=f"reads .h5, .json, .csv, .pt, not .*{name}"):
            show(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        show(tmp_path / "absent.json")
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file.attrs["of"] = "another program"
    with pytest.raises(UserError, match="own.h5 is not an intact HDF5 file of `mg`; if") as caught:
        show(tmp_path / "own.h5")
    assert "delete" not in str(caught.value)
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(UserError, match="neither"):
        show(tmp_path / "list.pt")
    with pytest.raises(UserError, match="segmentation.json holds no images; .*h5"):
        show_images(run / "segmentation.json", tmp_path / "image")


@pytest.fixture
def classes(tmp_path):
    """A data set of 30 images of two classes: the upper half red, or the lower half blue."""
    y = np.arange(30) % 2
    x = np.zeros((30, 3, 32, 32), np.uint8)
    x[y == 0, 0, :16] = x[y == 1, 2, 16:] = 250
    attributes = {
        "task": "cifar10",
        "split": "test",
        "canvas": 32,
        "classes": ["cat", "dog, hound"],
    }
    hdf5.write(tmp_path / "test.h5", [(x, y)], attributes, layout=hdf5.IMAGES)
    return tmp_path


def test_images_of_classes_are_drawn_with_their_names(classes):
    assert "x: 30 x 3 x 32 x 32, uint8" in show(classes / "test.h5")
    show_images(classes / "test.h5", classes / "sheet")
    drawn = (classes / "sheet.svg").read_text()
    assert drawn.count("<image") == 24 and drawn.count(">cat<") + drawn.count(">dog<") == 24
    pixels = np.asarray(Image.open(classes / "sheet.png").convert("RGB")).reshape(-1, 3)
    for colour in ([250, 0, 0], [0, 0, 250]):  # as they are in the file
        assert (pixels == colour).all(1).sum() > 1000


def test_digits_in_cifars_format_are_called_so(classes):
    assert "MNIST" not in image_sheet(classes / "test.h5", classes / "sheet")
    with h5py.File(classes / "test.h5", "a") as file:
        hdf5.write_attributes(file, {"classes": ["digit 0", "digit 1"]})
    caption = image_sheet(classes / "test.h5", classes / "sheet")
    assert caption.startswith("MNIST's digits in CIFAR-10's format: 24 of the 30 images")


def test_photographs_are_drawn_and_unreadable_ones_named(tmp_path):
    images = write_photographs(tmp_path / "images", train=2, test=2)
    damage(images / "val/n01/n01_000.JPEG")
    imagenet.prepare("test", images, tmp_path / "test.h5", crop=32)
    show_images(tmp_path / "test.h5", tmp_path / "sheet")
    drawn = (tmp_path / "sheet.svg").read_text()
    assert drawn.count("<image") == 7 and drawn.count(">unreadable<") == 1
    assert drawn.count(">n04<") == 2


def test_probabilities_of_classes_are_drawn(tmp_path):
    path = tmp_path / "predictions.h5"
    rows = np.array([[0.9, 0.1], [np.nan, np.nan], [0.3, 0.7]], np.float32)
    with h5py.File(path, "w") as file:
        file["prediction"] = rows
        attributes = {"dataset": "cifar10", "network": "mg", "seed": 0, "classes": ["cat", "dog"]}
        hdf5.write_attributes(file, attributes)
    assert "0.1 to 0.9, mean 0.5, 2 undefined" in show(path)
    show_images(path, tmp_path / "bars")
    drawn = (tmp_path / "bars.svg").read_text()
    assert drawn.count(">cat<") == drawn.count(">dog<") == 2
    assert drawn.count(">unreadable<") == 1
    with h5py.File(path, "a") as file:
        hdf5.write_attributes(file, {"classes": ["cat"]})
    with pytest.raises(UserError, match="no probabilities of 1 classes"):
        show_images(path, tmp_path / "refused")
