"""The benchmarks run and print their tables, on a few small images."""

import base64
import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from marks import needs_cxx
from PIL import Image

from mg.evaluation import attention
from mg.report.figures.saliency import HUES, saliency_image

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


def printed(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    one_core = min(os.sched_getaffinity(0))  # threads that wait for one another take long here
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, [one_core]),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text, start):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {start}")
    ]


def test_training_is_measured_against_floor_and_baseline():
    small = ("--canvas", 16, "--batch", 2, "--seconds", 0.01, "--rounds", 1, "--device", "cpu")
    text = printed("training.py", "--networks", "pmg", *small)
    costs, measured = rows(text, "pmg")
    assert costs[1] == "38,094" and float(costs[5].replace(",", "")) > 0
    baseline, ours, ratio = (float(cell.replace(",", "")) for cell in measured[1:4])
    assert baseline > 0 and ours > 0 and 0.1 < ratio < 10
    assert len(rows(text, "+")) >= 3  # the tricks, one by one
    assert "weights after 5 steps, distance from baseline's" in text


def test_a_variant_that_computes_something_else_is_far_from_the_baseline(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training

    device = torch.device("cpu")
    baseline, *_, faster = [
        v for v in training.variants(device, False) if v.activations == torch.float32 and not v.keep
    ]
    assert faster.faster
    half = replace(faster, name="in bfloat16", activations=torch.bfloat16)

    def found():
        kinds = (baseline, faster, half)
        return training.distances(
            [training.Training("pmg", {"width": [8, 8]}, 16, 4, kind, device) for kind in kinds]
        )

    same, rounded, coarse = found()
    assert same == 0 < rounded < 2e-3 < coarse < 0.1
    spread = training.execution.spread
    monkeypatch.setattr(training.execution, "spread", lambda weight: spread(weight.flip(2)))
    assert found()[1] > 0.1


def test_muon_is_measured_against_its_floor_and_its_source():
    text = printed("muon.py", "--networks", "pmg", "--rounds", 1, "--device", "cpu")
    ((_, floor, adamw, source, ours, ratio),) = rows(text, "pmg")
    assert 0 < float(floor) < float(ours) and float(adamw) > 0
    assert float(ratio) == pytest.approx(float(source) / float(ours), rel=0.05)


@needs_cxx
def test_each_setting_of_the_compiler_is_compiled_anew():
    """In a process of its own: how a Python function was compiled is remembered there."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
import torch
import training
from torch._dynamo.utils import counters

device = torch.device("cpu")
plain = replace(training.variants(device, False)[0], faster=True, execution="compiled")
kinds = (plain, plain, replace(plain, compiler=("epilogue_fusion",)))
made = [training.Training("sg", {"width": 4}, 8, 2, kind, device) for kind in kinds]
for one in made:
    before = counters["stats"]["unique_graphs"]
    one.run(1)
    print(one.step.execution, counters["stats"]["unique_graphs"] - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, BENCHMARKS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["compiled", "1", "compiled", "0", "compiled", "1"]


def test_trainings_side_by_side_are_counted_together():
    small = ("--canvas", 16, "--batch", 2, "--seconds", 0.05, "--rounds", 1, "--device", "cpu")
    (row,) = rows(printed("training.py", "--networks", "pmg", "--side-by-side", *small), "pmg")
    assert all(float(cell.replace(",", "")) > 0 for cell in row[1:]) and len(row) == 5


def test_without_a_gpu_its_benchmarks_say_so_in_one_line(tmp_path):
    done = subprocess.run(
        [BENCHMARKS / "gpu.sh", tmp_path / "gpu"],
        env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "no CUDA device is visible" in line
    assert not (tmp_path / "gpu").exists()


def test_time_to_quality_goes_down_until_the_goal_is_missed(tiny, tmp_path):
    arguments = (
        *("--train", tiny / "train.h5", "--valid", tiny / "valid.h5", "--output", tmp_path / "out"),
        *("--task", "translation", "--network", "pmg", "--options", '{"width": [4, 4]}'),
        *("--seeds", 1, "--epochs", 4, "--iterations", 4, "--batch", 8, "--least", 2),
        *("--device", "cpu", "--threads", 1),
    )
    text = printed("time_to_quality.py", *arguments)
    (paper,) = rows(text, "paper")
    for name in ("adamw", "muon"):
        (fast,) = rows(text, name)
        assert (paper[1], fast[1]) == ("128", "64")
        reached = float(fast[3].split()[0]) >= float(paper[3].split()[0])
        assert (f"{name} reached it with 64 images, 1/2.0" in text) == reached
        assert (f"{name} did not reach it" in text) != reached
    assert printed("time_to_quality.py", *arguments) == text  # nothing is trained again
    printed("time_to_quality.py", *arguments, "--epochs", 2)  # the results of 4 are not taken
    assert json.loads((tmp_path / "out/paper/seed0/run.json").read_text())["images"] == 64


CHANGES = ("unit", "steps", "decay", "free", "high", "steps-low", "steps-high")


def test_changes_of_the_papers_recipe_lead_to_different_trainings(tiny, tmp_path):
    # float32 changes something only where `auto` is another type.
    of_r_pmg = ("exponential", "momentum", "halves")
    cases = ("r_pmg", *(f"r_pmg-{c}" for c in of_r_pmg), "unet", *(f"unet-{c}" for c in CHANGES))
    arguments = (
        *("--train", tiny / "train.h5", "--valid", tiny / "valid.h5", "--output", tmp_path / "out"),
        *("--epochs", 3, "--iterations", 2, "--task", "translation", "--cases", *cases),
    )
    text = printed("paper_recipe.py", *arguments)
    found = rows(text, "unet") + rows(text, "r_pmg")
    assert len(found) == len({tuple(row[:2]) for row in found}) == len(cases)
    last = {}
    for name in cases:
        with open(tmp_path / "out" / name / "history.csv", newline="") as file:
            last[name] = list(csv.DictReader(file))[-1]["train_loss"]
    assert len(set(last.values())) == len(cases)  # every change changes something
    assert printed("paper_recipe.py", *arguments) == text  # nothing is trained again
    other = printed("paper_recipe.py", *arguments, "--output", tmp_path / "seed1", "--seed", 1)
    assert not set(map(tuple, rows(other, "r_pmg"))) & set(map(tuple, rows(text, "r_pmg")))


def test_the_kept_figure_of_rates_is_that_of_the_kept_histories(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from sum_of_rates import panels

    printed("sum_of_rates.py", "--output", tmp_path / "rates")
    kept = BENCHMARKS.parent / "results/reference/paper-recipe/rates.svg"
    drawn = (tmp_path / "rates.svg").read_text()
    small = {name: lines for name, lines in panels().items() if name.endswith(", small")}
    labels = [[line.label for line in lines.values()] for lines in small.values()]
    assert [of.count("steps from 0.0412") for of in labels] == [1, 1, 1]  # of every small network
    assert all(f">{name}</text>" in drawn for name in small)
    assert drawn.count(">steps from 0.0412</text>") == 1  # they share a legend
    assert drawn == kept.read_text()


def test_maps_in_a_notebook_are_measured_as_those_in_files(tmp_path):
    """A notebook of our own maps, drawn as the authors draw theirs, with input and output."""
    file = ROOT / "results/reference/wide/models/translation/r_pmg/seed0/saliency.h5"
    maps = attention.read(file)
    outputs = []
    for image, output, of_points in zip(maps["input"], maps["output"], maps["map"], strict=True):
        outputs.append({"data": {"text/plain": ["-------a place-------"]}})
        digit = (image[0] >= 0.5).astype(float)
        drawn = [np.repeat(1 - x[0][..., None], 3, 2) for x in (image, output)]
        drawn += [saliency_image(m, digit, hue) for m, hue in zip(of_points, HUES, strict=True)]
        for picture in drawn:
            content = io.BytesIO()
            Image.fromarray((picture * 255).round().astype(np.uint8)).save(content, "PNG")
            png = base64.b64encode(content.getvalue()).decode()
            outputs.append({"data": {"image/png": png, "text/plain": ["no images here"]}})
    (tmp_path / "maps.ipynb").write_text(json.dumps({"cells": [{"outputs": outputs}]}))
    (theirs,) = rows(text := printed("authors_saliency.py", tmp_path / "maps.ipynb", file), "R-PMG")
    (ours,) = rows(text, "/")
    assert theirs[1:] == ours[1:] and theirs[1] == "56"
    ratio, shift = attention.attention_ratio(maps), attention.attention_shift(maps)
    assert float(ours[4]) == pytest.approx(shift, abs=0.1)
    assert float(ours[3]) == pytest.approx(ratio, abs=0.2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no JSON", "is no readable notebook"),
        ('{"name": "maps"}', "is no readable notebook"),
        ('{"cells": [{"outputs": []}]}', "shows no pictures"),
    ],
)
def test_what_is_no_notebook_with_maps_is_refused_in_one_line(tmp_path, text, problem):
    (file := tmp_path / "maps.ipynb").write_text(text)
    command = [sys.executable, str(BENCHMARKS / "authors_saliency.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and f"{file} {problem}" in done.stderr
