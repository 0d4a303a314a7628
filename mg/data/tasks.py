"""What each of the six cluttered-MNIST tasks does to its digits; `clutter.py` makes examples."""

from dataclasses import dataclass

from mg.errors import UserError

CLASSES = 10


@dataclass(frozen=True)
class Task:
    """What a task does to its digits (paper, sections 4.1 and 4.2).

    placement: `anywhere`, in the `centre`, or `apart`: where a digit covers little of others.
    """

    released_name: str
    placement: str
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0  # degrees, either way
    shear: float = 0.0  # degrees, either way
    digits: tuple[float, float] | None = None  # mean and deviation of their number; None: one
    counts: tuple[int, int, int] = (50_000, 10_000, 10_000)  # train, valid, test

    @property
    def classes(self) -> int:
        """Channels of the target: one per class where digits are told apart."""
        return CLASSES if self.digits else 1


TASKS = {
    "segmentation": Task(
        "mnist-seg",
        "apart",
        scale=(0.5, 1.25),
        rotation=60,
        digits=(5.0, 0.5),
        counts=(10_000, 1_000, 1_000),
    ),
    "spatial_transform": Task("mnist-spt", "anywhere", scale=(0.5, 1.5), rotation=60, shear=60),
    "rotation": Task("mnist-rot", "centre", rotation=60),
    "affine_transform": Task("mnist-aff", "centre", shear=60),
    "scaling": Task("mnist-sca", "centre", scale=(0.5, 1.5)),
    "translation": Task("mnist-tra", "anywhere"),
}

RELEASED_NAMES = {task.released_name: name for name, task in TASKS.items()}


def resolve_task(name: str) -> str:
    """Return the name of a task; the released names (mnist-seg, ...) are accepted.

    Raises:
        UserError: no such task.
    """
    task = RELEASED_NAMES.get(name, name)
    if task not in TASKS:
        raise UserError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")
    return task
