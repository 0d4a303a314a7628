"""Checkpoints: the two newest states of a training, refused when they belong to another one."""

import os
from pathlib import Path
from typing import Any

import torch

from mg.errors import UserError
from mg.files import atomic_path

FORMAT = "mg-checkpoint-2"


def read_torch(path: Path) -> Any:
    """Read a file of `torch.save` without executing anything that it holds.

    Raises:
        UserError: missing, damaged, or holding more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except Exception as error:  # damaged bytes make the reader stumble in every way there is
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} is damaged or no file of mg ({reason[0]}); delete it and make it again"
        ) from error


class Checkpoints:
    """The newest two states of one training, in a folder of its own.

    Args:
        directory: where they lie; made when the first one is saved.
        settings: what the training is (plain values). A checkpoint of other settings is refused.
    """

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self.newest = directory / "checkpoint.pt"
        self.previous = directory / "checkpoint-previous.pt"
        self.settings = settings

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`; the last checkpoint becomes the one to fall back to."""
        with atomic_path(self.newest) as temporary:
            torch.save({"format": FORMAT, "settings": self.settings, **state}, temporary)
            if self.newest.exists():
                os.replace(self.newest, self.previous)

    def load(self, log) -> dict[str, Any] | None:
        """The newest readable state, or None if there is none.

        Raises:
            UserError: it belongs to a training with other settings.
        """
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = read_torch(path)
                if not isinstance(state, dict) or state.get("format") != FORMAT:
                    raise UserError(f"{path} is not a checkpoint of mg")
            except UserError as error:
                log(f"ignored: {error}")
                continue
            if state["settings"] != self.settings:
                raise UserError(
                    f"{path} belongs to another training ("
                    + "; ".join(differences(state["settings"], self.settings))
                    + f"); delete {path.parent} to start anew"
                )
            return state
        return None


def differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    """Each setting that is not the same, as `name: there → here`."""
    found = []
    for name in sorted({*there, *here}):
        a, b = there.get(name), here.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name}: {a} there, {b} here")
    return found
