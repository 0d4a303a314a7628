"""The compiled heart of the generator: random numbers, image operations, one example.

Everything follows the authors' programs to the last bit: Torch7's random stream, and rotation,
shear and scaling of Torch7's `image` package with its mix of float32 coordinates and float64
pixels.

It is one file because numba's cache on disk only notices changes in the file of the function it is
asked for: code spread over files could run stale.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

SIDE = 28  # pixels of a digit's side
_CENTRE = (SIDE - 1) / 2


def _entry(function):
    """What is called from Python: compiled, and kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder that it may write
        return njit(nogil=True)(function)


# Random numbers


class Stream(NamedTuple):
    """A source of 32-bit words, held in arrays so that compiled code can advance it.

    MT19937: `words` (624,) uint32, drawn ahead, of which `position` (1,) int64 is next.
    Counter-based: `key` (2,) uint64, the key and the counter. What a stream does not use is empty.
    `spare` (1,) float64 is the second normal of a pair, or NaN.
    """

    words: np.ndarray
    position: np.ndarray
    key: np.ndarray
    spare: np.ndarray


def mersenne_stream(seed: int) -> Stream:
    """The stream of Torch7 after `torch.manualSeed(seed)`: MT19937, Knuth's initialisation."""
    words = np.empty(624, np.uint32)
    word = seed & 0xFFFFFFFF
    for i in range(624):
        words[i] = word
        word = (1812433253 * (word ^ (word >> 30)) + i + 1) & 0xFFFFFFFF
    return Stream(words, np.array([624]), np.empty(0, np.uint64), np.array([np.nan]))


@_entry
def counter_stream(key):
    """The counter-based stream of a 64-bit key: SplitMix64, the upper halves."""
    return Stream(
        np.empty(0, np.uint32),
        np.zeros(1, np.int64),
        np.array([key, np.uint64(0)]),
        np.array([np.nan]),
    )


@njit
def restart(stream, key, index):
    """Make a counter-based stream the one that belongs to example `index` of `key`."""
    stream.key[0] = mix(key + np.uint64(index))
    stream.key[1] = 0
    stream.spare[0] = np.nan


@njit
def mix(value):
    """SplitMix64's finaliser: a bijection of 64-bit words that scatters neighbours."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit
def _twist(words):
    upper, lower = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
    for i in range(624):
        y = (words[i] & upper) | (words[(i + 1) % 624] & lower)
        value = words[(i + 397) % 624] ^ (y >> np.uint32(1))
        if y & np.uint32(1):
            value ^= np.uint32(0x9908B0DF)
        words[i] = value


@njit
def draw(stream):
    """The next 32-bit word."""
    if stream.key.size:
        stream.key[1] += np.uint64(1)
        step = np.uint64(0x9E3779B97F4A7C15)
        return np.uint32(mix(stream.key[0] + stream.key[1] * step) >> np.uint64(32))
    if stream.position[0] == 624:
        _twist(stream.words)
        stream.position[0] = 0
    y = stream.words[stream.position[0]]
    stream.position[0] += 1
    y ^= y >> np.uint32(11)
    y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    return np.uint32(y ^ (y >> np.uint32(18)))


@njit
def uniform(stream, low, high):
    """A number in [low, high)."""
    return draw(stream) * (1.0 / 4294967296.0) * (high - low) + low


@njit
def below(stream, n):
    """An integer in [0, n)."""
    return np.int64(draw(stream)) % n


@njit
def normal(stream, mean, std):
    """A normal number; Box-Muller, whose second value is kept for the next call."""
    spare = stream.spare[0]
    if not math.isnan(spare):
        stream.spare[0] = np.nan
        return spare * std + mean
    angle = 2 * math.pi * uniform(stream, 0.0, 1.0)
    radius = math.sqrt(-2 * math.log(1 - uniform(stream, 0.0, 1.0)))
    stream.spare[0] = radius * math.sin(angle)
    return radius * math.cos(angle) * std + mean


@_entry
def shuffle(stream, order):
    """Fill `order` with a random permutation of 0 … n-1."""
    n = order.size
    for i in range(n):
        order[i] = i
    for i in range(n - 1):
        j = i + below(stream, n - i)
        order[i], order[j] = order[j], order[i]


# Image operations, on images of 28 x 28 float64. The loops are written to be vectorised: over
# whole rows or views of rows, without branches, indices computed apart from the look-up.


@njit
def read(pixels, out):
    """Write a digit of uint8 `pixels` to `out` as intensities in [0, 1]."""
    for i in range(SIDE):
        for j in range(SIDE):
            out[i, j] = pixels[i, j] * (1 / 255.0)


@njit
def find_box(image):
    """The box (top, bottom, left, right; ends exclusive) outside of which `image` is zero."""
    rows = columns = np.int32(0)
    for i in range(SIDE):
        filled = np.int32(0)
        for j in range(SIDE):
            filled |= np.int32(image[i, j] != 0) << np.int32(j)
        columns |= filled
        rows |= np.int32(filled != 0) << np.int32(i)
    if rows == 0:
        return 0, 0, 0, 0
    top, bottom, left, right = 0, SIDE, 0, SIDE
    while not (rows >> top) & 1:
        top += 1
    while not (rows >> (bottom - 1)) & 1:
        bottom -= 1
    while not (columns >> left) & 1:
        left += 1
    while not (columns >> (right - 1)) & 1:
        right -= 1
    return top, bottom, left, right


_RING = 8  # zeros around a digit; no rotation looks past them
_WIDE = SIDE + 2 * _RING


@njit
def rotate(source, angle, ringed, out):
    """Rotate by `angle` (radians, positive: counter-clockwise) about the centre; nearest pixel.

    ringed: (44, 44) scratch whose border is zero.
    """
    for i in range(SIDE):
        inner = ringed[_RING + i, _RING : _RING + SIDE]
        for j in range(SIDE):
            inner[j] = source[i, j]
    flat = ringed.reshape(-1)
    theta = np.float64(np.float32(angle))
    cos, sin = np.float32(math.cos(theta)), np.float32(math.sin(theta))
    centre = np.float32(_CENTRE)
    places = np.empty(SIDE, np.int32)
    for i in range(SIDE):
        dy = np.float32(i) - centre
        for j in range(SIDE):
            dx = np.float32(j) - centre
            # Float32 coordinates; adding in float64 and truncating rounds halves up, which is the
            # original's rounding, half away from zero, but for a coordinate of -0.5.
            x = np.float64(cos * dx - sin * dy + centre) + (_RING + 0.5)
            y = np.float64(cos * dy + sin * dx + centre) + (_RING + 0.5)
            column = np.int32(x) - np.int32(x == _RING)
            row = np.int32(y) - np.int32(y == _RING)
            places[j] = row * np.int32(_WIDE) + column
        for j in range(SIDE):
            out[i, j] = np.float32(flat[np.uint32(places[j])])


@intrinsic
def _fma(typing_context, a, b, c):
    """a·b + c rounded once, as the matrix product of the original does it."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


# The original's coordinates from the centre: negated, and rounded as its linspace rounds.
_GRID = _CENTRE * -(-1.0 + np.arange(SIDE) * 2.0 / (SIDE - 1))


@njit
def shear(source, tangent, vertical, out):
    """Shear about the centre, bilinear; what lies beyond the image is its edge, repeated.

    vertical: row y of column x comes from y + tangent·x (else column x of row y from
    x + tangent·y), measured from the centre.
    """
    tangent = np.float64(np.float32(tangent))
    last = np.float32(SIDE - 1)
    lows, uppers = np.empty(SIDE, np.int32), np.empty(SIDE, np.float32)
    for i in range(SIDE):
        y = _GRID[i]
        for j in range(SIDE):
            x = _GRID[j]
            if vertical:
                at = np.float32(i) + np.float32(y - _fma(tangent, x, y))
            else:
                at = np.float32(j) + np.float32(x - (x + tangent * y))
            at = min(max(at, np.float32(0)), last)
            lows[j] = np.int32(at)
            uppers[j] = at - np.float32(lows[j])
        for j in range(SIDE):
            low = np.uint32(lows[j])
            high = min(low + np.uint32(1), np.uint32(SIDE - 1))
            lower = np.float32(1) - uppers[j]  # exact, as in the original
            if vertical:
                near, far = source[low, j], source[high, j]
            else:
                near, far = source[i, low], source[i, high]
            out[i, j] = near * lower + far * uppers[j]


@njit
def _resize_columns(source, box, size, out):
    """Resize 28 columns to `size` and transpose: applied twice, it resizes columns, then rows."""
    top, bottom, left, right = box
    larger = size > SIDE
    step = np.float32(SIDE - larger) / np.float32(size - larger)
    begin = max(0, int((left - 1) / step) - 1)
    end = min(size, int(right / step) + 2)
    out[:size] = 0
    rows = source[top:bottom]
    one = np.uint32(1)  # unsigned indices spare the check for negative ones
    for d in range(begin, end):
        column = out[d, top:bottom]
        start = np.float32(d) * step
        first = np.uint32(start)
        after = start - np.float32(first)
        before = np.float32(1) - after
        if larger and d == size - 1:
            for i in range(column.size):
                column[i] = rows[i, SIDE - 1]
        elif larger:
            for i in range(column.size):
                column[i] = before * rows[i, first] + after * rows[i, first + one]
        else:  # average over [start, stop)
            stop = np.float32(d + 1) * step
            last = np.uint32(stop)
            rest = stop - np.float32(last)
            weight = before
            for _ in range(first + one, last):
                weight += np.float32(1)
            if last < SIDE:
                weight += rest
            for i in range(column.size):
                total = np.float32(before * rows[i, first])
                for j in range(first + one, last):
                    total = np.float32(total + rows[i, j])
                if last < SIDE:
                    total = np.float32(total + rest * rows[i, last])
                column[i] = total / weight
    return begin, end, top, bottom


@njit
def scale(source, box, size, scratch, out):
    """Resize to size x size: linear with aligned corners if larger, box averages if smaller.

    source: (28, 28) float64; scratch: at least (size, 28); out: at least (size, size). Returns the
    box of `out`.
    """
    if size == SIDE:
        for i in range(box[0], box[1]):
            row, given = out[i, :SIDE], source[i]
            for j in range(SIDE):
                row[j] = given[j]
        return box
    turned = _resize_columns(source, box, size, scratch)
    return _resize_columns(scratch, turned, size, out)


# Examples

PLACEMENTS = ("anywhere", "centre", "apart")  # where a sprite goes; apart: where it covers little
ANYWHERE, CENTRE, APART = range(len(PLACEMENTS))
OVERLAP = 0.3  # share of a sprite's non-zero pixels that may fall on others
_POSITIONS = 10  # tried per size
_SIZES = 1000  # tried per digit before the canvas counts as full


class Recipe(NamedTuple):
    """Task and settings as plain numbers."""

    placement: int
    rotation: float  # radians, either way
    shear: float  # radians, either way
    low: float  # scale
    high: float
    digit_size: int
    several: bool  # digits per example, each with its class's target; else one, shown untouched
    mean: float  # of their number
    std: float
    threshold: float


class _Work(NamedTuple):
    """Scratch, float64. `canvas` and `sums` are zero between examples."""

    canvas: np.ndarray  # (H, W), the input
    sums: np.ndarray  # (C, H, W), the sprites of each class
    digit: np.ndarray  # (28, 28), as read
    ringed: np.ndarray  # (44, 44), for `rotate`
    rotated: np.ndarray  # (28, 28)
    sheared: np.ndarray  # (28, 28)
    line: np.ndarray  # (H, 28), resized in one direction
    sprite: np.ndarray  # (H, W), ready to be placed


@njit
def _workspace(side, classes):
    return _Work(
        np.zeros((side, side)),
        np.zeros((classes, side, side)),
        np.empty((SIDE, SIDE)),
        np.zeros((_WIDE, _WIDE)),
        np.empty((SIDE, SIDE)),
        np.empty((SIDE, SIDE)),
        np.empty((side, SIDE)),
        np.empty((side, side)),
    )


@njit
def _centre(side, size):
    return max((side - size + 1) // 2 - 1, 0)


# The loops below go over views of rows: numba vectorises those.


@njit
def _normalise(sprite, box):
    highest = 0.0
    for i in range(box[0], box[1]):
        row = sprite[i, box[2] : box[3]]
        for j in range(row.size):
            highest = max(highest, row[j])
    if highest > 0:
        factor = 1 / highest
        for i in range(box[0], box[1]):
            row = sprite[i, box[2] : box[3]]
            for j in range(row.size):
                row[j] *= factor


@njit
def _covers_little(sprite, box, canvas, y, x):
    area = 0
    covered = 0
    for i in range(box[0], box[1]):
        row = sprite[i, box[2] : box[3]]
        under = canvas[y + i, x + box[2] : x + box[3]]
        for j in range(row.size):
            inside = row[j] != 0
            area += inside
            covered += inside & (under[j] != 0)
    return area == 0 or covered / area <= OVERLAP


@njit
def _add(sprite, box, canvas, y, x, out):
    """Add the sprite to the canvas, at most to 1, and copy what changed to `out`."""
    for i in range(box[0], box[1]):
        row = sprite[i, box[2] : box[3]]
        under = canvas[y + i, x + box[2] : x + box[3]]
        result = out[y + i, x + box[2] : x + box[3]]
        for j in range(row.size):
            value = min(under[j] + row[j], 1.0)
            under[j] = value
            result[j] = value


@njit
def _mark(sprite, box, sums, y, x, threshold, out):
    """Add the sprite to its class's sums and write which of them reach the threshold to `out`."""
    for i in range(box[0], box[1]):
        row = sprite[i, box[2] : box[3]]
        under = sums[y + i, x + box[2] : x + box[3]]
        result = out[y + i, x + box[2] : x + box[3]]
        for j in range(row.size):
            value = under[j] + row[j]
            under[j] = value
            result[j] = value >= threshold


@njit
def _erase(canvas, box, y, x):
    for i in range(box[0], box[1]):
        row = canvas[y + i, x + box[2] : x + box[3]]
        for j in range(row.size):
            row[j] = 0


@njit
def _sprite(digit, recipe, stream, work):
    """Draw size and position and make the sprite; (box, y, x), with y < 0 if there is no room."""
    side = work.canvas.shape[0]
    inked = find_box(digit)
    for _ in range(_SIZES):
        size = math.ceil(uniform(stream, recipe.low, recipe.high) * recipe.digit_size)
        box = scale(digit, inked, size, work.line, work.sprite)
        _normalise(work.sprite, box)
        if recipe.placement == CENTRE:
            return box, _centre(side, size), _centre(side, size)
        for _ in range(_POSITIONS):
            y = below(stream, side - size + 1)
            x = below(stream, side - size + 1)
            if recipe.placement == ANYWHERE:
                return box, y, x
            if _covers_little(work.sprite, box, work.canvas, y, x):
                return box, y, x
        draw(stream)  # the original draws an eleventh position and does not look at it
        draw(stream)
    return box, -1, -1


@njit
def _example(x, y, images, labels, recipe, stream, deck, dealt, work):
    """Compose one example in x and y, which are zero; False if a digit found no room."""
    side = work.canvas.shape[0]
    digits = 1
    if recipe.several:
        digits = max(1, math.ceil(normal(stream, recipe.mean, recipe.std)))
    placed = [(0, (0, 0, 0, 0), 0, 0)] * digits
    for n in range(digits):
        if dealt[0] == deck.size:
            shuffle(stream, deck)
            dealt[0] = 0
        index = deck[dealt[0]]
        dealt[0] += 1

        digit = work.digit
        read(images[index], digit)
        if not recipe.several:
            size = recipe.digit_size
            start = _centre(side, size)
            box = scale(digit, find_box(digit), size, work.line, work.sprite)
            _mark(work.sprite, box, work.sums[0], start, start, recipe.threshold, y[0])
            _erase(work.sums[0], box, start, start)
        if recipe.rotation > 0:
            angle = uniform(stream, -recipe.rotation, recipe.rotation)
            rotate(digit, angle, work.ringed, work.rotated)
            digit = work.rotated
        if recipe.shear > 0:
            tangent = math.tan(uniform(stream, -recipe.shear, recipe.shear))
            vertical = below(stream, 2) == 0
            shear(digit, tangent, vertical, work.sheared)
            digit = work.sheared

        box, at_y, at_x = _sprite(digit, recipe, stream, work)
        if at_y < 0:
            return False
        channel = np.int64(labels[index])
        _add(work.sprite, box, work.canvas, at_y, at_x, x[0])
        if recipe.several:
            sums = work.sums[channel]
            _mark(work.sprite, box, sums, at_y, at_x, recipe.threshold, y[channel])
        placed[n] = channel, box, at_y, at_x

    for channel, box, at_y, at_x in placed:
        _erase(work.canvas, box, at_y, at_x)
        if recipe.several:
            _erase(work.sums[channel], box, at_y, at_x)
    return True


@_entry
def fill_in_sequence(x, y, images, labels, recipe, stream, deck, dealt):
    """Fill x (N, 1, H, W) and y (N, C, H, W), given as zeros, from one stream.

    deck: a permutation of the digits, dealt: (1,) how many of it are used; both are advanced.
    Returns the number of examples made: less than N if a digit found no room.
    """
    work = _workspace(x.shape[2], y.shape[1])
    for n in range(x.shape[0]):
        if not _example(x[n], y[n], images, labels, recipe, stream, deck, dealt, work):
            return n
    return x.shape[0]


@_entry
def fill_independently(x, y, images, labels, recipe, key, first, hand, ends):
    """As `fill_in_sequence`, but each example n has a stream of its own, that of key and first + n.

    It takes the digits hand[ends[n]:ends[n + 1]].
    """
    work = _workspace(x.shape[2], y.shape[1])
    stream = counter_stream(key)
    dealt = np.zeros(1, np.int64)
    for n in range(x.shape[0]):
        restart(stream, key, first + n)
        dealt[0] = 0
        own = hand[ends[n] : ends[n + 1]]
        if not _example(x[n], y[n], images, labels, recipe, stream, own, dealt, work):
            return n
    return x.shape[0]


@_entry
def count_digits(key, first, recipe, counts):
    """How many digits `fill_independently` takes for each example from `first` on."""
    stream = counter_stream(key)
    for n in range(counts.size):
        counts[n] = 1
        if recipe.several:
            restart(stream, key, first + n)
            counts[n] = max(1, math.ceil(normal(stream, recipe.mean, recipe.std)))
