"""Records that steps leave for others, checked when read: run.json, metrics.json and
configuration.yaml.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mg.errors import UserError, first_line
from mg.files import CHECKSUM, read_json, read_object

# What is measured of pixels and of classes; `mg.metrics` says what each is. One that is new is also
# new in `_OPTIONAL`: records of before lack it.
MEASURES = ("mean_iu", "mean_acc", "recall", "image_iu", "bce")
CLASS_MEASURES = ("top1_error", "top5_error", "cross_entropy")
COSTS = ("params", "macs", "train_images", "train_seconds", "device")

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
# What is read of a metrics.json.
# What joined them after the first were written; a measure that is absent shows as a dash.
_OPTIONAL = {"test_images", "commit", "date", "depth", "architecture"}
_MEASURED = {
    "dataset": str,
    "network": str,
    "seed": int,
    "device": str | None,
    "test_images": int | None,
    "commit": str | None,
    "date": str | None,
    "depth": int | None,
    "architecture": str | None,
    "settings": {
        "network": dict | None,
        "training": {
            "recipe": {
                "optimizer": str | None,
                "schedule": str | None,
                "learning_rate": NUMBER,
                "epochs": int | None,
            }
        },
        "test": {
            "task": str | None,
            "split": str | None,
            "canvas": int | None,
            "digit_size": int | None,
            "mode": str | None,
        },
    },
}
_OF_CLASSES = {"architecture": str, "settings": _MEASURED["settings"] | {"network": dict}}
_OF_PIXELS = {
    "per_class_iu": [NUMBER],
    "constant_answer": dict.fromkeys(MEASURES, NUMBER),
}
_CONFIGURATION = {
    "run": str,
    **dict.fromkeys(("tasks", "networks", "seeds"), list),
    **dict.fromkeys(("mnist", "data", "architectures", "training", "saliency", "figures"), dict),
}


class EachOnce:
    """Refuses a second file of the same run, of which one would be counted twice or lost."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def __call__(self, path: str | os.PathLike, task: str, label: str, seed: int) -> None:
        """Note the file at `path`.

        Raises:
            UserError: another one of that run was noted.
        """
        if (task, label, seed) in self._seen:
            raise UserError(
                f"{path} is the second file for {task} {label} {seed}; give one (the same network "
                "by two recipes: `mg compare`, or a label of its own for each)"
            )
        self._seen.add((task, label, seed))


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


def read_measured(path: str | os.PathLike, measures: Sequence[str] = ()) -> dict[str, Any]:
    """The metrics.json of an evaluation that holds `measures`; without them, of pixels or classes.

    Raises:
        UserError: it is missing, damaged, of the other kind, or lacks what is read of it.
    """
    record = read_json(path)
    wrong = _wrong_measured(record, measures)
    if wrong and not _wrong_measured(record, ()):
        pixels, classes = "measures of pixels", "the errors of a classifier"
        held, wanted = (classes, pixels) if "top1_error" in record else (pixels, classes)
        raise UserError(f"{path} holds {held}; here only {wanted} go, leave it out")
    if wrong:
        raise UserError(f"{path} is not a metrics.json of `mg evaluate`: no valid entry {wrong!r}")
    return record


def _wrong_measured(record: Any, measures: Sequence[str]) -> str | None:
    """The first entry of a metrics.json that is absent or of another type than it should be."""
    if not isinstance(record, dict):
        return "dataset"
    measures = measures or (CLASS_MEASURES if "top1_error" in record else MEASURES)
    kinds = dict.fromkeys((*measures, *COSTS), NUMBER) | _MEASURED
    kinds |= _OF_PIXELS if measures == MEASURES else _OF_CLASSES
    for name, kind in kinds.items():
        absent = name not in record and name not in _OPTIONAL
        if absent or (isinstance(kind, dict) and record[name] is None):
            return name
    return wrong_entry(record, kinds)


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
        raise UserError(f"{path} is no valid YAML ({first_line(error)}); {again}") from error
    body, last = _last_line(text)
    if last.startswith("#") or CHECKSUM in last:
        if last != f"# {CHECKSUM}: {zlib.crc32(body.encode()):08x}\n":
            raise UserError(f"{path} was altered: its checksum differs; {again}")
        text = body
    if wrong := wrong_entry(content if isinstance(content, dict) else {}, _CONFIGURATION):
        raise UserError(
            f"{path} is not the whole configuration of a run: no valid entry {wrong!r}; name that "
            f"in results/<run>/, or, if this is it, {again}"
        )
    return content, text


def _last_line(text: str) -> tuple[str, str]:
    """All before the last line, and that."""
    start = text.rstrip("\n").rfind("\n") + 1
    return text[:start], text[start:]
