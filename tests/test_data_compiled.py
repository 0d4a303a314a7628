"""Random stream and image operations against NumPy and against outputs of Torch7's own."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain_clutter
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from mg.data import compiled

VECTORS = np.load(Path(__file__).parent / "data" / "imageops.npz")
SIDE = compiled.SIDE


@njit
def _draws(stream, number):
    return [
        (
            compiled.draw(stream),
            compiled.uniform(stream, -2.0, 3.0),
            compiled.below(stream, 37),
            compiled.normal(stream, 5.0, 0.5),
        )
        for _ in range(number)
    ]


@njit
def _scale(source, size):
    scratch, out = np.empty((64, SIDE)), np.empty((64, 64))
    top, bottom, left, right = compiled.scale(source, compiled.find_box(source), size, scratch, out)
    result = np.zeros((size, size))
    result[top:bottom, left:right] = out[top:bottom, left:right]
    return result


def rotate(source, angle):
    out = np.empty_like(source)
    compiled.rotate(source, angle, np.zeros((44, 44)), out)
    return out


def shear(source, matrix):
    out = np.empty_like(source)
    vertical = bool(matrix[0, 1])
    compiled.shear(source, matrix[0, 1] if vertical else matrix[1, 0], vertical, out)
    return out


@pytest.mark.parametrize("seed", [1, 5489, 2**32 - 1])
def test_paper_stream_is_mt19937_with_one_word_per_number(seed):
    plain = plain_clutter.Torch7(seed)
    for word, uniform, integer, normal in _draws(compiled.mersenne_stream(seed), 1000):
        assert word == plain.word()
        assert uniform == plain.uniform(-2, 3)
        assert integer == plain.integer(0, 36)
        assert normal == pytest.approx(plain.normal(5, 0.5), abs=1e-14)


def test_shuffle_is_torchs_randperm():
    order = np.empty(100, np.int64)
    compiled.shuffle(compiled.mersenne_stream(1), order)
    assert order.tolist() == plain_clutter.Torch7(1).permutation(100)


def test_counter_streams_are_uniform_and_unlike_their_neighbours():
    def uniforms(key):
        stream = compiled.counter_stream(np.uint64(key))
        return np.array([uniform for _, uniform, _, _ in _draws(stream, 4000)])

    first, second = uniforms(7), uniforms(8)
    for sample in (first, second):
        share, _ = np.histogram(sample, bins=10, range=(-2, 3))
        assert abs(share / len(sample) - 0.1).max() < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert np.array_equal(first, uniforms(7))


def test_operations_equal_the_originals_to_the_last_bit():
    for i, source in enumerate(VECTORS["src"]):
        assert np.array_equal(rotate(source, VECTORS["theta"][i]), VECTORS["rotated"][i])
        matrix = VECTORS["affine_matrix_yx"][i]
        assert np.array_equal(shear(source, matrix), VECTORS["affine"][i])
        size = int(VECTORS["scale_size"][i])
        assert np.array_equal(_scale(source, size), VECTORS[f"scaled_{i:02d}"])


def test_operations_on_images_without_empty_margins():
    source = VECTORS["rand_src"]
    assert np.array_equal(rotate(source, VECTORS["rand_theta"][0]), VECTORS["rand_rotated"])
    for size in (15, 21, 28, 35, 42):
        assert np.array_equal(_scale(source, size), VECTORS[f"rand_scaled_{size}"])
    matrix = np.array([[1, 1.3], [0, 1]])
    assert np.abs(shear(source, matrix) - plain_clutter.affine(source, matrix)).max() < 2e-6


def test_positive_angles_turn_counter_clockwise():
    probe = VECTORS["probe_src"]
    assert np.array_equal(rotate(probe, math.pi / 6), VECTORS["probe_rot_plus30deg"])


images = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.tuples(st.just(seed), *[st.integers(0, SIDE)] * 4)
)


@settings(max_examples=100, deadline=None)
@given(images, st.floats(-7, 7), st.floats(-2, 2), st.booleans(), st.integers(1, 64))
def test_any_image_gives_what_the_plain_operations_give(image, angle, tangent, vertical, size):
    seed, *edges = image
    source = np.zeros((SIDE, SIDE))
    rows, columns = slice(*sorted(edges[:2])), slice(*sorted(edges[2:]))
    source[rows, columns] = np.random.default_rng(seed).random((SIDE, SIDE))[rows, columns]
    assert np.array_equal(rotate(source, angle), plain_clutter.rotate(source, angle))
    assert np.array_equal(_scale(source, size), plain_clutter.scale(source, size))
    matrix = np.eye(2)
    matrix[(0, 1) if vertical else (1, 0)] = np.float32(tangent)
    out = np.empty_like(source)
    compiled.shear(source, tangent, vertical, out)
    assert np.abs(out - plain_clutter.affine(source, matrix)).max() < 4e-6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 27), st.integers(0, 27)), max_size=6))
def test_box_is_the_smallest_around_all_pixels(points):
    image = np.zeros((SIDE, SIDE))
    for y, x in points:
        image[y, x] = 0.5
    top, bottom, left, right = compiled.find_box(image)
    if not points:
        assert top == bottom and left == right
    else:
        ys, xs = zip(*points, strict=True)
        assert (top, bottom, left, right) == (min(ys), max(ys) + 1, min(xs), max(xs) + 1)


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same():
    code = """
from numba.core import caching
caching.CacheImpl._locator_classes = []  # as in a folder and a home that cannot be written
from mg.data import compiled
assert type(compiled.counter_stream._cache) is caching.NullCache
print(compiled.counter_stream(7).key[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "7.0\n", done.stderr
