"""Names of networks and data sets, and building by name. Only building loads PyTorch."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from mg.data import MOST_CLASSES
from mg.data.tasks import RELEASED_NAMES, TASKS
from mg.errors import UserError
from mg.networks import settings
from mg.networks.option_checks import choice, whole_number

if TYPE_CHECKING:
    from torch import nn

# ------------------------------------------------------------------------ names


@dataclass(frozen=True)
class DatasetSpec:
    """What a network must know of a data set: (N, channels, size, size) in, `classes` out."""

    name: str
    family: str  # mnist, cifar or imagenet: what examples are, and how they are prepared
    channels: int
    classes: int
    size: int

    @property
    def pixels(self) -> bool:
        """Whether the answer is a map per class, instead of one label."""
        return self.family == "mnist"


DATASETS = {
    **{task: DatasetSpec(task, "mnist", 1, TASKS[task].classes, 64) for task in TASKS},
    **{
        spec.name: spec
        for spec in (
            DatasetSpec("cifar10", "cifar", 3, 10, 32),
            DatasetSpec("cifar100", "cifar", 3, 100, 32),
            DatasetSpec("imagenet", "imagenet", 3, 1000, 224),
        )
    },
}

SCHEMES = ("unit", "released")  # of initialisation; the first is the default


class Network(NamedTuple):
    """A network of one family of data sets; the family's module builds it."""

    settings: Callable[..., settings.Settings]  # of its options
    residual: bool


NETWORKS: dict[str, dict[str, Network]] = {
    "mnist": {
        "unet": Network(settings.unet, False),
        "umg": Network(settings.umg, False),
        "pmg": Network(settings.progressive, False),
        "r_pmg": Network(settings.progressive, True),
        "sg": Network(settings.single_grid, False),
        "r_sg": Network(settings.single_grid, True),
    },
    "cifar": {
        "vgg": Network(settings.vgg, False),
        "resnet": Network(settings.resnet, True),
        "mg": Network(settings.mg, False),
        "r_mg": Network(settings.r_mg, True),
        "pmg": Network(settings.progressive_classifier, False),
        "r_pmg": Network(settings.progressive_classifier, True),
    },
    "imagenet": {
        "r_mg": Network(settings.r_mg_imagenet, True),
        "r_pmg_seg": Network(settings.r_pmg_seg, True),
    },
}


def resolve_dataset(name: str) -> DatasetSpec:
    """The data set of that name, the authors' names (mnist-seg, ...) included.

    Raises:
        UserError: there is none.
    """
    try:
        return DATASETS[RELEASED_NAMES.get(name, name)]
    except (KeyError, TypeError):
        raise UserError(
            f"no data set {name!r}; there are {', '.join([*DATASETS, *RELEASED_NAMES])}"
        ) from None


def resolve_network(network: str, dataset: str) -> Network:
    """The network of that name for a data set.

    Raises:
        UserError: there is no such network, or not for this data set.
    """
    available = NETWORKS[resolve_dataset(dataset).family]
    if network not in available:
        raise UserError(
            f"no network {network!r} for {dataset}; there are {', '.join(sorted(available))}"
        )
    return available[network]


def defaults(network: str, dataset: str) -> dict[str, Any]:
    """The options that a network takes, with their default values."""
    parameters = inspect.signature(resolve_network(network, dataset).settings).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    spec = resolve_dataset(dataset)
    if not spec.pixels:  # of which targets have as many maps as the task says
        own["classes"] = spec.classes
    return {**own, "initialisation": SCHEMES[0]}


class Options(NamedTuple):
    """What the options of a network come to: its settings, and what every network has."""

    settings: settings.Settings
    classes: int
    initialisation: str


def check_options(network: str, dataset: str, /, **given: Any) -> Options:
    """The options of a network, checked.

    Args:
        given: options; None stands for the default.

    Raises:
        UserError: an unknown network, data set or option, or a value that does not fit.
    """
    chosen = defaults(network, dataset)
    for name, value in given.items():
        if name not in chosen:
            raise UserError(
                f"network {network} for {dataset} has no option {name!r}; "
                f"there are {', '.join(chosen)}"
            )
        if value is not None:
            chosen[name] = value
    classes = chosen.pop("classes", resolve_dataset(dataset).classes)
    scheme = chosen.pop("initialisation")
    return Options(
        resolve_network(network, dataset).settings(**chosen),
        whole_number("classes", classes, maximum=MOST_CLASSES),
        choice("initialisation", scheme, SCHEMES),
    )


def check_canvas(network: str, dataset: str, size: int, /, **options: Any) -> None:
    """Make sure that a network can work on images of `size` x `size` pixels.

    Raises:
        UserError: it cannot, because it halves them more often than they can be halved, or
            because its classifier is made for one size; the message names the sizes that fit.
    """
    spec = resolve_dataset(dataset)
    multiple = check_options(network, dataset, **options).settings.size_multiple
    if not spec.pixels:
        whole = spec.family == "imagenet"  # it averages over whatever the five halvings leave
        if size != spec.size and not (whole and size >= 32 and size % 32 == 0):
            needed = "a multiple of 32" if whole else f"{spec.size} x {spec.size}"
            raise UserError(
                f"network {network} for {dataset} needs images of {needed} pixels, not {size}"
            )
    elif size < 1 or size % multiple:
        raise UserError(
            f"network {network} cannot work on a canvas of {size} pixels: it halves its grids to "
            f"1/{multiple}, so the side must be a multiple of {multiple}"
        )


def check_channels(dataset: str, inputs: int, targets: int, path: str | os.PathLike) -> None:
    """Make sure that examples of pixels have the channels of their task.

    Args:
        inputs, targets: how many the examples in the file `path` have.

    Raises:
        UserError: other numbers.
    """
    spec = resolve_dataset(dataset)
    if (inputs, targets) != (spec.channels, spec.classes):
        raise UserError(
            f"{path} has inputs of {inputs} and targets of {targets} channels; {spec.name} needs "
            f"{spec.channels} and {spec.classes}"
        )


# ------------------------------------------------------------------------ building


def build(network: str, dataset: str, /, **options: Any) -> "nn.Module":
    """Build and initialise a network that returns logits.

    Weights are drawn from torch's global generator: the same `torch.manual_seed` gives the same
    network. An option given as None takes its default.

    Args:
        network: unet, umg, pmg, r_pmg, sg, r_sg for the MNIST tasks; vgg, resnet, mg, r_mg,
            pmg, r_pmg for cifar10 and cifar100; r_mg, r_pmg_seg for imagenet.
        dataset: a name that `resolve_dataset` knows.
        options: those of the network in `settings.py`, `initialisation` and, of a classifier,
            `classes`.

    Raises:
        UserError: an unknown network, data set or option, a value that does not fit, or a network
            with a parameter or buffer that nothing sets.
    """
    import torch

    from mg.networks.initialisation import initialise

    model = skeleton(network, dataset, **options)
    model.to_empty(device=torch.get_default_device())
    scheme = check_options(network, dataset, **options).initialisation
    initialise(model, scheme, resolve_network(network, dataset).residual)
    return model


def skeleton(network: str, dataset: str, /, **options: Any) -> "nn.Module":
    """The network that `build` builds, without weights (on the meta device), to be examined.

    Raises:
        UserError: an unknown network, data set or option, or a value that does not fit.
    """
    checked = check_options(network, dataset, **options)
    spec = resolve_dataset(dataset)
    import torch

    builder = getattr(import_module(f"mg.networks.{spec.family}"), network)
    with torch.device("meta"):
        return builder(spec.channels, checked.classes, **checked.settings.arguments)
