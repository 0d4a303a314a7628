"""Rotate, shear and scale a digit exactly as Torch7's `image` package does.

The original mixes precisions: coordinates are float32 while pixels are float64. Both are kept, so
that the results are equal to the last bit.
"""

import math

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

SIDE = 28  # of a digit in MNIST


@intrinsic
def _fma(typing_context, a, b, c):
    """a·b + c, rounded once, as the matrix product of the original does it."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@njit(cache=True, nogil=True)
def rotate(source, angle, out):
    """Rotate by `angle` (radians, positive: counter-clockwise) about the centre; nearest pixel."""
    theta = np.float64(np.float32(angle))
    cos, sin = np.float32(math.cos(theta)), np.float32(math.sin(theta))
    centre = np.float32((SIDE - 1) / 2)
    for i in range(SIDE):
        dy = np.float32(i) - centre
        for j in range(SIDE):
            dx = np.float32(j) - centre
            x = np.float64(cos * dx - sin * dy + centre)
            y = np.float64(cos * dy + sin * dx + centre)
            # Rounding half away from zero leaves the image unless both are in (-0.5, 27.5).
            if -0.5 < x < SIDE - 0.5 and -0.5 < y < SIDE - 0.5:
                out[i, j] = np.float32(source[int(y + 0.5), int(x + 0.5)])
            else:
                out[i, j] = 0.0


@njit(cache=True, nogil=True)
def _grid(i):
    return -(-1.0 + i * 2.0 / (SIDE - 1)) * ((SIDE - 1) / 2)


@njit(cache=True, nogil=True)
def shear(source, tangent, vertical, out):
    """Shear about the centre, bilinear; coordinates are clamped to the image.

    vertical: rows are taken from y + tangent·x (else columns from x + tangent·y), from the centre.
    """
    tangent = np.float64(np.float32(tangent))
    last = np.float32(SIDE - 1)
    for i in range(SIDE):
        for j in range(SIDE):
            y, x = _grid(i), _grid(j)
            if vertical:
                flow = y - _fma(tangent, x, y)
                at = np.float32(i) + np.float32(flow)
            else:
                flow = x - _fma(1.0, x, tangent * y)
                at = np.float32(j) + np.float32(flow)
            at = min(max(at, np.float32(0)), last)
            low = int(at)
            high = min(low + 1, SIDE - 1)
            upper = np.float64(at - np.float32(low))
            lower = np.float64(np.float32(low + 1) - at)
            if vertical:
                out[i, j] = source[low, j] * lower + source[high, j] * upper
            else:
                out[i, j] = source[i, low] * lower + source[i, high] * upper


@njit(cache=True, nogil=True)
def _scale_line(source, out, size):
    if size > SIDE:
        step = np.float32(SIDE - 1) / np.float32(size - 1)
        for d in range(size - 1):
            at = np.float32(d) * step
            i = int(at)
            part = at - np.float32(i)
            out[d] = np.float64(np.float32(1) - part) * source[i] + np.float64(part) * source[i + 1]
        out[size - 1] = source[SIDE - 1]
    elif size < SIDE:
        step = np.float32(SIDE) / np.float32(size)
        first, before = 0, np.float32(0)
        for d in range(size):
            end = np.float32(d + 1) * step
            last = int(end)
            after = end - np.float32(last)
            weight = np.float32(1) - before
            total = np.float32(np.float64(weight) * source[first])
            for i in range(first + 1, last):
                total = np.float32(np.float64(total) + source[i])
                weight += np.float32(1)
            if last < SIDE:
                total = np.float32(np.float64(total) + np.float64(after) * source[last])
                weight += after
            out[d] = total / weight
            first, before = last, after
    else:
        out[:size] = source


@njit(cache=True, nogil=True)
def scale(source, size, scratch, out):
    """Resize a digit to size x size: linear with aligned corners if larger, box average if smaller.

    scratch: at least (SIDE, size) float64; out: at least (size, size) float64.
    """
    for i in range(SIDE):
        _scale_line(source[i], scratch[i], size)
    for j in range(size):
        _scale_line(scratch[:SIDE, j], out[:, j], size)
