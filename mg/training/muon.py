"""An optimiser for short trainings: momentum whose directions all count alike."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
_FACTOR = 0.2  # of the root mean square of AdamW's updates
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon for kernels and matrices, AdamW for the rest (scales, shifts, biases).

    The gradient of a matrix is often almost of low rank: few directions get all of the update. Here
    the update is (nearly) the orthogonal matrix closest to the momentum. A kernel (n_out, n_in, k,
    k) counts as the matrix (n_out, n_in k k); that of a transposed convolution, which PyTorch keeps
    as (n_in, n_out, k, k), as (n_in, n_out k k).

    Updates are scaled to the size of AdamW's, so that rates and decays mean the same.

    Args:
        params: parameters that require gradients.
        lr: learning rate; a tensor on their device where steps are recorded.
        weight_decay: a step takes `lr * weight_decay` of each parameter away.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; scale
    of the updates: Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, 2025.
    PyTorch's own takes matrices only.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        params = list(params)
        groups = [
            {"params": [p for p in params if p.ndim > 1]},
            {"params": [p for p in params if p.ndim <= 1]},
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.rest = torch.optim.AdamW([self.param_groups[1]], fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters that have gradients."""
        matrices, rest = self.param_groups
        self._step_matrices(**matrices)
        # Loading a state replaces both.
        self.rest.param_groups, self.rest.state = [rest], self.state
        self.rest.step()

    def _step_matrices(
        self, params: list[Tensor], lr: float | Tensor, weight_decay: float, **_
    ) -> None:
        alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in params:
            if p.grad is not None:
                alike[p.flatten(1).shape].append(p)
        for (rows, columns), same in alike.items():
            # As a tensor always: a recorded step then rounds as any other does.
            rate = torch.as_tensor(lr, dtype=torch.float32, device=same[0].device)
            kept = 1 - rate * weight_decay
            scale = rate * (_FACTOR * math.sqrt(max(rows, columns)))
            ahead = torch.stack([self._momentum_ahead(p).flatten(1) for p in same])
            for p, update in zip(same, orthogonal(ahead), strict=True):
                p.mul_(kept).addcmul_(update.reshape(p.shape), scale, value=-1)

    def _momentum_ahead(self, p: Tensor) -> Tensor:
        """What the momentum would be after another step by the same gradient (Nesterov)."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        return p.grad.lerp(momentum, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with the same singular vectors and all singular values near 1.

    By a Newton-Schulz iteration of fifth order, whose coefficients bring values of 0.01 and more
    into 0.7 ... 1.2 in five rounds. A round multiplies x by a polynomial of x x^T from the left,
    and so x x^T from both sides; all of these commute. So the rounds are taken with the square
    matrices alone, and x is multiplied by their product in the end: for kernels of 3x3, wider than
    tall, half of the operations or fewer. It takes float32, since squaring halves the digits.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    square = x @ x.mT
    product = None
    for left in reversed(range(ITERATIONS)):
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if left:
            square = factor @ square @ factor
    x = product @ x
    return x.mT if tall else x
