"""Folders in the layout of ImageNet: listed."""

import os
import shutil

import numpy as np
import pytest
from photographs import CLASSES, flatten_validation, write_photographs

from mg.data import SPLITS, hdf5, imagenet
from mg.data.imagenet_preparation import Photographs
from mg.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


def listed(folder, output, split="train", **settings):
    imagenet.prepare(split, folder, output / f"{split}.h5", crop=32, **settings)
    return hdf5.load(output / f"{split}.h5", layout=hdf5.FILES)


def test_every_image_is_listed_once(folder, tmp_path):
    splits = {split: listed(folder, tmp_path, split) for split in SPLITS}
    assert {name: len(data.x) for name, data in splits.items()} == {
        "train": 192,
        "valid": 8,
        "test": 24,
    }
    paths = {
        split: {str(Photographs(data, False).path(i)) for i in range(len(data.x))}
        for split, data in splits.items()
    }
    assert paths["train"] | paths["valid"] == {str(p) for p in folder.glob("train/*/*")}
    assert paths["test"] == {str(p) for p in folder.glob("val/*/*")}
    assert splits["train"].attributes["classes"] == list(CLASSES)
    photographs = Photographs(splits["valid"], False)
    for i, label in enumerate(splits["valid"].y):
        assert photographs.path(i).parent.name == CLASSES[label]


def test_names_in_another_encoding_are_kept(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (place,) = copy.glob("val/n01/*_000.JPEG")
    renamed = place.rename(place.with_name(os.fsdecode(b"caf\xe9.JPEG")))
    photographs = Photographs(listed(copy, tmp_path, "test"), False)
    assert renamed in map(photographs.path, range(len(photographs)))
    assert all(unreadable == -1 for _, _, unreadable in (photographs[i, None] for i in range(24)))


def test_a_smaller_choice_has_every_class(folder, tmp_path):
    data = listed(folder, tmp_path, count=8)
    assert np.bincount(data.y).tolist() == [2, 2, 2, 2]
    with pytest.raises(UserError, match="192 images for train, not 193"):
        listed(folder, tmp_path, count=193)


@pytest.mark.parametrize("form", ["LOC_val_solution.csv", "synsets"])
def test_a_flat_folder_is_read_with_a_list_of_classes(folder, tmp_path, form):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    names = flatten_validation(copy)
    with pytest.raises(UserError, match="without folders of classes"):
        listed(copy, tmp_path, "test")
    if form == "synsets":
        text = "\n".join(names)
        (copy / "imagenet_2012_validation_synset_labels.txt").write_text(text)
    else:
        rows = [f"ILSVRC2012_val_{i:08d},{name} 1 2 3 4" for i, name in enumerate(names)]
        (copy / form).write_text("\n".join(["ImageId,PredictionString", *rows]))
    data = listed(copy, tmp_path, "test")
    assert [CLASSES[label] for label in data.y] == names


def test_words_for_the_classes_are_taken_from_their_list(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "LOC_synset_mapping.txt").write_text("n01 red fox\nn02 green tea, tea")
    assert listed(copy, tmp_path).attributes["classes"] == [
        "red fox",
        "green tea, tea",
        "n03",
        "n04",
    ]


def test_more_classes_than_a_file_can_tell_apart_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "MOST_CLASSES", 3)
    with pytest.raises(UserError, match="train has 4 classes; at most 3 can be told apart"):
        listed(folder, tmp_path)


@pytest.mark.parametrize("crop", [0, 31, 100])
def test_crops_that_no_network_takes_are_refused(folder, tmp_path, crop):
    with pytest.raises(UserError, match="multiple of 32"):
        imagenet.prepare("train", folder, tmp_path / "x.h5", crop=crop)


def test_missing_images_are_explained_in_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        imagenet.prepare("train", tmp_path / "nowhere", tmp_path / "x.h5")
    text = str(caught.value)
    for part in (
        "https://image-net.org/download-images",  # where to get it
        f"{tmp_path}/nowhere/train/<class>/",  # where to put it
        "138 GB",  # how large it is
        "config/cifar-digits.yaml",  # how to run without it
    ):
        assert part in text
    assert "\n" not in text and not (tmp_path / "x.h5").exists()
