"""torchvision's transforms, importable beside any build of torch.

Installed beside a processor-only torch, the common torchvision package cannot load its compiled
part, and its import then fails for lack of two operators of object detection. Nothing here uses
them: where they are missing they are declared, without an implementation, before the import.
"""

import importlib.util
from pathlib import Path

import torch

_DETECTION = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"


def _declare_missing_operators() -> list[torch.library.Library]:
    package = importlib.util.find_spec("torchvision")
    try:
        for compiled in Path(package.origin).parent.glob("_C.*"):
            torch.ops.load_library(str(compiled))
            return []
    except (OSError, ImportError):
        pass
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _DETECTION)
    return [library]  # what it declares is gone when it is


_declared = _declare_missing_operators()

from torchvision.transforms import v2 as transforms  # noqa: E402

__all__ = ["transforms"]
