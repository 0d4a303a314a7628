"""Multigrid convolution: the units of the paper, each once.

A convolutional layer works at one scale. A multigrid layer works on a *pyramid*: a list of feature
maps ("grids"), finest first, each with half the height and width of the one before it. Widths
(numbers of channels) are written in the same order, for example {64, 32, 16}.

    grid 1   (N, 64, 64, 64)   ●───●───●───●───●
                                 ╳   ╳   ╳   ╳          ●   a convolution
    grid 2   (N, 32, 32, 32)   ●───●───●───●───●        ─   its input from the same grid
                                 ╳   ╳   ╳   ╳          ╳   pooled and upsampled input from the
    grid 3   (N, 16, 16, 16)   ●───●───●───●───●            neighbouring grids

In every layer each grid reads itself, its finer neighbour (pooled) and its coarser neighbour
(upsampled). Information can climb to a coarse grid, cross the image there in a few steps, and come
down again: with every grid the receptive field doubles at the cost of one layer, so it grows
exponentially with depth, and where to send what is learned. Attention and routing emerge from plain
convolutions.

Everything below maps a pyramid (list of tensors) to a pyramid, so that a network is a sequence of
units. With one grid every unit becomes its ordinary counterpart: `MultigridConv` a convolution,
`ResidualMultigridUnit` a residual block. U-Net, VGG and ResNet are written with the same units.

Source: Ke, Maire, Yu, "Multigrid Neural Architectures", CVPR 2017, sections 3 and 4; details
(order of concatenation, padding, biases) follow the authors' Torch7 code.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pyramid = list[Tensor | None]
"""Grids, finest first; None stands for a grid that nobody reads and that was not computed."""

Widths = Sequence[int]


class ConvBN(nn.Sequential):
    """Convolution with bias, batch norm and, unless `relu` is False, ReLU. ("CBR", "CB".)

    (N, n_in, H, W) -> (N, n_out, H / stride, W / stride); padding keeps the size.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, relu: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(n_out)
        if relu:
            self.relu = nn.ReLU(inplace=True)


# ------------------------------------------------------------------------ across the scales


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling: (N, C, H, W) -> (N, C, 2 H, 2 W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def resample_and_concatenate(
    pyramid: Pyramid,
    wanted: Iterable[int] | None = None,
    upsample: Callable[[Tensor], Tensor] = upsample,
) -> Pyramid:
    """The cross-scale step (paper, figure 2): bring the neighbouring grids to each grid.

        grid i-1  ──max-pool 2x2──┐
        grid i    ────────────────┼──▶ concatenated along channels, in this order
        grid i+1  ──upsample 2x───┘    (nearest neighbour)

    Grid i of the result has the size of grid i and the channels of grids i-1, i and i+1. Only the
    `wanted` grids (indices from 0; default all) are made, the others are None.
    """
    joined: Pyramid = [None] * len(pyramid)
    for i in range(len(pyramid)) if wanted is None else wanted:
        parts = [pyramid[i]]
        if i > 0:
            parts.insert(0, F.max_pool2d(pyramid[i - 1], 2, ceil_mode=True))
        if i + 1 < len(pyramid):
            parts.append(upsample(pyramid[i + 1]))
        joined[i] = torch.cat(parts, 1) if len(parts) > 1 else pyramid[i]
    return joined


def concatenated(widths: Widths) -> list[int]:
    """The widths that `resample_and_concatenate` makes of `widths`."""
    return [sum(widths[max(i - 1, 0) : i + 2]) for i in range(len(widths))]


def _neighbours(wanted: set[int], n_grids: int) -> set[int]:
    return {j for i in wanted for j in (i - 1, i, i + 1) if 0 <= j < n_grids}


class MultigridConv(nn.Module):
    """Multigrid convolution, "MG unit": resample and concatenate, then one convolution per grid.

        grid 1  ──▶ ┌───────────────┐ ──▶ conv, BN, ReLU ──▶
        grid 2  ──▶ │ resample and  │ ──▶ conv, BN, ReLU ──▶
        grid 3  ──▶ │  concatenate  │ ──▶ conv, BN, ReLU ──▶
                    └───────────────┘

    Args:
        n_in: widths of the input pyramid.
        n_out: widths of the output pyramid. When it has fewer grids than `n_in`, the coarsest
            input grids are *dropped*: nothing reads them, not even their finer neighbour.
        kernel: side of the kernels, or one per grid.
        relu: False for the output unit of a network.
    """

    def __init__(
        self, n_in: Widths, n_out: Widths, kernel: int | Sequence[int] = 3, *, relu: bool = True
    ):
        super().__init__()
        kernels = [kernel] * len(n_out) if isinstance(kernel, int) else kernel
        shapes = zip(concatenated(n_in[: len(n_out)]), n_out, kernels, strict=True)
        self.convs = nn.ModuleList(ConvBN(*shape, relu=relu) for shape in shapes)
        self.wanted = list(range(len(n_out)))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        joined = resample_and_concatenate(pyramid[: len(self.convs)], self.wanted)
        return [None if x is None else conv(x) for conv, x in zip(self.convs, joined, strict=True)]

    def keep(self, wanted: set[int]) -> set[int]:
        """Compute only the `wanted` output grids; return the input grids that this takes."""
        self.wanted = sorted(wanted)
        _train_only(wanted, self.convs)
        return _neighbours(wanted, len(self.convs))


class ResidualMultigridUnit(nn.Module):
    """Residual multigrid unit: two multigrid convolutions and a shortcut per grid.

        ──┬──▶ multigrid conv, BN, ReLU ──▶ multigrid conv, BN ──▶ (+) ──▶ ReLU ──▶
          └──────────────────── shortcut per grid ────────────────┘

    The shortcut of a grid whose width changes: wider, zero channels are appended (`shortcut`
    "A") or a 1x1 convolution with batch norm ("B"); narrower, always the latter.

    Args:
        n_in, n_out, kernel, relu: as for `MultigridConv`; `relu` is the one after the sum.
        shortcut: "A" or "B".
        dropout: probability of dropout before each of the two convolutions (ResNet option).
    """

    def __init__(
        self,
        n_in: Widths,
        n_out: Widths,
        kernel: int | Sequence[int] = 3,
        *,
        relu: bool = True,
        shortcut: str = "A",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.first = MultigridConv(n_in, n_out, kernel)
        self.second = MultigridConv(n_out, n_out, kernel, relu=False)
        self.shortcuts = nn.ModuleList(
            _shortcut(a, b, shortcut) for a, b in zip(n_in[: len(n_out)], n_out, strict=True)
        )
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, pyramid: Pyramid) -> Pyramid:
        residual = self.second(self._drop(self.first(self._drop(pyramid))))
        # Batch norm does not need its output to find gradients: the sum may overwrite it.
        return [
            None if r is None else self.relu(r.add_(shortcut(x)))
            for r, shortcut, x in zip(residual, self.shortcuts, pyramid, strict=False)
        ]

    def _drop(self, pyramid: Pyramid) -> Pyramid:
        if self.dropout is None:
            return pyramid
        return [None if x is None else self.dropout(x) for x in pyramid]

    def keep(self, wanted: set[int]) -> set[int]:
        """Compute only the `wanted` output grids; return the input grids that this takes."""
        _train_only(wanted, self.shortcuts)
        return self.first.keep(self.second.keep(wanted)) | wanted


def _train_only(wanted: set[int], of_grids: nn.ModuleList) -> None:
    for i, module in enumerate(of_grids):
        module.requires_grad_(i in wanted)


def _shortcut(n_in: int, n_out: int, kind: str) -> nn.Module:
    if n_in == n_out:
        return nn.Identity()
    if n_in < n_out and kind == "A":
        return nn.ZeroPad3d((0, 0, 0, 0, 0, n_out - n_in))  # (N, C, H, W) read as (C, D, H, W)
    return ConvBN(n_in, n_out, 1, relu=False)


Unit = Callable[..., MultigridConv | ResidualMultigridUnit]
"""(widths in, widths out, keyword options) -> unit"""


def block(unit: Unit, n_in: Widths, n_out: Widths, n_layer: int) -> list[nn.Module]:
    """`n_layer` units in a row; the first of them goes from widths `n_in` to `n_out`."""
    return [unit(n_out if i else n_in, n_out) for i in range(n_layer)]


# ------------------------------------------------------------------------ into the pyramid


class InputPyramid(nn.Module):
    """The image at every scale, and a first convolution per grid.

        image ─┬──────────────▶ stem ──▶ grid 1
               └▶ average 2x2 ┬▶ stem ──▶ grid 2
                              └▶ average 2x2 ... (grid i: windows of 2^(i-1) pixels)

    (N, channels, H, W) -> pyramid of `widths`. `stem(n_in, n_out)` makes the first layer of a
    grid, by default a 3x3 convolution.
    """

    def __init__(
        self, channels: int, widths: Widths, stem: Callable[[int, int], nn.Module] = ConvBN
    ):
        super().__init__()
        self.stems = nn.ModuleList(stem(channels, width) for width in widths)

    def forward(self, image: Tensor) -> Pyramid:
        pyramid = []
        for i, stem in enumerate(self.stems):
            image = F.avg_pool2d(image, 2) if i else image
            pyramid.append(stem(image))
        return pyramid

    def keep(self, wanted: set[int]) -> set[int]:
        """Train only the stems of the `wanted` grids; nothing comes before them."""
        _train_only(wanted, self.stems)
        return set()


class OnCoarsest(nn.Module):
    """Apply `unit` to the coarse end of the pyramid while the `waiting` finest grids wait."""

    def __init__(self, unit: MultigridConv | ResidualMultigridUnit, waiting: int):
        super().__init__()
        self.unit = unit
        self.waiting = waiting

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return pyramid[: self.waiting] + self.unit(pyramid[self.waiting :])

    def keep(self, wanted: set[int]) -> set[int]:
        """Compute only the `wanted` output grids; return the input grids that this takes."""
        active = self.unit.keep({i - self.waiting for i in wanted if i >= self.waiting})
        return {i for i in wanted if i < self.waiting} | {i + self.waiting for i in active}


def progressive_start(
    unit: Unit, widths: Widths, steps: Sequence[Widths], n_layer: int
) -> list[OnCoarsest]:
    """Progressive multigrid (paper, figure 3): begin on the coarsest grid, admit finer ones.

        grid 1  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─▶ □ ──▶
        grid 2  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─▶ □ ───▶ □ ──▶
        grid 3  ─ ─ ─ ─ ─ ─▶ □ ───▶ □ ───▶ □ ──▶     each □ is `n_layer` units deep
        grid 4  ─────▶ □ ──▶ □ ───▶ □ ───▶ □ ──▶

    Args:
        unit: `MultigridConv` or `ResidualMultigridUnit`.
        widths: of the input pyramid.
        steps: for each step the widths of the active (coarsest) grids, one grid more each time;
            `coarse_to_fine(widths)` where grids keep their widths.
        n_layer: units per step.
    """
    widths = list(widths)
    units = []
    for step in steps:
        waiting = len(widths) - len(step)
        for _ in range(n_layer):
            units.append(OnCoarsest(unit(widths[waiting:], step), waiting))
            widths[waiting:] = step
    return units


def coarse_to_fine(widths: Widths) -> list[Widths]:
    """[64, 32, 16] -> [[16], [32, 16], [64, 32, 16]]."""
    return [widths[-g:] for g in range(1, len(widths) + 1)]


# ------------------------------------------------------------------------ through the pyramid


def max_pool(pyramid: Pyramid) -> Pyramid:
    """Halve every grid: 2x2 max-pool, stride 2, odd sizes rounded up."""
    return [None if x is None else F.max_pool2d(x, 2, ceil_mode=True) for x in pyramid]


class PyramidPool(nn.Module):
    """Pooling of a classifier: every grid is halved; with `concat` the pyramid also loses a grid.

                 plain                          concat
        32x32 ──▶ 16x16 grid 1         4x4 ──▶ 2x2 ─────────────▶ grid 1
        16x16 ──▶  8x8  grid 2         2x2 ──▶ 1x1 ─┐
         8x8  ──▶  4x4  grid 3         1x1 ─────────┴ concatenate ▶ grid 2

    With `concat` the coarsest grid stays as it is and is appended to its pooled finer neighbour.
    """

    def __init__(self, concat: bool = False):
        super().__init__()
        self.concat = concat

    def forward(self, pyramid: Pyramid) -> Pyramid:
        if not self.concat:
            return max_pool(pyramid)
        *finer, coarsest = pyramid
        pooled = max_pool(finer)
        return pooled[:-1] + [torch.cat([pooled[-1], coarsest], 1)]

    def widths(self, widths: Widths) -> list[int]:
        """The widths after pooling a pyramid of `widths`."""
        if not self.concat:
            return list(widths)
        return [*widths[:-2], widths[-2] + widths[-1]]


class UpConv(nn.ModuleList):
    """Per grid a transposed 2x2 convolution (stride 2), batch norm and ReLU: double every grid."""

    def __init__(self, n_in: Widths, n_out: Widths):
        super().__init__(
            nn.Sequential(
                OrderedDict(
                    conv=nn.ConvTranspose2d(a, b, 2, stride=2),
                    bn=nn.BatchNorm2d(b),
                    relu=nn.ReLU(inplace=True),
                )
            )
            for a, b in zip(n_in, n_out, strict=True)
        )

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return [None if x is None else up(x) for up, x in zip(self, pyramid, strict=True)]

    def keep(self, wanted: set[int]) -> set[int]:
        """Compute only the `wanted` grids, which are those that it takes."""
        _train_only(wanted, self)
        return wanted


# ------------------------------------------------------------------------ out of the pyramid


class TakeGrid(nn.Module):
    """One grid of the pyramid is the result: pyramid -> (N, C, H, W)."""

    def __init__(self, index: int):
        super().__init__()
        self.index = index

    def forward(self, pyramid: Pyramid) -> Tensor:
        return pyramid[self.index]

    def keep(self, wanted: set[int] | None = None) -> set[int]:
        """The input grids that are read."""
        return {self.index}


def leave_out_unread(units: Sequence[nn.Module], wanted: set[int] | None = None) -> set[int] | None:
    """Let `units` (in order of execution) compute only what reaches the `wanted` output grids.

    The coarsest grid of a unit that is followed by a drop is read by nobody, like the neighbours
    of the output grid in the last units. Their parameters belong to the published networks: they
    exist and are counted, but the work is not done and they require no gradient. (Their batch
    norms never see a batch, so their running statistics stay as they are; nothing depends on them.)

    Returns:
        The grids that the first of them reads.
    """
    for unit in reversed(units):
        wanted = unit.keep(wanted)
    return wanted
