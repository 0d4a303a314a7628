"""Where batches come from: in an order that the seed decides, on the device that computes.

A feed knows its examples and how to prepare them; the loop knows neither. Everything random in an
epoch is drawn on the processor from one stream that seed and epoch decide, before its first batch:
a resumed training needs no past draws, and no batch waits for the device.
"""

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mg import networks
from mg.data import hdf5
from mg.data.cifar_preparation import PREPARATIONS, Preparation
from mg.data.tasks import RELEASED_NAMES
from mg.errors import UserError
from mg.progress import say

LAYOUTS = {"mnist": hdf5.PIXELS, "cifar": hdf5.IMAGES, "imagenet": hdf5.FILES}

# Every network of every task is fed the same normalisation: mean and standard deviation of the
# segmentation training set (the authors' constants).
INPUT_MEAN, INPUT_STD = 0.1141, 0.2746

Pair = tuple[Tensor, Tensor]
"""Inputs and targets of a batch, or of a part of one."""


@dataclass(frozen=True)
class Epoch:
    """One epoch's batches, and the share of them that one of several processes computes.

    Attributes:
        seed, number: decide what is drawn.
        iterations: optimiser steps.
        batch: examples per step, of all processes together.
        accumulate: parts that a process computes its share of a batch in.
        rank, world: which process this is, of how many.
    """

    seed: int
    number: int
    iterations: int
    batch: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @property
    def examples(self) -> int:
        """Examples drawn in the epoch, by all processes together."""
        return self.iterations * self.batch

    def random(self) -> torch.Generator:
        """The epoch's stream, the same in every process."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.number)

    def share(self, drawn: Tensor) -> Tensor:
        """(examples, ...) of all processes -> (iterations, accumulate, n, ...) of this one."""
        parts = drawn.view(self.iterations, self.world, self.accumulate, -1, *drawn.shape[1:])
        return parts[:, self.rank]


class Feed(ABC):
    """The examples of one or several files.

    Attributes:
        facts: what each file says of itself, in plain values; a checkpoint of others is refused.
        shape: (C, H, W) of an input as the network gets it.
        classes: names of the classes, if the targets are classes.
        unreadable: numbers of the examples that were left out because their files are damaged.
    """

    classes: list[str] | None = None

    def __init__(self, shape: tuple[int, int, int], facts: list[dict[str, Any]]) -> None:
        self.shape, self.facts = shape, facts
        self.unreadable: set[int] = set()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, epoch: Epoch, first: int) -> Iterator[Iterator[Pair]]:
        """The parts of each batch to train on, from iteration `first` of the epoch on."""

    @abstractmethod
    def once(self, size: int) -> Iterator[Pair]:
        """Every example once, in order, as it is tested, `size` at a time."""

    @abstractmethod
    def preparation(self) -> dict[str, Any]:
        """What model.pt has to hold, besides weights, for inputs to be prepared the same way."""


class DeviceFeed(Feed):
    """Examples that all lie on the device.

    Args:
        x: (N, ...) inputs, whatever `train` and `test` make network inputs of.
        y: (N, ...) targets.
    """

    def __init__(self, x: Tensor, y: Tensor, facts: list[dict[str, Any]]) -> None:
        super().__init__(tuple(x.shape[1:]), facts)
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def draw(self, number: int, random: torch.Generator) -> Tensor:
        """(number,) indices of examples, with replacement."""
        return torch.randint(len(self), (number,), generator=random)

    def draw_changes(self, number: int, random: torch.Generator) -> Tensor | None:
        """(number, ...) what `train` changes examples by; None for nothing."""
        return None

    def train(self, x: Tensor, changes: Tensor | None) -> Tensor:
        """Network inputs to train on."""
        return x

    def test(self, x: Tensor) -> Tensor:
        """Network inputs to test on."""
        return x

    def batches(self, epoch: Epoch, first: int) -> Iterator[Iterator[Pair]]:
        device, random = self.y.device, epoch.random()
        order = epoch.share(self.draw(epoch.examples, random)).to(device)
        changes = self.draw_changes(epoch.examples, random)
        if changes is not None:
            changes = epoch.share(changes).to(device)

        def parts(i: int) -> Iterator[Pair]:
            for j, part in enumerate(order[i]):
                change = None if changes is None else changes[i, j]
                yield self.train(self.x[part], change), self.y[part]

        return (parts(i) for i in range(first, epoch.iterations))

    def once(self, size: int) -> Iterator[Pair]:
        for x, y in zip(self.x.split(size), self.y.split(size), strict=True):
            yield self.test(x), y


class Clutter(DeviceFeed):
    """Cluttered digits, normalised: x (N, 1, H, W) float32; y (N, C, H, W) uint8, 0 or 1."""

    @classmethod
    def load(cls, dataset: str, paths: Sequence[Path], device: torch.device) -> "Clutter":
        """Read and join HDF5 files.

        Raises:
            UserError: a file is none of this data set, or they hold examples of different shapes.
        """
        parts = _read(dataset, paths)
        for path, part in zip(paths, parts, strict=True):
            networks.check_channels(dataset, part.x.shape[1], part.y.shape[1], path)
        shapes = {(part.x.shape[1:], part.y.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise UserError(
                f"{', '.join(map(str, paths))} hold examples of different shapes; "
                "train on files of one task and canvas"
            )
        x = torch.from_numpy(np.concatenate([part.x for part in parts]))
        y = torch.from_numpy(np.concatenate([part.y for part in parts]))
        x = x.to(device).sub_(INPUT_MEAN).div_(INPUT_STD)
        return cls(x, y.to(device), [_facts(part, "mnist") for part in parts])

    def preparation(self) -> dict[str, Any]:
        return {"kind": "clutter", "canvas": self.shape[-1]}


class Images(DeviceFeed):
    """Small colour images: x (N, 3, H, W) float32, prepared; y (N,) int64. Classes come evenly."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        facts: list[dict[str, Any]],
        classes: list[str],
        preparation: Preparation,
        size: int,
    ) -> None:
        super().__init__(x, y, facts)
        self.shape, self.classes = (3, size, size), classes
        self._preparation, self._labels = preparation, y.cpu()

    @classmethod
    def load(
        cls,
        dataset: str,
        paths: Sequence[Path],
        device: torch.device,
        preparation: str | dict[str, Any],
    ) -> "Images":
        """Read, join and prepare HDF5 files.

        Args:
            preparation: a kind, fitted to these images; or that of a trained model.

        Raises:
            UserError: a file is none of this data set, or they do not belong together.
        """
        parts = _read(dataset, paths)
        size = networks.resolve_dataset(dataset).size
        for path, part in zip(paths, parts, strict=True):
            height, width = part.x.shape[2:]
            if (height, width) != (size, size):  # no preparation or network takes others
                raise UserError(
                    f"{path} has images of {height} x {width} pixels; {dataset} needs "
                    f"{size} x {size}"
                )
        if len({tuple(part.attributes["classes"]) for part in parts}) > 1:
            raise UserError(f"{', '.join(map(str, paths))} hold different classes")
        images = np.concatenate([part.x for part in parts])
        if isinstance(preparation, str):
            fitted = Preparation.fit(preparation, images).to(device)
        else:
            fitted = Preparation.of(preparation).to(device)
        x = torch.cat(
            [fitted.apply(part.to(device)) for part in torch.from_numpy(images).split(1000)]
        )
        y = torch.from_numpy(np.concatenate([part.y for part in parts]).astype(np.int64))
        facts = [_facts(part, "cifar", fitted.kind) for part in parts]
        classes = parts[0].attributes["classes"]
        return cls(x, y.to(device), facts, classes, fitted, size)

    def draw(self, number: int, random: torch.Generator) -> Tensor:
        return draw_balanced(self._labels, number, random)

    def draw_changes(self, number: int, random: torch.Generator) -> Tensor:
        return self._preparation.draw(number, self.shape[-1], random)

    def train(self, x: Tensor, changes: Tensor | None) -> Tensor:
        return self._preparation.crop(x, self.shape[-1], changes)

    def test(self, x: Tensor) -> Tensor:
        return self._preparation.crop(x, self.shape[-1])

    def preparation(self) -> dict[str, Any]:
        return {**self._preparation.state(), "classes": self.classes}


class Photographs(Feed):
    """Image files, decoded by `workers` processes ahead of their use.

    Drawn with replacement, as every task's examples are, classes evenly. A file that cannot be
    decoded is left out, with a warning the first time: in training the next readable one takes its
    place.
    """

    def __init__(
        self,
        parts: list[hdf5.Dataset],
        device: torch.device,
        workers: int,
        ten_crops: bool = False,
    ) -> None:
        first = parts[0]
        shape = (3, *(first.attributes["canvas"],) * 2)
        super().__init__(shape, [_facts(part, "imagenet") for part in parts])
        width = max(part.x.shape[1] for part in parts)
        x = [np.pad(part.x, ((0, 0), (0, width - part.x.shape[1]))) for part in parts]
        y = np.concatenate([part.y for part in parts])
        self.data = hdf5.Dataset(np.concatenate(x), y, first.attributes)
        self.device, self.workers, self.ten_crops = device, workers, ten_crops
        self.classes = first.attributes["classes"]
        self._labels = torch.from_numpy(y.astype(np.int64))

    @classmethod
    def load(
        cls,
        dataset: str,
        paths: Sequence[Path],
        device: torch.device,
        workers: int,
        ten_crops: bool = False,
    ) -> "Photographs":
        """Read lists of files.

        Raises:
            UserError: a file is none of this data set, or they do not belong together.
        """
        parts = _read(dataset, paths)
        if len({str([p.attributes[k] for k in _TOGETHER]) for p in parts}) > 1:
            raise UserError(
                f"{', '.join(map(str, paths))} do not list images of one folder, with the same "
                "crops and classes; make them again"
            )
        return cls(parts, device, workers, ten_crops)

    def __len__(self) -> int:
        return len(self.data.x)

    def batches(self, epoch: Epoch, first: int) -> Iterator[Iterator[Pair]]:
        from mg.data import imagenet_preparation  # heavy, and other tasks do without

        random = epoch.random()
        numbers = epoch.share(draw_balanced(self._labels, epoch.examples, random))
        seeds = epoch.share(torch.randint(2**62, (epoch.examples,), generator=random))
        photographs = imagenet_preparation.Photographs(self.data, training=True)
        parts = [drawn[first:].flatten(0, 1) for drawn in (numbers, seeds)]
        loaded = self._on_device(
            photographs, imagenet_preparation.load(photographs, *parts, self.workers, self._pin)
        )
        for _ in range(first, epoch.iterations):
            yield (next(loaded) for _ in range(epoch.accumulate))

    def once(self, size: int) -> Iterator[Pair]:
        from mg.data import imagenet_preparation

        photographs = imagenet_preparation.Photographs(
            self.data, training=False, ten_crops=self.ten_crops
        )
        numbers = torch.arange(len(self)).split(size)
        yield from self._on_device(
            photographs,
            imagenet_preparation.load(photographs, numbers, None, self.workers, self._pin),
        )

    @property
    def _pin(self) -> bool:
        return self.device.type == "cuda"

    def _on_device(self, photographs: Any, loaded: Iterator[list[Tensor]]) -> Iterator[Pair]:
        for x, y, unreadable in loaded:
            for number in unreadable[unreadable >= 0].tolist():
                if number not in self.unreadable:
                    path = photographs.path(number)
                    say(f"warning: {path} cannot be read; left out")
                    self.unreadable.add(number)
            if (y < 0).any():
                x, y = x[y >= 0], y[y >= 0]
            if len(y):
                yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def preparation(self) -> dict[str, Any]:
        return {"kind": "photographs", "canvas": self.shape[-1], "classes": self.classes}


_TOGETHER = ("directory", "canvas", "classes")


def _read(dataset: str, paths: Sequence[Path]) -> list[hdf5.Dataset]:
    spec = networks.resolve_dataset(dataset)
    parts = [hdf5.load(path, layout=LAYOUTS[spec.family]) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        given = part.attributes["task"]
        if RELEASED_NAMES.get(given, given) != spec.name:
            raise UserError(f"{path} holds {given}; needed are examples of {spec.name}")
    return parts


def _facts(part: hdf5.Dataset, family: str, preparation: str | None = None) -> dict[str, Any]:
    """What a file says of itself, and checksums of its examples and names of classes."""
    pixels = family == "mnist"
    keys = ("task", "split", "mode", "seed", "canvas") if pixels else ("task", "split", "canvas")
    facts = {key: part.attributes[key] for key in keys}
    facts |= {"examples": len(part.x), "crc32": [zlib.crc32(part.x), zlib.crc32(part.y)]}
    if not pixels:
        facts["classes_crc32"] = zlib.crc32(json.dumps(part.attributes["classes"]).encode())
    if family == "cifar":
        facts["preparation"] = preparation
    return facts


def read_facts(dataset: str, paths: Sequence[Path], preparation: str) -> list[dict[str, Any]]:
    """The `facts` of the feed of these files, without the feed: nothing is prepared.

    Args:
        preparation: kind of that of CIFAR's images.

    Raises:
        UserError: a file is not of this data set, or damaged.
    """
    family = networks.resolve_dataset(dataset).family
    return [_facts(part, family, preparation) for part in _read(dataset, paths)]


def draw_balanced(labels: Tensor, number: int, random: torch.Generator) -> Tensor:
    """(number,) indices with replacement: first a class, each as often, then an example of it.

    Args:
        labels: (N,) classes, on the processor; those without an example are passed over.
    """
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    classes = counts.nonzero()[:, 0]
    chosen = classes[torch.randint(len(classes), (number,), generator=random)]
    within = (torch.rand(number, generator=random, dtype=torch.float64) * counts[chosen]).long()
    return order[starts[chosen] + within]


def for_training(
    dataset: str,
    paths: Sequence[Path],
    device: torch.device,
    preparation: str = "whitened",
    workers: int = 0,
) -> Feed:
    """The feed of a data set's training files.

    Args:
        preparation: of CIFAR's images, plain or whitened; the other data sets know one.
        workers: processes that decode ImageNet's images; the other data sets need none.

    Raises:
        UserError: the files are not of this data set, or damaged.
    """
    family = networks.resolve_dataset(dataset).family
    if family == "mnist":
        return Clutter.load(dataset, paths, device)
    if family == "imagenet":
        return Photographs.load(dataset, paths, device, workers)
    if preparation not in PREPARATIONS:
        raise UserError(f"preparation is {preparation!r}; choose {' or '.join(PREPARATIONS)}")
    return Images.load(dataset, paths, device, preparation)


def for_testing(
    dataset: str,
    path: Path,
    device: torch.device,
    preparation: dict[str, Any],
    workers: int = 0,
    ten_crops: bool = False,
) -> Feed:
    """The feed of a file to test on.

    Args:
        preparation: what the feed that was trained on says of itself.
        ten_crops: give ten crops of each of ImageNet's images, (B, 10, 3, H, W).

    Raises:
        UserError: the file is not of this data set, or damaged, or has other classes or another
            canvas than the examples that were trained on.
    """
    family = networks.resolve_dataset(dataset).family
    if family == "imagenet":
        feed = Photographs.load(dataset, [path], device, workers, ten_crops)
    elif family == "cifar":
        feed = Images.load(dataset, [path], device, preparation)
    else:
        feed = Clutter.load(dataset, [path], device)
    _check_alike(path, feed.preparation(), preparation)
    return feed


def _check_alike(path: Path, tested: dict[str, Any], trained: dict[str, Any]) -> None:
    """Refuse examples in `path` whose numbers would not be of what was trained.

    Args:
        tested, trained: what the feeds of both say of their preparation. That of images has no
            canvas: their data set knows one.
    """
    here, there = (
        names if isinstance(names := of.get("classes"), list) else [] for of in (tested, trained)
    )
    if len(here) != len(there):
        raise UserError(
            f"{path} has {len(here)} classes, the training examples {len(there)}; test on theirs"
        )
    for number, (name, other) in enumerate(zip(here, there, strict=True)):
        if name != other:
            raise UserError(
                f"{path} has other classes than the training examples: number {number} is "
                f"{name!r:.60}, theirs {other!r:.60}; test on theirs"
            )
    if tested.get("canvas") != trained.get("canvas"):
        raise UserError(
            f"{path} has a canvas of {tested.get('canvas')} pixels, the training examples one of "
            f"{trained.get('canvas')}; test on theirs"
        )
