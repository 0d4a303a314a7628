"""The networks compute what the authors' Torch7 code computes.

`original_outputs.npz` holds outputs of the original code, run in double precision on two images, in
evaluation mode. Its weights and images were drawn by the formulas below, keyed by the original's
name of the network and by the position of a layer in the order of execution, so that no weights
need to be stored. Of the MNIST networks every fifth row and column of the logits is kept, of the
classifiers the log-softmax.
"""

from math import prod, sqrt
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from mg.networks import build, resolve_dataset
from mg.networks.counting import layers

ORIGINAL = np.load(Path(__file__).parent / "data" / "networks" / "original_outputs.npz")

# The original's name and what it is here.
NETWORKS = {
    "unet/seg": ("unet", "segmentation", {}),
    "unmg/spt": ("umg", "spatial_transform", {}),
    "pnmg/seg/1": ("pmg", "segmentation", {}),
    "pnmg/spt/1": ("pmg", "spatial_transform", {}),
    "prnmg/spt/1": ("r_pmg", "spatial_transform", {}),
    "vgg/1": ("vgg", "cifar100", {}),
    "vgg/2": ("vgg", "cifar100", {"n_layer": 2}),
    "resnet/1": ("resnet", "cifar100", {}),
    "nmg/1": ("mg", "cifar100", {"width": "released"}),
    "pnmg/1": ("pmg", "cifar100", {}),
    "rnmg/1": ("r_mg", "cifar100", {"width": "released"}),
    "prnmg/1": ("r_pmg", "cifar100", {}),
    "nmg-wide/1": ("mg", "cifar100", {}),
    "nmg-wide/2": ("mg", "cifar100", {"n_layer": 2}),
    "rnmg-wide/1": ("r_mg", "cifar100", {}),
    "rnmg-wide/2": ("r_mg", "cifar100", {"n_layer": 2}),
    "rnmg/34": ("r_mg", "imagenet", {"depth": 34}),
    "prnmgseg/30/A": ("r_pmg_seg", "imagenet", {"depth": 30, "shortcut": "A"}),
}
IMAGE = 10**6


def generator(name: str, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([crc32(name.encode()), index]))


def fill(model: nn.Module, name: str, input_shape: tuple[int, int, int]) -> None:
    """Draw all weights; layer `i` in the order of execution, then the batch norm beside it."""
    for i, layer in enumerate(layers(model, input_shape)):
        random, module = generator(name, i), layer.module
        n_out = layer.output_shape[0]
        kernel = prod(getattr(module, "kernel_size", (1,)))
        fan_in = kernel * layer.input_shape[0]
        copy(module.weight, random.normal(0, sqrt(2 / fan_in), module.weight.shape))
        copy(module.bias, random.normal(0, 0.1, n_out))
        if isinstance(module, nn.Linear):
            continue
        norm = model.get_submodule(layer.name.removesuffix("conv") + "bn")
        copy(norm.weight, random.uniform(0.5, 1.5, n_out))
        copy(norm.bias, random.normal(0, 0.1, n_out))
        copy(norm.running_mean, random.normal(0, 0.1, n_out))
        copy(norm.running_var, random.uniform(0.5, 1.5, n_out))


def copy(tensor: torch.Tensor, values: np.ndarray) -> None:
    tensor.data.copy_(torch.from_numpy(values.astype(np.float32)))


def relative_error(ours: torch.Tensor, original: np.ndarray) -> float:
    original = torch.from_numpy(original).double()
    return float((ours.double() - original).norm() / original.norm())


def test_numpy_draws_the_numbers_behind_the_stored_outputs():
    drawn = generator("unet/seg", 0).normal(0, sqrt(2 / 9), (64, 1, 3, 3))[0, 0, 0, 0]
    assert drawn == pytest.approx(0.448536366, rel=1e-7)


def test_every_stored_output_is_compared():
    assert set(NETWORKS) == set(ORIGINAL.files)


@pytest.mark.parametrize("name", NETWORKS)
def test_output_equals_that_of_the_original(name):
    network, dataset, options = NETWORKS[name]
    spec = resolve_dataset(dataset)
    shape = (spec.channels, spec.size, spec.size)
    model = build(network, dataset, **options).eval()
    fill(model, name, shape)
    image = generator(name, IMAGE).normal(size=(2, *shape)).astype(np.float32)

    with torch.inference_mode():
        output = model(torch.from_numpy(image))

    ours = log_softmax(output, 1) if output.ndim == 2 else output[:, :, ::5, ::5]
    assert relative_error(ours, ORIGINAL[name]) < 1e-5


def test_another_order_of_concatenation_would_be_noticed(monkeypatch):
    concatenate = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, dim: concatenate(parts[::-1], dim))
    model = build("pmg", "segmentation").eval()
    fill(model, "pnmg/seg/1", (1, 64, 64))
    image = generator("pnmg/seg/1", IMAGE).normal(size=(2, 1, 64, 64)).astype(np.float32)

    with torch.inference_mode():
        output = model(torch.from_numpy(image))

    assert relative_error(output[:, :, ::5, ::5], ORIGINAL["pnmg/seg/1"]) > 0.1
