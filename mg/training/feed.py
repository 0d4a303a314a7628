"""Where batches come from: in an order that the seed decides, on the device that computes.

A feed knows its examples and how to prepare them; the loop knows neither. Everything random in an
epoch is drawn on the processor from one stream that seed and epoch decide, before its first batch:
a resumed training needs no past draws, and no batch waits for the device.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mg.data import hdf5
from mg.errors import UserError

DATA_FACTS = ("task", "split", "mode", "seed", "canvas")

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
    """

    facts: list[dict[str, Any]]
    shape: tuple[int, int, int]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, epoch: Epoch, first: int) -> Iterator[Iterator[Pair]]:
        """The parts of each batch to train on, from iteration `first` of the epoch on."""

    @abstractmethod
    def once(self, size: int) -> Iterator[Pair]:
        """Every example once, in order, as it is tested, `size` at a time."""

    def preparation(self) -> dict[str, Any]:
        """What model.pt has to hold, besides weights, for inputs to be prepared the same way."""
        return {}


class DeviceFeed(Feed):
    """Examples that all lie on the device.

    Args:
        x: (N, ...) inputs, whatever `train` and `test` make network inputs of.
        y: (N, ...) targets.
    """

    def __init__(self, x: Tensor, y: Tensor, facts: list[dict[str, Any]]) -> None:
        self.x, self.y, self.facts = x, y, facts
        self.shape = tuple(x.shape[1:])

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
        device, random = self.x.device, epoch.random()
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
    def load(cls, paths: Sequence[Path], device: torch.device) -> "Clutter":
        """Read and join HDF5 files.

        Raises:
            UserError: a file is no data set, or they hold examples of different shapes.
        """
        parts = [hdf5.load(path) for path in paths]
        shapes = {(part.x.shape[1:], part.y.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise UserError(
                f"{', '.join(map(str, paths))} hold examples of different shapes; "
                "train on files of one task and canvas"
            )
        x = torch.from_numpy(np.concatenate([part.x for part in parts]))
        y = torch.from_numpy(np.concatenate([part.y for part in parts]))
        x = x.to(device).sub_(INPUT_MEAN).div_(INPUT_STD)
        facts = [
            {key: part.attributes[key] for key in DATA_FACTS}
            | {"examples": len(part.x), "crc32": [zlib.crc32(part.x), zlib.crc32(part.y)]}
            for part in parts
        ]
        return cls(x, y.to(device), facts)
