"""The cluttered-MNIST generator written plainly, in Python and NumPy, from its description.

It shares nothing with `mg.data` and makes the examples of `paper` mode one by one, so that tests
can compare and `benchmarks/data.py` can say what compiling gains.
"""

import math
from collections.abc import Iterator

import numpy as np

single = np.float32

# rotation and shear (degrees), lowest and highest scale, where the sprite goes
TASKS = {
    "segmentation": (60, 0, 0.5, 1.25, "apart"),
    "spatial_transform": (60, 60, 0.5, 1.5, "anywhere"),
    "rotation": (60, 0, 1, 1, "centre"),
    "affine_transform": (0, 60, 1, 1, "centre"),
    "scaling": (0, 0, 0.5, 1.5, "centre"),
    "translation": (0, 0, 1, 1, "anywhere"),
}


class Torch7:
    """The default generator of Torch7: MT19937, one word per number."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.RandomState(seed)
        self._words: list[int] = []
        self._spare: float | None = None

    def word(self) -> int:
        if not self._words:
            self._words = self._source.randint(0, 2**32, 4096, np.uint32).tolist()[::-1]
        return self._words.pop()

    def uniform(self, low: float, high: float) -> float:
        return self.word() / 2**32 * (high - low) + low

    def integer(self, low: int, high: int) -> int:
        return low + self.word() % (high - low + 1)

    def permutation(self, n: int) -> list[int]:
        order = list(range(n))
        for i in range(n - 1):
            j = i + self.word() % (n - i)
            order[i], order[j] = order[j], order[i]
        return order

    def normal(self, mean: float, std: float) -> float:
        if self._spare is not None:
            value, self._spare = self._spare, None
        else:
            angle = 2 * math.pi * self.uniform(0, 1)
            radius = math.sqrt(-2 * math.log(1 - self.uniform(0, 1)))
            value, self._spare = radius * math.cos(angle), radius * math.sin(angle)
        return value * std + mean


def rotate(image: np.ndarray, angle: float) -> np.ndarray:
    """Nearest neighbour about the centre; half away from zero; zero beyond the image."""
    n = len(image)
    cos, sin = single(math.cos(single(angle))), single(math.sin(single(angle)))
    centre = single((n - 1) / 2)
    d = np.arange(n, dtype=single) - centre
    at = np.stack([cos * d[:, None] + sin * d, cos * d - sin * d[:, None]]).astype(single) + centre
    at = at.astype(float)
    y, x = (np.sign(at) * np.floor(np.abs(at) + 0.5)).astype(int)
    inside = (y >= 0) & (y < n) & (x >= 0) & (x < n)
    result = np.zeros_like(image)
    result[inside] = image[y[inside], x[inside]].astype(single)
    return result


def affine(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear; the source of (y, x) is centre + matrix·((y, x) - centre), clamped."""
    n = len(image)
    centre = (n - 1) / 2
    at = np.einsum("ij,jyx->iyx", matrix, np.mgrid[:n, :n] - centre) + centre
    at = at.clip(0, n - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, n - 1)
    (v, u), (y0, x0), (y1, x1) = at - low, low, high
    top = image[y0, x0] * (1 - u) + image[y0, x1] * u
    bottom = image[y1, x0] * (1 - u) + image[y1, x1] * u
    return top * (1 - v) + bottom * v


def _scale_rows(image: np.ndarray, size: int) -> np.ndarray:
    n = len(image)
    if size == n:
        return image.copy()
    result = np.empty((size, *image.shape[1:]))
    if size > n:
        step = single(n - 1) / single(size - 1)
        for d in range(size - 1):
            at = single(d) * step
            part = at - single(int(at))
            result[d] = (single(1) - part) * image[int(at)] + part * image[int(at) + 1]
        result[-1] = image[-1]
        return result
    step = single(n) / single(size)
    for d in range(size):
        start, stop = single(d) * step, single(d + 1) * step
        first, last = int(start), int(stop)
        weights = [(first, single(1) - (start - single(first)))]
        weights += [(i, single(1)) for i in range(first + 1, last)]
        weights += [(last, stop - single(last))] * (last < n)
        total, weight = np.zeros(image.shape[1:], single), single(0)
        for i, w in weights:
            total = (total + float(w) * image[i]).astype(single)
            weight += w
        result[d] = total / weight
    return result


def scale(image: np.ndarray, size: int) -> np.ndarray:
    """Columns, then rows: linear with aligned corners if larger, box averages if smaller."""
    return _scale_rows(_scale_rows(image.T, size).T, size)


def examples(
    task: str, images: np.ndarray, labels: np.ndarray, seed: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (H, W) float32 inputs and (C, H, W) targets without end."""
    rotation, shearing, low, high, where = TASKS[task]
    rotation, shearing = math.radians(rotation), math.radians(shearing)
    side = 64
    random = Torch7(seed)
    deck: list[int] = []
    while True:
        several = where == "apart"
        canvas = np.zeros((side, side))
        target = np.zeros((10 if several else 1, side, side))
        for _ in range(math.ceil(random.normal(5, 0.5)) if several else 1):
            if not deck:
                deck = random.permutation(len(images))[::-1]
            index = deck.pop()
            untouched = digit = images[index] * (1 / 255)
            if rotation:
                digit = rotate(digit, random.uniform(-rotation, rotation))
            if shearing:
                matrix = np.eye(2)
                tangent = math.tan(random.uniform(-shearing, shearing))
                place = (0, 1) if random.permutation(2)[0] == 0 else (1, 0)
                matrix[place] = single(tangent)
                digit = affine(digit, matrix)
            sprite, y, x = _place(random, digit, low, high, where, canvas)
            under = canvas[y : y + len(sprite), x : x + len(sprite)]
            np.minimum(under + sprite, 1, out=under)
            if several:
                target[labels[index], y : y + len(sprite), x : x + len(sprite)] += sprite
            else:
                target[0, 17:45, 17:45] = untouched
        yield canvas.astype(single), target >= 0.3


def _place(random, digit, low, high, where, canvas) -> tuple[np.ndarray, int, int]:
    side = len(canvas)
    while True:
        size = math.ceil(random.uniform(low, high) * 28)
        sprite = scale(digit, size)
        sprite = sprite * (1 / sprite.max())
        if where == "centre":
            return sprite, *[math.ceil((side - size) / 2) - 1] * 2
        for attempt in range(11):
            y, x = random.integer(0, side - size), random.integer(0, side - size)
            covered = (sprite != 0) & (canvas[y : y + size, x : x + size] != 0)
            free = covered.sum() / (sprite != 0).sum() <= 0.3
            if where == "anywhere" or (free and attempt < 10):
                return sprite, y, x
