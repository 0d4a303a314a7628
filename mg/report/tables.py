"""Tables of results, networks and claims, from metrics.json files."""

import csv
import io
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from mg.data.mnist import SHA256
from mg.errors import UserError
from mg.files import read_json, write_text
from mg.networks.published import UNNAMED, published_results
from mg.networks.registry import resolve_network
from mg.records import CLASS_MEASURES, MEASURES, NUMBER, wrong_entry
from mg.report import render
from mg.report.names import controls_note, in_order, network_name, task_name, tasks_in_order
from mg.report.render import Cell, Column, Table
from mg.training.recipe import schedule_of

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
PER_RUN = (
    "dataset",
    "network",
    "seed",
    *MEASURES,
    "params",
    "macs",
    "train_images",
    "train_seconds",
    "device",
)
COUNTS = {1: "", 1e3: "thousand", 1e6: "million", 1e9: "billion"}
TIMES = {1: "s", 60: "min", 3600: "h"}
MEASURE_NOTES = (
    "mean IU: intersection over union of predicted and true pixels per class over the whole test "
    "set, mean over classes. precision: mean over classes too; the authors call it mean Acc. image "
    "IU: over union per image with all classes pooled, divided by the number of classes present (a "
    "perfect segmentation scores far below 1). cross-entropy: nats per pixel and channel. "
    "Arrows point to better.",
)

# ------------------------------------------------------------------------------ reading


def read_metrics(
    paths: Iterable[str | os.PathLike], measures: Sequence[str] = MEASURES
) -> list[dict[str, Any]]:
    """The records of metrics.json files that hold `measures`, by task, network and seed.

    Without `measures` each may be of pixels or of classes.

    Raises:
        UserError: a file is missing, not a metrics.json or one of the other kind, or two are of the
            same run.
    """
    records: dict[tuple, dict[str, Any]] = {}
    for path in paths:
        record = read_json(path)
        wrong = _wrong_entry(record, measures)
        if wrong and not _wrong_entry(record, ()):
            pixels, classes = "measures of pixels", "the errors of a classifier"
            held, wanted = (classes, pixels) if "top1_error" in record else (pixels, classes)
            raise UserError(f"{path} holds {held}; here only {wanted} go, leave it out")
        if wrong:
            raise UserError(
                f"{path} is not a metrics.json of `mg evaluate`: no valid entry {wrong!r}"
            )
        key = (record["dataset"], record["network"], record["seed"])
        if key in records:
            raise UserError(f"{path} is the second file for {' '.join(map(str, key))}; give one")
        records[key] = record
    return in_report_order(list(records.values()), "network")


def in_report_order(records: Sequence[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """Records sorted by task, network (their entry `label`) and seed, as every table has them."""
    tasks = tasks_in_order(r["dataset"] for r in records)
    networks = in_order(r[label] for r in records)
    return sorted(
        records,
        key=lambda r: (tasks.index(r["dataset"]), networks.index(r[label]), r["seed"]),
    )


def _wrong_entry(record: Any, measures: Sequence[str]) -> str | None:
    """The first entry of a metrics.json that is absent or of another type than it should be."""
    if not isinstance(record, dict):
        return "dataset"
    measures = measures or (CLASS_MEASURES if "top1_error" in record else MEASURES)
    costs = PER_RUN[PER_RUN.index("params") :]
    kinds = dict.fromkeys((*measures, *costs), NUMBER) | _ENTRIES
    kinds |= _ENTRIES_OF_PIXELS if measures == MEASURES else _ENTRIES_OF_CLASSES
    for name, kind in kinds.items():
        absent = name not in record and name not in _OPTIONAL
        if absent or (isinstance(kind, dict) and record[name] is None):
            return name
    return wrong_entry(record, kinds)


# What joined records after the first of them were written; a measure without it shows as a dash.
_OPTIONAL = {"test_images", "commit", "date", "depth", "architecture"}
_ENTRIES = {
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
            "canvas": int | None,
            "digit_size": int | None,
            "mode": str | None,
        },
    },
}
_ENTRIES_OF_CLASSES = {"architecture": str, "settings": _ENTRIES["settings"] | {"network": dict}}
_ENTRIES_OF_PIXELS = {
    "per_class_iu": [NUMBER],
    "constant_answer": dict.fromkeys(MEASURES, NUMBER),
}


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
    seeds = distinct(r["seed"] for r in records)
    canvas = value_range([t.get("canvas") for t in tests])
    parts = [
        f"canvas {canvas}×{canvas}" if canvas else "",
        _with_unit(value_range([r.get("test_images") for r in records]), "test images"),
        _with_unit(value_range([r["train_images"] for r in records]), "training images seen"),
        _with_unit(value_range([r.get("epochs") for r in recipes]), "epochs"),
        f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}",
        f"trained on {' and '.join(distinct(r['device'] for r in records) or ['?'])}",
        f"commit {', '.join(distinct(r.get('commit') for r in records) or ['unknown'])}",
        max((r.get("date") or "" for r in records), default="")[:10],
    ]
    start = f"Run {run}: " if run else ""
    return f"{start}{'; '.join(part for part in parts if part)}."


def distinct(values: Iterable[Any]) -> list[Any]:
    """The different values, sorted; None left out."""
    return sorted({v for v in values if v is not None})


def value_range(values: Iterable[int | None]) -> str:
    found = distinct(values)
    if not found:
        return ""
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if text else ""


def write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    write_text(path, text.getvalue())


# ------------------------------------------------------------------------------ results


def write_results_table(
    tasks: str | Sequence[str],
    metrics_paths: Iterable[str | os.PathLike],
    *,
    prefix: str | os.PathLike,
    run: str | None = None,
    caption: str = "",
    expected: Iterable[tuple[str, int]] = (),
) -> None:
    """Write the results of one task, or of several together.

    `prefix`.csv has one row per task, network and seed; `prefix`_aggregated.csv one per task and
    network, with mean, standard deviation and number of the seeds in which a measure is defined,
    and one of what the authors printed of this test set; `prefix`.md, .tex and .html show the
    latter to people. An undefined value is an empty field, or a dash for people.

    Args:
        tasks: the tasks to include; records of others are left out. A task without any record or
            expected run gets no table.
        metrics_paths: metrics.json files with measures of pixels.
        run: name of the configuration.
        caption: goes before the sentence that says what was run.
        expected: (label, seed) pairs that should be there for every task. Those without a
            metrics.json appear as missing: an empty row in the CSV.

    Raises:
        UserError: a file is missing or is no metrics.json with measures of pixels.
    """
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    records = [r for r in read_metrics(metrics_paths) if r["dataset"] in tasks]
    wanted = [(task, label, seed) for task in tasks for label, seed in expected]
    summaries = summarise(records, wanted)

    rows = [
        [record.get(key) for key in PER_RUN]
        if record
        else [s.dataset, s.network, seed, *[None] * len(PER_RUN[3:])]
        for s in summaries
        for seed, record in sorted(
            [(r["seed"], r) for r in s.records] + [(seed, None) for seed in s.missing],
            key=lambda pair: pair[0],
        )
    ]
    write_csv(f"{prefix}.csv", PER_RUN, rows)
    published = {task: _published(task, records) for task in tasks}
    _write_aggregated(f"{prefix}_aggregated.csv", summaries, published)

    shown = tasks_in_order(s.dataset for s in summaries)
    tables = [
        _results(task, [s for s in summaries if s.dataset == task], published[task])
        for task in shown
    ]
    title = "Results: " + ", ".join(task_name(task).lower() for task in shown)
    render.write(prefix, tables, title, f"{caption} {describe(records, run)}".strip())


AUTHORS_TEST = {  # what the test set of the published numbers says of itself
    "task": "segmentation",
    "split": "test",
    "count": 1000,
    "mode": "paper",
    "seed": 1,
    "canvas": 64,
    "digit_size": 28,
    "digits": [5, 0.5],
    "scale": [0.5, 1.25],
    "threshold": 0.3,
    "images_sha256": SHA256["t10k-images-idx3-ubyte"],
    "labels_sha256": SHA256["t10k-labels-idx1-ubyte"],
}


PUBLISHED, CONSTANT = "(published, network not named)", "(constant answer)"  # rows


def is_authors_test(test: dict[str, Any]) -> bool:
    """Whether a test set, by what it says of itself, is the authors' own of its task."""
    if test.get("mode") != "paper":
        return False
    from mg.data.clutter import TASKS  # which loads the compiler

    task = TASKS.get(test.get("task"))
    theirs = task and AUTHORS_TEST | {
        "task": test["task"],
        "count": task.counts[2],
        "digits": list(task.digits or (1, 0)),
        "scale": list(task.scale),
    }
    return theirs == {name: test.get(name) for name in AUTHORS_TEST}


def _published(task: str, records: Sequence[dict]) -> dict[str, float]:
    """What the authors printed of a network of theirs, if `records` are of their own test set."""
    tests = [r["settings"].get("test") or {} for r in records if r["dataset"] == task]
    if not tests or not all(map(is_authors_test, tests)):
        return {}
    names = {"mean IU": "mean_iu", "mean Acc": "mean_acc"}
    return {
        names[entry["metric"]]: entry["value"]
        for entry in published_results()
        if (entry["dataset"], entry["name"]) == (task, UNNAMED)
    }


def _write_aggregated(path: str, summaries: Sequence[Summary], published: dict[str, dict]) -> None:
    measures = [*MEASURES, "train_seconds"]
    header = [
        "dataset",
        "network",
        "seeds",
        "seeds_missing",
        *(f"{measure}_{part}" for measure in measures for part in ("mean", "sd", "seeds")),
        "params",
        "macs",
        "train_images",
        "device",
    ]
    rows = []
    for s in summaries:
        row = [s.dataset, s.network, len(s.records), len(s.missing)]
        for measure in measures:
            row += [s.mean(measure), s.sd(measure), len(s.values(measure))]
        row += [s.same("params"), s.same("macs"), s.same("train_images")]
        row.append(" and ".join(distinct(r["device"] for r in s.records)))
        rows.append(row)
    for task, numbers in published.items():
        if numbers:
            row = {"dataset": task, "network": PUBLISHED}
            row |= {f"{measure}_mean": value for measure, value in numbers.items()}
            rows.append([row.get(key) for key in header])
    write_csv(path, header, rows)


def _results(task: str, summaries: Sequence[Summary], published: dict[str, float]) -> Table:
    params = Unit.of([s.same("params") for s in summaries], COUNTS)
    macs = Unit.of([s.same("macs") for s in summaries], COUNTS)
    time = Unit.of([s.mean("train_seconds") for s in summaries], TIMES)
    columns = [
        Column("network", numeric=False),
        *(Column(TITLES[measure]) for measure in MEASURES),
        Column("parameters", params.name),
        Column("multiply-adds", macs.name),
        Column("images seen"),
        Column("training", time.name),
        Column("seeds"),
    ]
    leaders = {measure: best(summaries, measure) for measure in MEASURES}
    rows = []
    for s in summaries:
        name = Cell(network_name(s.network))
        wanted = len(s.records) + len(s.missing)
        seeds = Cell(f"{len(s.records)}{f' of {wanted}' if s.missing else ''}", len(s.records))
        if not s.records:
            blank = [Cell("")] * (len(columns) - 3)
            rows.append([name, Cell("missing", kind="missing"), *blank, seeds])
            continue
        row = [name]
        for measure in MEASURES:
            digits = 4 if measure == "bce" else 3
            mark = leaders[measure] == s.network
            row.append(s.cell(measure, digits, best=mark))
        row.append(params.cell(s.same("params")))
        row.append(macs.cell(s.same("macs")))
        row.append(render.number(s.same("train_images"), 0))
        row.append(time.cell(s.mean("train_seconds"), s.sd("train_seconds")))
        row.append(seeds)
        rows.append(row)
    constant = _constant_answer(summaries)
    for name, numbers in ((PUBLISHED, published), (CONSTANT, constant)):
        if numbers:
            cells = [
                render.number(numbers[measure], 4 if measure == "bce" else 3)
                if measure in numbers
                else Cell("")
                for measure in MEASURES
            ]
            rest = [Cell("")] * (len(columns) - 1 - len(MEASURES))
            rows.append([Cell(name, kind="missing"), *cells, *rest])
    return Table(task_name(task), columns, rows, _result_notes(summaries, constant, published))


def _constant_answer(summaries: Sequence[Summary]) -> dict[str, float | None] | None:
    answers = [r["constant_answer"] for s in summaries for r in s.records]
    return answers[0] if answers and all(a == answers[0] for a in answers) else None


def _result_notes(summaries: Sequence[Summary], constant: Any, published: dict) -> list[str]:
    notes = list(MEASURE_NOTES)
    numbers = {len(s.records) for s in summaries if s.records}
    if numbers and max(numbers) == 1:
        notes.append("One seed per network: the spread is not known and no best is marked.")
    elif numbers:
        notes.append(
            "mean ± sample standard deviation over seeds. Bold: better than the second by more "
            "than √(sd₁² + sd₂²) of the two; where nothing is bold, no network leads by that much."
        )
    shown = [(s, measure) for s in summaries for measure in MEASURES]
    notes += undefined_notes(shown, [constant.get(m) for m in MEASURES] if constant else [])
    if constant:
        notes.append(
            f"{CONSTANT}: to every input the pixels that most targets have, as many as score "
            "best; what a network must beat to show that it has looked."
        )
    if note := controls_note(architectures(summaries)):
        notes.append(note)
    if published:
        notes.append(
            f"{PUBLISHED}: the authors' notebook, measured on this same test set; it does not say "
            "which of their networks it is of, nor of which width."
        )
    if note := recipe_note(summaries):
        notes.append(note)
    missing = [f"{network_name(s.network)} seed {seed}" for s in summaries for seed in s.missing]
    if missing:
        notes.append(f"Missing: {', '.join(missing)}.")
    return notes


def architectures(summaries: Sequence[Summary]) -> dict[str, str | None]:
    """The network that each label stands for; None where no record says."""
    known = {r["network"]: r.get("architecture") for s in summaries for r in s.records}
    return {s.network: known.get(s.network) for s in summaries}


def recipe_note(summaries: Sequence[Summary]) -> str:
    """A sentence on the settings of training that differ between the networks of one task, if any.

    A setting is not compared with a record that lacks it. The schedule `paper`, which is another
    for residual networks than for plain ones, counts as what it is for each.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}  # setting, value, networks in their order
    for s in summaries:
        recipes = [
            _with_own_schedule(recipe, record.get("architecture") or s.network, s.dataset)
            for record, recipe in zip(s.records, s.recipes(), strict=True)
        ]
        alike = all(recipe == recipes[0] for recipe in recipes)
        for record, recipe in zip(s.records, recipes, strict=True):
            name = network_name(s.network) + ("" if alike else f" seed {record['seed']}")
            for setting, value in recipe.items():
                found.setdefault(setting, {}).setdefault(str(value), {})[name] = None
    differing = [
        f"{setting.replace('_', ' ')} "
        + ", ".join(f"{value} ({', '.join(names)})" for value, names in values.items())
        for setting, values in found.items()
        if len(values) > 1
    ]
    return f"Settings of training differ: {'; '.join(differing)}." if differing else ""


def _with_own_schedule(recipe: dict[str, Any], network: str, task: str) -> dict[str, Any]:
    """A recipe with what its schedule is for a network, if both are known here."""
    try:
        residual = resolve_network(network, task).residual
        return recipe | {"schedule": schedule_of(recipe["schedule"], residual)}
    except (UserError, KeyError):
        return recipe


def undefined_notes(
    shown: Sequence[tuple[Summary, str]], others: Iterable[float | None] = ()
) -> list[str]:
    """What a dash and “2 of 3” mean, if a table has them.

    Args:
        shown: the table's summaries, each with a measure. others: numbers that are of no network.
    """
    means = [summary.mean(measure) for summary, measure in shown if summary.records]
    parts = [part for summary, measure in shown if (part := summary.part(measure))]
    notes = []
    if None in (*means, *others):
        lacking = any(summary.lacks(measure) for summary, measure in shown)
        notes.append(
            f"{render.UNDEFINED}: not defined, since nothing is predicted or an output is not "
            f"finite{', or not measured yet when the network was evaluated' if lacking else ''}."
        )
    if parts:
        notes.append(
            f"({parts[0]}): mean over the seeds for which the measure is defined; never bold, even "
            "where it is ahead."
        )
    return notes


class Unit(NamedTuple):
    """The unit of a column: numbers are divided by `divisor` and shown with `digits` decimals."""

    divisor: float
    name: str
    digits: int

    @classmethod
    def of(cls, values: Iterable[float | None], units: dict[float, str]) -> "Unit":
        """One unit for a column: the largest of `units` that leaves the median above 1."""
        found = [v for v in values if v]
        median = statistics.median(found) if found else 0
        divisor = max((d for d in units if median >= d), default=1)
        digits = 0 if divisor == 1 else 1 if median >= 10 * divisor else 2
        return cls(divisor, units[divisor], digits)

    def cell(self, mean: float | None, sd: float | None = None) -> Cell:
        return render.spread(mean, sd, self.digits, self.divisor)


# ------------------------------------------------------------------------------ networks


def run_rows(metrics_paths: Iterable[str | os.PathLike]) -> list[dict[str, Any]]:
    """The networks of a run for `write_network_table`, one per task and label."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in read_metrics(metrics_paths, ()):
        settings = record["settings"]
        rows.setdefault(
            (record["dataset"], record["network"]),
            {
                "label": record["network"],
                "network": record.get("architecture", record["network"]),
                "dataset": record["dataset"],
                "options": settings.get("network") or {},
                "canvas": (settings.get("test") or {}).get("canvas"),
                "depth": record.get("depth"),
                "parameters": record["params"],
                "multiply_adds": record["macs"],
            },
        )
    return list(rows.values())


def write_network_table(
    rows: Sequence[dict[str, Any]],
    *,
    prefix: str | os.PathLike,
    caption: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write the sizes of networks to `prefix`.csv, .md, .tex and .html.

    Args:
        rows: those of `mg.networks.table.rows()` (the paper's networks at the paper's size, with
            the authors' numbers) and of `run_rows` (a run's own; they have a `label`).
        caption: small print at the end. notes: explanations below the last table.
    """
    own = [row for row in rows if "label" in row]
    paper = [row for row in rows if "label" not in row]
    header = ["label", "canvas", *dict.fromkeys(key for row in rows for key in row)]
    header = list(dict.fromkeys(header))
    write_csv(f"{prefix}.csv", header, ([_plain(row.get(key)) for key in header] for row in rows))
    tables = []
    if own:
        tables.append(_own_networks(own))
    for dataset in dict.fromkeys(row["dataset"] for row in paper):
        tables.append(_paper_networks(dataset, [r for r in paper if r["dataset"] == dataset]))
    if tables:
        tables[-1].notes.extend(notes)
    render.write(prefix, tables, "Networks", caption)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _options(value)
    return value


def _options(options: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {'{' + ','.join(map(str, v)) + '}' if isinstance(v, list) else v}"
        for key, v in options.items()
    )


def _own_networks(rows: list[dict[str, Any]]) -> Table:
    params = Unit.of([row["parameters"] for row in rows], COUNTS)
    macs = Unit.of([row["multiply_adds"] for row in rows], COUNTS)
    return Table(
        "Networks of this run",
        [
            Column("network", numeric=False),
            Column("task", numeric=False),
            Column("options", numeric=False),
            Column("canvas", "pixels"),
            Column("depth", "layers"),
            Column("parameters", params.name),
            Column("multiply-adds", f"{macs.name} per image".strip()),
        ],
        [
            [
                Cell(network_name(row["label"])),
                Cell(task_name(row["dataset"])),
                Cell(_options(row["options"]) or "the paper's"),
                render.number(row["canvas"], 0),
                render.number(row["depth"], 0),
                params.cell(row["parameters"]),
                macs.cell(row["multiply_adds"]),
            ]
            for row in rows
        ],
    )


def _unbuilt(name: str) -> str:
    return "(not named)" if name == UNNAMED else "(not built here)"


def _paper_networks(dataset: str, rows: list[dict[str, Any]]) -> Table:
    def some(key: str) -> bool:
        return any(row.get(key) is not None for row in rows)

    numbers = {  # title, unit, divisor, decimals
        "parameters": ("parameters", "million", 1e6, 3),
        "published_parameters_M": ("published parameters", "million", 1, 2),
        "parameters_difference_percent": ("difference", "%", 1, 2),
        "multiply_adds": ("multiply-adds", "million", 1e6, 1),
        "multiply_adds_512_256": ("multiply-adds with {512, 256}", "million", 1e6, 2),
        "published_multiply_adds_M": ("published multiply-adds", "million", 1, 2),
        "multiply_adds_difference_percent": ("difference", "%", 1, 2),
        "multiply_adds_512_256_difference_percent": ("difference with {512, 256}", "%", 1, 2),
    }
    shown = {key: value for key, value in numbers.items() if some(key)}
    columns = [Column("network", numeric=False), Column("options", numeric=False), Column("depth")]
    columns += [Column(title, unit) for title, unit, _, _ in shown.values()]
    with_names, with_results = some("name"), some("published_results")
    if with_names:
        columns.insert(2, Column("published as", numeric=False))
    if with_results:
        columns.append(Column("published results", numeric=False))
    body = []
    for row in rows:
        cells = [
            Cell(network_name(row["network"]) if row["network"] else _unbuilt(row["name"])),
            Cell(_options(row["options"] or {})),
        ]
        if with_names:
            cells.append(Cell(row["name"] or ""))
        cells.append(render.number(row["depth"], 0))
        for key, (_, unit, scale, digits) in shown.items():
            cell = render.signed if unit == "%" else partial(render.number, scale=scale)
            cells.append(cell(row.get(key), digits))
        if with_results:
            results = row["published_results"] or {}
            cells.append(Cell("; ".join(f"{name}: {value}" for name, value in results.items())))
        body.append(cells)
    return Table(f"The paper's networks: {task_name(dataset)}", columns, body)
