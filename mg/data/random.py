"""Streams of random numbers for the compiled generator: Torch7's own, and a counter-based one.

Torch7 draws from MT19937; every number below takes one 32-bit word, a pair of normals two.
The counter-based stream (SplitMix64 over a key) gives each example words of its own, so that
examples can be made in any order and by any number of workers.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit


class Stream(NamedTuple):
    """A source of 32-bit words, held in arrays so that compiled code can advance it.

    words: (624,) uint32, drawn ahead; position: (1,) int64, the next word;
    key: uint64, empty for MT19937, else [key, counter];
    spare: (1,) float64, the second normal of a pair, or NaN.
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


@njit(cache=True, nogil=True)
def counter_stream(key):
    """An empty counter-based stream for `key`."""
    keys = np.zeros(2, np.uint64)
    keys[0] = key
    return Stream(np.empty(624, np.uint32), np.array([624]), keys, np.array([np.nan]))


@njit(cache=True, nogil=True)
def restart(stream, key):
    """Begin the counter-based stream of another key."""
    stream.key[0] = key
    stream.key[1] = 0
    stream.position[0] = stream.words.size
    stream.spare[0] = np.nan


@njit(cache=True, nogil=True)
def mix(value):
    """SplitMix64's finaliser: a bijection of 64-bit words that scatters neighbours."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _twist(words):
    upper, lower = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
    for i in range(624):
        y = (words[i] & upper) | (words[(i + 1) % 624] & lower)
        value = words[(i + 397) % 624] ^ (y >> np.uint32(1))
        if y & np.uint32(1):
            value ^= np.uint32(0x9908B0DF)
        words[i] = value


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def uniform(stream, low, high):
    """A number in [low, high)."""
    return draw(stream) * (1.0 / 4294967296.0) * (high - low) + low


@njit(cache=True, nogil=True)
def below(stream, n):
    """An integer in [0, n)."""
    return np.int64(draw(stream)) % n


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def shuffle(stream, order):
    """Fill `order` with a random permutation of 0 … n-1."""
    n = order.size
    for i in range(n):
        order[i] = i
    for i in range(n - 1):
        j = i + below(stream, n - i)
        order[i], order[j] = order[j], order[i]
