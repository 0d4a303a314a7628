"""Pages that tell the story of a run: what was run and what came out; with what it was run."""

import base64
import html
import importlib.metadata
import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mg import provenance
from mg.errors import UserError
from mg.files import write_text
from mg.records import read_configuration, read_run
from mg.report import render
from mg.report.names import controls_note, in_order, network_name, task_name, tasks_in_order
from mg.report.render import COUNTS, Cell, Column, Table, Unit
from mg.report.tables import claims
from mg.report.tables.notes import undefined_notes
from mg.report.tables.results import is_authors_test
from mg.report.tables.summaries import (
    Summary,
    architectures,
    best,
    commits,
    distinct,
    read_metrics,
    summarise,
    value_range,
)

Paths = Sequence[str | os.PathLike]


def _read(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


# ------------------------------------------------------------------------------ overview


class Link(NamedTuple):
    """A result: its path as the workflow names it, its place beside the page, and its name."""

    path: str
    href: str
    title: str


def write_overview(
    metrics_paths: Paths,
    output: str | os.PathLike,
    *,
    saliency_paths: Paths = (),
    figures: Paths = (),
    links: Paths = (),
    run: str | None = None,
    description: str = "",
    expected: Iterable[tuple[str, str, int]] = (),
    digits: bool = False,
) -> None:
    """Write the page that a reader of a run should see first.

    Args:
        metrics_paths: metrics.json files of all tasks, networks and seeds.
        output: the page.
        saliency_paths: saliency.h5 files, for the claims about attention.
        figures: SVG files to show on the page.
        links: pages and SVG files to name at its end, by their titles.
        run: name of the configuration. description: what it is, in a sentence or two.
        expected: (task, label, seed) of the trainings that should be there.
        digits: CIFAR's images are MNIST's digits in its format.

    Raises:
        UserError: a file is missing or damaged.
    """
    records = read_metrics(metrics_paths, ())
    expected = list(expected)
    judged = claims.judge([r for r in records if "mean_iu" in r], saliency_paths)
    counts = Counter(verdict for _, verdict, _ in judged)
    kinds = {claims.HOLDS: "hold", claims.FAILS: "do not hold"}
    shown = [
        (kinds.get(verdict, verdict), claims.verdict_cell(verdict).kind, counts[verdict])
        for verdict in (claims.HOLDS, claims.FAILS, claims.NOT_MEASURABLE, claims.NOT_RUN)
        if counts[verdict]
    ]
    page = render.fill(
        "overview.html",
        title=f"Run {run}" if run else "Overview",
        description=description,
        facts=_facts(records, expected, digits),
        table=_main_table(summarise(records, expected), digits),
        figures=[_embedded(path) for path in figures],
        counts=shown,
        claims=_claims(judged),
        not_run=[
            f"{task_name(claim.task)}: {claim.text}."
            for claim, verdict, _ in judged
            if verdict == claims.NOT_RUN
        ],
        links=_links(links, Path(output).parent),
    )
    write_text(output, page)


def _facts(
    records: Sequence[dict], expected: Sequence[tuple], digits: bool
) -> list[tuple[str, str]]:
    """What was run, on what, with what, by name; what is not known is left out."""
    tests = [r["settings"].get("test") or {} for r in records]
    recipes = [(r["settings"].get("training") or {}).get("recipe") or {} for r in records]
    tasks = tasks_in_order(r["dataset"] for r in records)
    canvas, digit = (value_range([t.get(key) for t in tests]) for key in ("canvas", "digit_size"))
    found = {(r["dataset"], r["network"], r["seed"]) for r in records}
    missing = [key for key in expected if tuple(key) not in found]
    trainings = f"{len(found)} of {len(found) + len(missing)}" if expected else f"{len(found)}"
    if missing:
        trainings += "; missing: " + ", ".join(
            f"{task_name(task, digits)} {network_name(label)} seed {seed}"
            for task, label, seed in missing
        )
    images = [
        f"{task_name(task, digits)} {_images([r for r in records if r['dataset'] == task])}"
        for task in tasks
    ]
    parts = [
        f"canvas of {canvas} × {canvas} pixels" if canvas else "",
        f"digits of {digit}" if digit else "",
        " and ".join(distinct(map(_examples, tests))),
    ]
    seconds = sum(r["train_seconds"] or 0 for r in records)
    facts = [
        ("tasks", ", ".join(task_name(task, digits) for task in tasks)),
        ("networks", ", ".join(map(network_name, in_order(r["network"] for r in records)))),
        ("trainings", trainings),
        ("seeds", ", ".join(map(str, distinct(r["seed"] for r in records)))),
        ("images", ", ".join(part for part in parts if part)),
        ("test images", value_range([r.get("test_images") for r in records])),
        ("training images seen", "; ".join(images)),
        (
            "recipe",
            "; ".join(
                distinct(
                    f"{r['optimizer']}, {r['schedule'].replace('_', ' ')} schedule, "
                    f"learning rate {r['learning_rate']:g}"
                    for r in recipes
                    if None not in map(r.get, ("optimizer", "schedule", "learning_rate"))
                )
            ),
        ),
        ("training time", f"{_duration(seconds)} in all" if seconds else ""),
        ("trained on", " and ".join(distinct(r["device"] for r in records))),
        ("commit", commits(records)),
        ("measured", " to ".join(_first_and_last((r.get("date") or "")[:10] for r in records))),
    ]
    return [(name, value) for name, value in facts if value]


def _examples(test: dict[str, Any]) -> str | None:
    """Whose examples a test set has; None where it does not say."""
    if test.get("mode") == "paper":
        if is_authors_test(test):
            return "the authors' examples"
        return "the authors' stream with other settings or digits"
    return {"independent": "examples of our own seed"}.get(test.get("mode"), test.get("mode"))


def _images(records: Sequence[dict]) -> str:
    return value_range([r["train_images"] for r in records]) or "unknown"


def _first_and_last(values: Iterable[str]) -> list[str]:
    found = distinct(value for value in values if value)
    return found[:1] + found[1:][-1:]


def _duration(seconds: float) -> str:
    unit = Unit.of([seconds], {1: "seconds", 60: "minutes", 3600: "hours"})
    return f"{unit.cell(seconds).text} {unit.name}"


# The measure by which a task's networks are ranked: for classifiers the error, else the mean IU.
MAIN_MEASURE = {"mean_iu": "mean IU ↑", "top1_error": "top-1 error, % ↓"}
MEASURE_NOTES = {
    "mean_iu": "mean IU (intersection over union): of the pixels that are a digit in the truth or "
    "in the network's answer, the share on which both agree; mean over the classes of digits. 1 is "
    "perfect, 0 means that nothing was found.",
    "top1_error": "top-1 error: share of the test images whose class the network does not rank "
    "first.",
}


def _main_table(summaries: Sequence[Summary], digits: bool) -> Table:
    """Networks by tasks: the main measure, and what a network costs on the first task it ran on."""
    tasks = tasks_in_order(s.dataset for s in summaries)
    classifiers = {s.dataset for s in summaries for r in s.records if "top1_error" in r}
    measure = {task: "top1_error" if task in classifiers else "mean_iu" for task in tasks}
    by_key = {(s.dataset, s.network): s for s in summaries}
    networks = in_order(s.network for s in summaries)
    leaders = {
        task: best([s for s in summaries if s.dataset == task], measure[task]) for task in tasks
    }
    of = {n: [by_key[t, n] for t in tasks if (t, n) in by_key] for n in networks}
    params = {n: next((s.same("params") for s in of[n] if s.records), None) for n in networks}
    macs = {n: next((s.same("macs") for s in of[n] if s.records), None) for n in networks}
    parameters, multiply_adds = Unit.of(params.values(), COUNTS), Unit.of(macs.values(), COUNTS)
    rows = []
    for n in networks:
        row = [Cell(network_name(n))]
        for task in tasks:
            s, name = by_key.get((task, n)), measure[task]
            if s is None or not s.records:
                row.append(Cell("missing", kind="missing"))
            else:
                decimals, scale = (2, 0.01) if name == "top1_error" else (3, 1)
                row.append(s.cell(name, decimals, scale, best=leaders[task] == n))
        row += [parameters.cell(params[n]), multiply_adds.cell(macs[n])]
        rows.append(row)
    several = any(len(s.records) > 1 for s in summaries)
    notes = [
        *(note for name, note in MEASURE_NOTES.items() if name in measure.values()),
        "mean ± standard deviation over seeds. Bold: ahead of the second by more than the spread "
        "of the two."
        if several
        else "One seed per network: the spread is not known and no best is marked.",
        *undefined_notes([(s, measure[s.dataset]) for s in summaries]),
    ]
    if note := controls_note(architectures(summaries)):
        notes.append(note)
    if params:
        notes.append("parameters and multiply-adds (for one image): on the first task shown.")
    columns = [
        Column("network", numeric=False),
        *(Column(task_name(task, digits), MAIN_MEASURE[measure[task]]) for task in tasks),
        Column("parameters", parameters.name),
        Column("multiply-adds", multiply_adds.name),
    ]
    return Table("Main result", columns, rows, notes)


def _claims(judged: Sequence[tuple[claims.Claim, str, str]]) -> Table:
    titles = ("task", "claim", "verdict", "evidence")
    rows = [
        [
            Cell(task_name(claim.task)),
            Cell(claim.text + (" (control)" if claim.source == "control" else "")),
            claims.verdict_cell(verdict),
            Cell(evidence),
        ]
        for claim, verdict, evidence in judged
        if verdict != claims.NOT_RUN
    ]
    notes = [
        "(control): not a claim of the authors, but one that theirs imply. The table of claims "
        "says by which criterion each was judged."
    ]
    return Table("Claims", [Column(t, numeric=False) for t in titles], rows, notes)


def _embedded(path: str | os.PathLike) -> dict[str, str]:
    """An SVG file as data address, with its caption."""
    text = _read(path)
    data = base64.b64encode(text.encode()).decode()
    return {"data": f"data:image/svg+xml;base64,{data}", "caption": _caption(text)}


def _caption(svg: str) -> str:
    """What `mg.report.style.save` wrote into an SVG file."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg, re.S)
    return html.unescape(" ".join(found[1].split())) if found else ""


def _links(paths: Paths, folder: Path) -> list[tuple[str, list[Link]]]:
    """Links to pages and figures, by kind; `folder` is where the page will be."""
    kinds: dict[str, list[Link]] = {"Pages and tables": [], "Figures": []}
    for path in map(Path, paths):
        if path.suffix == ".html":
            found = re.search(r"<title>(.*?)</title>", _read(path), re.S)
            kind, title = "Pages and tables", html.unescape(found[1]) if found else path.stem
        else:
            kind, title = "Figures", path.stem.replace("_", " ")
        kinds[kind].append(Link(str(path), os.path.relpath(path, folder), title))
    return [(kind, entries) for kind, entries in kinds.items() if entries]


# ------------------------------------------------------------------------------ run


def write_run_page(
    configuration: str | os.PathLike,
    run_paths: Paths,
    output: str | os.PathLike,
    *,
    run: str | None = None,
) -> None:
    """Write the page of a run's configuration and environment.

    Args:
        configuration: the resolved configuration (YAML), shown as it is.
        run_paths: run.json files of the trainings.
        output: the page.
        run: name of the configuration.

    Raises:
        UserError: a file is missing or damaged.
    """
    _, text = read_configuration(configuration)
    runs = [read_run(path) for path in run_paths]
    packages = {
        f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.name
    }
    page = render.fill(
        "run.html",
        title=f"Configuration and environment of run {run}" if run else "Configuration",
        tables=[_environment(runs), _data(runs)] if runs else [_environment(runs)],
        configuration=text,
        packages=sorted(packages, key=str.lower),
    )
    write_text(output, page)


def _environment(runs: Sequence[dict[str, Any]]) -> Table:
    """Every fact with its values, and the number of trainings that had each."""
    facts: dict[str, Counter] = {}
    for run in runs:
        entries = {
            "commit": run.get("commit"),
            "device": run.get("device"),
            "activations": run.get("activations"),
            "processor threads": run.get("threads"),
            **run["versions"],
        }
        if run.get("peak_device_bytes"):  # a card computed
            del entries["processor threads"]
        for name, value in entries.items():
            facts.setdefault(name, Counter())[str(value or "unknown")] += 1
    rows = [
        [Cell(name), Cell(value), render.number(number, 0)]
        for name, values in facts.items()
        for value, number in values.most_common()
    ]
    times = [run[key] for run in runs for key in ("started", "finished")]
    if times:
        rows.append([Cell("first start"), Cell(min(times)), Cell("")])
        rows.append([Cell("last end"), Cell(max(times)), Cell("")])
    here = {
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "commit": provenance.commit() or "unknown",
        "python": platform.python_version(),
        "matplotlib": importlib.metadata.version("matplotlib"),
    }
    rows += [[Cell(f"report: {name}"), Cell(value), Cell("")] for name, value in here.items()]
    columns = [Column("what", numeric=False), Column("value", numeric=False), Column("trainings")]
    notes = [
        "Of the trainings, as they recorded it; below that, of the step that made this page. Times "
        "in UTC."
    ]
    return Table("Environment", columns, rows, notes)


def _data(runs: Sequence[dict[str, Any]]) -> Table:
    """The training sets by checksum."""
    sets = {(d["task"], d["split"], tuple(d["crc32"])): d for run in runs for d in run["data"]}
    rows = [
        [
            Cell(task_name(task)),
            Cell(split),
            render.number(d["examples"], 0),
            Cell(str(d.get("mode", ""))),
            render.number(d.get("seed"), 0),
            Cell(" ".join(f"{number:08x}" for number in crc)),
        ]
        for (task, split, crc), d in sets.items()
    ]
    columns = [
        Column("task", numeric=False),
        Column("split", numeric=False),
        Column("examples"),
        Column("mode", numeric=False),
        Column("seed"),
        Column("CRC-32 of inputs and targets", numeric=False),
    ]
    return Table("Training data", columns, rows)
