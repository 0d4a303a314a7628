"""Do the paper's qualitative claims hold in a run? Criteria are fixed here, the same for all."""

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mg.evaluation.attention import attention_ratio, attention_shift, read
from mg.records import EachOnce
from mg.report import render
from mg.report.names import network_name, task_name
from mg.report.render import Cell, Column, Table, write_csv
from mg.report.tables.notes import differing_tests
from mg.report.tables.summaries import Summary, describe, read_metrics, summarise

HOLDS, FAILS, NOT_RUN, NOT_MEASURABLE = "holds", "does not hold", "not run", "not measurable"

Attention = tuple[float | None, float | None]
"""`attention_ratio` and `attention_shift` of a file of saliency maps."""

LEAST_LEAD = 0.01
SOLVED = 0.5
FOLLOWS = 2.0
EQUAL_SIZES = 0.1  # difference in parameters that a control may have

CRITERIA = {
    "above": f"mean IU higher by at least {LEAST_LEAD} and, with several seeds, by more than the "
    "spread √(sd₁² + sd₂²); above that of a constant answer",
    "solves": f"image IU at least {SOLVED} and above that of a constant answer",
    "fails": f"image IU below {SOLVED} or not above that of a constant answer",
    "follows": f"share of the maps that lies on the digit at least {FOLLOWS:g} times the share on "
    "where the digits of the other inputs are",
    "does not follow": f"the same ratio below {FOLLOWS:g}",
}


@dataclass(frozen=True)
class Claim:
    """A claim about `network` on `task`; `kind` names its criterion.

    `source` is `paper`, or `control` for what the paper's claims imply and this run can test.
    """

    kind: str
    task: str
    network: str
    source: str = "paper"
    other: str = ""

    @property
    def text(self) -> str:
        """The claim in words."""
        subject = network_name(self.network)
        return {
            "above": f"{subject} segments better than {network_name(self.other)}",
            "solves": f"{subject} outputs the clean, centred digit",
            "fails": f"{subject} does not output the clean, centred digit",
            "follows": f"The attention of {subject} follows the digit",
            "does not follow": f"The attention of {subject} does not follow the digit",
        }[self.kind]


CLAIMS = (
    *(Claim("above", "segmentation", n, other="unet") for n in ("umg", "pmg", "r_pmg")),
    Claim("above", "segmentation", "pmg", "control", other="sg"),
    Claim("above", "segmentation", "r_pmg", "control", other="r_sg"),
    *(Claim("solves", "spatial_transform", n) for n in ("pmg", "r_pmg")),
    *(Claim("fails", "spatial_transform", n) for n in ("unet", "sg", "r_sg")),
    Claim("solves", "rotation", "unet"),
    Claim("solves", "affine_transform", "unet"),
    Claim("fails", "translation", "unet"),
    *(Claim("solves", "translation", n, "control") for n in ("pmg", "r_pmg")),
    *(Claim("follows", "translation", n) for n in ("pmg", "r_pmg")),
    Claim("does not follow", "translation", "unet"),
)


def write_claims_table(
    metrics_paths: Iterable[str | os.PathLike],
    *,
    prefix: str | os.PathLike,
    saliency_paths: Iterable[str | os.PathLike] = (),
    run: str | None = None,
    caption: str = "",
) -> None:
    """Write `prefix`.csv, .md, .tex and .html: each claim with criterion, evidence and verdict.

    A verdict is `holds`, `does not hold`, `not run`, or `not measurable` (the run gives no number
    for the criterion, such as saliency maps of a network that outputs nothing; or two networks were
    not measured on the same test set).

    Args:
        metrics_paths: metrics.json files of all tasks, networks and seeds.
        saliency_paths: saliency.h5 files.
        run: name of the configuration.
        caption: goes before the sentence that says what was run.

    Raises:
        UserError: a file is missing or damaged.
    """
    records = read_metrics(metrics_paths)
    rows, lines = [], []
    for claim, verdict, evidence in judge(records, saliency_paths):
        criterion = CRITERIA[claim.kind]
        line = [task_name(claim.task), claim.text, claim.source, criterion, evidence, verdict]
        lines.append([claim.task, *line[1:]])
        rows.append([*map(Cell, line[:-1]), verdict_cell(verdict)])
    titles = ["task", "claim", "source", "criterion", "evidence", "verdict"]
    write_csv(f"{prefix}.csv", titles, lines)
    notes = [
        "source: “paper” marks the authors' own claims; “control” what they imply and is tested "
        "beside them.",
        "The criteria are the same for every network.",
    ]
    numbers = {len(summary.records) for summary in summarise(records)}
    if numbers == {1}:
        notes.append("One seed per network: no verdict takes chance into account.")
    else:
        notes.append(
            "With several seeds a lead must exceed their spread; all else is judged by the mean."
        )
        if 1 in numbers:
            notes.append(
                "Evidence without ± is of one seed: its verdict does not take chance into account; "
                "where one of two networks has one seed, the other's spread is used for both."
            )
    columns = [Column(title, numeric=False) for title in titles]
    table = Table("Claims of the paper in this run", columns, rows, notes)
    text = f"{caption} {describe(records, run)}".strip()
    render.write(prefix, [table], "Claims of the paper", text)


def judge(
    records: Sequence[dict[str, Any]], saliency_paths: Iterable[str | os.PathLike] = ()
) -> list[tuple[Claim, str, str]]:
    """Every claim with its verdict and the evidence, in the paper's order; what was not run last.

    Args:
        records: those of `mg.report.tables.summaries.read_metrics`.
        saliency_paths: saliency.h5 files.

    Raises:
        UserError: a file is missing or damaged, or two are of the same run.
    """
    summaries = {(s.dataset, s.network): s for s in summarise(records)}
    attention: dict[tuple[str, str], list[Attention]] = {}
    once = EachOnce()
    for path in saliency_paths:
        maps = read(path)
        once(path, maps["dataset"], maps["network"], maps["seed"])
        measured = (attention_ratio(maps), attention_shift(maps))
        attention.setdefault((maps["dataset"], maps["network"]), []).append(measured)
    judged = [(claim, *_judge(claim, summaries, attention)) for claim in CLAIMS]
    return sorted(judged, key=lambda entry: entry[1] == NOT_RUN)


def verdict_cell(verdict: str) -> Cell:
    """A verdict in the colour it has in every table."""
    return Cell(verdict, kind={HOLDS: "good", FAILS: "bad"}.get(verdict, "missing"))


def _judge(
    claim: Claim,
    summaries: dict[tuple[str, str], Summary],
    attention: dict[tuple[str, str], list[Attention]],
) -> tuple[str, str]:
    """Verdict and evidence."""
    key = (claim.task, claim.network)
    if claim.kind in ("follows", "does not follow"):
        return _judge_attention(claim, attention.get(key))
    mine = summaries.get(key)
    if claim.kind == "above":
        theirs = summaries.get((claim.task, claim.other))
        if None in (mine, theirs):
            return NOT_RUN, ""
        if tests := differing_tests([mine, theirs]):
            return NOT_MEASURABLE, f"not comparable, since test sets differ: {tests}"
        verdict, evidence = _judge_lead(mine, theirs)
        return verdict, evidence + (_sizes(mine, theirs) if claim.source == "control" else "")
    return (NOT_RUN, "") if mine is None else _judge_solution(claim, mine)


def _judge_lead(mine: Summary, theirs: Summary) -> tuple[str, str]:
    means = [s.mean("mean_iu") for s in (mine, theirs)]
    if None in means:
        return NOT_MEASURABLE, "mean IU is not defined"
    known = [sd for s in (mine, theirs) if (sd := s.sd("mean_iu")) is not None]
    lead = means[0] - means[1]
    needed = max(LEAST_LEAD, math.hypot(*known) * (2 / max(1, len(known))) ** 0.5)
    evidence = " against ".join(s.cell("mean_iu").text for s in (mine, theirs))
    evidence = f"mean IU {evidence}{_seeds(mine, theirs)}"
    if means[0] <= (constant := _constant_answer(mine, "mean_iu")):
        return FAILS, f"{evidence}; constant answer {constant:.3f}"
    return HOLDS if lead >= needed else FAILS, evidence


def _sizes(mine: Summary, control: Summary) -> str:
    """That a control is one no more: it was changed without the other, or the other without it."""
    sizes = [s.same("params") for s in (mine, control)]
    if None in sizes or abs(sizes[1] / sizes[0] - 1) <= EQUAL_SIZES:
        return ""
    return f"; {network_name(control.network)} has {sizes[1] / sizes[0]:.2f} times the parameters"


def _judge_solution(claim: Claim, mine: Summary) -> tuple[str, str]:
    iu = mine.mean("image_iu")
    if iu is None:
        return NOT_MEASURABLE, "image IU is not defined"
    constant = _constant_answer(mine, "image_iu")
    evidence = (
        f"image IU {mine.cell('image_iu').text}, constant answer {constant:.3f}{_seeds(mine)}"
    )
    solved = iu >= SOLVED and iu > constant
    return HOLDS if solved == (claim.kind == "solves") else FAILS, evidence


def _constant_answer(summary: Summary, measure: str) -> float:
    """Of the best answer that ignores its input; 0 where it is not defined."""
    return statistics.fmean(r["constant_answer"].get(measure) or 0 for r in summary.records)


def _judge_attention(claim: Claim, seeds: list[Attention] | None) -> tuple[str, str]:
    if seeds is None:
        return NOT_RUN, ""
    ratios, shifts = ([v for v in values if v is not None] for values in zip(*seeds, strict=True))
    if not ratios:
        return NOT_MEASURABLE, "no saliency maps of digits that lie in different places"
    verdict = HOLDS if (statistics.fmean(ratios) >= FOLLOWS) == (claim.kind == "follows") else FAILS
    evidence = f"ratio {_spread(ratios, 2)}"
    if shifts:
        evidence += f"; the maps move {_spread(shifts, 2)} times as far as the digit"
    measured = "" if len(ratios) == len(seeds) else f"{len(ratios)} of "
    return verdict, evidence + ("" if len(seeds) == 1 else f" ({measured}{len(seeds)} seeds)")


def _spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over seeds; a ratio is infinite where nothing lies elsewhere."""
    known = len(values) > 1 and all(map(math.isfinite, values))
    deviation = statistics.stdev(values) if known else None
    return render.spread(statistics.fmean(values), deviation, digits).text


def _seeds(*summaries: Summary) -> str:
    numbers = dict.fromkeys(len(s.records) for s in summaries)  # in the order of the evidence
    return "" if [*numbers] == [1] else f" ({' and '.join(map(str, numbers))} seeds)"
