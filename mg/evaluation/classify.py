"""Run a trained classifier over a test set: its probabilities, and the share of wrong answers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mg import networks
from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.predict import Outcome
from mg.metrics import CLASS_MEASURES, ClassMetrics
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
) -> Outcome:
    """Measure a classifier; arguments as for `mg.evaluation.predict.evaluate`.

    With `ten_crops`, the mean of the logits of ten crops is measured as well, `..._10crop`. Files
    that cannot be decoded are left out, and counted as `unreadable_images`.

    Raises:
        UserError: the test set is damaged or of another task.
    """
    feed = _open(info, data_path, device, workers)
    metrics = ClassMetrics()
    logits = _outputs(model, feed, batch, metrics)
    if predictions_path is None:
        for _ in logits:
            pass
    else:
        _write(predictions_path, logits, len(feed), info)
    measures = {name: metrics.compute()[name] for name in CLASS_MEASURES}
    if ten_crops and networks.resolve_dataset(info["dataset"]).family == "imagenet":
        ten = ClassMetrics()
        crops = _open(info, data_path, device, workers, ten_crops=True)
        for _ in _outputs(model, crops, max(1, batch // 10), ten):
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
    if (given := feed.facts[0]["task"]) != dataset:
        raise UserError(f"the model was trained for {dataset} but {path} holds {given}")
    if feed.classes != info["preparation"].get("classes"):
        raise UserError(f"the model was trained for other classes than those of {path}")
    return feed


@torch.inference_mode()
def _outputs(model: nn.Module, feed: Feed, batch: int, metrics: ClassMetrics) -> Iterator[Tensor]:
    """The logits (B, classes) of every example, measured on the way."""
    with tqdm(total=len(feed), desc="predict", unit="image", disable=None) as bar:
        for x, y in feed.once(batch):
            try:
                logits = model(x.flatten(0, -4))
            except torch.cuda.OutOfMemoryError as error:
                raise UserError(
                    f"batch {batch} does not fit the GPU; choose a smaller one"
                ) from error
            logits = logits.view(len(y), -1, logits.shape[-1]).float().mean(1)  # over crops
            metrics.update(logits, y)
            bar.update(len(y))
            yield logits


def _write(
    path: str | os.PathLike, parts: Iterator[Tensor], number: int, info: dict[str, Any]
) -> None:
    with hdf5.whole(path) as file:
        stored, first = None, 0
        for logits in parts:
            if stored is None:
                stored = file.create_dataset(
                    "prediction",
                    (number, logits.shape[1]),
                    np.float32,
                    maxshape=(number, logits.shape[1]),
                    chunks=(min(256, number), logits.shape[1]),
                    compression="gzip",
                    compression_opts=1,
                    shuffle=True,
                )
            stored[first : first + len(logits)] = logits.softmax(1).cpu().numpy()
            first += len(logits)
        if stored is None:
            raise UserError("no image of the test set can be read")
        stored.resize(first, axis=0)  # without the images that could not be read
        file.attrs.update(
            dataset=networks.resolve_dataset(info["dataset"]).name,
            network=info["label"],
            seed=info["seed"],
            classes=info["preparation"]["classes"],
        )
