"""The networks of the paper; `pyramid.py` holds the idea, `registry.py` the names."""

from mg.networks.counting import Counts, count, depth
from mg.networks.registry import DatasetSpec, build, check_canvas, resolve_dataset

__all__ = [
    "Counts",
    "DatasetSpec",
    "build",
    "check_canvas",
    "count",
    "depth",
    "resolve_dataset",
]
