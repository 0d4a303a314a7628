"""Which part of the input decides which part of the output: occlusion (paper, section 4).

A window of noise is moved over the input; what changes in the output around seven points of
interest is credited to the window's pixels, point by point. The authors use a window of 8x8 moved
by 2 on their 64x64 canvas, 841 positions. On another canvas keep the proportion of window and digit
(canvas 32 with 14-pixel digits: window 4, stride 1 for the same 841 positions, or 2 for 225).
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mg import networks
from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.attention import POINT_NAMES
from mg.evaluation.pixels import check_fits, forward
from mg.files import check_place
from mg.progress import Progress
from mg.training.device import configure_torch
from mg.training.model import load_model

_STORED = {"compression": "gzip", "fletcher32": True}
BOX_THRESHOLD = 0.4  # output that counts as part of the digit when its box is found
IMPACT_THRESHOLD = 0.1  # smaller changes of the output are not credited


@dataclass(frozen=True)
class Occlusion:
    """The positions of the noise window and the noise itself, the same for every input.

    Positions are in row-major order, `rows` x `columns` of them; the noise is uniform(0, 1), drawn
    once per position from `seed` by NumPy, so that it does not depend on the device.
    """

    height: int
    width: int
    window: int = 8
    stride: int = 2
    seed: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.window <= min(self.height, self.width):
            raise UserError(
                f"a {self.window}x{self.window} window does not fit a {self.height}x{self.width} "
                "canvas; set the window of the saliency maps"
            )
        if not 1 <= self.stride <= self.window:
            raise UserError(
                f"a window of {self.window} pixels cannot be moved by {self.stride} and cover all; "
                f"set the stride of the saliency maps to 1 to {self.window}"
            )
        for side in (self.height, self.width):
            if left := (side - self.window) % self.stride:
                raise UserError(
                    f"a window of {self.window} pixels, moved by {self.stride}, leaves out {left} "
                    f"of {side} at the edge; set the stride of the saliency maps to a divisor of "
                    f"{side - self.window}"
                )

    @property
    def rows(self) -> Tensor:
        """(R, H) bool: the canvas rows that the window covers, for each vertical position."""
        return self._covered(self.height)

    @property
    def columns(self) -> Tensor:
        """(S, W) bool: the same for columns."""
        return self._covered(self.width)

    def _covered(self, size: int) -> Tensor:
        first = torch.arange(0, size - self.window + 1, self.stride)[:, None]
        pixel = torch.arange(size)
        return (first <= pixel) & (pixel < first + self.window)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def noise(self) -> Tensor:
        """(number of positions, window, window) float32 in [0, 1)."""
        shape = (len(self), self.window, self.window)
        return torch.from_numpy(np.random.default_rng(self.seed).random(shape, np.float32))

    def copies(self, x: Tensor, batch: int):
        """Yield all occluded copies of `x` (1, H, W), in batches (B, 1, H, W) on its device."""
        rows, columns = self.rows, self.columns
        noise = self.noise().to(x.device)
        for start in range(0, len(self), batch):
            position = torch.arange(start, min(start + batch, len(self)))
            y, x_ = position // len(columns), position % len(columns)
            mask = (rows[y][:, :, None] & columns[x_][:, None, :])[:, None].to(x.device)
            yield x.expand(len(position), *x.shape).masked_scatter(mask, noise[position])

    def spread(self, weights: Tensor) -> Tensor:
        """Sum of the windows, position k weighted by `weights[k]`: (positions, P) to (P, H, W)."""
        rows, columns = self.rows.double(), self.columns.double()
        grid = weights.double().reshape(len(rows), len(columns), -1)
        return torch.einsum("yxp,yh,xw->phw", grid, rows, columns).float()


def points_of_interest(output: np.ndarray) -> np.ndarray | None:
    """Seven points (y, x) of an output (H, W): `POINT_NAMES` of the box around what it shows.

    The box spans the rows and the columns whose maximum is at least `BOX_THRESHOLD`. As in the
    authors' code halves are rounded down at its centre, up at the middle of its sides. A point is
    moved inwards where its 3x3 neighbourhood would leave the canvas.

    Returns:
        (7, 2) int64, or None if there are fewer than two such rows or columns.
    """
    rows = np.flatnonzero(output.max(axis=1) >= BOX_THRESHOLD)
    columns = np.flatnonzero(output.max(axis=0) >= BOX_THRESHOLD)
    if len(rows) < 2 or len(columns) < 2:
        return None
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    points = np.array(
        [((top + bottom) // 2, (left + right) // 2)]
        + [(y, x) for x in (left, right) for y in (top, (top + bottom + 1) // 2, bottom)]
    )
    return points.clip(1, np.array(output.shape) - 2)


@torch.inference_mode()
def saliency_maps(
    model: nn.Module,
    x: Tensor,
    output: Tensor,
    points: np.ndarray,
    occlusion: Occlusion,
    batch: int,
) -> Tensor:
    """The maps of one input.

    Every occluded copy goes through the network once and serves all points.

    Args:
        x: the input (1, H, W) in [0, 1], on the device of `model`.
        output: the un-occluded sigmoid output (1, H, W).
        points: (P, 2) as (y, x), at least one pixel inside the canvas.

    Returns:
        (P, H, W) float32 on the host: the sum over window positions of impact x window. The impact
        on a point is the largest change in its 3x3 neighbourhood, counted from `IMPACT_THRESHOLD`.
    """
    near = torch.arange(-1, 2)
    points = torch.from_numpy(points)
    y = (points[:, 0, None, None] + near[:, None]).to(x.device)  # (P, 3, 1)
    x_ = (points[:, 1, None, None] + near).to(x.device)  # (P, 1, 3)
    impacts = []
    for copies in occlusion.copies(x, batch):
        change = (forward(model, copies).sigmoid() - output).abs()[:, 0]
        impacts.append(change[:, y, x_].amax((2, 3)))  # (B, P)
    impact = torch.cat(impacts).cpu()
    return occlusion.spread(impact * (impact >= IMPACT_THRESHOLD))


def saliency(
    model_path: str | os.PathLike,
    data_path: str | os.PathLike,
    output_path: str | os.PathLike,
    *,
    count: int = 16,
    window: int = 8,
    stride: int = 2,
    seed: int = 1,
    device: str | torch.device = "cpu",
    batch: int = 128,
    threads: int | None = None,
) -> dict[str, int]:
    """Write the saliency maps of the first `count` usable test examples to `output_path` (HDF5).

    An input is skipped if no box can be found in the network's output. The file holds `index` (K,),
    `input` and `output` (K, 1, H, W), `points` (K, 7, 2) as (y, x), `map` (K, 7, H, W), `skipped`
    (indices of the inputs passed over) and attributes. K is below `count`, down to 0, when the test
    set has no more usable examples.

    Args:
        window, stride: size and step of the noise window in pixels; 8 and 2 in the paper.
        batch: occluded copies computed at once; bounds the memory.
        threads: processor threads to compute with; PyTorch's choice if None.

    Returns:
        {"used": K, "skipped": number of inputs passed over}

    Raises:
        UserError: a file is damaged, network and data do not belong together, the canvas is none
            for the network, it has more than one output channel, the window does not fit, or the
            maps cannot be written.
    """
    if count < 1 or batch < 1:
        raise UserError(f"count ({count}) and batch ({batch}) of saliency maps must be at least 1")
    configure_torch(threads)
    model, info = load_model(model_path, device)
    data = hdf5.load(data_path)
    check_fits(info, data, data_path)
    if data.y.shape[1] != 1:
        raise UserError(
            f"saliency maps are for the spatial tasks; {data_path} has {data.y.shape[1]} channels"
        )
    occlusion = Occlusion(*data.x.shape[2:], window=window, stride=stride, seed=seed)
    check_place(output_path, inputs=(model_path, data_path))
    kept: dict[str, list] = {name: [] for name in ("index", "input", "output", "points", "map")}
    skipped: list[int] = []
    attributes = {
        "dataset": networks.resolve_dataset(info["dataset"]).name,
        "network": info["label"],
        "seed": info["seed"],
        "point_names": POINT_NAMES,
        "window": window,
        "stride": stride,
        "noise_seed": seed,
        "threshold": IMPACT_THRESHOLD,
        "box_threshold": BOX_THRESHOLD,
    }
    with Progress(f"{info['label']} {info['dataset']}", count, "inputs") as progress:
        for index, x, output in _outputs(model, data.x, device, batch):
            points = points_of_interest(output[0].cpu().numpy())
            if points is None:
                skipped.append(index)
                continue
            maps = saliency_maps(model, x, output, points, occlusion, batch)
            values = (index, x.cpu().numpy(), output.cpu().numpy(), points, maps.numpy())
            for name, value in zip(kept, values, strict=True):
                kept[name].append(value)
            progress.advance(1)
            if len(kept["index"]) == count:
                break
        _write(output_path, kept, skipped, data.x.shape[1:], attributes)
        progress.note = f"{len(skipped)} passed over"
    return {"used": len(kept["index"]), "skipped": len(skipped)}


def _write(
    path: str | os.PathLike,
    kept: dict[str, list],
    skipped: list[int],
    canvas: tuple[int, int, int],
    attributes: dict,
) -> None:
    shapes = {
        "index": (),
        "input": canvas,
        "output": canvas,
        "points": (len(POINT_NAMES), 2),
        "map": (len(POINT_NAMES), *canvas[1:]),
    }
    with hdf5.whole(path) as file:
        for name, shape in shapes.items():
            kind = np.int64 if name in ("index", "points") else np.float32
            array = np.array(kept[name], kind).reshape(len(kept[name]), *shape)
            file.create_dataset(name, data=array, **(_STORED if array.size else {}))
        passed_over = np.array(skipped, np.int64)
        file.create_dataset("skipped", data=passed_over, **(_STORED if skipped else {}))
        hdf5.write_attributes(file, attributes)


@torch.inference_mode()
def _outputs(model: nn.Module, inputs: np.ndarray, device: str | torch.device, batch: int):
    """Index, input and sigmoid output (1, H, W) of each example in turn."""
    for start in range(0, len(inputs), batch):
        x = torch.as_tensor(inputs[start : start + batch]).to(device)
        output = forward(model, x).sigmoid()
        for i in range(len(x)):
            yield start + i, x[i], output[i]
