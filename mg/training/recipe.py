"""How a network is trained: optimiser, learning rate, batches. One recipe serves every network.

PyTorch is loaded where an optimiser is built, not before: reports do without.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mg.errors import UserError

if TYPE_CHECKING:
    import torch

# Residual networks keep a rate for long and then drop it (paper, section 4; fb.resnet.torch).
STEP_EPOCHS = (0.3, 0.6, 0.8)
STEP_FACTOR = 0.2


def schedule_of(schedule: str, residual: bool) -> str:
    """The schedule that `paper` is for a plain or a residual network; any other as it is."""
    return ("steps" if residual else "exponential") if schedule == "paper" else schedule


@dataclass(frozen=True)
class Recipe:
    """Everything about a training that is not the network, the data or the seed.

    Attributes:
        optimizer: `sgd` (momentum 0.9, not Nesterov; its momentum is forgotten at every epoch, as
            in the authors' code), `adamw`, or `muon` (`mg/training/muon.py`), which came
            further than AdamW with few images (docs/performance.md, "Time to quality").
        schedule: `exponential`: from 1 to 1/1000 of the rate, epoch by epoch. `steps`: a fifth
            from each of the epochs that end at 30, 60 and 80 % of them. `paper`: the first for
            plain networks, the second for residual ones (benchmarks/paper_recipe.py has what
            either brings). `every_30`: a tenth after every 30 epochs, the paper's for ImageNet.
            `one_cycle`: up over the first fifth of the iterations, then down along a cosine to
            zero.
        learning_rate: the highest rate of the schedule; 0.1 in the paper.
        weight_decay: applied to every parameter that is trained (biases before a batch norm are
            not: nothing depends on them); 5e-4 in the paper.
        epochs: number of epochs; 200 in the paper.
        iterations: optimiser steps per epoch (150 segmentation, 800 spatial tasks in the paper).
        batch: examples per optimiser step; 64 in the paper.
        accumulate: parts that a batch is computed in; each part has its own batch statistics.
            Processes that train together share the parts, at least one each.
        precision: `float32`; `bfloat16` for activations with float32 weights (autocast); or `auto`:
            bfloat16 where the device has instructions for it.
        output_prior: start with every pixel's probability at the frequency of its class in the
            training targets, not at one half, by the shift of the last batch norm. A short training
            otherwise spends its first half learning that most pixels are empty.
        sync_batch_norm: batch statistics over all processes that train together (torchrun); by
            default each has its own, as each GPU had in the paper (docs/classification.md).
    """

    optimizer: str = "sgd"
    schedule: str = "paper"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    epochs: int = 200
    iterations: int = 150
    batch: int = 64
    accumulate: int = 1
    precision: str = "float32"
    output_prior: bool = False
    sync_batch_norm: bool = False

    CHOICES = {
        "optimizer": ("sgd", "adamw", "muon"),
        "schedule": ("paper", "exponential", "steps", "every_30", "one_cycle"),
        "precision": ("float32", "bfloat16", "auto"),
    }

    def __post_init__(self) -> None:
        for name, allowed in self.CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(allowed)}")
        for name in ("epochs", "iterations", "batch", "accumulate"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name, bound in (("learning_rate", "above 0"), ("weight_decay", "of 0 or more")):
            value = getattr(self, name)
            finite = isinstance(value, int | float) and math.isfinite(value)
            if not finite or value < 0 or (value == 0 and bound == "above 0"):
                raise UserError(f"{name} is {value!r}; it must be a number {bound}")
        if self.batch % self.accumulate:
            raise UserError(
                f"batch {self.batch} cannot be computed in {self.accumulate} equal parts; "
                "choose an accumulate that divides it"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.epochs * self.iterations

    @property
    def images(self) -> int:
        """Training examples seen in the whole training, repetitions counted."""
        return self.steps * self.batch

    def rate(self, step: int, residual: bool) -> float:
        """Learning rate of optimiser step `step` (from 0)."""
        schedule = schedule_of(self.schedule, residual)
        if schedule == "one_cycle":
            warm_up = max(1, round(0.2 * self.steps))
            if step < warm_up:
                return self.learning_rate * (step + 1) / warm_up
            done = (step - warm_up) / max(1, self.steps - warm_up)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        epoch = step // self.iterations
        if schedule == "every_30":
            return self.learning_rate * 0.1 ** (epoch // 30)
        if schedule == "steps":
            after = (round(part * self.epochs) for part in STEP_EPOCHS)
            # Not before the first epoch, however few there are.
            drops = sum(1 < dropped <= epoch + 1 for dropped in after)
            return self.learning_rate * STEP_FACTOR**drops
        if schedule == "exponential":
            return self.learning_rate * 10 ** (-3 * epoch / max(1, self.epochs - 1))
        raise ValueError(f"no rate of the schedule {schedule!r}")

    def build_optimizer(self, model: "torch.nn.Module") -> "torch.optim.Optimizer":
        """The optimiser over every parameter of `model` that is trained."""
        import torch

        from mg.training.muon import Muon

        parameters = [p for p in model.parameters() if p.requires_grad]
        common = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, fused=True, **common)
        if self.optimizer == "muon":
            return Muon(parameters, **common)
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=0.9, fused=True, **common)
        raise ValueError(f"no optimiser is built for {self.optimizer!r}")

    @property
    def forgets_momentum(self) -> bool:
        """Whether the optimiser's state is dropped at the start of every epoch."""
        return self.optimizer == "sgd"

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for checkpoints and run.json."""
        return asdict(self)
