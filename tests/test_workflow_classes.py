"""Classifiers through the workflow's rules, for real: archives or photographs in, tables out."""

import html
import json
import re

import pandas
import pytest
from photographs import write_photographs
from test_workflow_run import change_a_digit, digits_of_ones_own, planned, snakemake

TRAINING = {
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "learning_rate": 0.01,
    "output_prior": False,
    "preparation": "plain",
}
WIDTH = [[4, 2, 2], [4, 2, 2], [4, 2, 2], [8, 4, 2], [8, 4]]
DIGITS = {
    "run": "digits",
    "tasks": ["cifar10"],
    "networks": ["mg", "vgg"],
    "cifar": {"directory": "digits", "sources": ["mnist"]},
    "data": {"tasks": {"cifar10": {"train": 200, "valid": 50, "test": 60}}},
    "architectures": {
        "mg": {"network": "mg", "options": {"width": WIDTH}},
        "vgg": {"network": "vgg", "options": {"width": [4, 4, 4, 8, 8]}},
    },
    "training": TRAINING | {"tasks": {"cifar10": {"epochs": 2, "iterations": 5, "batch": 16}}},
}


def test_digits_in_cifars_format_become_a_table(mnist_directory, tmp_path):
    config = DIGITS | {"mnist": {"directory": str(mnist_directory)}}
    done = snakemake(tmp_path, config)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results/digits"
    table = pandas.read_csv(results / "tables/classification.csv")
    assert sorted(table.network) == ["mg", "vgg"] and table.top1_error.between(0, 1).all()
    assert (table.train_images == 160).all()
    for name in ("tables/classification.html", "figures/learning_curves.svg", "overview.html"):
        assert (results / name).stat().st_size
    curves = (results / "figures/learning_curves.svg").read_text()
    assert "Top-1" in curves and "pixel" not in curves
    for name in ("tables/classification.md", "figures/learning_curves.svg", "overview.html"):
        text = html.unescape((results / name).read_text())
        assert "MNIST's digits in CIFAR-10's format" in text, name
    assert not (results / "tables/claims.html").exists()  # its claims are of pixels
    again = snakemake(tmp_path, config, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_other_digits_of_ones_own_make_other_images(mnist_directory, tmp_path):
    config = DIGITS | digits_of_ones_own(mnist_directory, tmp_path / "own")
    target = "results/digits/data/cifar10/test.h5"
    assert snakemake(tmp_path, config, "--", target).returncode == 0
    assert planned(tmp_path, config, target) == {}
    (tmp_path / "own/NOTES.txt").write_text("which digits these are")
    of_photographs = {"imagenet": {"crop": 96, "ten_crops": True}}
    assert planned(tmp_path, config | of_photographs, target) == {}
    change_a_digit(tmp_path / "own")
    jobs = planned(tmp_path, config, target)
    assert jobs["fetch_cifar"] == jobs["prepare"] == 1


def test_photographs_become_a_table(tmp_path):
    """Each network is trained by two processes."""
    write_photographs(tmp_path / "photographs", train=26, test=3)
    width = [[8, 4, 4], [8, 4, 4], [8, 8], [16]]
    config = {
        "run": "photographs",
        "tasks": ["imagenet"],
        "networks": ["r_mg_18"],
        "imagenet": {"directory": "photographs", "crop": 32, "ten_crops": True},
        "architectures": {"r_mg_18": {"network": "r_mg", "options": {"depth": 18, "width": width}}},
        "training": TRAINING | {"tasks": {"imagenet": {"epochs": 1, "iterations": 2, "batch": 8}}},
    }
    two = ("--set-resources", "train:processes=2")
    done = snakemake(tmp_path, config, *two)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "results").rglob("run.json")
    run = json.loads(path.read_text())
    assert (run["processes"], run["threads"]) == (2, 1)
    again = snakemake(tmp_path, config, "--dry-run")  # in one process, the results still stand
    assert "Nothing to be done" in again.stdout + again.stderr
    table = pandas.read_csv(tmp_path / "results/photographs/tables/classification.csv")
    assert table.top1_error_10crop.between(0, 1).all()


def test_another_folder_of_photographs_is_listed_anew(tmp_path):
    config = {"run": "photographs", "tasks": ["imagenet"], "networks": ["r_mg"]}
    config |= {"architectures": {"r_mg": {"network": "r_mg", "options": {"depth": 18}}}}
    amounts = {"tasks": {"imagenet": {"epochs": 1, "iterations": 2, "batch": 8}}}
    config |= {"training": TRAINING | amounts}
    target = "results/photographs/data/imagenet/test.h5"
    for folder in ("one", "other"):
        write_photographs(tmp_path / folder, train=26, test=3)
        config["imagenet"] = {"directory": folder, "crop": 32}
        plan = snakemake(tmp_path, config, "--dry-run", "--", target)
        assert re.search(r"^prepare +1$", plan.stdout + plan.stderr, re.M), plan.stderr
        done = snakemake(tmp_path, config, "--", target)
        assert done.returncode == 0, done.stdout + done.stderr
    plan = snakemake(tmp_path, config, "--dry-run", "--", target)
    assert "Nothing to be done" in plan.stdout + plan.stderr


@pytest.mark.parametrize(
    "task, network, parts",
    [
        ("cifar100", "mg", ["cifar-100-python.tar.gz", "169 MB", "cifar-digits.yaml"]),
        ("imagenet", "r_mg", ["image-net.org", "138 GB", "cifar-digits.yaml"]),
    ],
)
def test_missing_data_are_explained_before_anything_is_trained(tmp_path, task, network, parts):
    config = {
        "run": "missing",
        "tasks": [task],
        "networks": ["own"],
        "cifar": {"directory": "cifar", "sources": ["nowhere"]},
        "imagenet": {"directory": "photographs"},
        "architectures": {"own": {"network": network, "options": {}}},
        "training": TRAINING | {"tasks": {task: {"epochs": 1, "iterations": 1, "batch": 8}}},
    }
    assert snakemake(tmp_path, config, "--dry-run").returncode == 0
    done = snakemake(tmp_path, config)
    assert done.returncode != 0
    for part in parts:
        assert part in done.stdout + done.stderr
    assert not list((tmp_path / "results").rglob("*.h5"))


def test_the_classifiers_configurations_are_the_papers():
    """Recipes and widths of the authors' experiments."""
    from test_workflow_configuration import ROOT, merged

    from mg import networks
    from mg.networks.counting import count
    from mg.training.recipe import Recipe

    cifar = merged(ROOT / "config/config.yaml", ROOT / "config/cifar100.yaml")
    amounts = cifar["training"].pop("tasks")["cifar100"]
    assert (amounts["epochs"], amounts["iterations"], amounts["batch"]) == (200, 300, 128)
    assert amounts["include_valid"] and cifar["training"].pop("preparation") == "whitened"
    assert Recipe(**cifar["training"]) == Recipe()
    for name in cifar["networks"]:
        entry = cifar["architectures"][name]
        residual = entry["network"].startswith("r")
        assert amounts["accumulate"].get(name, 1) == (2 if residual else 1)
        assert residual or entry["options"]["initialisation"] == "released"
    parameters = {"mg_2": 20.461, "r_mg_4": 93.256, "vgg_1": 10.017, "resnet_3": 31.488}
    for name, millions in parameters.items():
        entry = cifar["architectures"][name]
        model = networks.registry.skeleton(entry["network"], "cifar100", **entry["options"])
        assert count(model, (3, 32, 32)).parameters / 1e6 == pytest.approx(millions, abs=6e-4)

    imagenet = merged(ROOT / "config/config.yaml", ROOT / "config/imagenet.yaml")
    amounts = imagenet["training"]["tasks"]["imagenet"]
    assert (amounts["epochs"], amounts["iterations"], amounts["batch"]) == (200, 10_000, 256)
    assert (imagenet["training"]["schedule"], imagenet["training"]["weight_decay"]) == (
        "every_30",
        1e-4,
    )
    assert {amounts["accumulate"][name] for name in imagenet["networks"] if "seg" in name} == {16}
    assert {amounts["accumulate"][n] for n in imagenet["networks"] if "seg" not in n} == {4}
