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

import psutil
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "workflow/profiles/slurm/profile.yaml"
# The smoke configuration; translation is trained long enough to be caught at work.
CHANGES = {"training": {"tasks": {"translation": {"epochs": 60, "iterations": 5, "batch": 8}}}}
RESULTS = Path("results/smoke")
MODELS = RESULTS / "models/translation"
ON_GPU = {"train", "evaluate", "saliency"}
# What happens to one training each. After the last of them the same job starts again; after the
# others, Snakemake submits another.
INTERRUPTIONS = {
    # SLURM asks it to stop at once, because the profile wants that a minute before the end.
    "limit": "scontrol update JobId={job} TimeLimit=1",
    "cancelled": "scancel {job}",
    "requeued": "scontrol requeue {job}",
}


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


def half_way(directory: Path, spared: set[str]) -> tuple[str, str]:
    """Wait until a training of a network not `spared` has done an epoch: the network, its job."""
    end = time.monotonic() + 1800
    while time.monotonic() < end:
        for job in of_rule(jobs(), "train"):
            network = re.fullmatch(r"rule_train_wildcards_translation_(\w+)_0", job["Comment"])
            if network and job["JobState"] == "RUNNING" and network.group(1) not in spared:
                folder = directory / MODELS / network.group(1) / "seed0"
                if (folder / "checkpoints/history.csv").exists():
                    return network.group(1), job["JobId"]
        time.sleep(0.2)
    pytest.fail(f"no training began: {jobs()}")


def hold_until_asked_to_end(directory: Path, network: str) -> None:
    """Stop a training where it is until SLURM, which looks at limits twice a minute, has asked.

    These trainings are so short that some would be over by then.
    """
    [training] = (
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(directory)
        and f"train --task translation --network {network}" in " ".join(process.info["cmdline"])
    )
    asked = re.compile(r"^ShdPnd:.*[4567cdef]...$", re.M)  # SIGTERM, 15, is pending
    training.suspend()
    end = time.monotonic() + 90
    try:
        while time.monotonic() < end and not asked.search(
            Path(f"/proc/{training.pid}/status").read_text()
        ):
            time.sleep(0.1)
        training.resume()
    except (FileNotFoundError, psutil.NoSuchProcess):
        pass  # SLURM made it go on by itself


@pytest.fixture(scope="module")
def run(cluster, mnist_directory, tmp_path_factory):
    """A whole run, report included, in which three trainings are interrupted half-way."""
    directory = tmp_path_factory.mktemp("run")
    # The profile as a user edits it: a partition for each kind of job.
    text = PROFILE.read_text().replace("  # slurm_partition: NAME", "  slurm_partition: cpu", 1)
    text = text.replace("    # slurm_partition: NAME", "    slurm_partition: gpu")
    (directory / "profile").mkdir()
    (directory / "profile/profile.yaml").write_text(text)
    changes = CHANGES | {"mnist": {"directory": str(mnist_directory)}}
    (directory / "changes.yaml").write_text(yaml.safe_dump(changes))
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow/Snakefile"),
        *("--workflow-profile", "profile", "--slurm-init-seconds-before-status-checks", "1"),
        *("--configfile", ROOT / "config/smoke.yaml", "changes.yaml"),
    ]
    interrupted: dict[str, str] = {}
    with open(directory / "output", "w+") as output:
        snakemake = subprocess.Popen(
            command, cwd=directory, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            for what, interruption in INTERRUPTIONS.items():
                interrupted[what], job = half_way(directory, set(interrupted.values()))
                subprocess.run(interruption.format(job=job).split(), check=True)
                if what == "limit":
                    hold_until_asked_to_end(directory, interrupted[what])
            status = snakemake.wait()
        finally:
            snakemake.kill()
        output.seek(0)
        said = output.read()
        assert status == 0, said
    planned = set(re.findall(r"^rule (\w+):$", said, re.M))
    for more in (["--report", RESULTS / "report.html"], ["--dry-run"]):
        done = subprocess.run([*command, *more], cwd=directory, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
    return {
        "directory": directory,
        "jobs": jobs(),
        "interrupted": interrupted,
        "planned": planned,
        "afterwards": said,
    }


def of_rule(records: list[dict[str, str]], *rules: str) -> list[dict[str, str]]:
    names = "|".join(rules)
    return [job for job in records if re.match(rf"rule_({names})(_wildcards_|$)", job["Comment"])]


def test_every_rule_went_through_slurm(run):
    assert {"generate", *ON_GPU, "results_table", "figure_cost", "overview"} < run["planned"]
    assert len(of_rule(run["jobs"], *run["planned"])) == len(run["jobs"])
    assert all(of_rule(run["jobs"], rule) for rule in run["planned"])


def test_trainings_had_the_gpu_one_at_a_time(run):
    trainings = of_rule(run["jobs"], "train")
    # Six networks, two tasks, and two that Snakemake submitted again.
    assert len(trainings) == 14
    on_gpu = of_rule(run["jobs"], *ON_GPU)
    assert len(on_gpu) == 14 + 12 + 3
    assert {job["TresPerJob"] for job in on_gpu} == {"gres:gpu:1"}
    assert {job["Partition"] for job in on_gpu} == {"gpu"}
    spans = sorted((job["StartTime"], job["EndTime"]) for job in on_gpu)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_data_tables_figures_and_pages_had_none(run):
    others = of_rule(run["jobs"], *run["planned"] - ON_GPU)
    assert all("gpu" not in job.get("TresPerJob", "") + job["TRES"] for job in others)
    assert {(job["Partition"], job["JobState"]) for job in others} == {("cpu", "COMPLETED")}


@pytest.mark.parametrize("what", INTERRUPTIONS)
def test_an_interrupted_training_went_on_from_its_checkpoint(run, what):
    network = run["interrupted"][what]
    records = of_rule(run["jobs"], "train")
    *first, last = (job for job in records if f"_translation_{network}_0" in job["Comment"])
    # Asked to stop, a training fails; on a machine so busy that the minute is over, time is out.
    ended = {"limit": ("FAILED", "TIMEOUT"), "cancelled": ("CANCELLED",)}.get(what)
    if ended:
        assert len(first) == 1 and first[0]["JobState"] in ended
    else:
        assert not first and last["Restarts"] == "1"
    assert last["JobState"] == "COMPLETED"
    folder = run["directory"] / MODELS / f"{network}/seed0"
    log = run["directory"] / RESULTS / f"logs/train/translation/{network}/seed0.log"
    epoch = int(re.match(r"resumed at epoch (\d+),", log.read_text()).group(1))
    assert 1 < epoch <= 60
    assert json.loads((folder / "run.json").read_text())["attempts"] == 2
    assert len((folder / "history.csv").read_text().splitlines()) == 61  # every epoch, once


def test_the_second_attempt_asks_for_more_memory_and_has_the_rest_of_the_training(run):
    def asked(job):
        hours, minutes, _ = map(int, job["TimeLimit"].split(":"))
        return int(job["MinMemoryNode"].removesuffix("M")), 60 * hours + minutes

    network = run["interrupted"]["cancelled"]
    records = of_rule(run["jobs"], "train")
    first, second = (job for job in records if f"_translation_{network}_0" in job["Comment"])
    (memory, minutes), again = asked(first), asked(second)
    assert again == (2 * memory, minutes)


def test_the_run_is_complete(run):
    assert "Nothing to be done" in run["afterwards"]
    results = run["directory"] / RESULTS
    assert all((results / f"{name}.html").stat().st_size for name in ("overview", "report"))
    assert len(list(results.glob("models/*/*/seed0/metrics.json"))) == 12
    assert not list(results.glob("models/*/*/seed0/checkpoints/*"))
