"""How the weights of a network are drawn.

The default is "unit": trained with the recipe of the default configuration, the schemes differ less
than two seeds do, and "released" makes seeds differ more (benchmarks/initialisation.py has the
numbers). "released" is for repeating the authors' trainings.
"""

from math import sqrt

from torch import nn
from torch.nn import init


def initialise(model: nn.Module, scheme: str, residual: bool) -> None:
    """Draw all weights of `model` from torch's global generator and set its batch norms.

    Convolutions: N(0, sqrt(2 / (k k n_out))), bias 0 (paper). Linear layers: uniform within
    +-1/sqrt(n_in), the default of Torch7 and PyTorch alike. Batch norm: shift 0; its eps is 1e-3
    in the plain networks and 1e-5 in the residual ones, as in the authors' code.

    Args:
        scheme: "unit": batch norm scale 1, transposed convolutions as convolutions.
            "released": what the authors' code does with plain networks, where two of Torch7's
            defaults survive: batch norm scale U(0, 1), transposed convolutions (weight and bias)
            uniform within +-1/sqrt(k k n_in). For residual networks the two schemes are the same.
        residual: whether the network is one of the residual ones.
    """
    as_released = scheme == "released" and not residual
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d) and as_released:
            bound = 1 / sqrt(module.kernel_size[0] ** 2 * module.in_channels)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            init.normal_(
                module.weight, std=sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            )
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.eps = 1e-5 if residual else 1e-3
            if as_released:
                init.uniform_(module.weight)
