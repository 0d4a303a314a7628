"""model.pt: a trained network in a file, written and read."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mg import networks
from mg.errors import UserError
from mg.networks.execution import accelerate
from mg.training.checkpoint import read_torch, write_torch

FORMAT = "mg-model-1"
_FIELDS = {
    "network": str,
    "dataset": str,
    "options": dict,
    "label": str,
    "seed": int,
    "state_dict": dict,
}


def write_model(path: str | os.PathLike, model: nn.Module, description: dict[str, Any]) -> None:
    """Write the weights of `model` with what `load_model` gives back of it.

    Args:
        description: network, dataset, options, label, seed and preparation.
    """
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_torch(Path(path), {"format": FORMAT, **description, "state_dict": weights})


def load_model(
    path: str | os.PathLike, device: str | torch.device = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network in `path`, in evaluation mode on `device`, and what it is.

    Nothing in the file is executed (`weights_only`).

    Returns:
        The network (it gives logits), and the file's network, dataset, options, label, seed
        and preparation of images.

    Raises:
        UserError: the file is missing, damaged, not a model of mg, or its weights do not belong to
            the network it names.
    """
    content = read_torch(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a trained model of mg (format {FORMAT}); train it again")
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
