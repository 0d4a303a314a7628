"""Photographs as networks are given them: decoded, changed by a seed, damaged files left out."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import COLOURS, damage, write_photographs
from PIL import Image

from mg.data import hdf5, imagenet
from mg.data import imagenet_preparation as preparation
from mg.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


def listed(folder, output, split="train"):
    imagenet.prepare(split, folder, output / f"{split}.h5", crop=32)
    return hdf5.load(output / f"{split}.h5", layout=hdf5.FILES)


# ------------------------------------------------------------------------ changes


def test_a_seed_decides_the_change_and_nothing_else(folder, tmp_path):
    photographs = preparation.Photographs(listed(folder, tmp_path), training=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = photographs[3, 11][0]
    assert torch.equal(before, torch.get_rng_state())  # the training's own stream is untouched
    photographs[4, 99]
    assert torch.equal(first, photographs[3, 11][0])
    assert not torch.equal(first, photographs[3, 12][0])
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32


def test_processes_decode_the_same_as_one(folder, tmp_path):
    photographs = preparation.Photographs(listed(folder, tmp_path), training=True)
    numbers = torch.randint(192, (5, 4))
    seeds = torch.randint(2**62, (5, 4))
    state = torch.get_rng_state()
    alone = list(preparation.load(photographs, numbers, seeds, workers=0))
    together = list(preparation.load(photographs, numbers, seeds, workers=2))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_training_transform_is_fb_resnets():
    """Its parts, in the order and with the numbers of the recipe."""
    parts = {type(part).__name__: part for part in preparation.training_transform(224).transforms}
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
    shifts = torch.stack([(preparation.Lighting()(image) - image)[:, 0, 0] for _ in range(4000)])
    expected = 0.1 * np.array(preparation.COMPONENTS) * np.array(preparation.DEVIATIONS)
    np.testing.assert_allclose(np.cov(shifts.numpy().T), expected @ expected.T, atol=3e-5)


def test_test_crops_are_where_they_should_be():
    """On an image whose pixels tell where they are: scaled to 8/7, centre and four corners."""
    ramp = np.zeros((64, 128, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 2, np.arange(128)[None] * 2
    image = Image.fromarray(ramp)
    std = torch.tensor(preparation.STD).view(3, 1, 1)
    mean = torch.tensor(preparation.MEAN).view(3, 1, 1)
    crop = preparation.test_transform(56)(image) * std + mean  # 64 is already the scaled side
    expected = torch.from_numpy(ramp[4:60, 36:92]).permute(2, 0, 1) / 255
    torch.testing.assert_close(crop, expected, atol=0.01, rtol=0)
    ten = preparation.test_transform(56, ten_crops=True)(image)
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
    deep, usual = (
        np.array(preparation.decode(tmp_path / n)) for n in (f"deep.{suffix}", "usual.png")
    )
    np.testing.assert_array_equal(deep, usual)


def test_an_image_of_fractions_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((8, 8), np.float32)).save(tmp_path / "a.pfm")
    with pytest.raises(UserError, match="no readable image: .* fractions"):
        preparation.decode(tmp_path / "a.pfm")


def test_of_a_format_that_is_not_read_the_ones_that_are_are_named(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="cannot identify .*; read are JPEG, PNG, WEBP, BMP, GIF"):
        preparation.decode(tmp_path / "a.tif")


def test_a_strip_is_refused_before_it_is_scaled(tmp_path):
    """To crops of 224 pixels one of 60,000 x 1 would be scaled to 256 times its length."""
    Image.fromarray(np.zeros((1, 101), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="101 x 1 pixels are too thin"):
        preparation.decode(tmp_path / "a.png")
    Image.fromarray(np.zeros((1, 100), np.uint8)).save(tmp_path / "b.png")
    assert preparation.decode(tmp_path / "b.png").size == (100, 1)


# ------------------------------------------------------------------------ damaged files


def test_a_damaged_image_is_replaced_in_training_and_left_out_in_testing(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    data = listed(copy, tmp_path)
    damage(preparation.Photographs(data, True).path(7))
    (copy / "train/n01/n01_010.JPEG").write_text("no image")
    photographs = preparation.Photographs(data, training=True)
    image, label, unreadable = photographs[7, 1]
    assert unreadable == 7 and label == data.y[8]
    assert torch.equal(image, photographs[8, 1][0])
    image, label, unreadable = preparation.Photographs(data, training=False)[7, None]
    assert (label, unreadable) == (-1, 7)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_is_gone_ends_in_one_line(folder, tmp_path, workers):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    photographs = preparation.Photographs(listed(copy, tmp_path), training=True)
    shutil.rmtree(copy)
    with pytest.raises(UserError, match=r"^100 images from .* List the images again[^\n]*$"):
        list(preparation.load(photographs, torch.tensor([[0]]), torch.tensor([[1]]), workers))


# ------------------------------------------------------------------------ processes that decode

LOAD = """
import multiprocessing, os, resource, signal, sys, time, warnings
import torch
from mg.data import hdf5
from mg.data import imagenet_preparation as preparation
multiprocessing.set_start_method("forkserver")  # as Python 3.14 does by itself
warnings.simplefilter("ignore")  # more workers than this machine may have cores for
photographs = preparation.Photographs(hdf5.load(sys.argv[1], layout=hdf5.FILES), training=True)
numbers = torch.arange(2000).view(1000, 2) % 40
def load(workers):
    return preparation.load(photographs, numbers, numbers, workers)
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
    photographs = preparation.Photographs(listed(folder, tmp_path, "test"), training=False)
    image, label, _ = photographs[0, None]
    raw = image * torch.tensor(preparation.STD).view(3, 1, 1) + torch.tensor(preparation.MEAN).view(
        3, 1, 1
    )
    assert int(raw.mean((1, 2)).argmax()) == int(np.argmax(COLOURS[label]))


def test_torchvision_is_importable_beside_any_build_of_torch():
    script = "from mg.data.vision import transforms; print(transforms.RandomResizedCrop(8))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RandomResizedCrop" in done.stdout
