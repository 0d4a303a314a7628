"""Whether the parts of a workflow's configuration fit one another, as far as the package knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mg import networks
from mg.data import cifar, clutter
from mg.errors import UserError
from mg.evaluation.saliency import Occlusion
from mg.training.recipe import Recipe


def check(config: dict[str, Any]) -> None:
    """Build every network and plan every data set of a configuration, without making any.

    Args:
        config: what `workflow/schemas/config.schema.yaml` accepts, defaults filled in.

    Raises:
        UserError: something in it cannot work; the message begins with the key.
    """
    data, training, saliency = config["data"], config["training"], config["saliency"]
    for task in config["tasks"]:
        family = networks.resolve_dataset(task).family
        if family == "mnist":
            _check_clutter(task, data)
        elif training.get("output_prior"):
            raise UserError(f"training.output_prior: is for pixels, and {task} has classes")
        key, size = {
            "mnist": ("data.canvas", data["canvas"]),
            "cifar": ("tasks", cifar.SIZE),
            "imagenet": ("imagenet.crop", config["imagenet"]["crop"]),
        }[family]
        for name in config["networks"]:
            entry = config["architectures"][name]
            with _naming(f"architectures.{name}.network"):
                networks.registry.resolve_network(entry["network"], task)
            with _naming(f"architectures.{name}.options"):
                networks.registry.skeleton(entry["network"], task, **entry["options"])
            with _naming(key):
                networks.check_canvas(entry["network"], task, size, **entry["options"])
    with _naming("training"):
        names = set(Recipe.__dataclass_fields__) & set(training)
        Recipe(**{name: training[name] for name in names})
    if {*saliency["tasks"]} & {*config["tasks"]}:
        with _naming("saliency.window"):
            Occlusion(data["canvas"], data["canvas"], saliency["window"], saliency["stride"])


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
