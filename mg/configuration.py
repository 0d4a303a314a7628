"""Whether the parts of a workflow's configuration fit one another, as far as the package knows, and
what its networks cost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from mg import networks
from mg.data import clutter, mnist
from mg.errors import UserError, first_line
from mg.records import wrong_entry

# What is read of a configuration, and of each architecture in it.
_READ = {
    "tasks": [str],
    "networks": [str],
    "training": dict,
    "architectures": dict,
    "mnist": {"sources": [str]},
    "imagenet": {"crop": int},
    "data": {
        "mode": str,
        "seed": int,
        "canvas": int,
        "digit_size": int,
        "threshold": int | float,
        "tasks": dict,
    },
}
_ARCHITECTURE = {"network": str, "options": dict}


def check(config: dict[str, Any]) -> None:
    """Check every network's options and plan every data set of a configuration, without making any.

    Args:
        config: what `workflow/schemas/config.schema.yaml` accepts, defaults filled in.

    Raises:
        UserError: something in it is missing or cannot work; the message begins with the key.
    """
    wrong = wrong_entry(config, _READ) or wrong_entry(
        config["architectures"], dict.fromkeys(config["networks"], _ARCHITECTURE), "architectures"
    )
    if wrong:
        raise UserError(f"{wrong}: missing, or not as a whole configuration has it")
    data, training = config["data"], config["training"]
    with _naming("mnist.sources"):
        mnist.check_sources(config["mnist"]["sources"])
    for task in config["tasks"]:
        spec = networks.resolve_dataset(task)
        if spec.pixels:
            if data["mode"] != "own":
                _check_clutter(task, data)
        elif training.get("output_prior"):
            raise UserError(f"training.output_prior: is for pixels, and {task} has classes")
        key, size = _image_size(config, spec)
        for name in config["networks"]:
            entry = config["architectures"][name]
            with _naming(f"architectures.{name}.network"):
                networks.registry.resolve_network(entry["network"], task)
            if name != entry["network"] and name in networks.registry.NETWORKS[spec.family]:
                raise UserError(
                    f"architectures.{name}.network: {name} is the name of another network than "
                    f"{entry['network']}; give this one a label of its own"
                )
            with _naming(f"architectures.{name}.options"):
                networks.registry.check_options(entry["network"], task, **entry["options"])
            with _naming(key):
                networks.check_canvas(entry["network"], task, size, **entry["options"])


def count(config: dict[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """What every network of a configuration that was checked costs for one image of each task.

    Returns:
        task → network → its `parameters`, `multiply_adds` and `outputs`, the numbers that its
        layers put out.

    Raises:
        UserError: a network that fails, of its own or since images are too large for it; the
            message begins with the key.
    """
    # Not above: they need PyTorch, and checking does not.
    from mg.networks.counting import layers, total

    found, counted = {}, {}
    for task in config["tasks"]:
        spec = networks.resolve_dataset(task)
        key, size = _image_size(config, spec)
        for name in config["networks"]:
            same = name, spec.family, spec.classes  # most tasks differ in their data alone
            if same not in counted:
                entry = config["architectures"][name]
                try:
                    model = networks.registry.skeleton(entry["network"], task, **entry["options"])
                    made_of = layers(model, (spec.channels, size, size))
                except Exception as error:  # it may be a user's own
                    if "overflow" in str(error).lower():  # of a number of bytes
                        raise UserError(f"{key}: {size} is too large for {name}") from error
                    raise UserError(
                        f"architectures.{name}: this network fails on images of {size} pixels: "
                        f"{first_line(error)} (`mg describe` shows where)"
                    ) from error
                outputs = sum(prod(layer.output_shape) for layer in made_of)
                counted[same] = total(model, made_of)._asdict() | {"outputs": outputs}
            found.setdefault(task, {})[name] = counted[same]
    return found


def _image_size(config: dict[str, Any], spec: networks.registry.DatasetSpec) -> tuple[str, int]:
    """The side of the images that networks are given, after the key that says it."""
    return {
        "mnist": ("data.canvas", config["data"]["canvas"]),
        "cifar": ("tasks", spec.size),
        "imagenet": ("imagenet.crop", config["imagenet"]["crop"]),
    }[spec.family]


def _check_clutter(task: str, data: dict[str, Any]) -> None:
    own = data["tasks"].get(task, {})
    for key in ("digits", "scale"):  # the one that is wrong is named, what is left out is not
        with _naming(f"data.tasks.{task}.{key}" if key in own else "data.canvas"):
            settings = clutter.Settings(
                **{name: data[name] for name in ("canvas", "digit_size", "threshold")},
                **{key: own.get(key)},
            )
            clutter.check(task, data["mode"], data["seed"], settings)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
