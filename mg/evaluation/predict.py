"""Run a trained network over a test set: its outputs and the paper's measures of them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mg import networks, provenance
from mg.data import hdf5
from mg.data.progress import Progress
from mg.errors import UserError
from mg.files import check_place, write_json
from mg.metrics import MEASURES, Metrics, constant_answer
from mg.networks.counting import layers, longest_path, total
from mg.networks.execution import accelerate
from mg.records import read_run
from mg.training.checkpoint import read_torch
from mg.training.device import use_processor
from mg.training.feed import INPUT_MEAN, INPUT_STD
from mg.training.loop import MODEL_FORMAT
from mg.training.objective import objective

_FIELDS = {
    "network": str,
    "dataset": str,
    "options": dict,
    "label": str,
    "seed": int,
    "state_dict": dict,
}


def load_model(
    path: str | os.PathLike, device: str | torch.device = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network in `path`, in evaluation mode on `device`, and what it is.

    Nothing in the file is executed (`weights_only`).

    Returns:
        The network (it gives logits), and the file's network, dataset, options, label and seed.

    Raises:
        UserError: the file is missing, damaged, not a model of mg, or its weights do not belong to
            the network it names.
    """
    content = read_torch(Path(path))
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
        raise UserError(
            f"{path} is not a trained model of mg (format {MODEL_FORMAT}); train it again"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise UserError(f"{path} is damaged: no valid entry {name!r}; train it again")
    try:
        network, options = (content["network"], content["dataset"]), content["options"]
        expected = networks.registry.skeleton(*network, **options).state_dict()
        shapes = {name: tensor.shape for name, tensor in content["state_dict"].items()}
        if shapes != {name: tensor.shape for name, tensor in expected.items()}:
            raise ValueError("weights of other shapes")  # before memory is taken for them
        model = networks.build(*network, **options)
        model.load_state_dict(content["state_dict"])
    except UserError as error:
        raise UserError(f"{path} names a network that cannot be built: {error}") from error
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:160]
        raise UserError(f"{path} does not hold the network it names ({detail})") from error
    info = {name: content[name] for name in _FIELDS if name != "state_dict"}
    info["preparation"] = content.get("preparation", {})
    if not isinstance(info["preparation"], dict):
        raise UserError(f"{path} is damaged: no valid entry 'preparation'; train it again")
    model.to(device=device, memory_format=torch.channels_last)
    return accelerate(model).eval(), info


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
        try:
            logits = forward(model, torch.as_tensor(inputs[part]).to(device))
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(f"batch {batch} does not fit the GPU; choose a smaller one") from error
        yield part, logits
        progress.advance(len(logits))


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
    use_processor(threads)
    model, info = load_model(model_path, device)
    run_path = Path(model_path).with_name("run.json")
    run = read_run(run_path) if run_path.exists() else {}
    check_place(metrics_path, predictions_path)
    spec, goal = networks.resolve_dataset(info["dataset"]), objective(info["dataset"])
    with Progress(f"{info['label']} {spec.name}", None, "images") as progress:
        if spec.family == "mnist":
            test = _pixels(model, info, data_path, predictions_path, device, batch, progress)
        else:
            from mg.evaluation import classify

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
            "commit": run.get("commit") or provenance.commit(),
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
    return record


@dataclass(frozen=True)
class Outcome:
    """What a test gave.

    Attributes:
        measures: by name, as metrics.json holds them.
        images: how many were measured.
        shape: (C, H, W) of a network's input.
        attributes: of the test set, in plain values.
    """

    measures: dict[str, Any]
    images: int
    shape: tuple[int, int, int]
    attributes: dict[str, Any]


def _pixels(
    model: nn.Module,
    info: dict[str, Any],
    data_path: str | os.PathLike,
    predictions_path: str | os.PathLike | None,
    device: str | torch.device,
    batch: int,
    progress: Progress,
) -> Outcome:
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
        _write_predictions(predictions_path, measured(), data.y.shape, info)

    result = metrics.compute()
    measures = {
        **{name: result.pop(name) for name in MEASURES},
        **result,
        "constant_answer": constant_answer(data.y),
    }
    attributes = {k: np.asarray(v).tolist() for k, v in data.attributes.items()}
    return Outcome(measures, len(data.x), data.x.shape[1:], attributes)


def half_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid in float16, at least 0.5 exactly where `logits` are at least 0 despite rounding."""
    below_half = 0.5 - 2**-12  # the largest float16 below 0.5
    values = logits.float().sigmoid().half()
    return values.where(logits >= 0, values.clamp(max=below_half))


def _write_predictions(
    path: str | os.PathLike,
    parts: Iterator[tuple[slice, Tensor]],
    shape: tuple[int, ...],
    info: dict[str, Any],
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
        attributes = {
            "dataset": networks.resolve_dataset(info["dataset"]).name,
            "network": info["label"],
            "seed": info["seed"],
        }
        hdf5.write_attributes(file, attributes)
