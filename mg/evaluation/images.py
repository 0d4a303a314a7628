"""What a trained network says of images of one's own: classes with probabilities, or a picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mg import networks
from mg.data import cifar
from mg.data.cifar_preparation import Preparation
from mg.data.imagenet_preparation import decode, test_transform
from mg.errors import UserError
from mg.evaluation.pixels import forward
from mg.files import atomic_path
from mg.training.device import configure_torch
from mg.training.model import load_model

# One colour per digit of a segmentation; black is nothing.
COLOURS = np.array(
    [
        *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
        *((140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207)),
    ],
    np.uint8,
)


def predict_images(
    model_path: str | os.PathLike,
    image_paths: Sequence[str | os.PathLike],
    *,
    output: str | os.PathLike | None = None,
    top: int = 5,
    device: str | torch.device = "cpu",
) -> list[dict[str, Any]]:
    """Run a trained model on image files.

    Images are brought to the size that the network was trained on: for ImageNet as its test images
    are, for the others scaled so that the shorter side fits, and cut at the centre. They are turned
    as their camera says; what is transparent is black. Networks of the MNIST tasks read the
    brightness: their digits are light on dark ground.

    Args:
        output: folder for the pictures that networks of the MNIST tasks give: `<name>.png`, of a
            segmentation each pixel in the colour of its most probable digit (black: none), of a
            spatial task the transformed image.
        top: classes to name, the most probable first.

    Returns:
        Per image: `image`, and either `classes`, pairs of name and probability, or `output`, the
        picture written, and for a segmentation `pixels`, their number per digit found.

    Raises:
        UserError: the model or an image cannot be read, or the model gives pictures and there is
            no `output`, or one would overwrite an image; then nothing was written.
    """
    configure_torch(None)
    model, info = load_model(model_path, device)
    spec = networks.resolve_dataset(info["dataset"])
    if spec.pixels and output is None:
        raise UserError(f"a network for {spec.name} gives pictures; name a folder with --output")
    pictures = [None] * len(image_paths)
    if spec.pixels:
        pictures = _places(image_paths, Path(output))
    images = [decode(path, as_seen=True) for path in image_paths]
    results = []
    for path, picture, image in zip(image_paths, pictures, images, strict=True):
        x = _input(image, spec.family, model, info).to(device)
        with torch.inference_mode():
            if picture:
                answer = _picture(forward(model, x)[0], picture)
            else:
                answer = {"classes": _classes(model(x)[0], info["preparation"], top)}
        results.append({"image": str(path), **answer})
    return results


def _places(image_paths: Sequence[str | os.PathLike], output: Path) -> list[Path]:
    """Where each image's picture goes: none over another, or over an image."""
    places = [output / f"{Path(path).stem}.png" for path in image_paths]
    if len({*places}) < len(places):
        raise UserError("two images have the same name; their pictures would overwrite each other")
    given = {Path(path).resolve(): path for path in image_paths}
    for place in places:
        if image := given.get(place.resolve()):
            raise UserError(f"a picture would overwrite {image}; name another folder")
    return places


def _input(image: Image.Image, family: str, model: nn.Module, info: dict[str, Any]) -> Tensor:
    """A batch of one, as the network was fed in its test."""
    if family == "imagenet":
        return test_transform(_canvas(info))(image)[None]
    if family == "cifar":
        pixels = torch.from_numpy(np.array(_square(image, cifar.SIZE))).permute(2, 0, 1)[None]
        preparation = Preparation.of(info["preparation"])
        return preparation.crop(preparation.apply(pixels), cifar.SIZE)
    grey = _square(image.convert("L"), _canvas(info))
    return torch.from_numpy(np.array(grey, np.float32) / 255)[None, None]


def _canvas(info: dict[str, Any]) -> int:
    size = info["preparation"].get("canvas")
    if not isinstance(size, int) or not 1 <= size <= 4096:
        raise UserError("the model does not say which size its images had; train it again")
    return size


def _square(image: Image.Image, size: int) -> Image.Image:
    """The largest square at the centre, scaled."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == size else square.resize((size, size), Image.Resampling.LANCZOS)


def _classes(logits: Tensor, preparation: dict[str, Any], top: int) -> list[tuple[str, float]]:
    names = preparation.get("classes")
    if not isinstance(names, list) or len(names) != len(logits):
        raise UserError("the model does not name its classes; train it again")
    probability, order = logits.float().softmax(0).sort(descending=True, stable=True)
    return [(names[i], float(p)) for p, i in zip(probability[:top], order[:top], strict=True)]


def _picture(logits: Tensor, path: Path) -> dict[str, Any]:
    probability = logits.float().sigmoid().cpu().numpy()
    if len(probability) == 1:
        picture, found = (probability[0] * 255).round().astype(np.uint8), {}
    else:
        best = probability.argmax(0)
        covered = probability.max(0) >= 0.5
        picture = np.where(covered[..., None], COLOURS[best % len(COLOURS)], np.uint8(0))
        counts = np.bincount(best[covered], minlength=len(probability))
        found = {"pixels": {digit: int(n) for digit, n in enumerate(counts) if n}}
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
    return {"output": str(path), **found}
