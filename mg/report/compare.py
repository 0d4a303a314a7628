"""Two runs of the workflow side by side: which numbers differ by more than seeds explain."""

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mg.errors import UserError
from mg.records import CLASS_MEASURES, MEASURES, read_configuration
from mg.report.names import in_order, network_name, task_name, tasks_in_order
from mg.report.render import UNDEFINED, spread
from mg.report.tables.summaries import Summary, read_metrics, summarise
from mg.text import aligned

LEVEL = 0.01
"""A difference counts when seeds alone make one so large this rarely, if they spread normally."""

# Student's t for that level, both sides, by degrees of freedom from 1 on.
_STUDENT = (63.66, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169)

# What may differ between runs that are the same experiment.
_NAMES = ("run", "description", "seeds", "mnist.directory")


@dataclass(frozen=True)
class Line:
    """A measure of a network on a task, in both runs.

    Attributes:
        difference: mean of ours minus mean of theirs, None where one is undefined or missing.
        allowed: what the difference must exceed to count, None where no spread is known.
        verdict: `differs`, `same`, `unknown` (they are not equal, and no spread is known),
            `missing: ours`, `missing: theirs`, `undefined`, or `undefined in part` (for another
            share of seeds than in the other run; the means, of the rest, do not differ).
    """

    task: str
    network: str
    measure: str
    ours: Summary | None
    theirs: Summary | None
    difference: float | None
    allowed: float | None
    verdict: str


def run_folder(path: Path, name: str) -> Path:
    """The folder of the run to compare with: `path` itself, or the run `name`, or the only one.

    Raises:
        UserError: there is no run, or several and none of that name.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the folder of a run, such as results/demo")
    if (path / "models").is_dir():
        return path
    runs = sorted(models.parent for models in path.glob("*/models"))
    named = [run for run in runs if run.name == name]
    if len(named or runs) == 1:
        return (named or runs)[0]
    if runs:
        raise UserError(f"{path} holds several runs; name one: {', '.join(map(str, runs))}")
    raise UserError(f"{path} holds no results: there is no models/ in it")


def summaries(run: Path) -> dict[tuple[str, str], Summary]:
    """By task and network, the results of a run over its seeds.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    paths = sorted((run / "models").glob("*/*/seed*/metrics.json"))
    if not paths:
        raise UserError(f"{run / 'models'} holds no metrics.json; evaluate a model first")
    return {(s.dataset, s.network): s for s in summarise(read_metrics(paths, ()))}


def compare(ours: dict, theirs: dict) -> list[Line]:
    """A line per task, network and measure that either run has, in the order of the tables.

    A difference of means counts by Student's t-test at `LEVEL`: both runs are taken to spread over
    seeds alike, and the fewer seeds there are, the less is known of how.
    """
    keys = {*ours, *theirs}
    ordered = [
        (task, network)
        for task in tasks_in_order(task for task, _ in keys)
        for network in in_order(network for t, network in keys if t == task)
    ]
    return [
        _line(*key, measure, ours.get(key), theirs.get(key))
        for key in ordered
        for measure in _measures([s for s in (ours.get(key), theirs.get(key)) if s is not None])
    ]


def _measures(summaries: list[Summary]) -> Sequence[str]:
    """What the records hold: measures of pixels or of classes."""
    classes = any("top1_error" in record for s in summaries for record in s.records)
    return CLASS_MEASURES if classes else MEASURES


def _line(
    task: str, network: str, measure: str, ours: Summary | None, theirs: Summary | None
) -> Line:
    pair = (("ours", ours), ("theirs", theirs))
    absent = [name for name, s in pair if s is None or s.lacks(measure)]
    if absent:
        return Line(task, network, measure, ours, theirs, None, None, f"missing: {absent[0]}")
    a, b = ours.mean(measure), theirs.mean(measure)
    if a is None or b is None:
        verdict = "undefined" if a is b else "differs"  # a number here and none there
        return Line(task, network, measure, ours, theirs, None, None, verdict)
    allowed = _allowed(ours.values(measure), theirs.values(measure))
    if a == b or (allowed is not None and abs(a - b) <= allowed):
        verdict = "same"
    else:
        verdict = "unknown" if allowed is None else "differs"
    if verdict == "same" and _share(ours, measure) != _share(theirs, measure):
        verdict = "undefined in part"
    return Line(task, network, measure, ours, theirs, a - b, allowed, verdict)


def _share(summary: Summary, measure: str) -> Fraction:
    """Of the seeds, for which a measure is defined."""
    return Fraction(len(summary.values(measure)), len(summary.records))


def _allowed(ours: list[float], theirs: list[float]) -> float | None:
    """How far the means of two runs may lie apart; None for one value each."""
    freedom = len(ours) + len(theirs) - 2
    if freedom == 0:
        return None
    squares = sum(statistics.variance(run) * (len(run) - 1) for run in (ours, theirs) if run[1:])
    return _student(freedom) * (squares / freedom * (1 / len(ours) + 1 / len(theirs))) ** 0.5


def _student(freedom: int) -> float:
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = statistics.NormalDist().inv_cdf(1 - LEVEL / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


# ------------------------------------------------------------------------ settings


def settings(run: Path) -> dict[str, Any] | None:
    """The settings in a run's configuration.yaml, flat (`data.canvas`); None without that file.

    Raises:
        UserError: the file is damaged.
    """
    path = run / "configuration.yaml"
    if not path.exists():
        return None
    content, _ = read_configuration(path)
    return {name: value for name, value in _flat(content).items() if name not in _NAMES}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def _recipe(summary: Summary) -> dict[str, str]:
    """The settings of a network's trainings, of all seeds together."""
    recipes = summary.recipes()
    return {
        name: " and ".join(sorted({str(recipe[name]) for recipe in recipes if name in recipe}))
        for name in dict.fromkeys(name for recipe in recipes for name in recipe)
    }


def _recipes(ours: dict, theirs: dict) -> list[str]:
    """What differs between the recipes of networks in both runs, as far as both records have it.

    A configuration may have changed since, and does not speak of a training by hand.
    """
    pairs = {key: (_recipe(ours[key]), _recipe(theirs[key])) for key in ours if key in theirs}
    if not all(mine.keys() & other.keys() for mine, other in pairs.values()):
        return ["recipes are not compared: not every record of both runs has one"]
    found: dict[tuple[str, str, str], list[str]] = {}
    for (task, network), (mine, other) in pairs.items():
        for name in mine:
            if name in other and mine[name] != other[name]:
                of = found.setdefault((name, mine[name], other[name]), [])
                of.append(f"{task_name(task)} {network_name(network)}")
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for (name, *values), of in found.items():
        label = name if len(of) == len(pairs) else f"{name} of {', '.join(of)}"
        for side, value in zip(sides, values, strict=True):
            side[label] = value
    return _differences(*sides, "recipe")


def _origin(found: Iterable[Summary]) -> dict[str, Any]:
    """The devices and commits that results come from."""
    records = [record for summary in found for record in summary.records]
    return {
        key: ", ".join(sorted({str(record.get(key) or "unknown") for record in records}))
        for key in ("device", "commit")
    }


# ------------------------------------------------------------------------ for people


def report(ours: str | os.PathLike, theirs: str | os.PathLike) -> tuple[str, bool]:
    """The comparison as text, and whether any number differs.

    Args:
        ours: folder of a run, such as results/demo.
        theirs: folder of another, or a folder of runs that has one of the same name, or only one.

    Raises:
        UserError: there is nothing to compare.
    """
    here = run_folder(Path(ours), "")
    there = run_folder(Path(theirs), here.name)
    mine, reference = summaries(here), summaries(there)
    lines = compare(mine, reference)
    if not set(mine) & set(reference):
        raise UserError(f"{here} and {there} have no network of one task in common")
    differing = [line for line in lines if line.verdict == "differs"]
    counted = {
        "differs": f"differ, by more than seeds make them in {100 - 100 * LEVEL:g} of 100 cases",
        "same": "are the same but for what seeds change",
        "unknown": "are not equal, with one seed each: no spread is known",
        "undefined in part": "are not defined for some seeds of one run, nor differ for the rest",
        "missing": "are missing in one run",
    }
    count = {kind: sum(line.verdict.startswith(kind) for line in lines) for kind in counted}
    text = [
        f"ours: {here}   theirs: {there}",
        "",
        *_results(lines),
        "",
        *(f"{count[kind]:4} numbers {text}" for kind, text in counted.items() if count[kind]),
        "",
        *_settings(here, there),
        "",
        *_recipes(mine, reference),
        "",
        *_differences(_origin(mine.values()), _origin(reference.values()), "origin"),
    ]
    return "\n".join(text), bool(differing)


def _results(lines: list[Line]) -> list[str]:
    heading = ["task", "network", "measure", "ours", "theirs", "difference", "allowed", "verdict"]
    rows = []
    for line in lines:
        rows.append(
            [
                task_name(line.task),
                network_name(line.network),
                line.measure,
                _value(line.ours, line.measure),
                _value(line.theirs, line.measure),
                UNDEFINED if line.difference is None else f"{line.difference:+.4f}",
                UNDEFINED if line.allowed is None else f"{line.allowed:.4f}",
                line.verdict,
            ]
        )
    return aligned([heading, *rows], right=(3, 4, 5, 6))


def _value(summary: Summary | None, measure: str) -> str:
    if summary is None:
        return "missing"
    seeds = summary.part(measure) or len(summary.records)
    return f"{spread(summary.mean(measure), summary.sd(measure), 4).text} ({seeds})"


def _settings(here: Path, there: Path) -> list[str]:
    ours, theirs = settings(here), settings(there)
    without = [run for run, found in ((here, ours), (there, theirs)) if found is None]
    if without:
        return [f"settings are not compared: {without[0]} has no configuration.yaml"]
    return _differences(ours, theirs, "setting")


def _differences(ours: dict[str, Any], theirs: dict[str, Any], kind: str) -> list[str]:
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if not names:
        return [f"no {kind} differs"]
    rows = [[name, *(str(run.get(name, UNDEFINED)) for run in (ours, theirs))] for name in names]
    return aligned([[f"{kind} that differs", "ours", "theirs"], *rows])
