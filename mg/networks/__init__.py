"""The networks of the paper; `pyramid.py` holds the idea, `registry.py` the names."""

from typing import Any

from mg.networks import registry
from mg.networks.registry import build, check_canvas, check_channels, resolve_dataset

__all__ = [
    "build",
    "check_canvas",
    "check_channels",
    "count",
    "depth",
    "registry",
    "resolve_dataset",
]


def __getattr__(name: str) -> Any:
    if name in ("count", "depth"):  # they load PyTorch, which checks do without
        from mg.networks import counting

        return getattr(counting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
