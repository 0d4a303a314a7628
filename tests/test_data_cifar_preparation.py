"""CIFAR's images as networks are given them: prepared as pylearn2 does, cut, and drawn evenly."""

import numpy as np
import pytest
import torch

from mg.data import cifar_preparation
from mg.data.cifar_preparation import Preparation, global_contrast_normalise, zca


def test_contrast_normalisation_is_pylearn2s():
    """global_contrast_normalize(X, scale=55.) of pylearn2, written out in NumPy."""
    x = np.random.default_rng(0).integers(0, 256, (7, 48)).astype(np.float64)
    x[3] = 9  # a constant image has no contrast to normalise
    expected = x - x.mean(axis=1)[:, None]
    norm = np.sqrt((expected**2).sum(axis=1)) / 55.0
    norm[norm < 1e-8] = 1.0
    expected /= norm[:, None]
    found = global_contrast_normalise(torch.tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1)[[0, 1, 2]], 55)


@pytest.fixture(autouse=True, params=[7, 1000])
def part(request, monkeypatch):
    """More images than are prepared at once, and fewer."""
    monkeypatch.setattr(cifar_preparation, "_PART", request.param)


def test_whitening_is_pylearn2s():
    """ZCA(filter_bias=0.1) of pylearn2 by another way: the inverse root of the covariance."""
    random = np.random.default_rng(1)
    x = random.normal(size=(500, 12)) @ random.normal(size=(12, 12)) + 3
    mean, matrix = zca(torch.tensor(x))
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / len(x) + 0.1 * np.identity(12)
    u, s, vt = np.linalg.svd(covariance)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose(matrix, u @ np.diag(s**-0.5) @ vt, atol=1e-10)
    white = centred @ matrix.numpy()
    remaining = np.linalg.eigvalsh(white.T @ white / len(x))
    variances = np.linalg.eigvalsh(covariance) - 0.1
    np.testing.assert_allclose(np.sort(remaining), np.sort(variances / (variances + 0.1)))


def test_a_whitened_image_is_bgr_enlarged_and_cropped():
    """Step by step against NumPy, on images of 8x8, which become 9x9."""
    x = np.random.default_rng(2).integers(0, 256, (50, 3, 8, 8), np.uint8)
    preparation = Preparation.fit("whitened", x)
    found = preparation.apply(torch.from_numpy(x)).numpy()
    assert found.shape == (50, 3, 9, 9)
    flat = global_contrast_normalise(torch.from_numpy(x).flatten(1).double()).numpy()
    mean, matrix = zca(torch.tensor(flat))
    white = ((flat - mean.numpy()) @ matrix.numpy()).reshape(x.shape)[:, ::-1]
    places = np.arange(9) * 7 / 8  # corners aligned
    low = np.minimum(places.astype(int), 6)
    weight = places - low
    rows = white[:, :, low] * (1 - weight)[:, None] + white[:, :, low + 1] * weight[:, None]
    expected = rows[..., low] * (1 - weight) + rows[..., low + 1] * weight
    np.testing.assert_allclose(found, expected, atol=2e-4)
    prepared = torch.from_numpy(found)
    assert torch.equal(preparation.crop(prepared, 8), prepared[:, :, :8, :8])


def test_plain_images_have_mean_0_and_deviation_1():
    x = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), np.uint8)
    preparation = Preparation.fit("plain", x)
    prepared = preparation.apply(torch.from_numpy(x))
    assert prepared.mean((0, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(prepared.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        prepared[0, 2, 4, 5],
        torch.tensor(
            (x[0, 2, 4, 5] / 255 - (x[:, 2] / 255).mean()) / (x[:, 2] / 255).std(),
            dtype=torch.float32,
        ),
    )


@pytest.mark.parametrize("kind, corners", [("plain", range(9)), ("whitened", (1, 2, 3))])
def test_crops_are_cut_where_they_are_drawn(kind, corners):
    """Each crop against slicing; every corner and both flips occur."""
    identity = Preparation(kind, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    changes = identity.draw(400, 32, torch.Generator().manual_seed(0))
    assert {*changes[:, 0].tolist()} == {*changes[:, 1].tolist()} == {*corners}
    assert set(changes[:, 2].tolist()) == {0, 1}
    size = 32 if kind == "plain" else 36
    x = torch.rand(400, 3, size, size)
    border = 4 if kind == "plain" else 0
    padded = torch.nn.functional.pad(x, (border,) * 4)
    found = identity.crop(x, 32, changes)
    for i, (top, left, flip) in enumerate(changes.tolist()):
        expected = padded[i, :, top : top + 32, left : left + 32]
        assert torch.equal(found[i], expected.flip(-1) if flip else expected)
