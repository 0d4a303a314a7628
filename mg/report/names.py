"""What networks and tasks are called in figures and tables, and in which order they come."""

from collections.abc import Iterable, Mapping

# As in the paper and its figures.
NETWORKS = {
    "unet": "U-NET",
    "umg": "U-MG",
    "sg": "SG",
    "r_sg": "R-SG",
    "pmg": "PMG",
    "r_pmg": "R-PMG",
    "vgg": "VGG",
    "resnet": "RES",
    "mg": "MG",
    "r_mg": "R-MG",
    "p_mg": "P-MG",
    "pr_mg": "PR-MG",
    "r_pmg_seg": "PR-MG-SEG",
}

CONTROLS = ("sg", "r_sg")

TASKS = {
    "segmentation": "Segmentation",
    "spatial_transform": "Spatial transformation",
    "rotation": "Rotation",
    "affine_transform": "Affine transformation",
    "scaling": "Scaling",
    "translation": "Translation",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
}


def network_name(label: str) -> str:
    """The paper's name of a network; a label of a configuration that is none stays as it is."""
    return NETWORKS.get(label, label)


def controls_note(networks: Mapping[str, str | None]) -> str:
    """A sentence on those of the shown networks that the authors did not release, if any is.

    Args:
        networks: what each label stands for; None where only the label is known.
    """
    own = [label for label, network in networks.items() if (network or label) in CONTROLS]
    if not own:
        return ""
    names = " and ".join(map(network_name, in_order(own)))
    if len(own) == 1:
        words = "of our own, as a control; the authors show such a single-grid network but did not"
        return f"{names}: {words} release it."
    words = "of our own, as controls; the authors show such single-grid networks but did not"
    return f"{names}: {words} release them."


def task_name(task: str, digits: bool = False) -> str:
    """A task's name for people; `digits`: what is called CIFAR are MNIST's digits in its format."""
    name = TASKS.get(task, task)
    return f"MNIST's digits in {name}'s format" if digits and task.startswith("cifar") else name


def in_order(labels: Iterable[str]) -> list[str]:
    """Distinct labels in the order of `NETWORKS`, others behind in alphabetical order."""
    return _in_order(labels, NETWORKS)


def tasks_in_order(tasks: Iterable[str]) -> list[str]:
    """Distinct tasks in the order of `TASKS`, others behind in alphabetical order."""
    return _in_order(tasks, TASKS)


def _in_order(names: Iterable[str], known: dict[str, str]) -> list[str]:
    place = {name: i for i, name in enumerate(known)}
    return sorted(set(names), key=lambda name: (place.get(name, len(place)), name))
