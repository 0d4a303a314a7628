"""Records that steps leave for others, checked when read: run.json and configuration.yaml."""

import os
import zlib
from pathlib import Path
from typing import Any

import yaml

from mg.errors import UserError
from mg.files import CHECKSUM, read_object

# What is measured of pixels and of classes; `mg.metrics` says what each is. One that is new is also
# new in `mg.report.tables.summaries._OPTIONAL`: records of before lack it.
MEASURES = ("mean_iu", "mean_acc", "recall", "image_iu", "bce")
CLASS_MEASURES = ("top1_error", "top5_error", "cross_entropy")

# What is read of a run.json.
NUMBER = int | float | None
_TRAINING_SET = {
    "task": str,
    "split": str,
    "examples": int,
    "crc32": [int],
    "mode": str | None,
    "seed": int | None,
}
_RUN = {
    "network": str | None,
    "dataset": str,
    "label": str,
    "seed": int,
    "settings": dict,
    "data": [_TRAINING_SET],
    "history_crc32": int | None,
    "images": int,
    "seconds": int | float,
    "images_per_second": NUMBER,
    "peak_host_bytes": NUMBER,
    "peak_device_bytes": NUMBER,
    "attempts": int,
    "device": str,
    "commit": str | None,
    "started": str,
    "finished": str,
    "versions": dict,
}
_CONFIGURATION = {
    "run": str,
    **dict.fromkeys(("tasks", "networks", "seeds"), list),
    **dict.fromkeys(("mnist", "data", "architectures", "training", "saliency", "figures"), dict),
}


def wrong_entry(value: Any, kind: Any, name: str = "") -> str | None:
    """The name of the first entry of a record that is not of its kind, None if all are.

    What is absent counts as None.

    Args:
        kind: a type or union; a dict of the kinds of entries; a list of the one kind of all items.
        name: of `value` itself.
    """
    if isinstance(kind, dict):
        if value is not None and not isinstance(value, dict):
            return name
        value = value or {}
        inner = ((value.get(n), k, f"{name}.{n}".lstrip(".")) for n, k in kind.items())
    elif isinstance(kind, list):
        if not isinstance(value, list):
            return name
        inner = ((item, kind[0], f"{name}[{i}]") for i, item in enumerate(value))
    else:
        return None if isinstance(value, kind) else name
    return next((wrong for entry in inner if (wrong := wrong_entry(*entry))), None)


def read_run(path: str | os.PathLike) -> dict[str, Any]:
    """The run.json of a training.

    Raises:
        UserError: it is missing, damaged, or lacks what is read of it.
    """
    run = read_object(path)
    if wrong := wrong_entry(run, _RUN):
        raise UserError(
            f"{path} is not a run.json of `mg train`: no valid entry {wrong!r}; delete it and "
            "make it again"
        )
    return run


def read_configuration(path: str | os.PathLike) -> tuple[dict[str, Any], str]:
    """The configuration.yaml of a run, and its text without the checksum in the last line.

    Files of earlier versions have no such line.

    Raises:
        UserError: it is missing, damaged, or lacks what the workflow writes into it.
    """
    again = "delete it and start the workflow again"
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is no valid YAML ({reason}); {again}") from error
    body, last = _last_line(text)
    if last.startswith("#") or CHECKSUM in last:
        if last != f"# {CHECKSUM}: {zlib.crc32(body.encode()):08x}\n":
            raise UserError(f"{path} was altered: its checksum differs; {again}")
        text = body
    if wrong := wrong_entry(content if isinstance(content, dict) else {}, _CONFIGURATION):
        raise UserError(
            f"{path} is not the whole configuration of a run: no valid entry {wrong!r}; {again}"
        )
    return content, text


def _last_line(text: str) -> tuple[str, str]:
    """All before the last line, and that."""
    start = text.rstrip("\n").rfind("\n") + 1
    return text[:start], text[start:]
