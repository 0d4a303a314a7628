"""Folders in the layout of ImageNet: listed, decoded, changed by a seed, damaged files left out."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import CLASSES, COLOURS, damage, flatten_validation, write_photographs
from PIL import Image

from mg.data import SPLITS, hdf5, imagenet
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
        split: {str(imagenet.Photographs(data, False).path(i)) for i in range(len(data.x))}
        for split, data in splits.items()
    }
    assert paths["train"] | paths["valid"] == {str(p) for p in folder.glob("train/*/*")}
    assert paths["test"] == {str(p) for p in folder.glob("val/*/*")}
    assert splits["train"].attributes["classes"] == list(CLASSES)
    photographs = imagenet.Photographs(splits["valid"], False)
    for i, label in enumerate(splits["valid"].y):
        assert photographs.path(i).parent.name == CLASSES[label]


def test_names_in_another_encoding_are_kept(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (place,) = copy.glob("val/n01/*_000.JPEG")
    renamed = place.rename(place.with_name(os.fsdecode(b"caf\xe9.JPEG")))
    photographs = imagenet.Photographs(listed(copy, tmp_path, "test"), False)
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


# ------------------------------------------------------------------------ changes


def test_a_seed_decides_the_change_and_nothing_else(folder, tmp_path):
    photographs = imagenet.Photographs(listed(folder, tmp_path), training=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = photographs[3, 11][0]
    assert torch.equal(before, torch.get_rng_state())  # the training's own stream is untouched
    photographs[4, 99]
    assert torch.equal(first, photographs[3, 11][0])
    assert not torch.equal(first, photographs[3, 12][0])
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32


def test_processes_decode_the_same_as_one(folder, tmp_path):
    photographs = imagenet.Photographs(listed(folder, tmp_path), training=True)
    numbers = torch.randint(192, (5, 4))
    seeds = torch.randint(2**62, (5, 4))
    state = torch.get_rng_state()
    alone = list(imagenet.load(photographs, numbers, seeds, workers=0))
    together = list(imagenet.load(photographs, numbers, seeds, workers=2))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_training_transform_is_fb_resnets():
    """Its parts, in the order and with the numbers of the recipe."""
    parts = {type(part).__name__: part for part in imagenet.training_transform(224).transforms}
    crop = parts["RandomResizedCrop"]
    assert (crop.size, crop.scale, crop.ratio) == ((224, 224), (0.08, 1), (3 / 4, 4 / 3))
    assert crop.interpolation.value == "bicubic"
    jitter = parts["ColorJitter"]
    assert [jitter.brightness, jitter.contrast, jitter.saturation] == [(0.6, 1.4)] * 3
    assert jitter.hue is None and parts["Lighting"].deviation == 0.1
    assert (tuple(parts["Normalize"].mean), tuple(parts["Normalize"].std)) == (
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    )
    assert parts["RandomHorizontalFlip"].p == 0.5


def test_lighting_shifts_along_the_principal_components():
    image = torch.rand(3, 5, 5)
    torch.manual_seed(0)
    shifts = torch.stack([(imagenet.Lighting()(image) - image)[:, 0, 0] for _ in range(4000)])
    expected = 0.1 * np.array(imagenet.COMPONENTS) * np.array(imagenet.DEVIATIONS)
    np.testing.assert_allclose(np.cov(shifts.numpy().T), expected @ expected.T, atol=3e-5)


def test_test_crops_are_where_they_should_be():
    """On an image whose pixels tell where they are: scaled to 8/7, centre and four corners."""
    ramp = np.zeros((64, 128, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 2, np.arange(128)[None] * 2
    image = Image.fromarray(ramp)
    std = torch.tensor(imagenet.STD).view(3, 1, 1)
    mean = torch.tensor(imagenet.MEAN).view(3, 1, 1)
    crop = imagenet.test_transform(56)(image) * std + mean  # 64 is already the scaled side
    expected = torch.from_numpy(ramp[4:60, 36:92]).permute(2, 0, 1) / 255
    torch.testing.assert_close(crop, expected, atol=0.01, rtol=0)
    ten = imagenet.test_transform(56, ten_crops=True)(image)
    assert ten.shape == (10, 3, 56, 56)
    torch.testing.assert_close(ten[4] * std + mean, crop, atol=0.01, rtol=0)
    torch.testing.assert_close(ten[9], ten[4].flip(-1))
    corner = torch.from_numpy(ramp[:56, -56:]).permute(2, 0, 1) / 255
    torch.testing.assert_close(ten[1] * std + mean, corner, atol=0.01, rtol=0)


# ------------------------------------------------------------------------ depths


@pytest.mark.parametrize("suffix", ["png", "pgm"])
def test_greys_of_16_bits_keep_their_brightness(tmp_path, suffix):
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / f"deep.{suffix}")
    Image.fromarray(eight).save(tmp_path / "usual.png")
    deep, usual = (np.array(imagenet.decode(tmp_path / n)) for n in (f"deep.{suffix}", "usual.png"))
    np.testing.assert_array_equal(deep, usual)


def test_an_image_of_fractions_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((8, 8), np.float32)).save(tmp_path / "a.pfm")
    with pytest.raises(UserError, match="no readable image: .* fractions"):
        imagenet.decode(tmp_path / "a.pfm")


# ------------------------------------------------------------------------ damaged files


def test_a_damaged_image_is_replaced_in_training_and_left_out_in_testing(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    data = listed(copy, tmp_path)
    damage(imagenet.Photographs(data, True).path(7))
    (copy / "train/n01/n01_010.JPEG").write_text("no image")
    photographs = imagenet.Photographs(data, training=True)
    image, label, unreadable = photographs[7, 1]
    assert unreadable == 7 and label == data.y[8]
    assert torch.equal(image, photographs[8, 1][0])
    image, label, unreadable = imagenet.Photographs(data, training=False)[7, None]
    assert (label, unreadable) == (-1, 7)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_is_gone_ends_in_one_line(folder, tmp_path, workers):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    photographs = imagenet.Photographs(listed(copy, tmp_path), training=True)
    shutil.rmtree(copy)
    with pytest.raises(UserError, match=r"^100 images from .* List the images again[^\n]*$"):
        list(imagenet.load(photographs, torch.tensor([[0]]), torch.tensor([[1]]), workers))


# ------------------------------------------------------------------------ processes that decode

LOAD = """
import multiprocessing, os, resource, signal, sys, time, warnings
import torch
from mg.data import hdf5, imagenet
multiprocessing.set_start_method("forkserver")  # as Python 3.14 does by itself
warnings.simplefilter("ignore")  # more workers than this machine may have cores for
photographs = imagenet.Photographs(hdf5.load(sys.argv[1], layout=hdf5.FILES), training=True)
numbers = torch.arange(2000).view(1000, 2) % 40
def load(workers):
    return imagenet.load(photographs, numbers, numbers, workers)
"""


@pytest.fixture
def loading(folder, tmp_path):
    """A script that goes on from `LOAD`, and a command that runs it."""
    listed(folder, tmp_path)
    return lambda script: [sys.executable, "-c", LOAD + script, str(tmp_path / "train.h5")]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_python_ends_with_workers_at_work(loading):
    done = run(loading("batches = load(2)\nprint(next(batches)[1].shape)"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch.Size([2])\n", "")


def test_python_ends_where_not_all_workers_can_be_started(loading):
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n"
    done = run(loading(few + "load(30)"))
    assert done.returncode == 1 and "Too many open files" in done.stderr


def test_a_signal_while_workers_start_is_heeded(loading):
    """What it raises in a fork's callback, Python prints and passes over."""
    done = run(
        loading("""
def stop(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGTERM))
try:
    batches = load(2)
except KeyboardInterrupt:
    print("interrupted")
""")
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_workers_end_with_a_training_that_is_killed(loading):
    """With so many, each holds open the pipe that the others would wait to write into."""
    script = """
batches = load(40)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(loading(script), stdout=subprocess.PIPE, text=True)
    workers = process.stdout.readline().split()
    time.sleep(3)  # until the pipe is full
    process.kill()
    process.wait()
    assert len(workers) == 40
    end = time.monotonic() + 60
    while left := [pid for pid in workers if Path("/proc", pid).exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_colours_are_kept_apart(folder, tmp_path):
    """Channels in order R, G, B: the brightest mean channel of the red class is red."""
    photographs = imagenet.Photographs(listed(folder, tmp_path, "test"), training=False)
    image, label, _ = photographs[0, None]
    raw = image * torch.tensor(imagenet.STD).view(3, 1, 1) + torch.tensor(imagenet.MEAN).view(
        3, 1, 1
    )
    assert int(raw.mean((1, 2)).argmax()) == int(np.argmax(COLOURS[label]))


def test_torchvision_is_importable_beside_any_build_of_torch():
    script = "from mg.data.vision import transforms; print(transforms.RandomResizedCrop(8))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RandomResizedCrop" in done.stdout
