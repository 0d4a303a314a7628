"""`mg compare` on the results that come with the repository, and on copies of them, changed."""

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import fmean as mean

import numpy as np
import pytest
import yaml
from scipy.special import stdtrit

from mg.errors import UserError
from mg.files import read_json, write_json
from mg.report import compare
from mg.report.tables.summaries import Summary, read_metrics, summarise

REFERENCE = Path(__file__).parent.parent / "results/reference"
NETWORKS = ("unet", "umg", "sg", "r_sg", "pmg", "r_pmg")


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the demo's reference results, with only what `compare` reads."""
    folder = tmp_path / "demo"
    for path in REFERENCE.glob("demo/models/*/*/seed*/metrics.json"):
        target = folder / path.relative_to(REFERENCE / "demo")
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    shutil.copy(REFERENCE / "demo/configuration.yaml", folder)
    return folder


def change(folder, network, measure, add, seeds=(0, 1, 2)):
    for seed in seeds:
        path = folder / f"models/translation/{network}/seed{seed}/metrics.json"
        record = read_json(path)
        record[measure] += add
        write_json(path, record)


def verdicts(folder):
    ours, theirs = compare.summaries(folder), compare.summaries(REFERENCE / "demo")
    return {(li.task, li.network, li.measure): li for li in compare.compare(ours, theirs)}


def test_a_run_equals_itself(copy):
    text, differs = compare.report(copy, REFERENCE)
    assert not differs
    assert (
        "60 numbers are the same" in text and "no setting differs" in text and "no origin" in text
    )
    assert text.count("U-MG") == 2 * 5


def test_results_that_the_configuration_does_not_name_are_told(copy):
    assert "counted too" not in compare.report(copy, REFERENCE)[0]
    path = copy / "configuration.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"networks": ["unet", "pmg"], "seeds": [0, 1]}))
    assert "counted too" not in compare.report(REFERENCE / "demo", copy)[0]
    line = compare.report(copy, REFERENCE)[0].splitlines()[1]
    assert line.startswith(f"counted too, though {path} does not name them: Segmentation U-NET ")
    # Of both tasks: three seeds of four networks, and one of the two others.
    assert line.endswith(
        " seed 2, Segmentation U-MG seed 0, Segmentation U-MG seed 1 and "
        f"{2 * (4 * 3 + 2) - 3} more; if they are left over from other settings, delete their "
        "folders"
    )


def test_what_exceeds_the_spread_of_a_difference_is_named(copy):
    before = verdicts(copy)["translation", "pmg", "mean_iu"]
    sd = before.ours.sd("mean_iu")
    assert before.allowed == pytest.approx(4.6040949 * (2 / 3) ** 0.5 * sd)
    change(copy, "pmg", "mean_iu", 0.9 * before.allowed)
    text, differs = compare.report(copy, REFERENCE)
    assert not differs and "60 numbers are the same" in text
    change(copy, "pmg", "mean_iu", 0.2 * before.allowed)
    text, differs = compare.report(copy, REFERENCE)
    assert not differs and "   1 numbers are unusual" in text
    assert "nothing differs that seeds do not explain" in text
    (line,) = [line for line in verdicts(copy).values() if line.verdict == "unusual"]
    assert (line.task, line.network, line.measure) == ("translation", "pmg", "mean_iu")
    assert line.difference == pytest.approx(1.1 * before.allowed)
    assert 0.005 < line.chance < compare.LEVEL
    change(copy, "pmg", "mean_iu", 1.0 * before.allowed)  # seldom even among 60 numbers
    text, differs = compare.report(copy, REFERENCE)
    assert differs and "   1 numbers differ" in text and "the runs differ: by numbers" in text
    (line,) = [line for line in verdicts(copy).values() if line.verdict == "differs"]
    assert (line.task, line.network, line.measure) == ("translation", "pmg", "mean_iu")
    assert line.chance * 60 < compare.CHANCE


def test_a_number_is_judged_among_those_that_are_not_told_apart_yet(copy):
    """Holm's procedure: beside one that differs, the next is one of 59."""
    line = verdicts(copy)["translation", "unet", "mean_iu"]
    error = line.allowed / -stdtrit(4, compare.LEVEL / 2)  # of the difference of means
    change(copy, "unet", "mean_iu", -float(stdtrit(4, compare.CHANCE / 59.5 / 2)) * error)
    assert verdicts(copy)["translation", "unet", "mean_iu"].verdict == "unusual"
    change(copy, "pmg", "mean_iu", 0.5)
    found = verdicts(copy)
    assert found["translation", "pmg", "mean_iu"].verdict == "differs"
    assert found["translation", "unet", "mean_iu"].verdict == "differs"
    assert (
        compare.CHANCE / 60 < found["translation", "unet", "mean_iu"].chance < compare.CHANCE / 59
    )


def test_unusual_numbers_of_more_networks_than_chance_explains_count(copy):
    lines = verdicts(copy)
    for found, network in enumerate(("pmg", "unet", "umg")):
        assert not compare.report(copy, REFERENCE)[1], found
        change(copy, network, "mean_iu", 1.1 * lines["translation", network, "mean_iu"].allowed)
    text, differs = compare.report(copy, REFERENCE)
    assert differs and "   3 numbers are unusual" in text
    assert "the runs differ: numbers of more networks are unusual than chance explains" in text


def test_one_seed_is_held_against_the_spread_of_the_other_run(copy):
    for seed in (1, 2):
        shutil.rmtree(copy / f"models/translation/pmg/seed{seed}")
    line = verdicts(copy)["translation", "pmg", "mean_iu"]
    assert line.allowed == pytest.approx(9.9248432 * (4 / 3) ** 0.5 * line.theirs.sd("mean_iu"))


@pytest.mark.parametrize(("ours", "theirs"), [(1, 3), (2, 3), (3, 3), (8, 9)])
def test_runs_of_one_experiment_seldom_differ(ours, theirs):
    """As seldom as is said, whatever the numbers of seeds."""
    runs = np.random.default_rng(ours).normal(size=(20_000, ours + theirs)).tolist()
    differ = sum(
        abs(mean(run[:ours]) - mean(run[ours:])) > compare._judge(run[:ours], run[ours:])[0]
        for run in runs
    )
    assert 0.007 < differ / len(runs) < 0.013


@pytest.mark.parametrize("together", [0.0, 0.9])
@pytest.mark.parametrize("ours", [1, 3])
def test_whole_runs_of_one_experiment_seldom_differ(ours, together):
    """Though 60 numbers are compared, in which the measures of a network move `together`."""
    random = np.random.default_rng(ours)

    def draw(seeds):
        results = {}
        for task, network in product(("segmentation", "translation"), NETWORKS):
            shape = (seeds, len(compare.MEASURES))
            common, own = random.normal(size=(seeds, 1)), random.normal(size=shape)
            values = 0.5 + 0.01 * (together**0.5 * common + (1 - together) ** 0.5 * own)
            records = [dict(zip(compare.MEASURES, row, strict=True)) for row in values.tolist()]
            results[task, network] = Summary(task, network, records, [])
        return results

    runs = [compare.compare(draw(ours), draw(3)) for _ in range(400)]
    assert all(len(lines) == 60 for lines in runs)
    differ = [compare.reason(lines) != "" for lines in runs]
    assert sum(differ) / len(runs) < 0.1
    assert any(line.verdict == "unusual" for lines in runs for line in lines)


@pytest.mark.parametrize("run", ["demo", "demo-adamw", "demo-float32"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_seed_of_a_kept_run_differs_from_the_others(run, seed):
    paths = sorted((REFERENCE / run / "models").glob("*/*/seed*/metrics.json"))
    records = read_metrics(paths, ())
    one, others = (
        {
            (s.dataset, s.network): s
            for s in summarise(r for r in records if (r["seed"] == seed) is w)
        }
        for w in (True, False)
    )
    assert not compare.reason(compare.compare(one, others))


def test_what_cannot_be_seen_in_the_digits_shown_does_not_differ():
    nothing = [{"mean_iu": value} for value in (0.0, 0.0, 0.0)]

    def verdict(value):
        runs = [
            {("translation", "sg"): Summary("translation", "sg", r, [])}
            for r in ([{"mean_iu": value}], nothing)
        ]
        return next(li for li in compare.compare(*runs) if li.measure == "mean_iu").verdict

    assert verdict(1e-6) == "same" and verdict(0.01) == "differs"


def test_a_measure_that_one_run_lacks_altogether_does_not_differ_for_that(copy):
    for seed in (0, 1, 2):
        path = copy / f"models/translation/sg/seed{seed}/metrics.json"
        write_json(path, read_json(path) | {"mean_acc": None})
    text, differs = compare.report(copy, REFERENCE)
    assert not differs and "   1 numbers are not defined for some seeds of one run" in text


def test_without_a_spread_nothing_is_claimed(copy, tmp_path):
    single = tmp_path / "single" / "demo"
    for folder in (copy, single):
        if folder is single:
            shutil.copytree(copy, single)
        for path in folder.glob("models/*/*/seed[12]"):
            shutil.rmtree(path)
    change(single, "unet", "bce", 0.5, seeds=[0])
    text, differs = compare.report(single, copy)
    assert not differs and "1 numbers are not equal, with one seed each" in text
    assert "whether the runs differ is not known" in text and "nothing differs" not in text


def test_a_measure_that_some_seeds_lost_is_not_called_the_same(copy):
    path = copy / "models/segmentation/pmg/seed0/metrics.json"
    record = read_json(path)
    others = [
        read_json(path.parents[1] / f"seed{seed}/metrics.json")["mean_acc"] for seed in (1, 2)
    ]
    assert abs(record["mean_acc"] - mean(others)) < 0.05  # without it the means would be the same
    write_json(path, record | {"mean_acc": None})
    text, differs = compare.report(copy, REFERENCE)
    assert not differs and "   1 numbers are not defined for some seeds of one run" in text
    (line,) = [line for line in text.splitlines() if "undefined in part" in line]
    assert "Segmentation" in line and "mean_acc" in line and "(2 of 3)" in line and "(3)" in line


def test_missing_is_shown_and_does_not_count_as_a_difference(copy):
    shutil.rmtree(copy / "models/translation/sg")
    text, differs = compare.report(copy, REFERENCE)
    assert not differs
    assert "5 numbers are missing in one run" in text and text.count("missing: ours") == 5


def test_settings_that_differ_are_named(copy):
    path = copy / "configuration.yaml"
    before = path.read_text()
    changed = before.replace("run: demo", "run: other").replace("canvas: 32", "canvas: 48")
    assert changed != before
    path.write_text("".join(changed.splitlines(keepends=True)[:-1]))  # without its checksum
    line = next(li for li in compare.report(copy, REFERENCE)[0].splitlines() if "canvas" in li)
    assert line.split() == ["data.canvas", "48", "32"]


def test_recipes_that_differ_are_named_though_the_configuration_is_the_same(copy):
    """It was changed after the training, or one network was trained by hand."""

    def recipes(*names):
        for path in copy.glob("models/*/*/seed0/metrics.json"):
            if path.parts[-3] in names:
                record = read_json(path)
                record["settings"]["training"]["recipe"]["learning_rate"] = 0.5
                write_json(path, record)
        return block(copy, "recipe")

    assert recipes() == ["no recipe differs"]
    assert recipes("pmg") == [
        "recipe that differs ours theirs",
        "learning_rate of Segmentation PMG, Translation PMG 0.035 and 0.5 0.035",
    ]
    assert recipes(*NETWORKS)[1:] == ["learning_rate 0.035 and 0.5 0.035"]
    path = copy / "models/translation/pmg/seed0/metrics.json"
    shutil.rmtree(path.parents[1])
    path.parent.mkdir(parents=True)
    record = read_json(REFERENCE / "demo/models/translation/pmg/seed0/metrics.json")
    write_json(path, record | {"settings": {**record["settings"], "training": None}})
    assert recipes() == ["recipes are not compared: not every record of both runs has one"]


def block(folder, kind):
    """What `mg compare` says of the settings of a kind, with single spaces."""
    blocks = compare.report(folder, REFERENCE)[0].split("\n\n")
    (text,) = (b for b in blocks if b.startswith((kind, f"no {kind} differs")))
    return [" ".join(line.split()) for line in text.splitlines() if line.strip("-")]


def test_test_sets_and_network_options_that_differ_are_named(copy):
    assert block(copy, "test set") == ["no test set differs"]
    assert block(copy, "network option") == ["no network option differs"]
    for path in copy.glob("models/segmentation/*/seed*/metrics.json"):
        record = read_json(path)
        record["settings"]["test"]["images_sha256"] = "other"
        if "sg" in path.parts:
            record["settings"]["network"]["blocks"] = 1
        write_json(path, record)
    digits = "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    (_, line) = block(copy, "test set")
    assert line.startswith("images_sha256 of Segmentation U-NET, ")
    assert line.endswith(f"Segmentation R-PMG other {digits}")
    options = block(copy, "network option")
    assert options == ["network option that differs ours theirs", "blocks of Segmentation SG 1 3"]


def test_the_command_says_by_its_status_whether_numbers_differ(copy):
    def run(*paths):
        command = [sys.executable, "-m", "mg", "compare", *map(str, paths)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run(copy, REFERENCE).returncode == 0
    change(copy, "pmg", "mean_iu", 0.3)
    done = run(copy, REFERENCE)
    assert done.returncode == 1 and "differs" in done.stdout
    wrong = run(copy / "models", REFERENCE)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert "holds no results" in wrong.stderr


def test_nothing_to_compare_is_an_error(copy, tmp_path):
    for path in copy.glob("models/*/*"):
        if path.parent.name != "segmentation" or path.name != "pmg":
            shutil.rmtree(path)
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    (other / "models/segmentation").rename(other / "models/gone")
    for path in other.glob("models/gone/*/*/metrics.json"):
        write_json(path, read_json(path) | {"dataset": "rotation"})
    with pytest.raises(UserError, match="no network of one task in common"):
        compare.report(copy, other)
    shutil.copytree(copy, tmp_path / "runs" / "a")
    shutil.copytree(copy, tmp_path / "runs" / "b")
    with pytest.raises(UserError, match="holds several runs"):
        compare.report(copy, tmp_path / "runs")


def test_classifiers_are_compared_by_their_errors(tmp_path):
    (folder,) = REFERENCE.glob("cifar-*")
    text, differs = compare.report(folder, REFERENCE)
    assert not differs and "top1_error" in text and "mean_iu" not in text


def test_a_damaged_record_is_refused_in_one_line(copy):
    path = copy / "models/translation/pmg/seed0/metrics.json"
    path.write_text(json.dumps({"dataset": "translation", "network": "pmg", "seed": 0}))
    with pytest.raises(UserError, match="no valid entry"):
        compare.report(copy, REFERENCE)
