"""The six cluttered-MNIST tasks: digits in, (input, target) out.

In `paper` mode the examples are those of the authors' released generators, random stream included:
one sequential MT19937 stream per split. In `independent` mode each example has its own stream, keyed
by seed, task, split and index, so that splits differ and workers can share the work.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from mg.data import hdf5, image_ops, random
from mg.data.mnist import SPLITS, load_split
from mg.errors import UserError

VERSION = "1"
MODES = ("paper", "independent")
CLASSES = 10
ANYWHERE, CENTRE, APART = range(3)  # where a sprite goes; APART: where it overlaps little
_ATTEMPTS = 1000  # sprites tried per digit before a canvas counts as full


@dataclass(frozen=True)
class Task:
    """What a task does to its digits (paper, sections 4.1 and 4.2)."""

    released_name: str
    placement: int
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0  # degrees, either way
    shear: float = 0.0  # degrees, either way
    digits: tuple[float, float] | None = None  # mean and deviation of their number; None: one
    counts: tuple[int, int, int] = (50_000, 10_000, 10_000)  # train, valid, test

    @property
    def classes(self) -> int:
        """Channels of the target."""
        return CLASSES if self.placement == APART else 1


TASKS = {
    "segmentation": Task(
        "mnist-seg",
        APART,
        scale=(0.5, 1.25),
        rotation=60,
        digits=(5, 0.5),
        counts=(10_000, 1_000, 1_000),
    ),
    "spatial_transform": Task("mnist-spt", ANYWHERE, scale=(0.5, 1.5), rotation=60, shear=60),
    "rotation": Task("mnist-rot", CENTRE, rotation=60),
    "affine_transform": Task("mnist-aff", CENTRE, shear=60),
    "scaling": Task("mnist-sca", CENTRE, scale=(0.5, 1.5)),
    "translation": Task("mnist-tra", ANYWHERE),
}


@dataclass(frozen=True)
class Settings:
    """Geometry of the examples; the defaults are the paper's.

    canvas: side of input and target in pixels.
    digit_size: side in pixels of a digit at scale 1.
    scale: lowest and highest scale; None: the task's.
    digits: mean and standard deviation of the number of digits (segmentation); None: the task's.
    threshold: intensity from which a pixel belongs to the target.
    """

    canvas: int = 64
    digit_size: int = 28
    scale: tuple[float, float] | None = None
    digits: tuple[float, float] | None = None
    threshold: float = 0.3


class _Recipe(NamedTuple):
    """Task and settings as plain numbers, for the compiled loop."""

    placement: int
    rotation: float
    shear: float
    low: float
    high: float
    digit_size: int
    several: bool
    mean: float
    std: float
    threshold: float


def resolve_task(name: str) -> str:
    """Return the task's name; the released names (mnist-seg, …) are accepted.

    Raises:
        UserError: no such task.
    """
    for task, description in TASKS.items():
        if name in (task, description.released_name):
            return task
    raise UserError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")


def _recipe(task: str, settings: Settings) -> _Recipe:
    description = TASKS[task]
    low, high = sorted(settings.scale or description.scale)
    several = description.digits is not None
    mean, std = settings.digits or description.digits or (1.0, 0.0)
    canvas, digit_size = settings.canvas, settings.digit_size
    if not 0 < settings.threshold <= 1:
        raise UserError(f"threshold {settings.threshold} is not in (0, 1]; the paper's is 0.3")
    if canvas < 1 or digit_size < 1:
        raise UserError(f"canvas {canvas} and digit size {digit_size} must be positive")
    if not (low > 0 and math.isfinite(high)):
        raise UserError(f"scale range {low}–{high} must be positive and finite")
    largest = math.ceil(high * digit_size)
    if max(largest, 0 if several else digit_size) > canvas:
        raise UserError(
            f"a digit of {max(largest, digit_size)} pixels does not fit on a canvas of {canvas}; "
            "lower the scale range or the digit size, or enlarge the canvas"
        )
    if not (math.isfinite(mean) and std >= 0 and math.isfinite(std) and mean + std > 0):
        raise UserError(f"number of digits: mean {mean} and deviation {std} give no digits")
    return _Recipe(
        description.placement,
        math.radians(description.rotation),
        math.radians(description.shear),
        float(low),
        float(high),
        digit_size,
        several,
        float(mean),
        float(std),
        float(settings.threshold),
    )


@njit(cache=True, nogil=True)
def _centre(canvas, size):
    return max((canvas - size + 1) // 2 - 1, 0)


@njit(cache=True, nogil=True)
def _overlaps_little(x, sprite, size, top, left):
    area = 0
    overlap = 0
    for i in range(size):
        for j in range(size):
            if sprite[i, j] != 0:
                area += 1
                if x[top + i, left + j] != 0:
                    overlap += 1
    return area == 0 or overlap / area <= 0.3


@njit(cache=True, nogil=True)
def _example(x, y, images, labels, recipe, stream, deck, dealt, work):
    """Compose one example; False if no position was found for a digit."""
    canvas, other, sprite, line, sums = work
    side = canvas.shape[0]
    canvas[:] = 0
    sums[:] = 0
    digits = 1
    if recipe.several:
        digits = max(1, math.ceil(random.normal(stream, recipe.mean, recipe.std)))
    for _ in range(digits):
        if dealt[0] == deck.size:
            random.shuffle(stream, deck)
            dealt[0] = 0
        index = deck[dealt[0]]
        dealt[0] += 1
        digit = images[index] * (1 / 255.0)
        untouched = digit
        if recipe.rotation > 0:
            turned = np.empty_like(digit)
            angle = random.uniform(stream, -recipe.rotation, recipe.rotation)
            image_ops.rotate(digit, angle, turned)
            digit = turned
        if recipe.shear > 0:
            sheared = np.empty_like(digit)
            tangent = math.tan(random.uniform(stream, -recipe.shear, recipe.shear))
            vertical = random.below(stream, 2) == 0
            image_ops.shear(digit, tangent, vertical, sheared)
            digit = sheared
        placed = False
        for _ in range(_ATTEMPTS):
            factor = random.uniform(stream, recipe.low, recipe.high)
            size = math.ceil(factor * recipe.digit_size)
            image_ops.scale(digit, size, line, sprite)
            highest = 0.0
            for i in range(size):
                for j in range(size):
                    highest = max(highest, sprite[i, j])
            if highest > 0:
                for i in range(size):
                    for j in range(size):
                        sprite[i, j] *= 1 / highest
            free = side - size + 1
            if recipe.placement == CENTRE:
                top = left = _centre(side, size)
                placed = True
            elif recipe.placement == ANYWHERE:
                top, left = random.below(stream, free), random.below(stream, free)
                placed = True
            else:
                for attempt in range(11):  # the original draws an eleventh and drops it
                    top, left = random.below(stream, free), random.below(stream, free)
                    placed = attempt < 10 and _overlaps_little(canvas, sprite, size, top, left)
                    if placed:
                        break
            if placed:
                break
        if not placed:
            return False
        channel = labels[index] if recipe.several else 0
        for i in range(size):
            for j in range(size):
                canvas[top + i, left + j] = min(canvas[top + i, left + j] + sprite[i, j], 1.0)
                if recipe.several:
                    sums[channel, top + i, left + j] += sprite[i, j]
        if not recipe.several:
            size = recipe.digit_size
            image_ops.scale(untouched, size, line, other)
            start = _centre(side, size)
            for i in range(size):
                for j in range(size):
                    sums[0, start + i, start + j] = other[i, j]
    x[0] = canvas
    for c in range(y.shape[0]):
        for i in range(side):
            for j in range(side):
                y[c, i, j] = sums[c, i, j] >= recipe.threshold
    return True


@njit(cache=True, nogil=True)
def _workspace(side, classes):
    reach = max(side, image_ops.SIDE)
    return (
        np.zeros((side, side)),
        np.empty((reach, reach)),
        np.empty((reach, reach)),
        np.empty((reach, reach)),
        np.zeros((classes, side, side)),
    )


@njit(cache=True, nogil=True)
def _fill_in_sequence(x, y, images, labels, recipe, stream, deck, dealt):
    """Fill x and y from one stream; the number of examples made."""
    work = _workspace(x.shape[2], y.shape[1])
    for n in range(x.shape[0]):
        if not _example(x[n], y[n], images, labels, recipe, stream, deck, dealt, work):
            return n
    return x.shape[0]


@njit(cache=True, nogil=True)
def _fill_independently(x, y, images, labels, recipe, key, first, deck, ends):
    """Fill x and y, each example from its own stream and digits; the number of examples made."""
    work = _workspace(x.shape[2], y.shape[1])
    stream = random.counter_stream(key)
    dealt = np.zeros(1, np.int64)
    for n in range(x.shape[0]):
        random.restart(stream, random.mix(key + np.uint64(first + n)))
        dealt[0] = 0
        hand = deck[ends[n] : ends[n + 1]]
        if not _example(x[n], y[n], images, labels, recipe, stream, hand, dealt, work):
            return n
    return x.shape[0]


@njit(cache=True, nogil=True)
def _count_digits(key, first, recipe, counts):
    """How many digits the examples take that start at `first` in independent mode."""
    stream = random.counter_stream(key)
    for n in range(counts.size):
        counts[n] = 1
        if recipe.several:
            random.restart(stream, random.mix(key + np.uint64(first + n)))
            counts[n] = max(1, math.ceil(random.normal(stream, recipe.mean, recipe.std)))


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
    block: int = 500,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the examples of `generate` in blocks of at most `block`."""
    task = resolve_task(task)
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if mode not in MODES:
        raise UserError(f"unknown mode {mode!r}; choose paper or independent")
    settings = settings or Settings()
    recipe = _recipe(task, settings)
    if count is None:
        count = TASKS[task].counts[SPLITS.index(split)]
    if count < 1:
        raise UserError(f"count {count} must be at least 1")
    if seed is None:
        seed = 1 if mode == "paper" else 0
    if recipe.several and len(labels) and labels.max() >= CLASSES:
        raise UserError(f"label {labels.max()} found; segmentation takes digits labelled 0 to 9")
    return _blocks(task, split, images, labels, mode, count, seed, settings, recipe, block)


def _blocks(task, split, images, labels, mode, count, seed, settings, recipe, block):
    shape = (settings.canvas, settings.canvas)
    if mode == "paper":
        stream = random.mersenne_stream(seed)
        deck = np.empty(len(images), np.int64)
        dealt = np.array([len(images)])
    else:
        digest = hashlib.blake2b(f"{seed}/{task}/{split}".encode(), digest_size=16).digest()
        key, deck_key = np.frombuffer(digest, np.uint64)
        dealer = random.counter_stream(deck_key)
        pile = np.empty(0, np.int64)
    for first in range(0, count, block):
        n = min(block, count - first)
        x = np.empty((n, 1, *shape), np.float32)
        y = np.empty((n, TASKS[task].classes, *shape), np.uint8)
        if mode == "paper":
            made = _fill_in_sequence(x, y, images, labels, recipe, stream, deck, dealt)
        else:
            counts = np.empty(n, np.int64)
            _count_digits(key, first, recipe, counts)
            ends = np.concatenate([[0], np.cumsum(counts)])
            while len(pile) < ends[-1]:
                deck = np.empty(len(images), np.int64)
                random.shuffle(dealer, deck)
                pile = np.concatenate([pile, deck])
            made = _fill_independently(x, y, images, labels, recipe, key, first, pile, ends)
            pile = pile[ends[-1] :]
        if made < n:
            raise UserError(
                f"example {first + made}: no position found for a digit; "
                "enlarge the canvas or ask for fewer or smaller digits"
            )
        yield x, y


def generate(
    task: str,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    mode: str = "paper",
    count: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make the first `count` examples of a task and split.

    Args:
        task: one of TASKS.
        split: train, valid or test.
        images: (N, 28, 28) uint8, the split's digits. labels: (N,) uint8.
        mode: paper (the authors' stream) or independent (own seed per task and split).
        count: number of examples; None: the paper's.
        seed: None: 1 in paper mode (the authors'), 0 in independent mode.
        settings: geometry; None: the paper's.

    Returns:
        x (count, 1, H, W) float32 in [0, 1] and y (count, C, H, W) uint8, 0 or 1.

    Raises:
        UserError: a name, count or setting that cannot work.
    """
    parts = list(
        blocks(task, split, images, labels, mode=mode, count=count, seed=seed, settings=settings)
    )
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def generate_file(
    task: str,
    split: str,
    digits: str | Path,
    output: str | Path,
    *,
    mode: str = "paper",
    count: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    workers: int = 1,
) -> None:
    """Make a data set from the idx files in `digits` and write it to the HDF5 file `output`.

    Arguments are those of `generate`; `workers` is the number of threads (independent mode).

    Raises:
        UserError: a name, count or setting that cannot work; files that cannot be read or written.
    """
    task = resolve_task(task)
    settings = settings or Settings()
    images, labels = load_split(digits, split)
    parts = blocks(
        task, split, images, labels, mode=mode, count=count, seed=seed, settings=settings
    )
    attributes = {
        "task": task,
        "split": split,
        "mode": mode,
        "seed": (1 if mode == "paper" else 0) if seed is None else seed,
        "generator": VERSION,
        **{
            name: value if value is not None else list(getattr(TASKS[task], name) or (1, 0))
            for name, value in asdict(settings).items()
        },
    }
    hdf5.write(output, parts, attributes)
