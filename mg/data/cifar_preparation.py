"""How CIFAR's images become inputs of a network, and which of them a training is given.

Two preparations of the images exist. `plain` is today's usual one: RGB in [0, 1], less the mean and
divided by the standard deviation of each channel; in training, a random crop of the image with four
pixels of the mean colour around it, and a random flip (fb.resnet.torch).

`whitened` is the paper's: the authors trained on "cifar100_whitened.t7" of the Wide Residual
Networks (Zagoruyko and Komodakis, 2016), which pylearn2's make_cifar10_gcn_whitened.py made. What
that does is computed here: global contrast normalisation (each image less its mean, scaled to norm
55, no bias under the root), then ZCA whitening, P = V (D + 0.1 I)^-1/2 V^T with V D V^T the
covariance of the training images less their mean. Then as the authors: channels in order B, G, R;
enlarged to 36x36 (bilinear, corners aligned, Torch7's `image.scale`); in training a random crop of
32x32, which leaves out the outermost pixels on all sides, and a random flip, in testing the crop at
the centre.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mg.errors import UserError

PREPARATIONS = ("plain", "whitened")
SIDE = 32  # pixels
_PART = 1000  # images that are prepared at once
BORDER = 4  # pixels around a plain image that a training crop may reach into


def global_contrast_normalise(x: Tensor, scale: float = 55.0) -> Tensor:
    """Each row of `x` (N, D) less its mean, scaled to norm `scale`; a constant row becomes 0."""
    x = x - x.mean(1, keepdim=True)
    norm = x.square().sum(1, keepdim=True).sqrt() / scale
    return x / norm.where(norm >= 1e-8, 1.0)


def zca(x: Tensor, bias: float = 0.1) -> tuple[Tensor, Tensor]:
    """The mean (D,) of `x` (N, D), and the symmetric matrix (D, D) that whitens what is less it.

    `bias` is added to the variances; directions of little variance are mostly noise. Computed in
    float64, a part of `x` at a time: as a whole CIFAR would take gigabytes.
    """
    mean = x.mean(0, dtype=torch.float64)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in x.split(_PART):
        centred = part - mean
        covariance.addmm_(centred.T, centred)
    covariance /= len(x)
    covariance.diagonal().add_(bias)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, (vectors * values.rsqrt()) @ vectors.T


@dataclass(frozen=True)
class Preparation:
    """How uint8 images become network inputs; fitted on training images, kept with the model.

    Attributes:
        kind: plain or whitened.
        mean, scale: plain: of each channel (3, 1, 1) and its inverse standard deviation; whitened:
            of each value (D,) and the whitening matrix (D, D).
    """

    kind: str
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, kind: str, images: np.ndarray) -> "Preparation":
        """The preparation for training on `images` (N, 3, H, W) uint8.

        Computed on the processor, so that every process and every resumed training has the same.
        Whitening 50,000 images of 3x32x32 takes a minute on one core.
        """
        x = torch.from_numpy(images)
        if kind == "plain":
            sums = sum(
                torch.stack([part.double().sum((0, 2, 3)), part.double().square().sum((0, 2, 3))])
                for part in x.split(_PART)
            )
            mean, square = sums / (x.numel() // 3) / torch.tensor([[255.0], [255.0**2]])
            std = (square - mean**2).clamp(min=1e-12).sqrt()
            return cls(kind, mean.float().view(3, 1, 1), (1 / std).float().view(3, 1, 1))
        parts = (part.flatten(1).float() for part in x.split(_PART))
        mean, matrix = zca(torch.cat([global_contrast_normalise(part) for part in parts]))
        return cls(kind, mean.float(), matrix.float())

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Preparation":
        """The preparation with this `state`.

        Raises:
            UserError: it is none, or one of images of another size.
        """
        kind, mean, scale = (state.get(name) for name in ("kind", "mean", "scale"))
        if kind in PREPARATIONS and isinstance(mean, Tensor) and isinstance(scale, Tensor):
            values = 3 * SIDE**2
            shapes = {"plain": ((3, 1, 1),) * 2, "whitened": ((values,), (values, values))}
            if (mean.shape, scale.shape) == shapes[kind]:
                return cls(kind, mean, scale)
        raise UserError("the model does not say how its images are prepared; train it again")

    def to(self, device: torch.device) -> "Preparation":
        """The same on a device."""
        return Preparation(self.kind, self.mean.to(device), self.scale.to(device))

    def apply(self, images: Tensor) -> Tensor:
        """What is kept on the device of `images` (N, 3, H, W) uint8: float32, for `crop` to cut."""
        if self.kind == "plain":
            return (images.float() / 255 - self.mean) * self.scale
        x = global_contrast_normalise(images.flatten(1).float())
        x = ((x - self.mean) @ self.scale).view(images.shape).flip(1)  # B, G, R
        return F.interpolate(x, _enlarged(images.shape[-1]), mode="bilinear", align_corners=True)

    def crop(self, x: Tensor, size: int, changes: Tensor | None = None) -> Tensor:
        """Crops (B, 3, size, size) of prepared images: at the centre, or as `changes` say.

        Args:
            changes: (B, 3) top, left, flip as `draw` gives them.
        """
        if changes is None:
            start = (x.shape[-1] - size) // 2
            return x[..., start : start + size, start : start + size]
        if self.kind == "plain":
            x = F.pad(x, (BORDER,) * 4)
        top, left, flip = changes.unbind(1)
        along = torch.arange(size, device=x.device)
        rows = top[:, None] + along
        columns = left[:, None] + torch.where(flip[:, None] > 0, along.flip(0), along)
        return x[
            torch.arange(len(x), device=x.device)[:, None, None, None],
            torch.arange(3, device=x.device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]

    def draw(self, number: int, size: int, random: torch.Generator) -> Tensor:
        """(number, 3) random corners and flips of training crops of images of side `size`."""
        if self.kind == "plain":
            first, last = 0, 2 * BORDER
        else:
            first, last = 1, _enlarged(size) - size - 1
        corners = torch.randint(first, last + 1, (number, 2), generator=random)
        return torch.cat([corners, torch.randint(2, (number, 1), generator=random)], 1)

    def state(self) -> dict[str, Any]:
        """As plain values and tensors, for model.pt."""
        return {"kind": self.kind, "mean": self.mean.cpu(), "scale": self.scale.cpu()}


def _enlarged(size: int) -> int:
    return size * 36 // 32
