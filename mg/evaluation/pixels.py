"""Run a trained network over a test set of pixels: its outputs and the paper's measures of them."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mg import networks
from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.outcome import Outcome
from mg.metrics import MEASURES, Metrics, constant_answer
from mg.progress import Progress
from mg.training.feed import INPUT_MEAN, INPUT_STD


def measure(
    model: nn.Module,
    info: dict[str, Any],
    data_path: str | os.PathLike,
    predictions_path: str | os.PathLike | None,
    device: str | torch.device,
    batch: int,
    progress: Progress,
) -> Outcome:
    """Measure a network; arguments as for `mg.evaluation.evaluate.evaluate`.

    Raises:
        UserError: the test set is damaged, or of another task or size.
    """
    data = hdf5.load(data_path)
    check_fits(info, data, data_path)
    metrics = Metrics()
    logits = predict(model, data.x, device, batch, progress)

    def measured() -> Iterator[tuple[slice, Tensor]]:
        for part, values in logits:
            metrics.update(values, torch.as_tensor(data.y[part]).to(device))
            yield part, values

    if predictions_path is None:
        for _ in measured():
            pass
    else:
        attributes = {
            "dataset": networks.resolve_dataset(info["dataset"]).name,
            "network": info["label"],
            "seed": info["seed"],
            "inputs_crc32": hdf5.inputs_checksum(data_path),
        }
        _write_predictions(predictions_path, measured(), data.y.shape, attributes)

    result = metrics.compute()
    measures = {
        **{name: result.pop(name) for name in MEASURES},
        **result,
        "constant_answer": constant_answer(data.y),
    }
    attributes = {k: np.asarray(v).tolist() for k, v in data.attributes.items()}
    return Outcome(measures, len(data.x), data.x.shape[1:], attributes)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, C, H, W) of inputs `x` (B, 1, H, W) in [0, 1], normalised as in training."""
    return model((x - INPUT_MEAN) / INPUT_STD)


def check_fits(info: dict[str, Any], data: hdf5.Dataset, path: str | os.PathLike) -> None:
    """Refuse test data of another task than the model's, or of sizes that it cannot take."""
    trained = networks.resolve_dataset(info["dataset"]).name
    given = networks.resolve_dataset(data.attributes["task"]).name
    if trained != given:
        raise UserError(f"the model was trained for {trained} but {path} holds {given}")
    networks.check_channels(trained, data.x.shape[1], data.y.shape[1], path)
    for size in data.x.shape[2:]:
        networks.check_canvas(info["network"], trained, size, **info["options"])


@torch.inference_mode()
def predict(
    model: nn.Module,
    inputs: np.ndarray,
    device: str | torch.device,
    batch: int,
    progress: Progress,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the logits of `inputs` (N, 1, H, W), `batch` examples at a time, with their place."""
    progress.expect(len(inputs))
    for start in range(0, len(inputs), batch):
        part = slice(start, min(start + batch, len(inputs)))
        logits = forward(model, torch.as_tensor(inputs[part]).to(device))
        yield part, logits
        progress.advance(len(logits))


def half_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid in float16, at least 0.5 exactly where `logits` are at least 0 despite rounding."""
    below_half = 0.5 - 2**-12  # the largest float16 below 0.5
    values = logits.float().sigmoid().half()
    return values.where(logits >= 0, values.clamp(max=below_half))


def _write_predictions(
    path: str | os.PathLike,
    parts: Iterator[tuple[slice, Tensor]],
    shape: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    with hdf5.whole(path) as file:
        stored = file.create_dataset(
            "prediction",
            shape,
            np.float16,
            chunks=(1, *shape[1:]),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
        for part, logits in parts:
            stored[part] = half_sigmoid(logits).cpu().numpy()
        hdf5.write_attributes(file, attributes)
