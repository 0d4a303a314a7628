"""Sizes of networks: a run's own, and the paper's beside the published."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from mg.networks.published import UNNAMED
from mg.report import render
from mg.report.names import network_name, task_name
from mg.report.render import COUNTS, Cell, Column, Table, Unit, write_csv
from mg.report.tables.summaries import read_metrics


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
    body = [
        [
            (Column("network", numeric=False), Cell(network_name(row["label"]))),
            (Column("task", numeric=False), Cell(task_name(row["dataset"]))),
            (Column("options", numeric=False), Cell(_options(row["options"]) or "the paper's")),
            (Column("canvas", "pixels"), render.number(row["canvas"], 0)),
            (Column("depth", "layers"), render.number(row["depth"], 0)),
            (Column("parameters", params.name), params.cell(row["parameters"])),
            (
                Column("multiply-adds", f"{macs.name} per image".strip()),
                macs.cell(row["multiply_adds"]),
            ),
        ]
        for row in rows
    ]
    return Table.of("Networks of this run", body)


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
    with_names, with_results = some("name"), some("published_results")
    body = []
    for row in rows:
        network = network_name(row["network"]) if row["network"] else _unbuilt(row["name"])
        cells = [
            (Column("network", numeric=False), Cell(network)),
            (Column("options", numeric=False), Cell(_options(row["options"] or {}))),
        ]
        if with_names:
            cells.append((Column("published as", numeric=False), Cell(row["name"] or "")))
        cells.append((Column("depth"), render.number(row["depth"], 0)))
        for key, (title, unit, scale, digits) in shown.items():
            cell = render.signed if unit == "%" else partial(render.number, scale=scale)
            cells.append((Column(title, unit), cell(row.get(key), digits)))
        if with_results:
            results = row["published_results"] or {}
            text = "; ".join(f"{name}: {value}" for name, value in results.items())
            cells.append((Column("published results", numeric=False), Cell(text)))
        body.append(cells)
    return Table.of(f"The paper's networks: {task_name(dataset)}", body)
