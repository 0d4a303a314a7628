"""The six cluttered-MNIST tasks: digits in, (input, target) out.

In `paper` mode the examples are those of the authors' released generators, to the last bit: one
sequential stream of random numbers, the same for every split. In `independent` mode every example
has a stream of its own, keyed by seed, task, split and index, so that splits differ and workers can
share the work without changing it.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mg.data import SPLITS, compiled, hdf5
from mg.data.mnist import load_split, sha256, split_files, verify_unchanged
from mg.data.parallel import in_order
from mg.data.tasks import CLASSES, TASKS, resolve_task
from mg.errors import UserError
from mg.progress import Progress

VERSION = 1  # of the generator; another number, another data set
SEEDS = {"paper": 1, "independent": 0}  # the default of each mode; 1 is the authors'
MOST_DIGITS = 1000  # of an image, on average: more is a slip of the keyboard and takes for ever
_BLOCK = 128  # examples made at once


@dataclass(frozen=True)
class Settings:
    """Geometry of the examples; the defaults are the paper's.

    canvas: side of input and target in pixels.
    digit_size: side in pixels of a digit at scale 1. Canvas and digit size halved give the paper's
        geometry at half its size.
    scale: lowest and highest scale; None: the task's.
    digits: mean and standard deviation of the number of digits, segmentation only; None: the
        task's. The number is ceil(normal(mean, deviation)), at least 1.
    threshold: intensity from which a pixel belongs to the target, in (0, 1].
    """

    canvas: int = 64
    digit_size: int = 28
    scale: tuple[float, float] | None = None
    digits: tuple[float, float] | None = None
    threshold: float = 0.3


class _Plan(NamedTuple):
    """A checked request for examples."""

    task: str
    split: str
    mode: str
    count: int
    seed: int
    settings: Settings  # scale and digits filled in
    recipe: compiled.Recipe


def _plan(
    task: str,
    split: str,
    mode: str,
    count: int | None,
    seed: int | None,
    settings: Settings | None,
) -> _Plan:
    task = resolve_task(task)
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if mode not in SEEDS:
        raise UserError(f"unknown mode {mode!r}; choose one of {', '.join(SEEDS)}")
    if count is None:
        count = TASKS[task].counts[SPLITS.index(split)]
    if count < 1:
        raise UserError(f"count {count} is not positive; ask for at least one example")
    if seed is None:
        seed = SEEDS[mode]
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} is not in 0 ... 2^32 - 1")
    settings, recipe = _recipe(task, settings or Settings())
    return _Plan(task, split, mode, count, seed, settings, recipe)


def _recipe(task: str, settings: Settings) -> tuple[Settings, compiled.Recipe]:
    """Fill in the task's own scale and number of digits, and check that the digits fit."""
    description = TASKS[task]
    canvas, digit_size, threshold = settings.canvas, settings.digit_size, settings.threshold
    if canvas < 1 or digit_size < 1:
        raise UserError(f"canvas {canvas} and digit size {digit_size} must be positive")
    if not 0 < threshold <= 1:
        raise UserError(f"threshold {threshold} is not in (0, 1]; the paper's is 0.3")
    low, high = settings.scale or description.scale
    if not (0 < low <= high < math.inf):
        raise UserError(f"scale range {low} to {high} must be positive and ascending")
    largest = math.ceil(high * digit_size)
    if not description.digits:
        largest = max(largest, digit_size)  # the target shows the digit at scale 1
    if largest > canvas:
        raise UserError(
            f"a digit of up to {largest} pixels does not fit on a canvas of {canvas}; "
            "lower the scale or the digit size, or enlarge the canvas"
        )
    if settings.digits and not description.digits:
        raise UserError(f"{task} has one digit per image; leave their number unset")
    mean, std = settings.digits or description.digits or (1.0, 0.0)
    if not (0 < mean <= MOST_DIGITS and 0 <= std <= MOST_DIGITS):
        raise UserError(
            f"number of digits: mean {mean} must be positive and deviation {std} at least 0, both "
            f"at most {MOST_DIGITS}"
        )
    recipe = compiled.Recipe(
        compiled.PLACEMENTS.index(description.placement),
        math.radians(description.rotation),
        math.radians(description.shear),
        float(low),
        float(high),
        int(digit_size),
        description.digits is not None,
        float(mean),
        float(std),
        float(threshold),
    )
    filled = Settings(canvas, digit_size, (low, high), (mean, std), threshold)
    return filled, recipe


def check(task: str, mode: str, seed: int | None, settings: Settings | None) -> None:
    """Make sure that a data set can be made with these settings, without making it.

    Raises:
        UserError: a name or setting that cannot work.
    """
    _plan(task, SPLITS[0], mode, None, seed, settings)


def blocks(
    task: str,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    mode: str = "paper",
    count: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    workers: int = 1,
) -> Iterator[hdf5.Block]:
    """Make the first `count` examples of a task and split, in blocks: memory stays bounded.

    Args:
        task: one of TASKS.
        split: train, valid or test.
        images: (N, 28, 28) uint8, the split's digits. labels: (N,) uint8, 0 to 9.
        mode: paper (the authors' stream) or independent (a stream per seed, task and split).
        count: number of examples; None: the paper's.
        seed: None: 1 in paper mode (the authors'), 0 in independent mode.
        settings: geometry; None: the paper's.
        workers: threads, in independent mode; the examples do not depend on their number.

    Yields:
        x (N, 1, H, W) float32 in [0, 1] and y (N, C, H, W) uint8, 0 or 1, where C is 10 for
        segmentation (a pixel may belong to several classes, or none) and 1 otherwise.

    Raises:
        UserError: a name, count or setting that cannot work, or a canvas too full for its digits.
    """
    return _make(_plan(task, split, mode, count, seed, settings), images, labels, workers)


def _empty(plan: _Plan, count: int) -> hdf5.Block:
    side = plan.settings.canvas
    x = np.zeros((count, 1, side, side), np.float32)
    return x, np.zeros((count, TASKS[plan.task].classes, side, side), np.uint8)


def _make(
    plan: _Plan, images: np.ndarray, labels: np.ndarray, workers: int
) -> Iterator[hdf5.Block]:
    images = np.require(images, np.uint8, ["C", "W"])  # one type of array: compiled once
    labels = np.require(labels, np.uint8, ["C", "W"])
    if images.ndim != 3 or images.shape[1:] != (compiled.SIDE,) * 2 or not len(images):
        raise UserError(f"digits of shape {images.shape} given; they must be (N, 28, 28)")
    if labels.shape != images.shape[:1]:
        raise UserError(f"{len(images)} digits but labels of shape {labels.shape}")
    if plan.recipe.several and labels.max() >= CLASSES:
        raise UserError(f"label {labels.max()} found: segmentation takes digits labelled 0 to 9")
    make = _in_sequence if plan.mode == "paper" else _independently
    return make(plan, images, labels, workers)


def _in_sequence(plan, images, labels, workers) -> Iterator[hdf5.Block]:
    stream = compiled.mersenne_stream(plan.seed)
    deck = np.empty(len(images), np.int64)
    dealt = np.array([len(deck)])  # all of it, so that the first example shuffles
    for first in range(0, plan.count, _BLOCK):
        x, y = _empty(plan, min(_BLOCK, plan.count - first))
        made = compiled.fill_in_sequence(x, y, images, labels, plan.recipe, stream, deck, dealt)
        _check_full(first, made, len(x))
        yield x, y


def _independently(plan, images, labels, workers) -> Iterator[hdf5.Block]:
    name = f"{plan.seed}/{plan.task}/{plan.split}".encode()
    key, deck_key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), "<u8")

    def hands() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Deal digits to blocks: permutation after permutation of the split, none left out."""
        stream = compiled.counter_stream(deck_key)
        deck = np.empty(0, np.int64)
        for first in range(0, plan.count, _BLOCK):
            numbers = np.empty(min(_BLOCK, plan.count - first), np.int64)
            compiled.count_digits(key, first, plan.recipe, numbers)
            ends = np.concatenate([[0], np.cumsum(numbers)])
            while len(deck) < ends[-1]:
                order = np.empty(len(images), np.int64)
                compiled.shuffle(stream, order)
                deck = np.concatenate([deck, order])
            yield first, deck[: ends[-1]], ends
            deck = deck[ends[-1] :]

    def fill(hand: tuple[int, np.ndarray, np.ndarray]) -> hdf5.Block:
        first, digits, ends = hand
        x, y = _empty(plan, len(ends) - 1)
        made = compiled.fill_independently(
            x, y, images, labels, plan.recipe, key, first, digits, ends
        )
        _check_full(first, made, len(x))
        return x, y

    return in_order(fill, hands(), workers)


def _check_full(first: int, made: int, wanted: int) -> None:
    if made < wanted:
        raise UserError(
            f"example {first + made}: no room for another digit on the canvas; "
            "enlarge it, or ask for fewer or smaller digits"
        )


def generate_file(
    task: str,
    split: str,
    digits: str | os.PathLike,
    output: str | os.PathLike,
    *,
    mode: str = "paper",
    count: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    workers: int = 1,
) -> None:
    """Make a data set from the idx files in directory `digits` and write it to `output`, HDF5.

    The attributes of the file are task, split, mode, seed, count, the fields of `Settings`,
    generator (its version) and the SHA-256 of the files with the digits. Other arguments are those
    of `blocks`; `workers` threads compress in either mode. Progress goes to standard error.

    Raises:
        UserError: a name, count or setting that cannot work; files that cannot be read or written.
    """
    plan = _plan(task, split, mode, count, seed, settings)
    images, labels = load_split(digits, split)
    images_file, labels_file = split_files(digits, split)
    verify_unchanged(digits, (images_file, labels_file))
    attributes: dict[str, Any] = {
        **{name: getattr(plan, name) for name in ("task", "split", "mode", "seed", "count")},
        **asdict(plan.settings),
        "generator": VERSION,
        "images_sha256": sha256(images_file),
        "labels_sha256": sha256(labels_file),
    }
    parts = _make(plan, images, labels, workers)
    with Progress(f"{plan.task}/{plan.split}", plan.count, "examples") as progress:

        def counted() -> Iterator[hdf5.Block]:
            for block in parts:
                yield block
                progress.advance(len(block[0]))

        hdf5.write(output, counted(), attributes, workers)
        progress.note = f"{Path(output).stat().st_size / 1e6:.1f} MB in {output}"
