"""The workflow as a part of somebody else's: the example, run from a folder of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_workflow_run import change_a_digit, digits_of_ones_own, write_images

ROOT = Path(__file__).parent.parent
CLASSIFIERS = [("cifar10", "vgg"), ("imagenet", "r_mg")]


def other_workflow(
    directory: Path, changes: dict, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the example in `directory` with `changes` of the module's configuration."""
    (directory / "changes.yaml").write_text(yaml.safe_dump({"multigrid": changes}))
    return subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", "2"),
            *("--snakefile", ROOT / "examples/module/Snakefile", "--configfile", "changes.yaml"),
            *arguments,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def run(mnist_directory, tmp_path_factory):
    directory = tmp_path_factory.mktemp("other workflow")
    done = other_workflow(directory, {"mnist": {"directory": str(mnist_directory)}})
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_the_other_workflow_gets_its_result(run):
    network, mean_iu = (run / "best.txt").read_text().split()
    assert network == "pmg" and 0 <= float(mean_iu) <= 1


@pytest.mark.parametrize("task, network", [("translation", "pmg"), *CLASSIFIERS])
def test_all_of_the_module_is_made_of_what_lies_below_its_prefix(task, network, tmp_path):
    """Commands get folders as parameters too, which Snakemake gives no prefix."""
    changes = {"tasks": [task], "networks": [network], "cifar": {"sources": ["mnist"]}}
    changes["architectures"] = {network: {"network": network, "options": {}}}
    if (task, network) in CLASSIFIERS:
        amount = {"epochs": 1, "iterations": 1, "batch": 2}
        changes["training"] = {"tasks": {task: amount}, "output_prior": False}
    arguments = ("--dry-run", "--printshellcmds", "--", "multigrid_all")
    done = other_workflow(tmp_path, changes, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = [line for line in done.stdout.splitlines() if " mg " in f" {line}"]
    assert len(commands) > 8
    words = [
        word for line in commands for word in line.split() if "/" in word and "://" not in word
    ]
    own = [word for word in words if re.match(r"(mnist:)?(results|resources)/", word)]
    assert words and not own, own


def test_digits_of_ones_own_below_the_prefix_are_noticed_when_they_change(
    mnist_directory, tmp_path
):
    changes = {"mnist": {"directory": "own", "sources": ["as-is"]}}
    (tmp_path / "multigrid").mkdir()
    digits_of_ones_own(mnist_directory, tmp_path / "multigrid/own")
    target = "multigrid/results/example/data/translation/test.h5"
    done = other_workflow(tmp_path, changes, "--", target)
    assert done.returncode == 0, done.stdout + done.stderr
    again = other_workflow(tmp_path, changes, "--dry-run", "--", target)
    assert "Nothing to be done" in again.stdout + again.stderr
    change_a_digit(tmp_path / "multigrid/own")
    again = other_workflow(tmp_path, changes, "--dry-run", "--", target)
    assert re.search(r"^multigrid_generate +1$", again.stdout + again.stderr, re.M)


def test_images_of_ones_own_below_the_prefix_are_used_and_guarded(tmp_path):
    write_images(tmp_path / "multigrid/results/example/data/translation")
    announced = other_workflow(tmp_path, {"data": {"mode": "own"}}, "--dry-run")
    assert announced.returncode == 0, announced.stdout + announced.stderr
    assert "multigrid_train" in announced.stdout + announced.stderr
    forgotten = other_workflow(tmp_path, {}, "--dry-run")
    assert forgotten.returncode == 1 and "over your own images in multigrid/" in forgotten.stderr


def test_everything_of_the_module_lies_below_its_prefix(run):
    visible = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert visible == {"best.txt", "best.log", "changes.yaml", "multigrid"}
    results = run / "multigrid/results/example"
    assert (results / "models/translation/pmg/seed0/model.pt").exists()
    assert (results / "tables/spatial_transformation.html").exists()
    assert list((results / "logs").rglob("*.log"))
