"""The networks of the paper; `pyramid.py` holds the idea, `registry.py` the names."""

from mg.networks import registry
from mg.networks.registry import build, check_canvas, check_channels, resolve_dataset

__all__ = ["build", "check_canvas", "check_channels", "registry", "resolve_dataset"]
