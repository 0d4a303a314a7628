"""The records of evaluated networks, read, checked and summarised over seeds."""

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mg.errors import UserError
from mg.networks.registry import check_options
from mg.records import MEASURES, EachOnce, read_measured
from mg.report import render
from mg.report.names import in_order, tasks_in_order
from mg.report.render import Cell

TITLES = {
    "mean_iu": "mean IU ↑",
    "mean_acc": "precision ↑",
    "recall": "recall ↑",
    "image_iu": "image IU ↑",
    "bce": "cross-entropy ↓",
}
CLASS_TITLES = {
    "top1_error": "top-1 error ↓",
    "top5_error": "top-5 error ↓",
    "cross_entropy": "cross-entropy ↓",
}
MEASURED = {  # what images are called that are of another split than the test
    "train": ("training image", " measured"),
    "valid": ("validation image", " measured"),
}

# ------------------------------------------------------------------------------ reading


def read_metrics(
    paths: Iterable[str | os.PathLike], measures: Sequence[str] = MEASURES
) -> list[dict[str, Any]]:
    """The records of metrics.json files that hold `measures`, by task, network and seed.

    Without `measures` each may be of pixels or of classes.

    Raises:
        UserError: a file is missing, not a metrics.json or one of the other kind, or two are of the
            same run, or seeds of one label of different networks.
    """
    records: list[dict[str, Any]] = []
    once = EachOnce()
    known: dict[tuple, tuple] = {}  # task, label and an option: its value, of which seed and file
    for path in paths:
        record = read_measured(path, measures)
        task, label, seed = record["dataset"], record["network"], record["seed"]
        once(path, task, label, seed)
        records.append(record)
        for name, value in _network(record).items():
            first, other, where = known.setdefault((task, label, name), (value, seed, path))
            if value != first:  # no mean over seeds, and no size, would be that of either
                raise UserError(
                    f"{label} on {task}: seed {other} and seed {seed} are of different networks "
                    f"({name} {first} and {value}): {where} and {path}; train the older again, or "
                    "leave the files of one out"
                )
    return in_report_order(records, "network")


def _network(record: dict[str, Any]) -> dict[str, Any]:
    """The network and what its options come to, as far as a record says."""
    network, options = record.get("architecture"), record["settings"].get("network")
    if options is None:
        return {}
    with suppress(UserError):  # not a network, or an option, of this version
        found = check_options(network or record["network"], record["dataset"], **options)
        whole = {"classes": found.classes, "initialisation": found.initialisation}
        options = found.settings.arguments | whole
    return ({"network": network} if network else {}) | options


def in_report_order(records: Sequence[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """Records sorted by task, network (their entry `label`) and seed, as every table has them."""
    tasks = tasks_in_order(r["dataset"] for r in records)
    networks = in_order(r[label] for r in records)
    return sorted(
        records,
        key=lambda r: (tasks.index(r["dataset"]), networks.index(r[label]), r["seed"]),
    )


# ------------------------------------------------------------------------------ over seeds


@dataclass(frozen=True)
class Summary:
    """The runs of one network on one task, over seeds.

    Attributes:
        records: the runs there are. missing: expected seeds without one.
    """

    dataset: str
    network: str
    records: list[dict[str, Any]]
    missing: list[int]

    def values(self, key: str) -> list[float]:
        """The defined values of a measure, one per run that has it."""
        return [r[key] for r in self.records if r.get(key) is not None]

    def lacks(self, key: str) -> bool:
        """Whether the records are from before this was measured."""
        return bool(self.records) and all(key not in r for r in self.records)

    def mean(self, key: str) -> float | None:
        """Mean over the runs in which it is defined."""
        values = self.values(key)
        return statistics.fmean(values) if values else None

    def sd(self, key: str) -> float | None:
        """Sample standard deviation over runs; None for fewer than two."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 else None

    def part(self, key: str) -> str:
        """“2 of 3” where a measure is defined for some of the runs only, else nothing."""
        defined = len(self.values(key))
        return f"{defined} of {len(self.records)}" if 0 < defined < len(self.records) else ""

    def cell(self, key: str, digits: int = 3, scale: float = 1, best: bool = False) -> Cell:
        """mean ± sd, and over how many of the runs where that is not all of them."""
        cell = render.spread(self.mean(key), self.sd(key), digits, scale, best)
        part = self.part(key)
        return replace(cell, text=f"{cell.text} ({part})") if part else cell

    def recipes(self) -> list[dict[str, Any]]:
        """The settings of each run's training; none where its record has none."""
        return [(r["settings"].get("training") or {}).get("recipe") or {} for r in self.records]

    def networks(self) -> list[dict[str, Any]]:
        """The network of each run, and what its options come to."""
        return [_network(record) for record in self.records]

    def tests(self) -> list[dict[str, Any]]:
        """What the test set of each run says of itself."""
        return [r["settings"].get("test") or {} for r in self.records]

    def same(self, key: str) -> Any:
        """What all runs agree on, else None."""
        values = [r[key] for r in self.records]
        return values[0] if values and all(v == values[0] for v in values) else None


def summarise(
    records: Sequence[dict[str, Any]], expected: Iterable[tuple[str, str, int]] = ()
) -> list[Summary]:
    """One summary per task and network, those with nothing but missing runs included."""
    seeds: dict[tuple[str, str], set[int]] = {}
    for task, network, seed in expected:
        seeds.setdefault((task, network), set()).add(seed)
    found: dict[tuple[str, str], list[dict]] = {}
    for record in records:
        found.setdefault((record["dataset"], record["network"]), []).append(record)
    keys = {*seeds, *found}
    summaries = []
    for task in tasks_in_order(task for task, _ in keys):
        for network in in_order(network for t, network in keys if t == task):
            runs = found.get((task, network), [])
            missing = seeds.get((task, network), set()) - {run["seed"] for run in runs}
            summaries.append(Summary(task, network, runs, sorted(missing)))
    return summaries


def best(summaries: Sequence[Summary], measure: str) -> str | None:
    """The network that leads in a measure by more than the spread over seeds, if one does.

    The lead over the second must exceed sqrt(sd1² + sd2²), the standard deviation of the difference
    of two runs; both need at least two seeds. Which way is better, the arrow of the measure's title
    says. None leads where the first has the measure for some of its seeds only.
    """
    sign = -1 if (TITLES | CLASS_TITLES)[measure].endswith("↓") else 1
    defined = [s for s in summaries if s.mean(measure) is not None]
    if len(defined) < 2:
        return None
    first, second = sorted(defined, key=lambda s: -sign * s.mean(measure))[:2]
    deviations = (first.sd(measure), second.sd(measure))
    if None in deviations or first.part(measure):
        return None
    lead = sign * (first.mean(measure) - second.mean(measure))
    return first.network if lead > math.hypot(*deviations) else None


def describe(records: Sequence[dict[str, Any]], run: str | None = None) -> str:
    """One sentence on what was run, on what, from which commit and when."""
    if not records:
        return f"Run {run}: nothing was evaluated." if run else "Nothing was evaluated."
    settings = [r["settings"] for r in records]
    tests = [s.get("test") or {} for s in settings]
    recipes = [(s.get("training") or {}).get("recipe") or {} for s in settings]
    measured: dict[tuple, list[int | None]] = {}
    for record, test in zip(records, tests, strict=True):
        images = MEASURED.get(test.get("split"), ("test image",))
        measured.setdefault(images, []).append(record.get("test_images"))
    seeds = distinct(r["seed"] for r in records)
    canvas = value_range([t.get("canvas") for t in tests])
    parts = [
        f"canvas {canvas}×{canvas}" if canvas else "",
        *(_counted(numbers, *images) for images, numbers in measured.items()),
        _counted([r["train_images"] for r in records], "training image", " seen"),
        _counted([r.get("epochs") for r in recipes], "epoch"),
        f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}",
        f"trained on {' and '.join(distinct(r['device'] for r in records) or ['?'])}",
        f"commit {commits(records) or 'unknown'}",
        max((r.get("date") or "" for r in records), default="")[:10],
    ]
    start = f"Run {run}: " if run else ""
    return f"{start}{'; '.join(part for part in parts if part)}."


def commits(records: Iterable[dict[str, Any]]) -> str:
    """Those that records name; that of a training which went on with other code names several."""
    return ", ".join(distinct(c for r in records for c in (r.get("commit") or "").split(", ") if c))


def distinct(values: Iterable[Any]) -> list[Any]:
    """The different values, sorted; None left out."""
    return sorted({v for v in values if v is not None})


def value_range(values: Iterable[int | None]) -> str:
    found = distinct(values)
    if not found:
        return ""
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"


def _counted(values: Iterable[int | None], thing: str, more: str = "") -> str:
    text = value_range(values)
    return f"{text} {thing}{'' if text == '1' else 's'}{more}" if text else ""


def architectures(summaries: Sequence[Summary]) -> dict[str, str | None]:
    """The network that each label stands for; None where no record says."""
    known = {r["network"]: r.get("architecture") for s in summaries for r in s.records}
    return {s.network: known.get(s.network) for s in summaries}
