"""The networks of the paper; `pyramid.py` holds the idea, `registry.py` the names."""

from mg.networks.registry import (
    Counts,
    DatasetSpec,
    build,
    check_canvas,
    count,
    depth,
    resolve_dataset,
)

__all__ = [
    "Counts",
    "DatasetSpec",
    "build",
    "check_canvas",
    "count",
    "depth",
    "resolve_dataset",
]
