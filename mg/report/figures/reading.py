"""Histories, predictions and saliency maps, as figures need them."""

import csv
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mg.data import hdf5
from mg.data.tasks import resolve_task
from mg.errors import UserError
from mg.evaluation.attention import read as read_maps
from mg.records import EachOnce, read_run
from mg.report.names import in_order

Paths = Sequence[str | os.PathLike]


def read_history(path: str | os.PathLike) -> dict[str, Any]:
    """A history.csv as columns of floats (NaN where empty), with task, label and seed of its place.

    Raises:
        UserError: the file is missing, not a history, or not in <task>/<label>/seed<k>/.
    """
    path = Path(path)
    *_, task, network, seed = ("", "", *path.absolute().parent.parts)
    if not re.fullmatch("seed[0-9]+", seed):
        raise UserError(
            f"{path} does not lie in <task>/<label>/seed<k>/, folders that say whose history it is"
        )
    try:
        content = path.read_bytes()
        run = path.with_name("run.json")
        written = read_run(run).get("history_crc32") if run.exists() else None
        if written not in (None, zlib.crc32(content)):
            raise ValueError("altered: its checksum differs from that in run.json")
        rows = list(csv.DictReader(content.decode().splitlines()))
        if not rows:
            raise ValueError("no rows")
        columns = {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in ("images", "train_loss", "valid_loss", _progress(rows[0]))
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable history.csv ({error})") from error
    return {"task": task, "network": network, "seed": int(seed[4:]), **columns}


def _progress(row: dict[str, str]) -> str:
    """The measure of progress that a history has: of classifiers an error, else mean IU."""
    return "valid_top1_error" if "valid_top1_error" in row else "valid_mean_iu"


def sets_by_task(paths: Paths) -> dict[str, str | os.PathLike]:
    """Data sets of cluttered MNIST by the task that they are of.

    Raises:
        UserError: a file is damaged, of no such task, or one of several of a task.
    """
    found: dict[str, str | os.PathLike] = {}
    for path in paths:
        task = resolve_task(hdf5.load(path, count=1).attributes["task"])
        if task in found:
            raise UserError(f"{found[task]} and {path} are both of {task}; give one of each task")
        found[task] = path
    return found


class Answers(NamedTuple):
    """What a network of one seed predicts, (N, C, H, W)."""

    seed: int
    values: np.ndarray


def read_predictions(paths: Paths, data: hdf5.Dataset) -> dict[str, Answers]:
    """The predictions for the examples of `data`, of each network's lowest seed.

    Raises:
        UserError: a file is damaged, its predictions are not for this test set, or two are of the
            same run.
    """
    task, shape = resolve_task(data.attributes["task"]), data.y.shape
    inputs = hdf5.inputs_checksum(data.attributes.path)
    found: dict[str, Answers] = {}
    once = EachOnce()
    for path in paths:
        with open_predictions(path) as (of, network, seed, stored):
            once(path, of, network, seed)
            if of != task or stored.shape[0] < shape[0] or stored.shape[1:] != shape[1:]:
                raise UserError(f"{path} holds predictions for {of}, not for this {task} test set")
            if hdf5.read_attributes(stored.file)["inputs_crc32"] != inputs:
                raise UserError(
                    f"{path} holds predictions for other inputs than those in "
                    f"{data.attributes.path}; give the file that they were made for, or make them "
                    "again with `mg evaluate`"
                )
            if network not in found or seed < found[network].seed:
                found[network] = Answers(seed, stored[: shape[0]].astype(np.float32))
    return {network: found[network] for network in in_order(found)}


def read_saliency(paths: Paths) -> dict[str, dict[str, Any]]:
    """The saliency maps of one task, of each network's lowest seed; see `mg.evaluation.attention`.

    Raises:
        UserError: a file is damaged, two are of the same run, or they are of several tasks.
    """
    stored: dict[str, dict[str, Any]] = {}
    once = EachOnce()
    for path in paths:
        maps = read_maps(path)
        once(path, maps["dataset"], maps["network"], maps["seed"])
        if maps["network"] not in stored or maps["seed"] < stored[maps["network"]]["seed"]:
            stored[maps["network"]] = maps
    tasks = {maps["dataset"] for maps in stored.values()}
    if len(tasks) > 1:
        raise UserError(f"saliency maps of {' and '.join(sorted(tasks))} do not go together")
    return {network: stored[network] for network in in_order(stored)}


@contextmanager
def open_predictions(path: str | os.PathLike) -> Iterator[tuple[str, str, int, h5py.Dataset]]:
    """Task, network, seed and data set of a predictions.h5."""
    with hdf5.results(path, "a file of predictions; make it again with `mg evaluate`") as file:
        attributes = hdf5.read_attributes(file)
        of, network, seed = (attributes[key] for key in ("dataset", "network", "seed"))
        yield str(of), str(network), int(seed), hdf5.part(file, "prediction")
