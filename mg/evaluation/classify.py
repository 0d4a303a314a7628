"""Run a trained classifier over a test set: its probabilities, and the share of wrong answers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mg import networks
from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.outcome import Outcome
from mg.metrics import CLASS_MEASURES, ClassMetrics
from mg.progress import Progress
from mg.training.feed import Feed, for_testing


def measure(
    model: nn.Module,
    info: dict[str, Any],
    data_path: str | os.PathLike,
    predictions_path: str | os.PathLike | None,
    device: str | torch.device,
    batch: int,
    ten_crops: bool,
    workers: int,
    progress: Progress,
) -> Outcome:
    """Measure a classifier; arguments as for `mg.evaluation.evaluate.evaluate`.

    With `ten_crops`, the mean of the logits of ten crops is measured as well, `..._10crop`. Files
    that cannot be decoded are left out of every measure, counted as `unreadable_images`, and have
    NaN as their predictions.

    Raises:
        UserError: the test set is damaged, of another task or size, or none of its images can be
            read.
    """
    feed = _open(info, data_path, device, workers)
    metrics = ClassMetrics()
    outputs = _outputs(model, feed, batch, metrics, progress)
    probabilities = [y.softmax(1).cpu().numpy() for y in outputs]
    if not probabilities:
        raise UserError(f"no image of {data_path} can be read; list them again with `mg prepare`")
    if predictions_path is not None:
        _write(predictions_path, np.concatenate(probabilities), feed, info)
    measures = {name: metrics.compute()[name] for name in CLASS_MEASURES}
    if ten_crops and networks.resolve_dataset(info["dataset"]).family == "imagenet":
        ten = ClassMetrics()
        crops = _open(info, data_path, device, workers, ten_crops=True)
        with Progress("ten crops", None, "images") as more:
            for _ in _outputs(model, crops, max(1, batch // 10), ten, more):
                pass
        measures |= {f"{name}_10crop": ten.compute()[name] for name in CLASS_MEASURES}
    unreadable = len(feed.unreadable)
    measures["unreadable_images"] = unreadable
    (attributes,) = feed.facts
    return Outcome(measures, len(feed) - unreadable, feed.shape, attributes)


def _open(
    info: dict[str, Any],
    data_path: str | os.PathLike,
    device: str | torch.device,
    workers: int,
    ten_crops: bool = False,
) -> Feed:
    path, dataset = Path(data_path), networks.resolve_dataset(info["dataset"]).name
    feed = for_testing(dataset, path, torch.device(device), info["preparation"], workers, ten_crops)
    networks.check_canvas(info["network"], dataset, feed.shape[-1], **info["options"])
    return feed


@torch.inference_mode()
def _outputs(
    model: nn.Module, feed: Feed, batch: int, metrics: ClassMetrics, progress: Progress
) -> Iterator[Tensor]:
    """The logits (B, classes) of every example, measured on the way."""
    progress.expect(len(feed))
    for x, y in feed.once(batch):
        logits = model(x.flatten(0, -4))
        logits = logits.view(len(y), -1, logits.shape[-1]).float().mean(1)  # over crops
        metrics.update(logits, y)
        progress.advance(len(y))
        yield logits


def _write(
    path: str | os.PathLike, probabilities: np.ndarray, feed: Feed, info: dict[str, Any]
) -> None:
    """Row i is of example i of the test set: NaN where its image could not be read."""
    read = np.ones(len(feed), bool)
    read[list(feed.unreadable)] = False
    rows = np.full((len(feed), probabilities.shape[1]), np.nan, np.float32)
    rows[read] = probabilities
    with hdf5.whole(path) as file:
        file.create_dataset(
            "prediction",
            data=rows,
            chunks=(min(256, len(rows)), rows.shape[1]),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
        attributes = {
            "dataset": networks.resolve_dataset(info["dataset"]).name,
            "network": info["label"],
            "seed": info["seed"],
            "classes": info["preparation"]["classes"],
            "unreadable_images": len(feed.unreadable),
        }
        hdf5.write_attributes(file, attributes)
