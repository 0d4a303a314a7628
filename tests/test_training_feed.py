"""What a feed takes, and the order of its examples: what a seed decides, and what processes and
resumed epochs make of it.
"""

import numpy as np
import pytest
import torch

from mg.data import hdf5
from mg.errors import UserError
from mg.training.feed import DeviceFeed, Epoch, draw_balanced, for_testing, for_training


class Numbers(DeviceFeed):
    def preparation(self):
        return {}


FEED = Numbers(torch.arange(50.0)[:, None], torch.arange(50), [])


def indices(epoch: Epoch, first: int = 0) -> list[list[list[int]]]:
    """Examples by iteration and part."""
    return [[y.tolist() for _, y in parts] for parts in FEED.batches(epoch, first)]


def test_an_epoch_goes_on_where_it_was_left():
    epoch = Epoch(seed=1, number=2, iterations=6, batch=8, accumulate=2)
    whole = indices(epoch)
    assert [[len(part) for part in parts] for parts in whole] == [[4, 4]] * 6
    assert indices(epoch, first=4) == whole[4:]


def test_seed_and_number_decide_the_order():
    orders = [indices(Epoch(seed, number, 3, 8)) for seed, number in ((0, 0), (0, 1), (1, 0))]
    assert len({str(order) for order in orders}) == 3
    assert orders[0] == indices(Epoch(0, 0, 3, 8))


def test_every_example_is_drawn():
    assert {i for parts in indices(Epoch(0, 0, 50, 20)) for part in parts for i in part} == {
        *range(50)
    }


def test_processes_share_each_batch():
    """Together they compute the examples that one process computes alone."""
    alone = indices(Epoch(3, 0, 4, 8))
    shares = [indices(Epoch(3, 0, 4, 8, rank=rank, world=2)) for rank in (0, 1)]
    for (batch,), (first,), (second,) in zip(alone, *shares, strict=True):
        assert first + second == batch


def write(path, task, canvas=16):
    """Four examples of a task."""
    attributes = {"task": task, "split": "train", "canvas": canvas, "mode": "paper", "seed": 1}
    if task.startswith("cifar"):
        classes = [f"class {i}" for i in range(int(task.removeprefix("cifar")))]
        part = np.zeros((4, 3, 32, 32), np.uint8), np.arange(4).astype(np.uint16)
        hdf5.write(path, [part], attributes | {"classes": classes}, layout=hdf5.IMAGES)
    else:
        x, y = np.zeros((4, 1, canvas, canvas), np.float32), np.zeros((4, 1, canvas, canvas), bool)
        hdf5.write(path, [(x, y)], attributes)
    return path


@pytest.mark.parametrize(
    "dataset, given",
    [("translation", "rotation"), ("segmentation", "translation"), ("cifar10", "cifar100")],
)
def test_files_of_another_task_are_refused(tmp_path, dataset, given):
    path, cpu = write(tmp_path / "set.h5", given), torch.device("cpu")
    with pytest.raises(UserError) as training:
        for_training(dataset, [path], cpu, "plain")
    prepared = for_training(given, [path], cpu, "plain").preparation()
    with pytest.raises(UserError) as testing:
        for_testing(dataset, path, cpu, prepared)
    said = f"{path} holds {given}; needed are examples of {dataset}"
    assert str(training.value) == str(testing.value) == said


def test_the_authors_names_are_those_of_the_same_tasks(tmp_path):
    path = write(tmp_path / "set.h5", "mnist-rot")
    assert len(for_training("rotation", [path], torch.device("cpu"))) == 4
    assert len(for_training("mnist-rot", [path], torch.device("cpu"))) == 4


@pytest.mark.parametrize("inputs, targets", [(1, 3), (3, 10), (1, 1)])
def test_examples_of_other_channels_than_the_tasks_are_refused(tmp_path, inputs, targets):
    path = tmp_path / "own.h5"
    part = np.zeros((4, inputs, 16, 16), np.float32), np.zeros((4, targets, 16, 16), np.uint8)
    attributes = {"task": "segmentation", "split": "train", "canvas": 16, "mode": "own", "seed": 0}
    hdf5.write(path, [part], attributes)
    with pytest.raises(UserError) as caught:
        for_training("segmentation", [path], torch.device("cpu"))
    said = f"{path} has inputs of {inputs} and targets of {targets} channels; segmentation needs 1"
    assert str(caught.value) == f"{said} and 10"


def test_progress_is_measured_on_the_canvas_that_is_trained_on(tmp_path):
    """Another one may be none that the network can halve."""
    cpu = torch.device("cpu")
    prepared = for_training("rotation", [write(tmp_path / "a.h5", "rotation")], cpu).preparation()
    other = write(tmp_path / "b.h5", "rotation", canvas=30)
    with pytest.raises(UserError, match="b.h5 has a canvas of 30 pixels, the training .* 16"):
        for_testing("rotation", other, cpu, prepared)


CLASSES = [f"class {i}" for i in range(10)]


def of_classes(path, task, classes=CLASSES, canvas=32, side=32):
    """Two examples of each class, of images or of lists of their files."""
    attributes = {"task": task, "split": "valid", "canvas": canvas, "classes": list(classes)}
    y = np.arange(2 * len(classes)).astype(np.uint16) % len(classes)
    if task == "imagenet":
        x = np.full((len(y), 5), ord("a"), np.uint8)
        hdf5.write(path, [(x, y)], attributes | {"directory": "/none"}, layout=hdf5.FILES)
    else:
        x = np.random.default_rng(0).integers(0, 256, (len(y), 3, side, side), np.uint8)
        hdf5.write(path, [(x, y)], attributes, layout=hdf5.IMAGES)
    return path


@pytest.mark.parametrize("task", ["cifar10", "imagenet"])
@pytest.mark.parametrize(
    "classes, said",
    [
        (CLASSES[:2], "has 2 classes, the training examples 10"),
        ([*CLASSES, "more"], "has 11 classes, the training examples 10"),
        (CLASSES[::-1], "number 0 is 'class 9', theirs 'class 0'"),
        ([*CLASSES[:9], "a\nb"], r"number 9 is 'a\nb', theirs 'class 9'"),
    ],
)
def test_examples_of_other_classes_are_no_test(tmp_path, task, classes, said):
    """Of as many, too: an index would stand for another class."""
    cpu = torch.device("cpu")
    prepared = for_training(task, [of_classes(tmp_path / "a.h5", task)], cpu, "plain").preparation()
    assert len(for_testing(task, tmp_path / "a.h5", cpu, prepared)) == 20
    other = of_classes(tmp_path / "b.h5", task, classes)
    with pytest.raises(UserError) as caught:
        for_testing(task, other, cpu, prepared)
    assert str(caught.value).startswith(f"{other} has ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_photographs_of_another_crop_are_no_test(tmp_path):
    cpu = torch.device("cpu")
    path = of_classes(tmp_path / "a.h5", "imagenet")
    prepared = for_training("imagenet", [path], cpu).preparation()
    other = of_classes(tmp_path / "b.h5", "imagenet", canvas=64)
    with pytest.raises(UserError, match="b.h5 has a canvas of 64 pixels, the training .* 32"):
        for_testing("imagenet", other, cpu, prepared)


@pytest.mark.parametrize("kind", ["plain", "whitened"])
def test_images_of_another_size_than_the_data_sets_are_refused(tmp_path, kind):
    cpu = torch.device("cpu")
    path = of_classes(tmp_path / "a.h5", "cifar10")
    prepared = for_training("cifar10", [path], cpu, kind).preparation()
    small = of_classes(tmp_path / "b.h5", "cifar10", side=28)
    said = f"{small} has images of 28 x 28 pixels; cifar10 needs 32 x 32"
    for attempt in (
        lambda: for_training("cifar10", [small], cpu, kind),
        lambda: for_testing("cifar10", small, cpu, prepared),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(caught.value) == said


def test_a_preparation_of_another_size_is_none(tmp_path):
    path, values = of_classes(tmp_path / "a.h5", "cifar10"), 3 * 28**2
    of_28 = {"kind": "whitened", "mean": torch.zeros(values), "scale": torch.eye(values)}
    with pytest.raises(UserError, match="does not say how its images are prepared"):
        for_testing("cifar10", path, torch.device("cpu"), of_28 | {"classes": CLASSES})


def test_classes_are_drawn_evenly():
    labels = torch.tensor([0] * 90 + [1] * 9 + [3])
    drawn = draw_balanced(labels, 3000, torch.Generator().manual_seed(0))
    classes = labels[drawn]
    counts = classes.bincount(minlength=4).tolist()
    assert counts[2] == 0 and all(abs(counts[i] - 1000) < 100 for i in (0, 1, 3))
    assert {*drawn.tolist()} == {*range(100)}  # within a class any example
    again = draw_balanced(labels, 3000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
