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
    trainings = _trainings([read_run(path) for path in run_paths])
    write_csv(f"{prefix}.csv", ["rule", "job", "seconds", "cpu_seconds", "max_rss_mb"], jobs)
    tables = [_per_rule(jobs), _longest(jobs)]
    if trainings.rows:
        tables.append(trainings)
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
                Cell("all" if rule is None else rule),
                render.number(len(of), 0),
                total.cell(sum(seconds)),
                total.cell(sum(cpu) if cpu else None),
                render.number(statistics.fmean(seconds), 1),
                render.number(max(seconds), 1),
                render.number(max(memory, default=None), 0),
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
    columns = [
        Column("rule", numeric=False),
        Column("jobs"),
        Column("time", total.name),
        Column("processor time", total.name),
        Column("mean of a job", "s"),
        Column("longest job", "s"),
        Column("peak memory", "MB"),
    ]
    return Table("Time and memory per rule", columns, rows, notes)


def _longest(jobs: list[Job]) -> Table:
    columns = [
        Column("rule", numeric=False),
        Column("job", numeric=False),
        Column("time", "s"),
        Column("processor time", "s"),
        Column("peak memory", "MB"),
    ]
    rows = [
        [
            Cell(job.rule),
            Cell(job.job.replace("/", " · ")),
            render.number(job.seconds, 1),
            render.number(job.cpu, 1),
            render.number(job.memory, 0),
        ]
        for job in sorted(jobs, key=lambda job: -job.seconds)[:LONGEST]
    ]
    return Table("The longest jobs", columns, rows)


def _trainings(runs: list[dict[str, Any]]) -> Table:
    columns = [
        Column("task", numeric=False),
        Column("network", numeric=False),
        Column("seed"),
        Column("images seen"),
        Column("time", "s"),
        Column("throughput", "images/s"),
        Column("peak memory", "MB"),
        Column("peak GPU memory", "MB"),
        Column("started again"),
    ]
    rows = [
        [
            Cell(task_name(run["dataset"])),
            Cell(network_name(run["label"])),
            render.number(run["seed"], 0),
            render.number(run.get("images"), 0),
            render.number(run.get("seconds"), 1),
            render.number(run.get("images_per_second"), 0),
            render.number(run.get("peak_host_bytes"), 0, 1e6),
            render.number(run.get("peak_device_bytes"), 0, 1e6),
            render.number(max(0, run.get("attempts", 1) - 1), 0),
        ]
        for run in in_report_order(runs, "label")
    ]
    notes = [
        "As `mg train` measured them. started again: how often the training was interrupted and "
        "went on from its checkpoint."
    ]
    return Table("Trainings", columns, rows, notes)
