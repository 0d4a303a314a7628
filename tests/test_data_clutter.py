"""The generator against the authors' examples, a plain rendition of it, and its own promises."""

import zlib
from pathlib import Path

import numpy as np
import plain_clutter
import pytest

from mg.data import SPLITS, clutter, hdf5, mnist
from mg.data.clutter import Settings
from mg.data.tasks import TASKS
from mg.errors import UserError

# The first 16 examples of every task and split of the authors' generators, and the digits in them.
VECTORS = np.load(Path(__file__).parent / "data" / "clutter.npz")
SPLIT_SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
SMALL = Settings(canvas=32, digit_size=14)


@pytest.fixture(scope="module")
def digits():
    """A few made-up digits: strokes with soft edges, as far from the border as MNIST's or at it."""
    random = np.random.default_rng(0)
    images = np.zeros((40, 28, 28), np.uint8)
    for image in images:
        margin = random.integers(0, 8)
        for y, x in np.cumsum(random.integers(-2, 3, (60, 2)), axis=0) + 14:
            y, x = np.clip([y, x], margin, 26 - margin)
            image[y : y + 2, x : x + 2] |= random.integers(1, 256, (2, 2), dtype=np.uint8)
    return images, random.integers(0, 10, len(images)).astype(np.uint8)


def generate(*arguments, **settings):
    """All blocks as one."""
    return [np.concatenate(p) for p in zip(*clutter.blocks(*arguments, **settings), strict=True)]


def vector_digits(split):
    images = np.zeros((SPLIT_SIZES[split], 28, 28), np.uint8)
    labels = np.zeros(SPLIT_SIZES[split], np.uint8)
    index = VECTORS[f"{split}/index"]
    images[index], labels[index] = VECTORS[f"{split}/images"], VECTORS[f"{split}/labels"]
    return images, labels


@pytest.mark.parametrize("split", SPLITS)
def test_first_examples_are_the_authors(split):
    images, labels = vector_digits(split)
    for task, description in TASKS.items():
        x, y = generate(task, split, images, labels, count=16)
        shape = (16, description.classes, 64, 64)
        expected = np.unpackbits(VECTORS[f"{task}/{split}/y"]).reshape(shape)
        assert np.array_equal(y, expected), task
        assert np.array_equal(x[:, 0], VECTORS[f"{task}/{split}/x"]), task


@pytest.mark.parametrize("task", TASKS)
def test_stream_is_the_plain_renditions_beyond_new_permutations(task, digits):
    images, labels = digits
    x, y = generate(task, "train", images, labels, count=150)  # the deck is dealt three times over
    for i, (plain_x, plain_y) in zip(
        range(150), plain_clutter.examples(task, images, labels), strict=False
    ):
        assert np.abs(x[i, 0] - plain_x).max() <= 2e-6, i
        assert np.array_equal(y[i].astype(bool), plain_y), i


def test_seed_changes_the_paper_stream(digits):
    images, labels = digits
    x, _ = generate("segmentation", "test", images, labels, count=3, seed=7)
    plain = plain_clutter.examples("segmentation", images, labels, seed=7)
    assert all(np.array_equal(x[i, 0], next(plain)[0]) for i in range(3))


@pytest.mark.parametrize(
    ("task", "x_mean", "x_std", "x_filled", "y_mean"),
    [
        ("segmentation", 0.11414, 0.27465, 0.2159, 0.01456),
        ("spatial_transform", 0.0281, 0.1396, 0.0632, 0.02897),
        ("rotation", 0.0251, 0.1445, 0.0366, 0.02897),
        ("affine_transform", 0.0246, 0.1394, 0.0416, 0.02897),
        ("scaling", 0.0285, 0.1454, 0.0550, 0.02897),
        ("translation", 0.0251, 0.1445, 0.0366, 0.02897),
    ],
)
def test_statistics_of_the_whole_training_set(
    mnist_directory, task, x_mean, x_std, x_filled, y_mean
):
    images, labels = mnist.load_split(mnist_directory, "train")
    sums, count = np.zeros(4), TASKS[task].counts[0]
    for x, y in clutter.blocks(task, "train", images, labels):
        sums += x.sum(dtype=float), np.vdot(x, x), np.count_nonzero(x), np.count_nonzero(y)
    mean, square, filled = sums[:3] / (count * 64 * 64)
    digits = 5 if task == "segmentation" else 4
    assert mean == pytest.approx(x_mean, abs=0.51 * 10**-digits)
    assert np.sqrt(square - mean**2) == pytest.approx(x_std, abs=0.51 * 10**-digits)
    assert filled == pytest.approx(x_filled, abs=0.6e-4)
    assert sums[3] / (count * y[0].size) == pytest.approx(y_mean, abs=0.51e-5)


# CRC-32 of inputs and targets one after the other, from a run that equalled the plain rendition.
@pytest.mark.parametrize(
    ("task", "count", "x_crc", "y_crc"),
    [
        ("segmentation", 2000, 0xAC961917, 0xCB9A84A4),
        ("spatial_transform", 10100, 0xD46C5C94, 0xB51EFFC1),
        ("rotation", 10100, 0x618592DF, 0x3BD0DE48),
        ("affine_transform", 10100, 0x7D252537, 0x7A75BC27),
        ("scaling", 10100, 0xDEAA62F3, 0x6EAB5181),
        ("translation", 10100, 0xF0E2F10C, 0x7A75BC27),
    ],
)
def test_examples_far_into_the_paper_stream(mnist_directory, task, count, x_crc, y_crc):
    images, labels = mnist.load_split(mnist_directory, "test")
    crcs = [0, 0]
    for block in clutter.blocks(task, "test", images, labels, count=count):
        crcs = [zlib.crc32(part, crc) for part, crc in zip(block, crcs, strict=True)]
    assert crcs == [x_crc, y_crc]


@pytest.mark.parametrize("mode", clutter.SEEDS)
@pytest.mark.parametrize("task", TASKS)
def test_count_gives_the_start_of_the_same_stream(task, mode, digits):
    long, short = (
        generate(task, "valid", *digits, mode=mode, count=count, settings=SMALL)
        for count in (300, 131)
    )
    for all_of_it, start in zip(long, short, strict=True):
        assert np.array_equal(all_of_it[:131], start)


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_as_promised_at_another_size(task, digits):
    for mode in clutter.SEEDS:
        x, y = generate(task, "train", *digits, mode=mode, count=200, settings=SMALL)
        assert x.shape == (200, 1, 32, 32) and x.dtype == np.float32
        assert y.shape == (200, TASKS[task].classes, 32, 32) and y.dtype == np.uint8
        assert x.min() == 0 and x.max() == 1 and set(np.unique(y)) == {0, 1}


def test_workers_and_blocks_do_not_change_independent_examples(digits, monkeypatch):
    one = generate("segmentation", "train", *digits, mode="independent", count=500, settings=SMALL)
    monkeypatch.setattr(clutter, "_BLOCK", 37)
    many = generate(
        *("segmentation", "train", *digits),
        **dict(mode="independent", count=500, settings=SMALL, workers=5),
    )
    assert np.array_equal(one[0], many[0]) and np.array_equal(one[1], many[1])


def test_independent_mode_differs_by_seed_task_and_split(digits):
    def inputs(task="translation", split="train", seed=0):
        return generate(task, split, *digits, mode="independent", count=20, seed=seed)[0]

    first = inputs()
    for other in (inputs(task="rotation"), inputs(split="test"), inputs(seed=1)):
        same = (first == other).all(axis=(1, 2, 3))
        assert same.sum() <= 1


def test_independent_mode_deals_every_digit_once_per_round(digits):
    images, labels = digits
    number = len(images)
    _, y = generate("translation", "train", images, labels, mode="independent", count=3 * number)
    expected = generate("translation", "train", images, labels, count=number)[1]
    rounds = y.reshape(3, number, -1)
    orders = [sorted(map(bytes, targets)) for targets in rounds]
    assert orders[0] == orders[1] == orders[2] == sorted(map(bytes, expected.reshape(number, -1)))
    assert not np.array_equal(rounds[0], rounds[1])


def test_sprites_cover_at_most_the_allowed_share(digits):
    """Two digits of two classes: their targets, of every pixel that is not black, say how much."""
    images, labels = digits[0][:2], np.array([0, 1], np.uint8)
    close = Settings(canvas=40, scale=(1, 1), digits=(2, 0), threshold=1e-9)
    for mode in clutter.SEEDS:
        _, y = generate(
            "segmentation", "train", images, labels, mode=mode, count=300, settings=close
        )
        areas = y[:, :2].sum(axis=(2, 3))
        share = (y[:, 0] & y[:, 1]).sum(axis=(1, 2)) / areas.max(axis=1)
        assert areas.all() and 0.2 < share.max() <= 0.3


def test_blank_digits_are_harmless(digits):
    images, labels = np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8)
    for task in TASKS:
        x, y = generate(task, "train", images, labels, count=5)
        assert not x.any() and not y.any()


def test_digit_as_large_as_the_canvas(digits):
    x, y = generate("rotation", "train", *digits, count=4, settings=Settings(canvas=28))
    assert x.any() and y.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(task="rotate"), "unknown task 'rotate'"),
        (dict(split="training"), "unknown split 'training'"),
        (dict(mode="faithful"), "unknown mode 'faithful'"),
        (dict(count=0), "count 0 is not positive"),
        (dict(count=-5), "count -5 is not positive"),
        (dict(seed=-1), "seed -1"),
        (dict(seed=2**32), "seed 4294967296"),
        (dict(settings=Settings(threshold=0)), "threshold 0 is not in"),
        (dict(settings=Settings(threshold=1.01)), "threshold 1.01 is not in"),
        (dict(settings=Settings(threshold=float("nan"))), "threshold nan is not in"),
        (dict(settings=Settings(canvas=0)), "canvas 0"),
        (dict(settings=Settings(digit_size=-3)), "digit size -3"),
        (dict(settings=Settings(canvas=34)), "up to 35 pixels does not fit on a canvas of 34"),
        (dict(settings=Settings(scale=(0.5, 3))), "up to 84 pixels does not fit"),
        (dict(settings=Settings(scale=(0, 1))), "scale range 0 to 1"),
        (dict(settings=Settings(scale=(1, 0.5))), "scale range 1 to 0.5"),
        (dict(settings=Settings(scale=(0.5, float("inf")))), "scale range 0.5 to inf"),
        (dict(settings=Settings(digits=(0, 1))), "number of digits"),
        (dict(settings=Settings(digits=(5, -1))), "number of digits"),
        (dict(task="rotation", settings=Settings(digits=(2, 0))), "one digit per image"),
        (dict(task="rotation", settings=Settings(canvas=20, scale=(0.1, 0.2))), "28 pixels"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(arguments, message, digits, tmp_path):
    arguments = {"task": "segmentation", "split": "train", **arguments}
    task, split = arguments.pop("task"), arguments.pop("split")
    with pytest.raises(UserError, match=message):
        clutter.blocks(task, split, *digits, **arguments)
    with pytest.raises(UserError, match=message):  # and before the digits are looked for
        clutter.generate_file(task, split, tmp_path / "none", tmp_path / "out.h5", **arguments)
    assert not list(tmp_path.iterdir())


def test_full_canvas_ends_in_an_error_not_in_a_loop(digits):
    full = Settings(canvas=30, scale=(1, 1), digits=(40, 0))
    for mode in clutter.SEEDS:
        with pytest.raises(UserError, match="example 0: no room for another digit"):
            generate("segmentation", "train", *digits, mode=mode, count=3, settings=full)


def test_digits_of_another_shape_or_with_other_labels_are_refused(digits):
    images, labels = digits
    with pytest.raises(UserError, match="must be .N, 28, 28."):
        generate("rotation", "train", images[:, :20], labels, count=1)
    with pytest.raises(UserError, match="labels of shape"):
        generate("rotation", "train", images, labels[:3], count=1)
    with pytest.raises(UserError, match="label 26 found"):
        generate("segmentation", "train", images, np.full_like(labels, 26), count=1)


def test_released_names_are_accepted(digits):
    ours = generate("affine_transform", "test", *digits, count=2)
    theirs = generate("mnist-aff", "test", *digits, count=2)
    assert np.array_equal(ours[0], theirs[0])


def test_generated_file_says_what_made_it(digits, tmp_path, capfd):
    images, labels = digits
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", labels)
    output = tmp_path / "made" / "test.h5"
    settings = Settings(canvas=40, scale=(0.5, 1))
    clutter.generate_file(
        "mnist-spt", "test", tmp_path, output, count=30, settings=settings, workers=2
    )
    data = hdf5.load(output)
    x, y = generate("spatial_transform", "test", images, labels, count=30, settings=settings)
    assert np.array_equal(data.x, x) and np.array_equal(data.y, y)
    expected = {
        **dict(task="spatial_transform", split="test", mode="paper", seed=1, count=30, canvas=40),
        **dict(digit_size=28, scale=[0.5, 1.0], digits=[1.0, 0.0], threshold=0.3, generator=1),
        "images_sha256": mnist.sha256(tmp_path / "t10k-images-idx3-ubyte"),
        "labels_sha256": mnist.sha256(tmp_path / "t10k-labels-idx1-ubyte"),
    }
    assert expected.items() <= data.attributes.items()
    assert "spatial_transform/test: 30 examples" in capfd.readouterr().err


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())
