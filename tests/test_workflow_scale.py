"""What Snakemake lists, looks at and hashes does not grow with the number of examples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
# Runs Snakemake, and writes how often it looked at files below results/, listed and opened them,
# and how many bytes it hashed.
COUNTING = """
import collections, hashlib, json, os, pathlib, sys
import snakemake.cli, snakemake.io

calls = collections.Counter()

def counted(name, call):
    def counting(path, *more, **options):
        if isinstance(path, str | os.PathLike) and "results/" in os.fspath(path):
            calls[name] += 1
        return call(path, *more, **options)
    return counting

def hashed(file, digest):
    if hasattr(file, "fileno"):  # not of an empty file
        calls["hashes"] += "results/" in file.name
        calls["hashed"] += os.fstat(file.fileno()).st_size
    return file_digest(file, digest)

def audit(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and "results/" in str(arguments[0]):
        calls[event] += 1

for name in ("stat", "lstat", "access"):
    setattr(os, name, counted(name, getattr(os, name)))
file_digest, hashlib.file_digest = hashlib.file_digest, hashed
sys.addaudithook(audit)
try:
    snakemake.cli.main(sys.argv[2:])
except SystemExit as end:
    if end.code:
        raise
finally:
    pathlib.Path(sys.argv[1]).write_text(json.dumps(calls))
"""


def run(directory: Path, mnist: Path, number: int) -> dict:
    """Make everything up to the explorer from so many examples a data set; then look again."""
    sizes = {"train": number, "valid": number, "test": number}
    config = {
        "run": "scale",
        "tasks": ["translation"],
        "networks": ["pmg"],
        "mnist": {"directory": str(mnist)},
        "data": {"tasks": {"translation": sizes}},
        "training": {"tasks": {"translation": {"epochs": 1, "iterations": 1, "batch": 8}}},
        "saliency": {"networks": ["pmg"], "examples": 1, "window": 8, "stride": 8},
        "figures": {"explorer": 2},
    }
    (directory / "scale.yaml").write_text(yaml.safe_dump(config))
    arguments = [
        *("--snakefile", str(ROOT / "workflow/Snakefile"), "--configfile", "scale.yaml"),
        *("--cores", "1", "--", "results/scale/explorer.html"),
        "results/scale/models/translation/pmg/seed0/metrics.json",
    ]
    found = {}
    for what in ("first", "again"):
        command = [sys.executable, "-c", COUNTING, f"{what}.json", *arguments]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found[what] = json.loads((directory / f"{what}.json").read_text())
    assert "Nothing to be done" in done.stdout + done.stderr
    results = directory / "results"
    found["files"] = sorted(str(path.relative_to(results)) for path in results.rglob("*"))
    found["examples"] = (results / "scale/data/translation/train.h5").stat().st_size
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory, mnist_directory):
    return [run(tmp_path_factory.mktemp("scale"), mnist_directory, n) for n in (500, 5000)]


def test_ten_times_the_examples_are_as_many_files(runs):
    few, many = runs
    assert few["files"] == many["files"]
    assert 3 * few["examples"] < many["examples"]  # the examples are within


def test_what_is_read_to_remember_a_run_does_not_grow(runs):
    few, many = runs
    remembered = [run["first"]["open"] - run["first"]["hashes"] for run in runs]
    assert remembered[0] == remembered[1] >= 0
    assert few["first"]["hashes"] > many["first"]["hashes"] > 0  # nothing of more than 1 MB is
    assert few["first"]["hashed"] > many["first"]["hashed"] > 0


def test_a_check_that_all_is_made_looks_at_each_file_twice_at_most_and_reads_none(runs):
    for found in runs:  # the exact number depends on the order in which folders are met
        number = len(found["files"])
        assert 0 < found["again"]["stat"] <= 2 * number
        assert set(found["again"]) <= {"stat", "lstat", "access", "os.scandir", "os.listdir"}
        assert sum(found["again"].values()) <= 3 * number
