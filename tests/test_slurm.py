"""The workflow on a real SLURM cluster, judged by SLURM's own records."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "workflow/profiles/slurm/profile.yaml"
# The smoke configuration with fewer jobs, and trainings long enough to be caught at work.
CHANGES = {
    "tasks": ["translation"],
    "networks": ["sg", "pmg"],
    "training": {"tasks": {"translation": {"epochs": 60, "iterations": 5, "batch": 8}}},
}
RESULTS = Path("results/smoke")
TABLES = [RESULTS / f"tables/{name}.html" for name in ("spatial_transformation", "networks")]
MODELS = RESULTS / "models/translation"


def missing() -> str:
    """Why there can be no cluster here; nothing if there can."""
    if os.getuid() != 0:
        return "starting SLURM needs root"
    for command in ("munged", "slurmctld", "slurmd", "sbatch"):
        if not shutil.which(command):
            return f"{command} is not installed (tests/slurm/install.sh)"
    configuration = Path("/etc/slurm/slurm.conf")
    if configuration.exists() and "tests/slurm/start.sh of mg" not in configuration.read_text():
        return "this machine belongs to a real cluster"
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "the package's extra `slurm` is not installed"
    return ""


pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def cluster():
    subprocess.run([ROOT / "tests/slurm/start.sh"], check=True)
    yield
    subprocess.run([ROOT / "tests/slurm/stop.sh"], check=True)


def jobs() -> list[dict[str, str]]:
    """SLURM's record of every job that Snakemake submitted, in order."""
    text = subprocess.run(
        ["scontrol", "--oneliner", "show", "jobs"], capture_output=True, text=True, check=True
    ).stdout
    records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
    return [record for record in records if record.get("Comment", "").startswith("rule_")]


def half_way(directory: Path, networks: set[str]) -> tuple[str, str]:
    """Wait until a training of one of `networks` has done an epoch: its network and its job."""
    end = time.monotonic() + 1800
    while time.monotonic() < end:
        for job in jobs():
            for network in networks:
                history = directory / MODELS / f"{network}/seed0/checkpoints/history.csv"
                ours = job["Comment"] == f"rule_train_wildcards_translation_{network}_0"
                if ours and job["JobState"] == "RUNNING" and history.exists():
                    return network, job["JobId"]
        time.sleep(0.2)
    pytest.fail(f"no training of {networks} began: {jobs()}")


@pytest.fixture(scope="module")
def run(cluster, mnist_directory, tmp_path_factory):
    """A run in which one training's time runs out and the other's job is cancelled, half-way."""
    directory = tmp_path_factory.mktemp("run")
    # The profile as a user edits it: a partition for each kind of job.
    text = PROFILE.read_text().replace("  # slurm_partition: NAME", "  slurm_partition: cpu", 1)
    text = text.replace("    # slurm_partition: NAME", "    slurm_partition: gpu")
    (directory / "profile").mkdir()
    (directory / "profile/profile.yaml").write_text(text)
    changes = CHANGES | {"mnist": {"directory": str(mnist_directory)}}
    (directory / "changes.yaml").write_text(yaml.safe_dump(changes))
    with open(directory / "output", "w+") as output:
        snakemake = subprocess.Popen(
            [
                *(sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow/Snakefile"),
                *("--workflow-profile", "profile", "--configfile", ROOT / "config/smoke.yaml"),
                *("changes.yaml", "--slurm-init-seconds-before-status-checks", "1", "--", *TABLES),
            ],
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            networks = set(CHANGES["networks"])
            first, job = half_way(directory, networks)
            # SLURM now asks it to stop, because the profile wants that a minute before the end.
            subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], check=True)
            second, job = half_way(directory, networks - {first})
            subprocess.run(["scancel", job], check=True)
            status = snakemake.wait()
        finally:
            snakemake.kill()
        output.seek(0)
        assert status == 0, output.read()
    return {"directory": directory, "jobs": jobs(), "limit": first, "cancelled": second}


def of_rule(run, rule: str) -> list[dict[str, str]]:
    return [job for job in run["jobs"] if re.match(rf"rule_{rule}(_|$)", job["Comment"])]


def test_trainings_had_the_gpu_one_at_a_time(run):
    trainings = of_rule(run, "train")
    assert len(trainings) == 4  # two attempts each
    assert {job["TresPerJob"] for job in trainings} == {"gres:gpu:1"}
    assert {job["Partition"] for job in trainings} == {"gpu"}
    spans = sorted((job["StartTime"], job["EndTime"]) for job in trainings)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_data_and_tables_had_none(run):
    others = [
        job for rule in ("generate", "results_table", "network_table") for job in of_rule(run, rule)
    ]
    assert len(others) == 5
    assert all("gpu" not in job.get("TresPerJob", "") + job["TRES"] for job in others)
    assert {(job["Partition"], job["JobState"]) for job in others} == {("cpu", "COMPLETED")}


@pytest.mark.parametrize("what", ["limit", "cancelled"])
def test_an_interrupted_training_went_on_in_the_next_job(run, what):
    network = run[what]
    first, second = (job for job in of_rule(run, "train") if f"_{network}_" in job["Comment"])
    # Asked to stop, a training fails; on a machine so busy that the minute is over, time is out.
    assert first["JobState"] in {"limit": ("FAILED", "TIMEOUT"), "cancelled": ("CANCELLED",)}[what]
    assert second["JobState"] == "COMPLETED"
    folder = run["directory"] / MODELS / f"{network}/seed0"
    log = run["directory"] / RESULTS / f"logs/train/translation/{network}/seed0.log"
    epoch = int(re.match(r"resumed at epoch (\d+),", log.read_text()).group(1))
    assert 1 < epoch <= 60
    assert json.loads((folder / "run.json").read_text())["attempts"] == 2
    assert len((folder / "history.csv").read_text().splitlines()) == 61  # every epoch, once


def test_the_second_attempt_asks_for_more(run):
    def asked(job):
        hours, minutes, _ = map(int, job["TimeLimit"].split(":"))
        return int(job["MinMemoryNode"].removesuffix("M")), 60 * hours + minutes

    first, second = (of_rule(run, "train")[place] for place in (0, -1))
    assert asked(second)[0] == 2 * asked(first)[0]
    assert asked(second)[1] == 22


def test_the_run_is_complete(run):
    for table in TABLES:
        assert (run["directory"] / table).stat().st_size
