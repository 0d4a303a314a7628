"""Measures of the networks on the tasks of pixels."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from mg.data.mnist import SHA256
from mg.data.tasks import TASKS
from mg.records import COSTS, MEASURES
from mg.report import render
from mg.report.names import controls_note, network_name, task_name, tasks_in_order
from mg.report.published import UNNAMED, published_results
from mg.report.render import COUNTS, TIMES, Cell, Column, Table, Unit, write_csv
from mg.report.tables.notes import differing_tests, recipe_note, undefined_notes
from mg.report.tables.summaries import (
    TITLES,
    Summary,
    architectures,
    best,
    describe,
    distinct,
    read_metrics,
    summarise,
)

PER_RUN = ("dataset", "network", "seed", *MEASURES, *COSTS)
MEASURE_NOTES = (
    "mean IU: intersection over union of predicted and true pixels per class over the whole test "
    "set, mean over classes. precision: mean over classes too; the authors call it mean Acc. image "
    "IU: intersection over union per image with all classes pooled, divided by the number of "
    "classes present (so a perfect segmentation scores far below 1; with one class 1 is perfect). "
    "cross-entropy: nats per pixel and channel. "
    "Arrows point to better.",
)


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
    columns = {
        "network": Column("network", numeric=False),
        **{measure: Column(TITLES[measure]) for measure in MEASURES},
        "params": Column("parameters", params.name),
        "macs": Column("multiply-adds", macs.name),
        "images": Column("images seen"),
        "time": Column("training", time.name),
        "seeds": Column("seeds"),
    }
    digits = dict.fromkeys(MEASURES, 3) | {"bce": 4}
    leaders = {measure: best(summaries, measure) for measure in MEASURES}
    rows = []
    for s in summaries:
        row = {"network": Cell(network_name(s.network))}
        if s.records:
            row |= {m: s.cell(m, digits[m], best=leaders[m] == s.network) for m in MEASURES}
            row["params"] = params.cell(s.same("params"))
            row["macs"] = macs.cell(s.same("macs"))
            row["images"] = render.number(s.same("train_images"), 0)
            row["time"] = time.cell(s.mean("train_seconds"), s.sd("train_seconds"))
        else:
            row[MEASURES[0]] = Cell("missing", kind="missing")
        wanted = f" of {len(s.records) + len(s.missing)}" if s.missing else ""
        row["seeds"] = Cell(f"{len(s.records)}{wanted}", len(s.records))
        rows.append(row)
    constant = _constant_answer(summaries)
    for name, numbers in ((PUBLISHED, published), (CONSTANT, constant)):
        if numbers:
            cells = {m: render.number(numbers[m], digits[m]) for m in MEASURES if m in numbers}
            rows.append({"network": Cell(name, kind="missing"), **cells})
    body = [[row.get(key, Cell("")) for key in columns] for row in rows]
    notes = _result_notes(summaries, constant, published)
    return Table(task_name(task), [*columns.values()], body, notes)


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
            f"{CONSTANT}: to every input the pixels that are set in most targets, as many of "
            "them as score best; what a network must beat to show that it has looked."
        )
    if note := controls_note(architectures(summaries)):
        notes.append(note)
    if published:
        notes.append(
            f"{PUBLISHED}: the authors' notebook, measured on this same test set; it does not say "
            "which of their networks it is of, nor of which width."
        )
    if tests := differing_tests(summaries):
        shown = "" if constant else " They have no constant answer in common: none is shown."
        notes.append(f"Test sets differ: {tests}.{shown}")
    if note := recipe_note(summaries):
        notes.append(note)
    missing = [f"{network_name(s.network)} seed {seed}" for s in summaries for seed in s.missing]
    if missing:
        notes.append(f"Missing: {', '.join(missing)}.")
    return notes
