"""Sizes of networks: a run's own, and the paper's beside the published."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from mg.networks.counting import layers, longest_path, total
from mg.networks.registry import resolve_dataset, skeleton
from mg.networks.settings import PUBLISHED_WIDTHS
from mg.report import render
from mg.report.names import network_name, task_name
from mg.report.published import UNNAMED, difference_percent, published_results
from mg.report.render import COUNTS, Cell, Column, Table, Unit, write_csv
from mg.report.tables.summaries import read_metrics
from mg.text import aligned

NETWORKS: list[tuple[str, str, dict[str, Any]]] = [
    *(
        (network, dataset, options)
        for dataset in ("segmentation", "spatial_transform")
        for network, options in (
            ("unet", {}),
            ("umg", {}),
            *((name, {"n_layer": n}) for name in ("sg", "r_sg", "pmg", "r_pmg") for n in (1, 2)),
        )
    ),
    *(
        (network, "cifar100", {"n_layer": n})
        for network in ("vgg", "resnet", "mg", "r_mg", "pmg", "r_pmg")
        for n in (1, 2, 3, 4)
    ),
    *(
        (network, "cifar100", {"n_layer": n, "width": "released"})
        for network in ("mg", "r_mg")
        for n in (1, 2, 3, 4)
    ),
    *(("r_mg", "imagenet", {"depth": d}) for d in (18, 34)),
    *(("r_pmg_seg", "imagenet", {"depth": d, "shortcut": s}) for d in (30, 52) for s in "AB"),
]
"""Every network of the paper and its controls: (network, dataset, options)."""

NOTES = (
    "Multiply-adds: of convolutions, transposed convolutions and linear layers for one image, what "
    "the authors call FLOPs. Depth: convolutions and linear layers on the longest path.",
    "The authors' parameters for CIFAR belong to the widths built here, with a last block of "
    "{512, 384}; their FLOPs are those of a last block of {512, 256} (and of shortcuts without "
    "convolutions), counted in the column of that name.",
    "sg and r_sg were not released; they are pmg and r_pmg on the finest grid alone, of equal "
    "depth and as close as possible in parameters.",
)

COLUMNS = {
    "network": "network",
    "dataset": "data set",
    "options": "options",
    "name": "published as",
    "depth": "depth",
    "parameters": "parameters",
    "published_parameters_M": "published (M)",
    "parameters_difference_percent": "difference",
    "multiply_adds": "multiply-adds",
    "published_multiply_adds_M": "published (M)",
    "multiply_adds_difference_percent": "difference",
    "multiply_adds_512_256": "with {512, 256}",
    "multiply_adds_512_256_difference_percent": "difference",
    "published_results": "published results",
}
"""Keys of a row and the headings of its printed form."""


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


def paper_rows() -> list[dict[str, Any]]:
    """The paper's networks, and the published ones that are not built here, one row each.

    The keys are those of `COLUMNS`. Parameters and multiply-adds are exact counts of the built
    networks; differences are ours minus published, in percent of the published number; a value
    that does not exist is None. Only shapes are computed: it takes seconds.
    """
    ours = [
        _row(network, dataset, options, _published(network, dataset, options))
        for network, dataset, options in NETWORKS
    ]
    others = {e["name"]: e["dataset"] for e in published_results() if e["network"] is None}
    return ours + [
        _row(None, dataset, {}, [e for e in published_results() if e["name"] == name])
        for name, dataset in others.items()
    ]


def _published(network: str, dataset: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    same = (network, dataset, options)
    return [e for e in published_results() if (e["network"], e["dataset"], e["options"]) == same]


def _row(
    network: str | None, dataset: str, options: dict[str, Any], results: list[dict[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(network=network, dataset=dataset, options=options)
    if network is not None:
        spec = resolve_dataset(dataset)
        model = skeleton(network, dataset, **options)
        found = layers(model, (spec.channels, spec.size, spec.size))
        row["parameters"], row["multiply_adds"] = total(model, found)
        row["depth"] = longest_path(found)
    if not results:
        return row
    printed = results[0]
    row["name"] = printed["name"]
    row["published_results"] = {e["metric"]: e["value"] for e in results}
    for key in ("parameters", "multiply_adds"):
        row[f"published_{key}_M"] = printed[f"{key}_M"]
        row[f"{key}_difference_percent"] = difference_percent(row[key], printed[f"{key}_M"])
    if dataset == "cifar100":
        narrow = multiply_adds_512_256(network, options)
        row["multiply_adds_512_256"] = narrow
        row["multiply_adds_512_256_difference_percent"] = difference_percent(
            narrow, printed["multiply_adds_M"]
        )
    return row


def multiply_adds_512_256(network: str, options: dict[str, Any]) -> int:
    """What the authors' FLOPs count: a narrower last block, no convolution in its shortcut."""
    width = [*PUBLISHED_WIDTHS[:-1], [512, 256]]
    found = layers(skeleton(network, "cifar100", **options, width=width), (3, 32, 32))
    return sum(layer.multiply_adds for layer in found if ".shortcuts." not in layer.name)


# ------------------------------------------------------------------------ for people


def write_network_table(
    rows: Sequence[dict[str, Any]], *, prefix: str | os.PathLike, caption: str = ""
) -> None:
    """Write the sizes of networks to `prefix`.csv, .md, .tex and .html.

    Args:
        rows: those of `paper_rows` (the paper's networks at the paper's size, with the authors'
            numbers) and of `run_rows` (a run's own; they have a `label`).
        caption: small print at the end.
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
    if paper:
        tables[-1].notes.extend(NOTES)
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
            (
                Column("options", numeric=False),
                Cell(_options(row["options"]) or _usual(row["network"])),
            ),
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


def _usual(network: str) -> str:
    """What options are called that a network was not given."""
    return "the paper's" if network in {name for name, _, _ in NETWORKS} else "its defaults"


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


# ------------------------------------------------------------------------ for a terminal


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Rows of `paper_rows` as text for a terminal."""
    cells = [list(COLUMNS.values())]
    cells += [[_printed(key, row[key]) for key in COLUMNS] for row in rows]
    words = ("network", "dataset", "options", "name", [*COLUMNS][-1])
    right = [i for i, key in enumerate(COLUMNS) if key not in words]
    return "\n".join([*aligned(cells, right), "", *NOTES]) + "\n"


def _printed(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return _options(value)
    if key.endswith("_percent"):
        return f"{value:+.2f} %"
    if key.endswith("_M"):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else value
