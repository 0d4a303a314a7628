"""Two runs of the workflow side by side: which numbers differ by more than seeds explain."""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
"""A number is unusual when seeds alone make its difference so large this rarely, if they spread
normally. Of 60 numbers that are compared, some may well be."""

CHANCE = 0.05
"""How rarely chance may bring a difference that counts, among all numbers of two runs; and how
rarely unusual numbers of so many networks that they count."""

SHOWN = 5e-5
"""Half the last digit that is shown: what differs by no more is the same."""

# What may differ between runs that are the same experiment.
_NAMES = ("run", "description", "seeds", "mnist.directory")


@dataclass(frozen=True)
class Line:
    """A measure of a network on a task, in both runs.

    Attributes:
        difference: mean of ours minus mean of theirs, None where one is undefined or missing.
        allowed: what a difference exceeds in `LEVEL` of all cases by seeds alone, None where no
            spread is known.
        chance: how often seeds alone make one so large, None where no spread is known.
        verdict: `differs`, `unusual` (more than is allowed, but of so many numbers one may be),
            `same`, `unknown` (they are not equal, and no spread is known), `missing: ours`,
            `missing: theirs`, `undefined`, or `undefined in part` (for another share of seeds than
            in the other run; the means, of the rest, do not differ).
    """

    task: str
    network: str
    measure: str
    ours: Summary | None
    theirs: Summary | None
    difference: float | None
    allowed: float | None
    chance: float | None
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

    Differences of means are judged by Student's t-test: both runs are taken to spread over seeds
    alike, and the fewer seeds there are, the less is known of how. By Holm's procedure, chance
    makes any of so many numbers differ in `CHANCE` of all cases or fewer.
    """
    keys = {*ours, *theirs}
    ordered = [
        (task, network)
        for task in tasks_in_order(task for task, _ in keys)
        for network in in_order(network for t, network in keys if t == task)
    ]
    lines = [
        _line(*key, measure, ours.get(key), theirs.get(key))
        for key in ordered
        for measure in _measures([s for s in (ours.get(key), theirs.get(key)) if s is not None])
    ]
    tested = sorted((line.chance, i) for i, line in enumerate(lines) if line.chance is not None)
    for rank, (chance, i) in enumerate(tested):
        if lines[i].verdict != "unusual" or chance * (len(tested) - rank) > CHANCE:
            break
        lines[i] = replace(lines[i], verdict="differs")
    return lines


def reason(lines: Sequence[Line]) -> str:
    """Why the runs are said to differ by more than chance; nothing if they are not.

    One number that differs suffices. Unusual numbers of several networks do where chance makes them
    of so many in `CHANCE` of all cases or fewer: the measures of one network on a task move
    together, networks do not, and one of `n` measures is unusual in `n` times `LEVEL` of all cases
    at most.
    """
    from scipy.special import bdtrc  # binomial: more than so many; scipy takes a while to load

    if any(line.verdict == "differs" for line in lines):
        return "by numbers that chance does not explain"
    tested = Counter((line.task, line.network) for line in lines if line.chance is not None)
    found = {(line.task, line.network) for line in lines if line.verdict == "unusual"}
    share = min(1.0, LEVEL * max(tested.values(), default=0))
    if found and bdtrc(len(found) - 1, len(tested), share) <= CHANCE:
        return "numbers of more networks are unusual than chance explains"
    return ""


def _measures(summaries: list[Summary]) -> Sequence[str]:
    """What the records hold: measures of pixels or of classes."""
    classes = any("top1_error" in record for s in summaries for record in s.records)
    return CLASS_MEASURES if classes else MEASURES


def _line(
    task: str, network: str, measure: str, ours: Summary | None, theirs: Summary | None
) -> Line:
    pair = (("ours", ours), ("theirs", theirs))
    absent = [name for name, s in pair if s is None or s.lacks(measure)]
    line = Line(task, network, measure, ours, theirs, None, None, None, "")
    if absent:
        return replace(line, verdict=f"missing: {absent[0]}")
    a, b = ours.mean(measure), theirs.mean(measure)
    alike = _share(ours, measure) == _share(theirs, measure)
    if a is None or b is None:
        return replace(line, verdict="undefined" if alike else "undefined in part")
    allowed, chance = _judge(ours.values(measure), theirs.values(measure))
    if abs(a - b) <= (allowed or SHOWN):
        verdict = "same" if alike else "undefined in part"
    else:
        verdict = "unknown" if allowed is None else "unusual"
    return replace(line, difference=a - b, allowed=allowed, chance=chance, verdict=verdict)


def _share(summary: Summary, measure: str) -> Fraction:
    """Of the seeds, for which a measure is defined."""
    return Fraction(len(summary.values(measure)), len(summary.records))


def _judge(ours: list[float], theirs: list[float]) -> tuple[float, float] | tuple[None, None]:
    """How far the means of two runs may lie apart, and how often they lie as far apart as these.

    None for one value each.
    """
    from scipy.special import stdtr, stdtrit  # Student's t: distribution and its inverse

    freedom = len(ours) + len(theirs) - 2
    if freedom == 0:
        return None, None
    squares = sum(statistics.variance(run) * (len(run) - 1) for run in (ours, theirs) if run[1:])
    error = (squares / freedom * (1 / len(ours) + 1 / len(theirs))) ** 0.5
    difference = abs(statistics.fmean(ours) - statistics.fmean(theirs))
    allowed = max(SHOWN, error * -float(stdtrit(freedom, LEVEL / 2)))
    if difference <= SHOWN:
        return allowed, 1.0
    if error == 0:
        return allowed, 0.0
    return allowed, 2 * float(stdtr(freedom, -difference / error))


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


def _left_over(run: Path, found: dict[tuple[str, str], Summary]) -> list[str]:
    """A line on results that count, but are not of the run's configuration as it is now.

    They may be of an earlier one; those of a run to compare with are taken as they are.
    """
    path = run / "configuration.yaml"
    if not path.exists():
        return []
    named, _ = read_configuration(path)
    others = [
        f"{task_name(task)} {network_name(network)} seed {record['seed']}"
        for (task, network), summary in found.items()
        for record in summary.records
        if not (
            task in named["tasks"]
            and network in named["networks"]
            and record["seed"] in named["seeds"]
        )
    ]
    if not others:
        return []
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return [
        f"counted too, though {path} does not name them: {', '.join(others[:3])}{more}; if they "
        "are left over from other settings, delete their folders"
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


_RECORDED: dict[str, Callable[[Summary], list[dict[str, Any]]]] = {
    "recipe": Summary.recipes,
    "network option": Summary.networks,
    "test set": Summary.tests,
}


def _together(runs: list[dict[str, Any]]) -> dict[str, str]:
    """What the runs of all seeds say, in one."""
    return {
        name: " and ".join(sorted({str(run[name]) for run in runs if name in run}))
        for name in dict.fromkeys(name for run in runs for name in run)
    }


def _recorded(ours: dict, theirs: dict, kind: str) -> list[str]:
    """What differs in a `kind` of record of networks in both runs, as far as both have it.

    A configuration may have changed since, and does not speak of what was done by hand.
    """
    pairs = {
        key: tuple(_together(_RECORDED[kind](run[key])) for run in (ours, theirs))
        for key in ours
        if key in theirs
    }
    if not all(mine.keys() & other.keys() for mine, other in pairs.values()):
        return [f"{kind}s are not compared: not every record of both runs has one"]
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
    return _differences(*sides, kind)


def _origin(found: Iterable[Summary]) -> dict[str, Any]:
    """The devices and commits that results come from."""
    records = [record for summary in found for record in summary.records]
    return {
        key: ", ".join(sorted({str(record.get(key) or "unknown") for record in records}))
        for key in ("device", "commit")
    }


# ------------------------------------------------------------------------ for people


def report(ours: str | os.PathLike, theirs: str | os.PathLike) -> tuple[str, bool]:
    """The comparison as text, and whether the runs differ by more than chance explains.

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
    tested = sum(line.chance is not None for line in lines)
    counted = {
        "differs": f"differ: seeds make any of {tested} do so in {100 * CHANCE:g} of 100 cases at "
        "most",
        "unusual": f"are unusual: seeds make one number so in {100 * LEVEL:g} of 100 cases, of "
        f"{tested} about {LEVEL * tested:.1f}",
        "same": "are the same but for what seeds change",
        "unknown": "are not equal, with one seed each: no spread is known",
        "undefined in part": "are not defined for some seeds of one run, nor differ for the rest",
        "missing": "are missing in one run",
    }
    why = reason(lines)
    count = {kind: sum(line.verdict.startswith(kind) for line in lines) for kind in counted}
    text = [
        f"ours: {here}   theirs: {there}",
        *_left_over(here, mine),
        "",
        *_results(lines),
        "",
        *(f"{count[kind]:4} numbers {text}" for kind, text in counted.items() if count[kind]),
        "",
        _outcome(why, tested),
        "",
        *_settings(here, there),
        "",
        *(line for kind in _RECORDED for line in (*_recorded(mine, reference, kind), "")),
        *_differences(_origin(mine.values()), _origin(reference.values()), "origin"),
    ]
    return "\n".join(text), bool(why)


def _outcome(why: str, tested: int) -> str:
    if not tested:
        return "whether the runs differ is not known: nowhere has either of them several seeds"
    return f"the runs differ: {why}" if why else "nothing differs that seeds do not explain"


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
