"""How the weights of a network are drawn.

The default is "unit": trained with AdamW on one cycle, the schemes differ less than two seeds do,
and "released" makes seeds differ more (benchmarks/initialisation.py has the numbers). "released" is
for repeating the authors' trainings.
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import init

from mg.errors import UserError

# Classes derived from these may hold more than they do.
_DRAWN_HERE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d)
_NAMED = 5  # of what has no value, in a message


def initialise(model: nn.Module, scheme: str, residual: bool) -> None:
    """Draw all weights of `model` from torch's global generator and set its batch norms.

    Convolutions: N(0, sqrt(2 / (k k n_out))), bias 0 (paper). Linear layers: uniform within
    +-1/sqrt(n_in), the default of Torch7 and PyTorch alike, the bias 0 in residual networks. Batch
    norm: shift 0; its eps is 1e-3 in the plain networks and 1e-5 in the residual ones, as in the
    authors' code. What other modules hold is set by their own `reset_parameters`.

    Args:
        scheme: "unit": batch norm scale 1, transposed convolutions as convolutions.
            "released": what the authors' code does with plain networks, where two of Torch7's
            defaults survive: batch norm scale U(0, 1), transposed convolutions (weight and bias)
            uniform within +-1/sqrt(k k n_in). For residual networks the two schemes are the same.
        residual: whether the network is one of the residual ones.

    Raises:
        UserError: a parameter or buffer that nothing sets.
    """
    as_released = scheme == "released" and not residual
    for tensor in _tensors(model).values():
        _unset(tensor)
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d) and as_released:
            bound = 1 / sqrt(module.kernel_size[0] ** 2 * module.in_channels)
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            init.normal_(
                module.weight, std=sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            )
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
            if residual and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.eps = 1e-5 if residual else 1e-3
            if as_released and module.affine:
                init.uniform_(module.weight)
        draws_itself = hasattr(module, "reset_parameters") and type(module) not in _DRAWN_HERE
        if draws_itself and _left_unset(module, recurse=False):
            module.reset_parameters()
    if left := _left_unset(model):
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        raise UserError(
            f"nothing sets the initial values of {', '.join(left[:_NAMED])}{more} in the network; "
            "give the modules that hold them a method reset_parameters that does"
        )


def _tensors(module: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    """Parameters and buffers by name; with `recurse`, also those of the modules within."""
    return {**dict(module.named_parameters("", recurse)), **dict(module.named_buffers("", recurse))}


def _marked(tensor: Tensor) -> tuple[Tensor, float]:
    """The numbers of a tensor, and one that no weight has: NaN, or the largest integer."""
    if tensor.dtype == torch.bool:
        tensor = tensor.view(torch.uint8)  # which can hold a third value
    elif tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor, torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max


@torch.no_grad()
def _unset(tensor: Tensor) -> None:
    numbers, mark = _marked(tensor)
    numbers.fill_(mark)


@torch.no_grad()
def _is_unset(tensor: Tensor) -> bool:
    """Whether a tensor holds, if only in part, what `_unset` put there."""
    if not tensor.numel():
        return False
    numbers, mark = _marked(tensor)
    largest = numbers.max()  # NaN if there is one
    return bool(largest.isnan() | (largest == mark))


def _left_unset(module: nn.Module, recurse: bool = True) -> list[str]:
    return [name for name, tensor in _tensors(module, recurse).items() if _is_unset(tensor)]
