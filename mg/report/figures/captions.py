"""Sentences that captions share."""

from collections.abc import Iterable
from pathlib import Path

from mg.records import read_run
from mg.report.figures.reading import Paths
from mg.report.names import controls_note, in_order, network_name


def seeds_note(shown: Iterable[tuple[str, int]]) -> str:
    """A sentence on the seeds of the shown networks."""
    of: dict[int, set[str]] = {}
    for network, seed in shown:
        of.setdefault(seed, set()).add(network)
    if len(of) == 1:
        return f"Shown: seed {next(iter(of))} of each network. "
    parts = [f"{seed} of {listed(map(network_name, in_order(of[seed])))}" for seed in sorted(of)]
    return f"Shown: seed {'; '.join(parts)}. " if parts else ""


def listed(words: Iterable[str], last: str = "and") -> str:
    """“a, b and c”."""
    *before, end = words
    return f"{', '.join(before)} {last} {end}" if before else end


def controls_of(networks: Iterable[str], paths: Paths) -> str:
    """`controls_note` of networks; what a label stands for is in run.json beside their files."""
    places = {Path(path).with_name("run.json") for path in paths}
    runs = [read_run(place) for place in sorted(places) if place.exists()]
    known = {run["label"]: run.get("network") for run in runs}
    return controls_note({network: known.get(network) for network in networks})
