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

import numpy as np

from mg.data import compiled, hdf5
from mg.data.compiled import ANYWHERE, APART, CENTRE
from mg.data.mnist import SPLITS, load_split
from mg.errors import UserError

VERSION = "1"
MODES = ("paper", "independent")
CLASSES = 10


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


def resolve_task(name: str) -> str:
    """Return the task's name; the released names (mnist-seg, …) are accepted.

    Raises:
        UserError: no such task.
    """
    for task, description in TASKS.items():
        if name in (task, description.released_name):
            return task
    raise UserError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")


def _recipe(task: str, settings: Settings) -> compiled.Recipe:
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
    return compiled.Recipe(
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
        stream = compiled.mersenne_stream(seed)
        deck = np.empty(len(images), np.int64)
        dealt = np.array([len(images)])
    else:
        digest = hashlib.blake2b(f"{seed}/{task}/{split}".encode(), digest_size=16).digest()
        key, deck_key = np.frombuffer(digest, np.uint64)
        dealer = compiled.counter_stream(deck_key)
        pile = np.empty(0, np.int64)
    for first in range(0, count, block):
        n = min(block, count - first)
        x = np.zeros((n, 1, *shape), np.float32)
        y = np.zeros((n, TASKS[task].classes, *shape), np.uint8)
        if mode == "paper":
            made = compiled.fill_in_sequence(x, y, images, labels, recipe, stream, deck, dealt)
        else:
            counts = np.empty(n, np.int64)
            compiled.count_digits(key, first, recipe, counts)
            ends = np.concatenate([[0], np.cumsum(counts)])
            while len(pile) < ends[-1]:
                deck = np.empty(len(images), np.int64)
                compiled.shuffle(dealer, deck)
                pile = np.concatenate([pile, deck])
            made = compiled.fill_independently(x, y, images, labels, recipe, key, first, pile, ends)
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
