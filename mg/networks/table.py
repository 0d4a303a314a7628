"""The table of networks: size and cost of each, beside the numbers that the authors printed."""

from typing import Any

from mg.networks import settings
from mg.networks.counting import layers, longest_path, total
from mg.networks.published import published_results
from mg.networks.registry import resolve_dataset, skeleton
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


def rows() -> list[dict[str, Any]]:
    """One row per network of the paper, and one per published network that is not built here.

    The keys are those of `COLUMNS`. Parameters and multiply-adds are exact counts of the built
    networks; differences are ours minus published, in percent of the published number; a value
    that does not exist is None. Only shapes are computed: it takes seconds.
    """
    ours = [
        _row(network, dataset, options, _results(network, dataset, options))
        for network, dataset, options in NETWORKS
    ]
    others = {e["name"]: e["dataset"] for e in published_results() if e["network"] is None}
    return ours + [
        _row(None, dataset, {}, [e for e in published_results() if e["name"] == name])
        for name, dataset in others.items()
    ]


def _results(network: str, dataset: str, options: dict[str, Any]) -> list[dict[str, Any]]:
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
        row[f"{key}_difference_percent"] = _percent(row[key], printed[f"{key}_M"])
    if dataset == "cifar100":
        narrow = multiply_adds_512_256(network, options)
        row["multiply_adds_512_256"] = narrow
        row["multiply_adds_512_256_difference_percent"] = _percent(
            narrow, printed["multiply_adds_M"]
        )
    return row


def _percent(ours: int | None, printed: float | None) -> float | None:
    if ours is None or printed is None:
        return None
    return round(100 * (ours / 1e6 / printed - 1), 2) + 0.0  # no -0.0


def multiply_adds_512_256(network: str, options: dict[str, Any]) -> int:
    """What the authors' FLOPs count: a narrower last block, no convolution in its shortcut."""
    width = [*settings.PUBLISHED_WIDTHS[:-1], [512, 256]]
    found = layers(skeleton(network, "cifar100", **options, width=width), (3, 32, 32))
    return sum(layer.multiply_adds for layer in found if ".shortcuts." not in layer.name)


# ------------------------------------------------------------------------ printing


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Rows as text for a terminal."""
    cells = [list(COLUMNS.values())]
    cells += [[_printed(key, row[key]) for key in COLUMNS] for row in rows]
    words = ("network", "dataset", "options", "name", [*COLUMNS][-1])
    right = [i for i, key in enumerate(COLUMNS) if key not in words]
    return "\n".join([*aligned(cells, right), "", *NOTES]) + "\n"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _printed(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return _pairs(value)
    if key.endswith("_percent"):
        return f"{value:+.2f} %"
    if key.endswith("_M"):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else value
