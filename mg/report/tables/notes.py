"""What is said below several tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from mg.errors import UserError
from mg.networks.registry import resolve_network
from mg.report import render
from mg.report.names import network_name
from mg.report.tables.summaries import Summary
from mg.training.recipe import schedule_of


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
