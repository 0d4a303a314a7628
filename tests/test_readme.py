"""The numbers in README.md are those of the results that come with the repository."""

import csv
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from statistics import mean, stdev

import pytest

from mg.files import read_json
from mg.records import read_configuration, read_run

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results/reference"
README = (ROOT / "README.md").read_text(encoding="utf-8")
LABELS = {
    **{"U-NET": "unet", "U-MG": "umg", "SG": "sg", "R-SG": "r_sg", "PMG": "pmg", "R-PMG": "r_pmg"},
    "constant answer": None,
}
TABLES = [  # run, task and measure of every column but the first
    [
        ("standard", "segmentation", "mean_iu"),
        ("standard-muon", "segmentation", "mean_iu"),
        ("wide", "segmentation", "mean_iu"),
        ("wide-muon", "segmentation", "mean_iu"),
        ("paper-bf16", "segmentation", "mean_iu"),
        ("wide", "segmentation", "params", 1e6),
        ("wide", "segmentation", "macs", 1e9),
    ],
    [
        *(
            ("standard", task, "mean_iu")
            for task in ("translation", "rotation", "affine_transform", "scaling")
        ),
        ("standard", "spatial_transform", "mean_iu"),
        ("wide", "translation", "mean_iu"),
        ("tenth", "spatial_transform", "mean_iu"),
    ],
    [
        ("demo", "translation", "mean_iu"),
        *(("demo", "segmentation", key) for key in ("mean_iu", "params", "macs")),
    ],
]
UNITS = {"params": 1e3, "macs": 1e6}


def tables() -> list[list[list[str]]]:
    """README's tables whose first column is `network`: rows of cells."""
    found = re.findall(r"^\| network \|.*\n\|[-:| ]+\n((?:\|.*\n)+)", README, re.M)
    return [
        [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines()]
        for text in found
    ]


def kept(run: str, task: str, label: str | None) -> list[dict]:
    """metrics.json of every seed; of any network for the constant answer."""
    return [
        read_json(p)
        for p in sorted(REFERENCE.glob(f"{run}/models/{task}/{label or '*'}/*/metrics.json"))
    ]


def shown(run: str, task: str, label: str | None, key: str, unit: float | None = None) -> str:
    """The cell as it has to be; numbers of a table's own `unit` with two decimals."""
    records = kept(run, task, label)
    if not records:
        return "*not run*"
    if label is None:
        return f"{records[0]['constant_answer'][key]:.3f}" if key == "mean_iu" else ""
    values = [record[key] for record in records]
    if key in UNITS:
        return f"{values[0] / unit:.2f}" if unit else f"{values[0] / UNITS[key]:.1f}"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_a_table_of_the_readme_shows_what_is_kept(number):
    rows = tables()[number]
    assert len(rows) >= 6
    for name, *cells in rows:
        label = LABELS[name.strip("*").split(",")[0]]
        expected = [shown(run, task, label, *what) for run, task, *what in TABLES[number]]
        assert cells == expected, name


def test_the_readme_counts_the_claims_that_hold():
    (line,) = re.findall(r"^\| \*\*the paper's claims that hold.*$", README, re.M)
    counted = [cell.strip() for cell in line[1:-1].split("|")][1:]
    expected = []
    for run in ("demo", "standard", "wide", "paper-bf16"):
        with open(REFERENCE / run / "tables/claims.csv", newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["source"] == "paper"]
        verdicts = [row["verdict"] for row in rows if row["verdict"] != "not run"]
        expected.append(f"{verdicts.count('holds')} of {len(verdicts)}")
    assert counted == expected


def test_every_file_that_a_document_names_is_there():
    for document in [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        REFERENCE / "README.md",
        ROOT / "config/README.md",
    ]:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_kept_records_are_whole():
    runs, configurations = REFERENCE.rglob("run.json"), REFERENCE.rglob("configuration.yaml")
    assert len([read_run(path) for path in runs]) > 100
    assert len([read_configuration(path) for path in configurations]) > 5


def test_the_python_that_the_readme_shows_works(mnist_directory, tmp_path):
    code = re.search(r"\nIn Python:\n\n((?:    .*\n|\n)+)", README)[1]
    drawn = ["--task", "translation", "--split", "train", "--canvas", "32", "--digit-size", "14"]
    drawn += ["--count", "64", "--mnist", mnist_directory, "--output", tmp_path / "train.h5"]
    subprocess.run([sys.executable, "-m", "mg", "generate", *drawn], check=True)
    short = textwrap.dedent(code).replace("iterations=100", "iterations=2, batch=4")
    check = "\nassert forward(network, x).shape == (1, 1, 64, 64) and facts['label'] == 'pmg'"
    check += "\nassert max(map(len, pyramids)) == 3 and pyramids[-1][0].shape == (1, 1, 64, 64)"
    done = subprocess.run(
        [sys.executable, "-c", f"{short}{check}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_network_that_comes_trained_segments(mnist_directory, tmp_path):
    """On the first of the authors' test images, by this version."""
    model = REFERENCE / "paper-bf16/models/segmentation/r_pmg/seed0/model.pt"
    data, metrics = tmp_path / "test.h5", tmp_path / "metrics.json"
    drawn = ["--task", "segmentation", "--split", "test", "--mode", "paper", "--count", "32"]
    written = ["--metrics", metrics, "--predictions", tmp_path / "predictions.h5"]
    for command in (
        ["generate", *drawn, "--mnist", mnist_directory, "--output", data],
        ["evaluate", "--model", model, "--data", data, *written],
    ):
        subprocess.run([sys.executable, "-m", "mg", *command], check=True, capture_output=True)
    assert read_json(metrics)["mean_iu"] > 0.7
