"""What a run cost: time and memory per rule, from Snakemake's benchmark files, and per training."""

import csv
import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mg.errors import UserError
from mg.records import read_run
from mg.report import render
from mg.report.names import network_name, task_name
from mg.report.render import TIMES, Cell, Column, Table, Unit, write_csv
from mg.report.tables.summaries import in_report_order

LONGEST = 10  # jobs that are listed one by one


class Job(NamedTuple):
    """One job as Snakemake measured it; None where it was too short to be sampled.

    rule: the folder of its benchmark file. job: the rest of the file's place.
    seconds: wall time. cpu: processor time in seconds. memory: largest resident set in MB.
    """

    rule: str
    job: str
    seconds: float
    cpu: float | None
    memory: float | None


def read_benchmarks(folder: str | os.PathLike) -> list[Job]:
    """The jobs of the benchmark files (<rule>/….tsv, or <rule>.tsv) below `folder`.

    Raises:
        UserError: there are none, or one is damaged.
    """
    folder = Path(folder)
    jobs = []
    for path in sorted(folder.rglob("*.tsv")):
        rule, *rest = path.relative_to(folder).with_suffix("").parts
        try:
            with open(path, newline="", encoding="utf-8") as handle:
                rows = list(csv.DictReader(handle, delimiter="\t"))
            jobs += [
                Job(
                    rule,
                    "/".join(rest),
                    float(row["s"]),
                    _number(row["cpu_time"]),
                    _number(row["max_rss"]),
                )
                for row in rows
            ]
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} is not a readable benchmark of Snakemake ({error})") from error
    if not jobs:
        raise UserError(f"{folder} holds no benchmark files (*.tsv); Snakemake writes them")
    return jobs


def _number(text: str) -> float | None:
    return None if text in ("NA", "-", "") else float(text)


def write_resources_table(
    benchmarks: str | os.PathLike,
    run_paths: Iterable[str | os.PathLike] = (),
    *,
    prefix: str | os.PathLike,
    caption: str = "",
) -> None:
    """Write `prefix`.csv (a row per job), .md, .tex and .html.

    Args:
        benchmarks: folder of the benchmark files.
        run_paths: run.json files of the trainings, for throughput and memory of the device.
        caption: goes before the tables.

    Raises:
        UserError: a file is missing or damaged.
    """
    jobs = read_benchmarks(benchmarks)
    runs = [read_run(path) for path in run_paths]
    write_csv(f"{prefix}.csv", ["rule", "job", "seconds", "cpu_seconds", "max_rss_mb"], jobs)
    tables = [_per_rule(jobs), _longest(jobs)]
    if runs:
        tables.append(_trainings(runs))
    render.write(prefix, tables, "Time and memory", caption)


def _per_rule(jobs: list[Job]) -> Table:
    rules: dict[str, list[Job]] = {}
    for job in jobs:
        rules.setdefault(job.rule, []).append(job)
    order = sorted(rules, key=lambda rule: -sum(job.seconds for job in rules[rule]))
    total = Unit.of([sum(j.seconds for j in rules[r]) for r in order], TIMES)
    rows = []
    for rule in [*order, None]:
        of = jobs if rule is None else rules[rule]
        seconds = [job.seconds for job in of]
        cpu = [job.cpu for job in of if job.cpu is not None]
        memory = [job.memory for job in of if job.memory is not None]
        rows.append(
            [
                (Column("rule", numeric=False), Cell("all" if rule is None else rule)),
                (Column("jobs"), render.number(len(of), 0)),
                (Column("time", total.name), total.cell(sum(seconds))),
                (Column("processor time", total.name), total.cell(sum(cpu) if cpu else None)),
                (Column("mean of a job", "s"), render.number(statistics.fmean(seconds), 1)),
                (Column("longest job", "s"), render.number(max(seconds), 1)),
                (Column("peak memory", "MB"), render.number(max(memory, default=None), 0)),
            ]
        )
    notes = [
        "time: from start to end of the jobs, added up; jobs that ran side by side count one by "
        "one. processor time: of all their threads. peak memory: of the largest job (resident "
        f"set). {render.UNDEFINED}: too short to be sampled.",
        "Of a job that was begun again the last attempt counts (for trainings see below). Jobs of "
        "networks, tasks and seeds that the configuration had before are in it, those that follow "
        "this table, such as the overview, are not.",
    ]
    return Table.of("Time and memory per rule", rows, notes)


def _longest(jobs: list[Job]) -> Table:
    rows = [
        [
            (Column("rule", numeric=False), Cell(job.rule)),
            (Column("job", numeric=False), Cell(job.job.replace("/", " · "))),
            (Column("time", "s"), render.number(job.seconds, 1)),
            (Column("processor time", "s"), render.number(job.cpu, 1)),
            (Column("peak memory", "MB"), render.number(job.memory, 0)),
        ]
        for job in sorted(jobs, key=lambda job: -job.seconds)[:LONGEST]
    ]
    return Table.of("The longest jobs", rows)


def _trainings(runs: list[dict[str, Any]]) -> Table:
    rows = [
        [
            (Column("task", numeric=False), Cell(task_name(run["dataset"]))),
            (Column("network", numeric=False), Cell(network_name(run["label"]))),
            (Column("seed"), render.number(run["seed"], 0)),
            (Column("images seen"), render.number(run.get("images"), 0)),
            (Column("time", "s"), render.number(run.get("seconds"), 1)),
            (Column("throughput", "images/s"), render.number(run.get("images_per_second"), 0)),
            (Column("peak memory", "MB"), render.number(run.get("peak_host_bytes"), 0, 1e6)),
            (Column("peak GPU memory", "MB"), render.number(run.get("peak_device_bytes"), 0, 1e6)),
            (Column("started again"), render.number(max(0, run.get("attempts", 1) - 1), 0)),
        ]
        for run in in_report_order(runs, "label")
    ]
    notes = [
        "As `mg train` measured them. started again: how often the training was interrupted and "
        "went on from its checkpoint."
    ]
    return Table.of("Trainings", rows, notes)
