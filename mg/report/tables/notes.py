"""What is said below several tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from mg.errors import UserError
from mg.networks.registry import resolve_network
from mg.report import render
from mg.report.names import network_name
from mg.report.tables.summaries import Summary
from mg.training.recipe import schedule_of

CHECKSUMS = ("crc32", "sha256")  # how entries end that say nothing but which images they were


def recipe_note(summaries: Sequence[Summary]) -> str:
    """A sentence on the settings of training that differ between the networks of one task, if any.

    The schedule `paper`, which is another for residual networks than for plain ones, counts as
    what it is for each.
    """
    recipes = [
        [
            _with_own_schedule(recipe, record.get("architecture") or s.network, s.dataset)
            for record, recipe in zip(s.records, s.recipes(), strict=True)
        ]
        for s in summaries
    ]
    differing = _differing(summaries, recipes)
    return f"Settings of training differ: {_listed(differing)}." if differing else ""


def differing_tests(summaries: Sequence[Summary]) -> str:
    """In what the test sets of the networks of one task differ; nothing if they do not."""
    differing = _differing(summaries, [s.tests() for s in summaries])
    checksums = [differing.pop(name) for name in [*differing] if name.endswith(CHECKSUMS)]
    if checksums and not differing:
        return f"different images for {' and for '.join(map(', '.join, checksums[0].values()))}"
    return _listed(differing)


def _differing(
    summaries: Sequence[Summary], settings: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, dict[str, dict[str, None]]]:
    """The settings that differ, with each value and the networks that have it, in their order.

    A setting is not compared with a record that lacks it.

    Args:
        settings: of each summary, those of its runs.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for s, runs in zip(summaries, settings, strict=True):
        alike = all(run == runs[0] for run in runs)
        for record, run in zip(s.records, runs, strict=True):
            name = network_name(s.network) + ("" if alike else f" seed {record['seed']}")
            for setting, value in run.items():
                found.setdefault(setting, {}).setdefault(str(value), {})[name] = None
    return {setting: values for setting, values in found.items() if len(values) > 1}


def _listed(differing: dict[str, dict[str, dict[str, None]]]) -> str:
    return "; ".join(
        f"{setting.replace('_', ' ')} "
        + ", ".join(f"{value} ({', '.join(names)})" for value, names in values.items())
        for setting, values in differing.items()
    )


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
