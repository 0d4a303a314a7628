"""Measure a trained network on a test set: metrics.json and predictions.h5."""

import os
from pathlib import Path
from typing import Any

import torch

from mg import networks, provenance
from mg.errors import UserError
from mg.evaluation import classify, pixels
from mg.files import check_place, write_json
from mg.networks.counting import layers, longest_path, total
from mg.progress import Progress, say
from mg.records import read_run
from mg.training.device import configure_torch
from mg.training.model import load_model
from mg.training.objective import objective


def evaluate(
    model_path: str | os.PathLike,
    data_path: str | os.PathLike,
    *,
    metrics_path: str | os.PathLike,
    predictions_path: str | os.PathLike | None = None,
    device: str | torch.device = "cpu",
    batch: int = 64,
    threads: int | None = None,
    ten_crops: bool = False,
    workers: int = 0,
) -> dict[str, Any]:
    """Measure a model on a test set; write metrics.json and, if a path is given, predictions.h5.

    The predictions of pixels are sigmoid outputs, data set `prediction` (N, C, H, W) in float16,
    rounded such that thresholding them at 0.5 gives exactly the predicted pixels that were
    measured; those of classes are probabilities (N, classes) in float32, NaN for an image that
    cannot be read. Row i is of example i of the test set. What the training cost is taken from
    run.json beside the model, null without it.

    Args:
        batch: examples computed at once; bounds the memory.
        threads: processor threads to compute with; PyTorch's choice if None.
        ten_crops: measure ImageNet's images on ten crops each, too.
        workers: processes that decode ImageNet's images ahead.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: a file is missing or damaged, model and test set do not belong together, or the
            results cannot be written.
    """
    if batch < 1:
        raise UserError(f"batch is {batch}; it must be at least 1")
    configure_torch(threads)
    model, info = load_model(model_path, device)
    run_path = Path(model_path).with_name("run.json")
    run = read_run(run_path) if run_path.exists() else {}
    check_place(metrics_path, predictions_path, inputs=(model_path, run_path, data_path))
    spec, goal = networks.resolve_dataset(info["dataset"]), objective(info["dataset"])
    with Progress(f"{info['label']} {spec.name}", None, "images") as progress:
        if spec.pixels:
            test = pixels.measure(model, info, data_path, predictions_path, device, batch, progress)
        else:
            test = classify.measure(
                *(model, info, data_path, predictions_path, device, batch, ten_crops, workers),
                progress,
            )
        found = layers(model, test.shape)
        counts = total(model, found)
        record = {
            "dataset": spec.name,
            "network": info["label"],
            "seed": info["seed"],
            **test.measures,
            "params": counts.parameters,
            "macs": counts.multiply_adds,
            "depth": longest_path(found),
            "train_images": run.get("images"),
            "train_seconds": run.get("seconds"),
            "device": run.get("device"),
            "commit": run.get("commit"),
            "date": provenance.now(),
            "test_images": test.images,
            "architecture": info["network"],
            "settings": {
                "network": info["options"],
                "training": run.get("settings"),
                "test": test.attributes,
            },
        }
        write_json(metrics_path, record)
        column, name = goal.shown
        value = record[goal.measures[column]]
        progress.note = f"{name} {'undefined' if value is None else format(value, '.4f')}"
    if any(_names_same(test.attributes, of) for of in run.get("data", [])):
        say("these are examples that it was trained on: they say nothing of others")
    return record


def _names_same(test: dict[str, Any], trained: dict[str, Any]) -> bool:
    """Whether a test set is, by what it says of itself, a data set that was trained on."""
    named = ("task", "split", "mode", "seed", "canvas")
    return all(test.get(name) == trained.get(name) for name in named)
