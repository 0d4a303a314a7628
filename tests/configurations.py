"""The configuration.yaml of a run, as the workflow writes it."""

import zlib
from pathlib import Path

import yaml


def write_configuration(path: Path, **changes) -> None:
    content = {
        **{"run": "r", "tasks": ["translation"], "networks": ["pmg"], "seeds": [0]},
        **{"mnist": {"directory": "resources/mnist"}, "data": {"canvas": 16}},
        **{"architectures": {"pmg": {"network": "pmg", "options": {"width": [4, 4]}}}},
        **{"training": {"epochs": 2}, "saliency": {"window": 8}, "figures": {"examples": 4}},
    } | changes
    text = yaml.safe_dump(content, sort_keys=False)
    path.write_text(f"{text}# crc32: {zlib.crc32(text.encode()):08x}\n")
