"""The command `mg describe`: a network's layers as a table, and its drawing."""

import os
from math import prod
from typing import Any

from torch import nn

from mg.networks.counting import Layer, examine, total
from mg.report.render import write_csv
from mg.text import aligned


def describe(
    network: str,
    dataset: str,
    options: dict[str, Any],
    path_prefix: str | os.PathLike | None,
    size: int | None = None,
) -> None:
    """Print the table of layers; with `path_prefix`, also draw the network.

    Writes `path_prefix`.csv (the layers) and `path_prefix`.png and .svg (the drawing).

    Args:
        size: side of the image in pixels; the data set's own if None.

    Raises:
        UserError: an unknown network, data set or option, or one that cannot work on images of that
            size; files that cannot be written.
    """
    rows = layer_table(network, dataset, options, size)
    print(format_layers(rows), end="")
    if path_prefix is None:
        return
    from mg.report.figures.network import draw_network  # heavy, and the table does without

    write_csv(f"{path_prefix}.csv", [*rows[0]], (row.values() for row in rows))
    draw_network(network, dataset, options, path_prefix, size)


def layer_table(
    network: str, dataset: str, options: dict[str, Any], size: int | None = None
) -> list[dict[str, Any]]:
    """One row per layer in order of execution, for images of `size`, or as the data set has them.

    Keys: name, type, in, out (channels), kernel, stride, size (height x width of the output),
    depth (position on the longest path), parameters (those of its batch norm, `bn` beside it,
    included), multiply_adds (for one image), live (False for layers that cannot influence the
    output). Parameters of other modules are in a last row, where there are any.

    Raises:
        UserError: an unknown network, data set or option.
    """
    model, found, _ = examine(network, dataset, options, size)
    rows = [
        {
            "name": layer.name,
            "type": layer.kind,
            "in": layer.channels[0],
            "out": layer.channels[1],
            "kernel": getattr(layer.module, "kernel_size", (1,))[0],
            "stride": getattr(layer.module, "stride", (1,))[0],
            "size": f"{layer.side}x{layer.side}",
            "depth": layer.depth,
            "parameters": _parameters(model, layer),
            "multiply_adds": layer.multiply_adds,
            "live": layer.live,
        }
        for layer in found
    ]
    if others := total(model, found).parameters - sum(row["parameters"] for row in rows):
        empty = dict.fromkeys(rows[0], "")
        counts = {"parameters": others, "multiply_adds": 0, "live": True}
        rows.append(empty | {"name": "others", "type": "norms and the like"} | counts)
    return rows


def format_layers(rows: list[dict[str, Any]]) -> str:
    """The table of layers as text, with a line of totals."""
    sums = {key: sum(row[key] for row in rows) for key in ("parameters", "multiply_adds")}
    sums["depth"] = max(row["depth"] or 0 for row in rows if row["live"])
    heads = "layer type in out k stride size depth parameters multiply-adds".split()
    cells = [[*heads, ""]]
    for row in [*rows, {"name": "total", **sums}]:
        values = [row.get(key, "") for key in rows[0] if key != "live"]
        text = [f"{value:,}" if isinstance(value, int) else value for value in values]
        cells.append([*text, "" if row.get("live", True) else "cannot influence the output"])
    lines = aligned(cells, range(2, len(heads)))
    lines.insert(-1, lines[1])
    return "\n".join(lines) + "\n"


def _parameters(model: nn.Module, layer: Layer) -> int:
    """Of the layer and of the batch norm beside it."""
    siblings = model.get_submodule(layer.name.rpartition(".")[0])
    modules = [layer.module]
    if isinstance(getattr(siblings, "bn", None), nn.BatchNorm2d):
        modules.append(siblings.bn)
    return sum(prod(p.shape) for module in modules for p in module.parameters())
