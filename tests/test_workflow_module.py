"""The workflow as a part of somebody else's: the example, run from a folder of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(mnist_directory, tmp_path_factory):
    directory = tmp_path_factory.mktemp("other workflow")
    changes = {"multigrid": {"mnist": {"directory": str(mnist_directory)}}}
    (directory / "changes.yaml").write_text(yaml.safe_dump(changes))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", "2"),
            *("--snakefile", ROOT / "examples/module/Snakefile", "--configfile", "changes.yaml"),
        ],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_the_other_workflow_gets_its_result(run):
    network, mean_iu = (run / "best.txt").read_text().split()
    assert network == "pmg" and 0 <= float(mean_iu) <= 1


@pytest.mark.parametrize("tasks", ["translation", "cifar10"])
def test_all_of_the_module_is_made_of_what_lies_below_its_prefix(tasks, tmp_path):
    """Commands get folders as parameters too, which Snakemake gives no prefix."""
    networks = {"translation": "pmg", "cifar10": "vgg"}
    changes = {"tasks": [tasks], "networks": [networks[tasks]], "cifar": {"sources": ["mnist"]}}
    changes["architectures"] = {"vgg": {"network": "vgg", "options": {}}}
    amount = {"epochs": 1, "iterations": 1, "batch": 2}
    changes["training"] = {"tasks": {"cifar10": amount}, "output_prior": tasks != "cifar10"}
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump({"multigrid": changes}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--printshellcmds"),
            *("--snakefile", ROOT / "examples/module/Snakefile", "--configfile", "changes.yaml"),
            *("--", "multigrid_all"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    commands = [line for line in done.stdout.splitlines() if " mg " in f" {line}"]
    assert len(commands) > 8
    words = [
        word for line in commands for word in line.split() if "/" in word and "://" not in word
    ]
    own = [word for word in words if re.match(r"(mnist:)?(results|resources)/", word)]
    assert words and not own, own


def test_everything_of_the_module_lies_below_its_prefix(run):
    visible = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert visible == {"best.txt", "best.log", "changes.yaml", "multigrid"}
    results = run / "multigrid/results/example"
    assert (results / "models/translation/pmg/seed0/model.pt").exists()
    assert (results / "tables/spatial_transformation.html").exists()
    assert list((results / "logs").rglob("*.log"))
