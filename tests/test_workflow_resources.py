"""What jobs ask of a cluster follows from the configuration."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import psutil
import pytest
import yaml
import yte
from test_workflow_configuration import configuration, merged

from mg import configuration as package
from mg.errors import UserError

ROOT = Path(__file__).parent.parent


def asked(directory: Path, configuration: str, profile: str, *arguments: str) -> dict[str, list]:
    """Rule → (GPUs, MB, minutes) of each of its jobs, as a dry run prints them."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1"),
            *("--snakefile", ROOT / "workflow/Snakefile", "--directory", directory),
            *("--workflow-profile", ROOT / f"workflow/profiles/{profile}"),
            *("--configfile", ROOT / f"config/{configuration}.yaml", *arguments),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list] = {}
    for job in re.split(r"\n(?=rule )", done.stdout + done.stderr):
        if name := re.match(r"rule (\w+):", job):
            resources = re.search(r"^    resources: (.*)$", job, re.M).group(1)
            values = dict(re.findall(r"(gpu|mem_mb|runtime)=(\d+)", resources))
            job = tuple(int(values.get(key, 0)) for key in ("gpu", "mem_mb", "runtime"))
            found.setdefault(name.group(1), []).append(job)
    return found


def with_profile(resources: str, directory: Path) -> subprocess.CompletedProcess:
    """A dry run of the paper's configuration with a profile that sets resources of rules."""
    profile = directory / "profile"
    profile.mkdir()
    (profile / "profile.yaml").write_text(f"set-resources: {{{resources}}}")
    return subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1"),
            *("--snakefile", ROOT / "workflow/Snakefile", "--directory", directory),
            *("--workflow-profile", profile, "--configfile", ROOT / "config/paper.yaml"),
        ],
        capture_output=True,
        text=True,
    )


def test_a_small_run_asks_for_little_and_a_large_one_for_a_day_at_most(tmp_path):
    gpu = [f"{rule}:gpu=1" for rule in ("train", "evaluate", "saliency")]
    demo = asked(tmp_path, "config", "default", "--set-resources", *gpu)
    paper = asked(tmp_path, "paper", "default", "--set-resources", *gpu)
    for run in demo, paper:
        assert all(gpus == 1 for rule in ("train", "evaluate") for gpus, _, _ in run[rule])
        assert all(gpus == 0 for rule in ("generate", "results_table") for gpus, _, _ in run[rule])
    assert all(4000 < memory < 6000 and time < 20 for _, memory, time in demo["train"])
    assert all(4000 < memory < 16000 and 60 < time <= 1440 for _, memory, time in paper["train"])
    assert min(memory for _, memory, _ in paper["train"]) > max(m for _, m, _ in demo["train"])


def test_as_many_images_of_ones_own_as_there_are_decide_the_memory(tmp_path):
    """Not as many as the configuration would generate."""
    folder = tmp_path / "results/demo/data/translation"
    folder.mkdir(parents=True)
    own = ("--config", "tasks=[translation]", "data={mode: own, canvas: 32}")
    memory = []
    for number in (100, 400_100):
        for split in ("train", "valid", "test"):
            with h5py.File(folder / f"{split}.h5", "w") as file:  # nothing of it is allocated
                for name, kind in (("x", "f4"), ("y", "u1")):
                    shape = (number if split == "train" else 100, 1, 32, 32)
                    file.create_dataset(name, shape, kind, chunks=(1, *shape[1:]))
                file.attrs["mode"] = b"own"
        memory.append(asked(tmp_path, "config", "cpu", *own)["train"][0][1])
    assert memory[1] - memory[0] == pytest.approx(1.1 * 2 * 400_000 * 32**2 * 5 / 1e6, abs=2)


def test_without_a_gpu_time_is_that_of_a_processor(tmp_path):
    cpu = asked(tmp_path, "standard", "cpu")
    assert {gpus for rule in ("train", "evaluate", "saliency") for gpus, _, _ in cpu[rule]} == {0}
    assert all(30 < time <= 1440 for _, _, time in cpu["train"])


@pytest.mark.parametrize(
    "said, message",
    [
        (
            "train: {gpu: 3}",
            "3 processes cannot share the batch of 64 of unet on segmentation in 3 equal parts; "
            "allowed is another number of GPUs under train",
        ),
        (
            'train: {gpu: "4 if True else 1"}',
            "gpu of train is an expression; allowed is a number",
        ),
        ("train: {processes: 0}", "processes of train is 0; allowed is at least 1"),
        (
            "train: {processes: 2, device: 'cuda:1'}",
            "device of train is cuda:1, which is for one process, not for 2; allowed is cuda",
        ),
        (
            "train: {processes: 2, execution: graph}",
            "execution of train is graph, which is for one process, not for 2; allowed is eager",
        ),
        (
            "evaluate: {device: ''}",
            "device of evaluate is empty; allowed is one of auto, cpu, cuda, cuda:N",
        ),
        (
            "train: {device: gpu}",
            "device of train is gpu; allowed is one of auto, cpu, cuda, cuda:N",
        ),
        (
            "saliency: {device: \"'cuda-0'\"}",
            "device of saliency is cuda-0; allowed is one of auto, cpu, cuda, cuda:N",
        ),
        (
            "train: {execution: fast}",
            "execution of train is fast; allowed is one of auto, eager, graph, compiled",
        ),
    ],
)
def test_what_no_job_can_do_is_said_before_any_job(said, message, tmp_path):
    done = with_profile(said, tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"profile: {message}"


@pytest.mark.parametrize(
    "said",
    [
        "train: {device: 'cuda:1', execution: eager, processes: 1}",
        "evaluate: {device: \"'cpu'\"}",
        "train: {execution: \"'graph' if attempt == 1 else 'eager'\"}",
    ],
)
def test_what_jobs_can_do_or_they_alone_know_is_left_to_them(said, tmp_path):
    done = with_profile(said, tmp_path)
    assert done.returncode == 0, done.stderr


def test_words_in_a_profile_are_those_that_the_package_takes():
    from mg.training.step import EXECUTIONS

    words = rules_of({})["WORDS"]
    assert words["execution"] == ("auto", *EXECUTIONS)
    *first, last = words["device"]
    told = f'help="{", ".join(first)} or {last}"'
    assert told in (ROOT / "mg/cli/arguments.py").read_text()


def test_a_variants_batches_come_in_the_parts_of_its_network(tmp_path):
    variants = tmp_path / "variants.yaml"
    variants.write_text(
        "networks: [r_pmg, deep, plain]\ntasks: [rotation]\narchitectures:\n"
        "  deep: {network: r_pmg, options: {n_layer: 2}}\n  plain: {network: pmg, options: {}}\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--cores", "1"),
            *("--snakefile", ROOT / "workflow/Snakefile", "--directory", tmp_path),
            *("--configfile", ROOT / "config/paper.yaml", variants),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    parts = re.findall(r"mg train .*--label (\w+) .*--accumulate (\d+) ", done.stdout + done.stderr)
    assert dict(parts) == {"r_pmg": "2", "deep": "2", "plain": "1"}


@pytest.mark.parametrize(("visible", "number"), [("0,2,5", 3), ("3", 1), ("", 1)])
def test_as_many_jobs_as_visible_cards_run_at_a_time(visible, number, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    profile = yte.process_yaml((ROOT / "workflow/profiles/default/profile.yaml").read_text())
    assert profile["resources"]["gpu"] == number


@pytest.mark.parametrize("name", ["default", "cpu"])
def test_jobs_of_this_machine_share_its_memory(name, tmp_path):
    profile = yte.process_yaml((ROOT / f"workflow/profiles/{name}/profile.yaml").read_text())
    assert 1000 < profile["resources"]["mem_mb"] <= psutil.virtual_memory().total // 10**6
    # One job that would need more than there is gets all of it, instead of being refused.
    jobs = asked(tmp_path, "wide", name, "--resources", "mem_mb=3000")
    assert max(memory for _, memory, _ in jobs["train"]) == 3000


def rules_of(config: dict, costs: dict | None = None) -> dict:
    """What resources.smk defines."""
    rules = {"config": config, "family": configuration.family, "COSTS": costs}
    exec((ROOT / "workflow/rules/resources.smk").read_text(), rules)
    return rules


def test_without_numbers_of_examples_there_are_as_many_as_in_the_paper():
    from mg.data import SPLITS
    from mg.data.tasks import TASKS

    asked_for = rules_of({"data": {"mode": "paper", "tasks": {"rotation": {"valid": 7}}}})[
        "examples"
    ]
    for task, settings in TASKS.items():
        for split, number in zip(SPLITS, settings.counts, strict=True):
            expected = 7 if (task, split) == ("rotation", "valid") else number
            assert asked_for(task, split) == expected
    assert asked_for("imagenet", "test") == 50_000


def test_saliency_has_the_memory_of_a_card_where_it_has_one(tmp_path):
    def memory(*gpu):
        found = asked(tmp_path, "config", "cpu", "--set-resources", *gpu, "evaluate:runtime=9")
        return {rule: {mb for _, mb, _ in found[rule]} for rule in ("evaluate", "saliency")}

    without, on_card = memory(), memory("saliency:gpu=1")
    assert on_card["evaluate"] == without["evaluate"]
    assert min(on_card["saliency"]) > max(without["saliency"])


def test_time_and_memory_follow_from_what_the_networks_cost(tmp_path):
    """Also with options that change a network in more than the width of its first grid."""
    from mg.networks.counting import layers, total
    from mg.networks.registry import skeleton

    odd = {
        "unet": {"width": [16, 128, 512, 1024]},
        "sg": {"width": 86},
        "pmg": {"blocks": 30},
        "r_pmg": {"width": [8, 64, 64]},
    }
    (tmp_path / "odd.yaml").write_text(
        yaml.safe_dump(
            {
                "tasks": ["rotation"],
                "networks": [f"odd_{name}" for name in odd],
                "data": {"canvas": 64, "digit_size": 28},
                "training": {"tasks": {"rotation": {"epochs": 1, "iterations": 100, "batch": 64}}},
                "architectures": {
                    f"odd_{name}": {"network": name, "options": options}
                    for name, options in odd.items()
                },
            }
        )
    )
    expected, fixed = [], 1000 + 2 * 50_300 * 64**2 * 5 / 1e6  # of libraries and data
    for name, options in odd.items():
        model = skeleton(name, "rotation", **options)
        found = layers(model, (1, 64, 64))
        outputs = sum(math.prod(layer.output_shape) for layer in found)
        parameters, multiply_adds = total(model, found)
        minutes = math.ceil(10 + 2 * 3 * 6400 * multiply_adds / 1.5e10 / 60)
        expected.append((math.ceil(1.1 * (fixed + 16e-6 * (64 * outputs + parameters))), minutes))
    more = (tmp_path / "odd.yaml", "--resources", "mem_mb=99999")
    jobs = asked(tmp_path, "config", "cpu", *more)
    assert sorted(job[1:] for job in jobs["train"]) == sorted(expected)
    assert len({minutes for _, minutes in expected}) == len(odd)


def test_kept_trainings_took_no_more_memory_than_a_job_asks_for():
    compared = 0
    for path in sorted(ROOT.glob("results/reference/*/configuration.yaml")):
        config = merged(ROOT / "config/config.yaml", path)
        configuration.check(config)
        rules, amounts = rules_of(config, package.count(config)), config["training"]["tasks"]
        rules |= {
            "asked_gpus": lambda step: 0,
            "processes": lambda: 1,
            "batch_parts": lambda task, network: 1,
            "training": lambda task, key, amounts=amounts: amounts[task][key],
        }
        for run in sorted(path.parent.glob("models/*/*/seed*/run.json")):
            facts = json.loads(run.read_text())
            if "CPU" not in facts["device"] or facts["dataset"] not in config["tasks"]:
                continue
            made = SimpleNamespace(task=facts["dataset"], network=facts["label"])
            if made.network in config["networks"] and facts["peak_host_bytes"]:
                assert facts["peak_host_bytes"] / 1e6 < rules["train_memory"](made, 1), run
                compared += 1
    assert compared > 80


def test_a_network_that_a_target_alone_names_is_trained_too(tmp_path):
    (tmp_path / "few.yaml").write_text(
        "networks: [unet]\narchitectures: {deep: {network: pmg, options: {n_layer: 2}}}\n"
    )
    targets = [
        f"results/demo/models/translation/{network}/seed0/metrics.json"
        for network in ("deep", "r_pmg")
    ]
    jobs = asked(tmp_path, "config", "cpu", tmp_path / "few.yaml", "--", *targets)
    assert len(jobs["train"]) == len(jobs["evaluate"]) == 2


@pytest.mark.parametrize(
    "error, said",
    [
        (
            ValueError("shapes do not match\nat all"),
            "architectures.pmg: this network fails on images of 32 pixels: shapes do not match "
            "(`mg describe` shows where)",
        ),
        (
            RuntimeError("Storage size calculation overflowed"),
            "data.canvas: 32 is too large for pmg",
        ),
    ],
)
def test_a_network_that_fails_is_named_with_its_error(error, said, monkeypatch):
    from mg.networks import counting

    def fail(*_):
        raise error

    config = merged(ROOT / "config/config.yaml")
    configuration.check(config)
    monkeypatch.setattr(counting, "layers", fail)
    with pytest.raises(UserError) as caught:
        package.count(config | {"networks": ["pmg"]})
    assert str(caught.value) == said


@pytest.mark.parametrize("name", ["paper", "cifar100", "imagenet"])
def test_where_nothing_was_counted_networks_cost_as_much_as_the_papers_largest(name):
    config = merged(ROOT / "config/config.yaml", ROOT / f"config/{name}.yaml")
    configuration.check(config)
    counted = [cost for networks in package.count(config).values() for cost in networks.values()]
    assumed = rules_of(config)["cost"](config["tasks"][0], config["networks"][0])
    for what in ("multiply_adds", "outputs", "parameters"):
        most = max(cost[what] for cost in counted)
        assert most <= assumed[what] < 1.02 * most, what


def test_snakemake_does_without_pytorch(tmp_path):
    arguments = ["--dry-run", "--quiet", "--cores", "1", "--directory", str(tmp_path)]
    arguments += ["--snakefile", str(ROOT / "workflow/Snakefile")]
    script = (
        "import sys, snakemake.cli\ntry: snakemake.cli.main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
