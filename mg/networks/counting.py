"""What a network is made of: its layers, how they are connected, what they cost.

Found by running the network on shapes alone (the meta device), so that nothing is computed; the
graph of its gradients says which layer reads which.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from mg.errors import UserError
from mg.networks.execution import SplitMultigridConv
from mg.networks.pyramid import MultigridConv
from mg.networks.registry import check_canvas, resolve_dataset, skeleton

Shape = tuple[int, int, int]
"""(channels, height, width) of an image."""

IMAGE = "image"


class Counts(NamedTuple):
    """Learnable parameters, and multiply-adds of convolutions and linear layers for one image."""

    parameters: int
    multiply_adds: int


@dataclass
class Layer:
    """A convolution, transposed convolution or linear layer, and its place in the network.

    Attributes:
        name: as in the state dict.
        module: the layer itself.
        input_shape, output_shape: without the batch dimension; channels come first, but last where
            a linear layer is applied at every place.
        depth: layers on the longest path from the image to here, this one included.
        reads: names of the layers (or `IMAGE`) whose outputs, normalised, pooled, upsampled or
            concatenated, are its input.
        adds: the same for the shortcut that is added to its output.
        live: whether it can influence the output of the network; taken for granted of one that
            does not depend on the image.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    depth: int = 0
    reads: list[str] = field(default_factory=list)
    adds: list[str] = field(default_factory=list)
    live: bool = False

    @property
    def multiply_adds(self) -> int:
        """For one image; biases are not counted, as in the paper's tables."""
        if isinstance(self.module, nn.Linear):
            places = self.output_shape[:-1]
        else:
            transposed = isinstance(self.module, nn.ConvTranspose2d)
            places = (self.input_shape if transposed else self.output_shape)[1:]
        return self.module.weight.numel() * prod(places)

    @property
    def channels(self) -> tuple[int, int]:
        """Of its input and its output."""
        axis = -1 if isinstance(self.module, nn.Linear) else 0
        return self.input_shape[axis], self.output_shape[axis]

    @property
    def kind(self) -> str:
        """Such as “conv 3x3”, or “conv 3x3 dilated by 2”."""
        if isinstance(self.module, nn.Linear):
            return "linear"
        size = self.module.kernel_size[0]
        transposed = isinstance(self.module, nn.ConvTranspose2d)
        dilation = self.module.dilation[0]
        dilated = f" dilated by {dilation}" if dilation > 1 else ""
        return f"{'transposed ' if transposed else ''}conv {size}x{size}{dilated}"

    @property
    def side(self) -> int:
        """Of its output, in pixels; 1 where that is a vector."""
        axis = -2 if isinstance(self.module, nn.Linear) else -1
        return self.output_shape[axis] if len(self.output_shape) > 2 else 1


def examine(
    network: str, dataset: str, options: dict, size: int | None = None
) -> tuple[nn.Module, list[Layer], Shape]:
    """A network without weights, its layers, and the shape of the image that it reads.

    Args:
        size: side of the image in pixels; the data set's own if None.

    Raises:
        UserError: an unknown network or option, or one that cannot work on images of that size.
    """
    spec = resolve_dataset(dataset)
    size = size or spec.size
    check_canvas(network, dataset, size, **options)
    shape = (spec.channels, size, size)
    model = skeleton(network, dataset, **options)
    return model, layers(model, shape), shape


def layers(model: nn.Module, input_shape: Shape) -> list[Layer]:
    """The layers of `model` in order of execution.

    Layers that nobody reads (see `leave_out_unread`) are among them, as in the paper's counts.

    Raises:
        UserError: the output of `model` does not depend on the image.
    """
    found: dict[Any, Layer] = {}  # by node of the graph of gradients

    def hook(name: str) -> Callable:
        def record(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            shapes = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])
            # What does not depend on the image has no node: it gets one that reads nothing.
            node = output.grad_fn or object()
            found[node] = Layer(name, module, *shapes, live=output.grad_fn is None)

        return record

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    on_shapes = {
        name: tensor.detach().to("meta")
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    # Only the image requires a gradient: the graph then holds the paths from it and nothing else.
    image = torch.empty(1, *input_shape, device="meta", requires_grad=True)
    try:
        with _for_examination(model), torch.enable_grad():
            output = functional_call(model, on_shapes, (image,))
    finally:
        for handle in handles:
            handle.remove()
    if output.grad_fn is None:
        raise UserError("the network's output does not depend on the image; see its forward pass")
    _connect(found, output.grad_fn)
    return list(found.values())


def count(model: nn.Module, input_shape: Shape) -> Counts:
    """Parameters, and multiply-adds for one image.

    Both include the layers that cannot influence the output, as the paper's numbers do.
    """
    return total(model, layers(model, input_shape))


def total(model: nn.Module, layers: list[Layer]) -> Counts:
    """The parameters of `model` and the multiply-adds of its `layers`."""
    parameters = sum(p.numel() for p in model.parameters())
    return Counts(parameters, sum(layer.multiply_adds for layer in layers))


def longest_path(layers: list[Layer]) -> int:
    """The depth of the network: convolutions and linear layers on the longest path."""
    return max(layer.depth for layer in layers if layer.live)


def _connect(found: dict[Any, Layer], output: Any) -> None:
    """Fill in what depends on the connections, walking back from every layer to those before it."""
    before = {}
    for node, layer in found.items():  # in order of execution: sources come first
        layer.reads = _names(found, _sources(found, _before(node)))
        before[node] = _sources(found, _before(node), shortcuts=True)
        layer.depth = 1 + max((found[n].depth for n in before[node] if n in found), default=0)
    unseen = _sources(found, [output], shortcuts=True)
    while unseen:
        node = unseen.pop()
        if node in found and not found[node].live:
            found[node].live = True
            unseen += before[node]


def _sources(found: dict[Any, Layer], nodes: list[Any], shortcuts: bool = False) -> list[Any]:
    """The layers (or the image) nearest before `nodes`, those behind shortcuts only on demand.

    Where a shortcut is added to the output of a layer, it is noted as what that layer `adds`. A sum
    of other things has no shortcut: all that it adds is before it.
    """
    sources = []
    seen = set()
    stack = nodes[::-1]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        before = _before(node)
        summed = [n for n in before if n in found] if _is_sum(node) else []
        if node in found or not before:
            sources.append(node)
        elif summed:  # r.add_(shortcut(x)) or x + r, r is a layer's output
            layer, shortcut = found[summed[0]], [n for n in before if n is not summed[0]]
            layer.adds = layer.adds or _names(found, _sources(found, shortcut))
            stack += before[::-1] if shortcuts else summed[:1]
        else:
            stack += before[::-1]
    return sources


def _names(found: dict[Any, Layer], nodes: list[Any]) -> list[str]:
    """Without repetitions: a layer may be executed several times."""
    return list(dict.fromkeys(found[n].name if n in found else IMAGE for n in nodes))


def _is_sum(node: Any) -> bool:
    return node.name().startswith("AddBackward")


def _before(node: Any) -> list[Any]:
    return [n for n, _ in getattr(node, "next_functions", ()) if n is not None]


@contextmanager
def _for_examination(model: nn.Module) -> Iterator[None]:
    """Run the definition (`execution.py` aside) and compute every grid.

    Batch norm is skipped: it changes no shape, and is slow on shapes. Classes derived elsewhere
    may be other functions, so they run as they are.
    """
    training = model.training
    model.eval()  # where convolutions are called with their biases
    units = [module for module in model.modules() if isinstance(module, MultigridConv)]
    split = [unit for unit in units if type(unit) is SplitMultigridConv]
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    wanted = [unit.wanted for unit in units]
    for unit in units:
        unit.wanted = list(range(len(unit.convs)))
    for unit in split:
        unit.forward = partial(MultigridConv.forward, unit)
    for norm in norms:
        norm.forward = lambda x: x
    try:
        yield
    finally:
        model.train(training)
        for unit, before in zip(units, wanted, strict=True):
            unit.wanted = before
        for module in split + norms:
            del module.forward
