"""Where the outputs of a network start: at the frequencies of its classes."""

import torch

from mg.errors import UserError
from mg.training.feed import Clutter


def set_output_prior(model: torch.nn.Module, examples: Clutter) -> None:
    """Shift the outputs so that `model` starts at the frequencies of the classes in `examples`.

    The shift of the batch norm that is executed last is set to the logit of each class's share of
    pixels.

    Raises:
        UserError: the output of the network is not shifted by as much.
    """
    executed: list[torch.nn.BatchNorm2d] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: executed.append(module))
        for module in model.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    model.eval()
    logits = model(examples.x[:1])
    for hook in hooks:
        hook.remove()
    if not executed or not _shifts(executed[-1], logits):
        raise UserError(
            "output_prior is for networks that end in a batch norm of one channel per class; this "
            "one does not, so set it false"
        )
    # A few at a time: to sum bytes PyTorch makes numbers of 8 bytes of them all.
    positive = sum(part.sum((0, 2, 3)) for part in examples.y.split(50))
    share = (positive / examples.y[:, 0].numel()).clamp(1e-6, 1 - 1e-6)
    with torch.no_grad():
        executed[-1].bias.copy_(torch.logit(share))


def _shifts(norm: torch.nn.BatchNorm2d, logits: torch.Tensor) -> bool:
    """Whether a shift in `norm` is one of `logits` (1, classes, H, W), class by class.

    The gradient tells; differences of logits would not, as those of deep networks may be in the
    millions before training.
    """
    if not norm.affine or norm.num_features != logits.shape[1]:
        return False
    weights = torch.arange(1.0, norm.num_features + 1, device=logits.device)[:, None, None]
    weights = weights.expand_as(logits)
    (gradient,) = torch.autograd.grad(logits, norm.bias, weights, materialize_grads=True)
    return torch.allclose(gradient, weights.sum((0, 2, 3)))
