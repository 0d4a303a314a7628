"""The course of a training for TensorBoard, which is imported only when it is asked for."""

from pathlib import Path
from typing import Any

from mg.errors import UserError

NOT_SHOWN = ("epoch", "images", "seconds")


class Board:
    """Writes a row of the history per epoch, over the number of images seen.

    Args:
        folder: of this training's event files.
        history: rows of an interrupted training; what was written after them is dropped.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"TensorBoard is not installed ({error}); pip install tensorboard, or leave "
                "--tensorboard away"
            ) from error
        after = history[-1]["images"] + 1 if history else 0
        self._writer = SummaryWriter(str(folder), purge_step=after)

    def add(self, row: dict[str, Any]) -> None:
        """Show one epoch, at once."""
        for name, value in row.items():
            if value is not None and name not in NOT_SHOWN:
                self._writer.add_scalar(name, value, row["images"])
        self._writer.flush()
