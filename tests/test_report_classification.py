"""The table of classifiers: the authors' numbers beside ours, and only where they belong."""

import csv
import json

import pytest
from test_report_tables import record as measured

from mg.errors import UserError
from mg.report.figures.classes import per_class_iu
from mg.report.figures.cost import quality_against_cost
from mg.report.tables.claims import write_claims_table
from mg.report.tables.classification import write_classification_table
from mg.report.tables.networks import run_rows, write_network_table
from mg.report.tables.results import write_results_table


def record(path, network, options, seed=0, dataset="cifar100", **changes):
    content = {
        "dataset": dataset,
        "network": changes.pop("label", network),
        "seed": seed,
        "top1_error": 0.30,
        "top5_error": 0.10,
        "cross_entropy": 1.25,
        "params": 20_461_220,
        "macs": 394_510_000,
        "train_images": 7_680_000,
        "train_seconds": 100.0,
        "device": "a card",
        "commit": "abc",
        "date": "2026-01-01T00:00:00+00:00",
        "test_images": 10_000,
        "architecture": network,
        "settings": {"network": options, "training": None, "test": {"canvas": 32, "split": "test"}},
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def table(tmp_path, paths, tasks=("cifar100",), **settings):
    prefix = tmp_path / "classification"
    write_classification_table(paths, prefix=prefix, tasks=tasks, run="test", **settings)
    with open(f"{prefix}_aggregated.csv", newline="") as file:
        return list(csv.DictReader(file)), (tmp_path / "classification.md").read_text()


def test_published_numbers_stand_beside_ours(tmp_path):
    """MG-11: 28.39 % error, 20.46 M parameters, 391.88 M multiply-adds of {512, 256}."""
    options = {"n_layer": 2, "initialisation": "released"}
    paths = [
        record(tmp_path / "a.json", "mg", options, label="mg_2"),
        record(tmp_path / "b.json", "mg", options, 1, label="mg_2", top1_error=0.32),
    ]
    (row,), text = table(tmp_path, paths)
    assert row["published_as"] == "MG-11" and row["seeds"] == "2"
    assert float(row["top1_error_mean"]) == pytest.approx(0.31)
    assert float(row["published_top1_error_percent"]) == 28.39
    assert float(row["top1_error_difference_points"]) == pytest.approx(31 - 28.39)
    assert float(row["published_params_M"]) == 20.46
    assert abs(float(row["params_difference_percent"])) < 0.05
    assert float(row["published_macs_M"]) == 391.88
    assert abs(float(row["macs_difference_percent"])) < 0.005  # counted, not copied
    assert int(row["macs_512_256"]) == pytest.approx(391.88e6, rel=5e-5)
    assert "31.00 ± 1.41" in text and "28.39" in text and "MG-11" in text
    assert "{512, 256}" in text and "394.51" in text


@pytest.mark.parametrize(
    ("images", "split", "digits"),
    [(2000, "test", False), (10_000, "valid", False), (10_000, "test", True)],
)
def test_published_errors_stand_beside_those_on_the_whole_test_set_only(
    tmp_path, images, split, digits
):
    settings = {"network": {"n_layer": 2}, "test": {"split": split}}
    path = record(tmp_path / "a.json", "mg", {}, settings=settings, test_images=images)
    (row,), text = table(tmp_path, [path], digits=digits)
    assert row["published_as"] == "MG-11" and row["published_params_M"] == "20.46"
    assert row["published_top1_error_percent"] == row["top1_error_difference_points"] == ""
    assert "Published errors stand beside those on the whole test set only." in text
    assert "published only" not in text and "28.39" not in text


def test_published_errors_stand_beside_no_seed_on_a_part_of_the_test_set(tmp_path):
    paths = [
        record(tmp_path / f"{seed}.json", "mg", {"n_layer": 2}, seed, test_images=images)
        for seed, images in enumerate((10_000, 2000))
    ]
    (row,), _ = table(tmp_path, paths)
    assert row["published_top1_error_percent"] == ""


def test_other_widths_are_no_published_network(tmp_path):
    options = {"n_layer": 2, "width": [[8, 4, 2]] * 4 + [[8, 4]]}
    (row,), text = table(tmp_path, [record(tmp_path / "a.json", "mg", options)])
    assert row["published_as"] == "" and row["published_top1_error_percent"] == ""
    assert "published" not in text  # nor in the notes


def test_a_network_of_another_version_is_shown_and_compared_with_nothing(tmp_path):
    paths = [
        record(tmp_path / "a.json", "mg", {"n_layer": 2}),
        record(tmp_path / "b.json", "gone", {"n_layer": 2}),
    ]
    rows, text = table(tmp_path, paths)
    assert {row["network"]: row["published_as"] for row in rows} == {"mg": "MG-11", "gone": ""}
    assert "| gone |" in text


def test_recipes_that_differ_are_named(tmp_path):
    def trained(name, rate):
        recipe = {"recipe": {"learning_rate": rate, "epochs": 200}}
        settings = {"network": {}, "training": recipe, "test": {"canvas": 32, "split": "test"}}
        return record(tmp_path / f"{name}.json", name, {}, settings=settings)

    paths = [trained("vgg", 0.1), trained("mg", 0.1), trained("r_mg", 0.05)]
    assert "Settings of training" not in table(tmp_path, paths[:2])[1]
    said = "Settings of training differ: learning rate 0.1 (VGG, MG), 0.05 (R-MG)."
    assert said in table(tmp_path, paths)[1]


def test_test_sets_that_differ_are_named(tmp_path):
    def measured_on(name, crc, examples=10_000):
        settings = {"network": {}, "test": {"examples": examples, "crc32": crc}}
        return record(tmp_path / f"{name}.json", name, {}, settings=settings)

    paths = [measured_on("vgg", [1, 2]), measured_on("mg", [1, 2])]
    assert "Test sets" not in table(tmp_path, paths)[1]
    text = table(tmp_path, [*paths, measured_on("r_mg", [3, 2])])[1]
    assert "Test sets differ: different images for VGG, MG and for R-MG." in text
    text = table(tmp_path, [*paths, measured_on("r_mg", [3, 2], 2000)])[1]
    assert "Test sets differ: examples 10000 (VGG, MG), 2000 (R-MG)." in text


def test_digits_in_cifars_format_are_not_called_cifar(tmp_path):
    paths = [record(tmp_path / "a.json", "mg", {"width": [[8, 4, 2]] * 4 + [[8, 4]]})]
    _, text = table(tmp_path, paths, digits=True)
    assert text.startswith("**MNIST's digits in CIFAR-100's format**")
    assert "**CIFAR-100**" in table(tmp_path, paths)[1]


def test_imagenet_has_two_errors(tmp_path):
    path = record(
        tmp_path / "a.json", "r_mg", {"depth": 34}, dataset="imagenet", label="r_mg_34",
        params=32_899_176, macs=5_760_300_000, top1_error=0.25, top1_error_10crop=0.23,
        top5_error_10crop=0.07, test_images=50_000,
    )  # fmt: skip
    (row, *others), text = table(tmp_path, [path], ["imagenet"])
    assert (row["published_as"], row["published_top1_error_percent"]) == ("R-MG-34", "24.51")
    assert float(row["published_top1_error_10crop_percent"]) == 22.42
    assert float(row["top1_error_10crop_difference_points"]) == pytest.approx(23 - 22.42)
    assert "ten crops" in text and "22.42" in text
    # What the authors compare theirs with: published only, nothing of ours.
    by_name = {other["published_as"]: other for other in others}
    assert sorted(by_name) == ["ResNet-50", "WRN-34 (2.0)"]
    resnet, wide = by_name["ResNet-50"], by_name["WRN-34 (2.0)"]
    assert float(resnet["published_top1_error_10crop_percent"]) == 22.85
    assert float(wide["published_top1_error_percent"]) == 24.5
    assert (float(wide["published_params_M"]), float(wide["published_macs_M"])) == (48.6, 14090)
    assert resnet["published_top1_error_percent"] == resnet["top1_error_mean"] == ""
    assert resnet["params"] == resnet["macs"] == "" and resnet["seeds"] == "0"
    assert text.count("published only") == 2


def test_missing_runs_are_shown_as_missing(tmp_path):
    paths = [record(tmp_path / "a.json", "mg", {"n_layer": 1}, label="mg_1")]
    rows, text = table(tmp_path, paths, expected=[("mg_1", 0), ("mg_1", 1), ("vgg_1", 0)])
    assert [(row["network"], row["seeds"]) for row in rows] == [("mg_1", "1"), ("vgg_1", "0")]
    assert rows[1]["top1_error_mean"] == "" and "1, 1 missing" in text
    with open(tmp_path / "classification.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(r["network"], r["seed"], r["top1_error"]) for r in runs] == [
        ("mg_1", "0", "0.3"),
        ("mg_1", "1", ""),
        ("vgg_1", "0", ""),
    ]


def test_an_error_or_entropy_over_some_of_the_seeds_says_so(tmp_path):
    entropies = (1.0, None, 2.0)
    paths = [
        record(tmp_path / f"{seed}.json", "mg", {}, seed, cross_entropy=value)
        for seed, value in enumerate(entropies)
    ]
    _, text = table(tmp_path, paths)
    assert "| 1.500 ± 0.707 (2 of 3) |" in text and "(2 of 3): mean over the seeds" in text
    paths = [record(tmp_path / "0.json", "mg", {}, cross_entropy=None)]
    assert "–: not defined" in table(tmp_path, paths)[1]


def test_a_task_that_was_named_is_shown_though_nothing_of_it_was_measured(tmp_path):
    paths = [record(tmp_path / "a.json", "mg", {})]
    expected = [("mg", 0), ("mg", 1)]
    rows, text = table(tmp_path, paths, ("cifar10", "cifar100"), expected=expected)
    assert [(r["dataset"], r["seeds"]) for r in rows] == [("cifar10", "0"), ("cifar100", "1")]
    assert "**CIFAR-10**" in text and "0, 2 missing" in text
    rows, text = table(tmp_path, paths, None, expected=expected)
    assert [r["dataset"] for r in rows] == ["cifar100"] and "1, 1 missing" in text


def test_metrics_of_pixels_are_refused(tmp_path):
    path = record(tmp_path / "a.json", "mg", {})
    content = json.loads(path.read_text())
    del content["top1_error"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no valid entry 'top1_error'"):
        table(tmp_path, [path])


def test_a_classifier_is_said_to_be_one_where_pixels_are_measured(tmp_path):
    path = record(tmp_path / "metrics.json", "mg", {"n_layer": 2})
    prefix = tmp_path / "t"
    for write in (
        lambda: write_results_table("segmentation", [path], prefix=prefix),
        lambda: write_claims_table([path], prefix=prefix),
        lambda: quality_against_cost([path], prefix),
        lambda: per_class_iu([path], prefix),
    ):
        with pytest.raises(UserError, match="metrics.json holds the errors of a classifier; here"):
            write()
    path.write_text(json.dumps(measured()))
    with pytest.raises(UserError, match="metrics.json holds measures of pixels; here only the err"):
        table(tmp_path, [path])
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_sizes_of_classifiers_are_listed_too(tmp_path):
    path = record(tmp_path / "a.json", "mg", {"n_layer": 2}, depth=11)
    write_network_table(run_rows([path]), prefix=tmp_path / "networks")
    (row,) = csv.DictReader((tmp_path / "networks.csv").read_text().splitlines())
    assert (row["network"], row["dataset"], row["canvas"]) == ("mg", "cifar100", "32")
    assert (row["parameters"], row["depth"]) == ("20461220", "11")
