"""What a training minimises and how its progress is measured, for each kind of answer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mg import networks
from mg.metrics import ClassMetrics, Metrics


@dataclass(frozen=True)
class Objective:
    """Loss and measures of one kind of task.

    Attributes:
        loss: (logits in float32, targets) -> mean over the examples, a scalar on their device.
        metrics: makes an accumulator with `update(logits, targets)` and `compute()`.
        measures: columns of the history and the names of the measures that they hold.
        shown: the column that progress shows, and what people call it.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: type[Metrics] | type[ClassMetrics]
    measures: dict[str, str]
    shown: tuple[str, str]

    @property
    def history(self) -> tuple[str, ...]:
        """The columns of history.csv."""
        return (
            *("epoch", "images", "train_loss"),
            *self.measures,
            *("learning_rate", "images_per_second", "seconds"),
        )


def _pixels(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets.float())


PIXELS = Objective(  # (B, C, H, W) logits; targets of that shape, 0 or 1
    _pixels,
    Metrics,
    {"valid_loss": "bce", "valid_mean_iu": "mean_iu", "valid_mean_acc": "mean_acc"},
    ("valid_mean_iu", "mean IU"),
)
CLASSES = Objective(  # (B, classes) logits; targets (B,) int64
    F.cross_entropy,
    ClassMetrics,
    {
        "valid_loss": "cross_entropy",
        "valid_top1_error": "top1_error",
        "valid_top5_error": "top5_error",
    },
    ("valid_top1_error", "top-1 error"),
)


def objective(dataset: str) -> Objective:
    """The objective of a task."""
    return PIXELS if networks.resolve_dataset(dataset).pixels else CLASSES
