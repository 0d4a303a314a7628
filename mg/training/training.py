"""Which training one is: what its weights follow from, and what is recorded of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mg import networks
from mg.errors import UserError
from mg.files import read_object
from mg.training.feed import read_facts
from mg.training.recipe import Recipe

Facts = list[dict[str, Any]]
"""What a feed says of its files."""


@dataclass(frozen=True)
class Training:
    """One training of one network, on whatever machine.

    Attributes:
        network: name for `mg.networks.build`.
        dataset: name of the task; one of the authors' becomes this package's.
        options: for `mg.networks.build`, as they are given.
        recipe: optimiser, schedule and amount of training.
        seed: decides initial weights and the order of examples.
        train_files: HDF5 files to draw examples from, with replacement.
        output: folder for the results.
        valid_file: HDF5 file to measure progress on after each epoch, if any; never trained on.
        preparation: of CIFAR's images: plain or whitened (see `mg.data.cifar_preparation`).
        label: what tables call the network; its name if none is given.

    Raises:
        UserError: there is no such task, or a file is given twice to train on.
    """

    network: str
    dataset: str
    options: dict[str, Any]
    recipe: Recipe
    seed: int
    train_files: Sequence[str | os.PathLike]
    output: str | os.PathLike
    valid_file: str | os.PathLike | None = None
    preparation: str = "whitened"
    label: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", networks.resolve_dataset(self.dataset).name)
        object.__setattr__(self, "label", self.label or self.network)
        if not self.label.isprintable():
            raise UserError(f"label {self.label!a} has characters that no table can show")
        object.__setattr__(self, "train_files", [*map(Path, self.train_files)])
        for path in self.train_files:
            if sum(other.resolve() == path.resolve() for other in self.train_files) > 1:
                raise UserError(f"{path} is given twice to train on; give it once")
        object.__setattr__(self, "output", Path(self.output))
        object.__setattr__(self, "valid_file", self.valid_file and Path(self.valid_file))

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.label} {self.dataset} seed {self.seed}"

    @property
    def names(self) -> dict[str, Any]:
        """What each of its results calls it."""
        return {
            "network": self.network,
            "label": self.label,
            "dataset": self.dataset,
            "seed": self.seed,
        }

    def options_for(self, classes: list[str] | None) -> dict[str, Any]:
        """The network's options for data with these classes: their number, where not the usual.

        Raises:
            UserError: the options ask for another number.
        """
        usual = networks.resolve_dataset(self.dataset).classes
        if classes is None or self.options.get("classes", usual) == len(classes):
            return self.options
        if "classes" in self.options:
            raise UserError(
                f"the option classes is {self.options['classes']}, but the data have "
                f"{len(classes)} classes"
            )
        return {**self.options, "classes": len(classes)}

    def decisive(self, data: Facts, processes: int) -> dict[str, Any]:
        """What the weights follow from, in plain values: a checkpoint of others is refused.

        Args:
            data: of the training files.
            processes: that train the network together.
        """
        return {
            "network": self.network,
            "dataset": self.dataset,
            "options": self.options,
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "data": data,
            "processes": processes,
        }

    def record(self, data: Facts, valid_data: Facts | None, processes: int) -> dict[str, Any]:
        """What the results follow from, as run.json has it; arguments as for `decisive`.

        Args:
            valid_data: of the validation file, if there is one.
        """
        decisive = self.decisive(data, processes)
        settings = {name: decisive.pop(name) for name in ("options", "recipe")}
        return {
            **self.names,
            "settings": settings,
            **{name: value for name, value in decisive.items() if name not in self.names},
            "valid_data": valid_data,
        }

    def is_finished(self, processes: int = 1) -> bool:
        """Whether the results of this very training are there: of these settings and these data.

        Raises:
            UserError: the results may be, but its data cannot be read.
        """
        try:
            run = read_object(self.output / "run.json")  # written last
        except UserError:
            return False
        without_data = self.record([], None, processes)
        if any(run.get(name) != without_data[name] for name in (*self.names, "settings")):
            return False  # reading the data takes longer
        data, valid_data = (
            read_facts(self.dataset, paths, self.preparation) if paths else None
            for paths in (self.train_files, self.valid_file and [self.valid_file])
        )
        expected = self.record(data, valid_data, processes)
        return all(name in run and run[name] == value for name, value in expected.items())
