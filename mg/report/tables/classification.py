"""The table of classifiers: errors, sizes and costs, ours beside what the authors printed."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from mg.errors import UserError
from mg.networks.registry import defaults
from mg.records import CLASS_MEASURES, COSTS
from mg.report import render
from mg.report.names import network_name, task_name, tasks_in_order
from mg.report.published import difference_percent, published_results
from mg.report.render import Cell, Column, Table, write_csv
from mg.report.tables.notes import differing_tests, recipe_note, undefined_notes
from mg.report.tables.summaries import (
    CLASS_TITLES,
    Summary,
    describe,
    read_metrics,
    summarise,
)

TEN_CROPS = ("top1_error_10crop", "top5_error_10crop")
ALL_MEASURES = (*CLASS_MEASURES, *TEN_CROPS)
# What the authors call the errors that they printed.
PUBLISHED = {
    "top1_error": ("top-1 error (%)", "top-1 error, one crop (%)"),
    "top1_error_10crop": ("top-1 error, 10 crops (%)",),
}
NOTES = {
    "measures": "top-1, top-5: share of test images whose class is not ranked first, or not among "
    "the first five. cross-entropy: nats per image.",
    "differences": "Differences are ours less published: points of the error, percent of sizes and "
    "costs.",
    "errors": "Published errors stand beside those on the whole test set only.",
    "costs": "multiply-adds: of convolutions and linear layers for one image. The authors' for "
    "CIFAR-100 are those of a last block of {512, 256}, their parameters those of {512, 384}; both "
    "counts are shown.",
}


def write_classification_table(
    metrics_paths: Iterable[str | os.PathLike],
    *,
    prefix: str | os.PathLike,
    run: str | None = None,
    caption: str = "",
    expected: Iterable[tuple[str, int]] = (),
    tasks: Sequence[str] | None = None,
    digits: bool = False,
) -> None:
    """Write the results of classifiers.

    `prefix`.csv has one row per data set, network and seed, `prefix`_aggregated.csv one per data
    set and network; `prefix`.md, .tex and .html show the latter to people.

    Args:
        metrics_paths: metrics.json files of classifiers.
        run: name of the configuration.
        caption: goes before the sentence that says what was run.
        expected: (label, seed) pairs that should be there for every task; those without a
            metrics.json appear as missing.
        tasks: the tasks to include; records of others are left out. Those of the records if unset.
        digits: CIFAR's images are MNIST's digits in its format.

    Raises:
        UserError: a file is missing or is no metrics.json of a classifier.
    """
    records = read_metrics(metrics_paths, CLASS_MEASURES)
    tasks = tasks or tasks_in_order(r["dataset"] for r in records)
    records = [r for r in records if r["dataset"] in tasks]
    wanted = [(task, label, seed) for task in tasks for label, seed in expected]
    summaries = summarise(records, wanted)
    some = [name for name in ALL_MEASURES if any(r.get(name) is not None for r in records)]
    measures = [name for name in ALL_MEASURES if name in CLASS_MEASURES or name in some]
    header = ("dataset", "network", "seed", *measures, *COSTS)
    rows = [[r.get(key) for key in header] for r in records]
    rows += [[s.dataset, s.network, seed] for s in summaries for seed in s.missing]
    rows = [row + [None] * (len(header) - len(row)) for row in rows]
    write_csv(f"{prefix}.csv", header, sorted(rows, key=lambda row: row[:3]))
    compared = {id(s): compare(s, digits) for s in summaries}
    for task in {s.dataset for s in summaries if compared[id(s)].get("errors")}:
        for name, printed in others(task).items():  # what the authors compare theirs with
            summaries.append(Summary(task, name, [], []))
            compared[id(summaries[-1])] = printed
    write_csv(
        f"{prefix}_aggregated.csv",
        _AGGREGATED,
        (_aggregated(s, compared[id(s)]) for s in summaries),
    )
    tables = [
        _table(
            task_name(task, digits), [(s, compared[id(s)]) for s in summaries if s.dataset == task]
        )
        for task in tasks
        if any(s.dataset == task for s in summaries)
    ]
    text = " ".join(part for part in (caption, describe(records, run)) if part)
    render.write(prefix, tables, "Classification", text)


TEST_IMAGES = {"cifar100": 10_000, "imagenet": 50_000}  # of the published errors


def compare(summary: Summary, digits: bool = False) -> dict[str, Any]:
    """What the authors printed of a network, and the count that their multiply-adds belong to.

    Args:
        digits: it was measured on MNIST's digits.

    Returns:
        name, parameters_M, multiply_adds_M, errors (percent, by our measures' names; empty unless
        all seeds were measured on the test images of theirs) and multiply_adds_512_256; empty if
        they printed nothing of it.
    """
    if not summary.records:
        return {}
    record = summary.records[0]
    network, dataset = record["architecture"], record["dataset"]

    try:
        usual = defaults(network, dataset)
    except UserError:  # not a network of this version
        return {}

    def essential(options: dict[str, Any]) -> dict[str, Any]:
        unlike = {k: v for k, v in options.items() if v is not None and v != usual.get(k)}
        unlike.pop("initialisation", None)
        return unlike

    own = essential(record["settings"]["network"])
    printed = [
        entry
        for entry in published_results()
        if (entry["network"], entry["dataset"]) == (network, dataset)
        and essential(entry["options"]) == own
    ]
    if not printed:
        return {}
    found = _printed(printed)
    if digits or not all(_on_whole_test_set(record) for record in summary.records):
        found["errors"] = {}
    if dataset == "cifar100":
        from mg.report.tables.networks import multiply_adds_512_256  # needs PyTorch

        found["multiply_adds_512_256"] = multiply_adds_512_256(network, own)
    return found


def _on_whole_test_set(record: dict[str, Any]) -> bool:
    test = record["settings"].get("test") or {}
    whole = record.get("test_images") == TEST_IMAGES.get(record["dataset"])
    return whole and test.get("split") == "test"


def _printed(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the authors printed of one network, out of its entries."""
    results = {entry["metric"]: entry["value"] for entry in entries}
    errors = {
        measure: next((results[name] for name in names if name in results), None)
        for measure, names in PUBLISHED.items()
    }
    keys = ("name", "parameters_M", "multiply_adds_M")
    return {**{key: entries[0][key] for key in keys}, "errors": errors}


def others(dataset: str) -> dict[str, dict[str, Any]]:
    """What the authors printed of networks that are not built here, by name, as `compare` does."""
    entries = [
        entry
        for entry in published_results()
        if entry["dataset"] == dataset and entry["network"] is None
    ]
    names = dict.fromkeys(entry["name"] for entry in entries)
    return {name: _printed([e for e in entries if e["name"] == name]) for name in names}


_AGGREGATED = (
    *("dataset", "network", "published_as", "seeds"),
    *(f"{name}_{what}" for name in ALL_MEASURES for what in ("mean", "sd", "seeds")),
    *("published_top1_error_percent", "top1_error_difference_points"),
    *("published_top1_error_10crop_percent", "top1_error_10crop_difference_points"),
    *("params", "published_params_M", "params_difference_percent"),
    *("macs", "macs_512_256", "published_macs_M", "macs_difference_percent"),
    *("train_images", "train_seconds_mean"),
)


def _aggregated(summary: Summary, published: dict[str, Any]) -> list[Any]:
    errors = published.get("errors", {})
    row: list[Any] = [summary.dataset, summary.network, published.get("name"), len(summary.records)]
    for name in ALL_MEASURES:
        row += [summary.mean(name), summary.sd(name), len(summary.values(name))]
    for name in PUBLISHED:
        row += [errors.get(name), _points(summary.mean(name), errors.get(name))]
    params, macs = summary.same("params"), summary.same("macs")
    narrow = published.get("multiply_adds_512_256")
    printed = (published.get("parameters_M"), published.get("multiply_adds_M"))
    row += [params, printed[0], difference_percent(params, printed[0])]
    row += [macs, narrow, printed[1], difference_percent(narrow or macs, printed[1])]
    return row + [summary.same("train_images"), summary.mean("train_seconds")]


def _table(title: str, entries: list[tuple[Summary, dict[str, Any]]]) -> Table:
    """For people: columns that nothing is known of are left out."""
    largest = max((s.same("macs") or 0 for s, _ in entries), default=0)
    scale, large = (1e9, "billion") if largest >= 1e10 else (1e6, "million")
    ten = any(s.mean("top1_error_10crop") is not None for s, _ in entries)
    compared = any(published for _, published in entries)
    partial = any(published.get("errors") == {} for _, published in entries)
    narrow = any("multiply_adds_512_256" in published for _, published in entries)
    measures = [("top1_error", CLASS_TITLES["top1_error"])]
    measures += [("top1_error_10crop", "top-1, ten crops ↓")] if ten else []

    rows = []
    for s, published in entries:
        name = network_name(s.network)
        if published.get("name") and published["name"] != name:
            name += f" ({published['name']})"
        row = [(Column("network", numeric=False), Cell(name))]
        for measure, heading in measures:
            row.append((Column(heading, "%"), s.cell(measure, 2, 0.01)))
            if compared:
                printed = published.get("errors", {}).get(measure)
                points = _points(s.mean(measure), printed)
                row.append((Column("published", "%"), render.number(printed, 2)))
                row.append((Column("difference", "points"), render.signed(points)))
        row.append((Column(CLASS_TITLES["top5_error"], "%"), s.cell("top5_error", 2, 0.01)))
        row.append((Column(CLASS_TITLES["cross_entropy"], "nats"), s.cell("cross_entropy")))
        for count, heading, key, divisor, unit in (
            ("params", "parameters", "parameters_M", 1e6, "million"),
            ("macs", "multiply-adds", "multiply_adds_M", scale, large),
        ):
            own, printed = s.same(count), published.get(key)
            digits = 3 if (own or 0) < 1e7 else 2
            row.append((Column(heading, unit), render.number(own, digits, divisor)))
            if count == "macs" and narrow:
                own = published.get("multiply_adds_512_256")
                row.append((Column("with {512, 256}", unit), render.number(own, 2, scale)))
            if compared:
                known = None if printed is None else printed * 1e6
                row.append((Column("published", unit), render.number(known, 2, divisor)))
                percent = difference_percent(own, printed)
                row.append((Column("difference", "%"), render.signed(percent)))
        images = render.number(s.same("train_images"), 1, 1e3)
        row.append((Column("images seen", "thousand"), images))
        row.append((Column("training", "s"), render.number(s.mean("train_seconds"), 0)))
        missing = f", {len(s.missing)} missing" if s.missing else ""
        seeds = Cell(f"{len(s.records)}{missing}", kind="missing" if s.missing else "")
        if not s.records and not s.missing:
            seeds = Cell("published only")
        row.append((Column("seeds"), seeds))
        rows.append(row)
    notes = undefined_notes([(s, measure) for s, _ in entries for measure in CLASS_MEASURES])
    summaries = [s for s, _ in entries]
    if tests := differing_tests(summaries):
        notes.append(f"Test sets differ: {tests}.")
    if note := recipe_note(summaries):
        notes.append(note)
    said = {"measures": True, "differences": compared, "errors": partial, "costs": narrow}
    return Table.of(title, rows, [NOTES[name] for name, needed in said.items() if needed] + notes)


def _points(error: float | None, printed: float | None) -> float | None:
    return None if error is None or printed is None else 100 * error - printed
