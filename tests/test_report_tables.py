"""Tables: every number where it belongs, missing things visible, nothing marked without reason."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mg import records as kept
from mg.data import hdf5
from mg.data.tasks import TASKS
from mg.errors import UserError
from mg.files import read_json
from mg.records import CLASS_MEASURES, MEASURES
from mg.report import compare, render
from mg.report.figures.cost import quality_against_cost
from mg.report.tables import claims, networks, results, summaries
from mg.report.tables.claims import write_claims_table

COLUMNS = (
    "dataset,network,seed,mean_iu,mean_acc,recall,image_iu,bce,params,macs,train_images,"
    "train_seconds,device"
)


def record(dataset="segmentation", network="pmg", seed=0, **changes):
    """What `mg evaluate` writes, at the size of the default run."""
    return {
        "dataset": dataset,
        "network": network,
        "seed": seed,
        "mean_iu": 0.5,
        "mean_acc": 0.6,
        "recall": 0.7,
        "image_iu": 0.1,
        "bce": 0.02,
        "per_class_iu": [0.5] * 10,
        "constant_answer": {
            "mean_iu": 0.0,
            "mean_acc": None,
            "recall": 0.0,
            "image_iu": 0.2,
            "bce": 0.07,
        },
        "params": 38094,
        "macs": 22841856,
        "depth": 9,
        "train_images": 19200,
        "train_seconds": 110.0,
        "device": "some CPU",
        "commit": "abc123",
        "date": "2026-01-02T03:04:05+00:00",
        "test_images": 400,
        "architecture": network,
        "settings": {
            "network": {"width": [16, 8, 8]},
            "training": {"recipe": {"epochs": 12}},
            "test": {"mode": "independent", "canvas": 32, "digit_size": 14},
        },
    } | changes


@pytest.fixture
def store(tmp_path):
    def write(*records):
        paths = []
        for r in records:
            paths.append(tmp_path / f"{r['dataset']}-{r['network']}-{r['seed']}.json")
            paths[-1].write_text(json.dumps(r))
        return paths

    return write


def rows(path):
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_measure_has_a_title():
    assert tuple(summaries.TITLES) == MEASURES
    assert tuple(summaries.CLASS_TITLES) == CLASS_MEASURES
    assert all(title[-1] in "↑↓" for title in (summaries.TITLES | summaries.CLASS_TITLES).values())


def test_one_row_per_network_and_seed_and_one_per_network(store, tmp_path):
    paths = store(
        record(network="pmg", seed=1, mean_iu=0.56),
        record(network="unet", seed=0, mean_iu=0.4),
        record(network="pmg", seed=0, mean_iu=0.52),
        record(network="pmg", seed=2, mean_iu=0.54, mean_acc=None),
        record("translation", "pmg"),
    )
    results.write_results_table("segmentation", paths, prefix=tmp_path / "t")
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == COLUMNS
    runs = rows(tmp_path / "t.csv")
    assert [(r["network"], r["seed"]) for r in runs] == [
        ("unet", "0"),
        ("pmg", "0"),
        ("pmg", "1"),
        ("pmg", "2"),
    ]
    assert runs[3]["mean_acc"] == ""
    unet, pmg = rows(tmp_path / "t_aggregated.csv")
    assert (unet["seeds"], pmg["seeds"]) == ("1", "3")
    assert (pmg["mean_iu_seeds"], pmg["mean_acc_seeds"]) == ("3", "2")
    assert float(pmg["mean_iu_mean"]) == pytest.approx(0.54)
    assert float(pmg["mean_iu_sd"]) == pytest.approx(np.std([0.52, 0.56, 0.54], ddof=1))
    assert float(unet["mean_iu_mean"]) == 0.4
    assert unet["mean_iu_sd"] == ""


def test_sizes_are_those_that_all_seeds_have(store, tmp_path):
    seeds = [record(seed=seed) for seed in (0, 1)]
    seeds += [record(network="unet", seed=seed, params=40000 + seed) for seed in (0, 1)]
    results.write_results_table("segmentation", store(*seeds), prefix=tmp_path / "t")
    unet, pmg = rows(tmp_path / "t_aggregated.csv")
    assert (pmg["params"], pmg["macs"]) == ("38094", "22841856")
    assert (unet["params"], unet["macs"]) == ("", "22841856")
    (line,) = re.findall(r"^\| PMG .*$", (tmp_path / "t.md").read_text(), re.M)
    assert "| 38.1 | 22.8 |" in line


def test_several_tasks_in_one_table(store, tmp_path):
    paths = store(record("translation", "unet"), record("rotation", "unet"))
    results.write_results_table(["rotation", "translation"], paths, prefix=tmp_path / "t", run="r")
    assert [r["dataset"] for r in rows(tmp_path / "t.csv")] == ["rotation", "translation"]
    text = (tmp_path / "t.md").read_text()
    assert "**Rotation**" in text and "**Translation**" in text


def test_missing_runs_are_shown(store, tmp_path):
    paths = store(record(network="unet"))
    expected = [(n, s) for n in ("unet", "pmg") for s in (0, 1)]
    results.write_results_table("segmentation", paths, prefix=tmp_path / "t", expected=expected)
    runs = rows(tmp_path / "t.csv")
    assert [(r["network"], r["seed"], r["mean_iu"]) for r in runs] == [
        ("unet", "0", "0.5"),
        ("unet", "1", ""),
        ("pmg", "0", ""),
        ("pmg", "1", ""),
    ]
    assert [r["seeds_missing"] for r in rows(tmp_path / "t_aggregated.csv")] == ["1", "2"]
    for suffix in ("md", "tex", "html"):
        text = (tmp_path / f"t.{suffix}").read_text()
        assert "1 of 2" in text and "0 of 2" in text
        assert "Missing: U-NET seed 1, PMG seed 0, PMG seed 1." in text


def marked(store, tmp_path, *records):
    results.write_results_table("segmentation", store(*records), prefix=tmp_path / "t")
    return re.findall(r"\*\*([\d.]+)", (tmp_path / "t.md").read_text().split("\n\n")[1])


def test_best_is_marked_only_beyond_the_spread(store, tmp_path):
    def runs(network, *values, **changes):
        return [record(network=network, seed=i, mean_iu=v, **changes) for i, v in enumerate(values)]

    near = runs("pmg", 0.50, 0.54) + runs("unet", 0.49, 0.53)
    assert marked(store, tmp_path, *near) == []
    assert marked(store, tmp_path, *runs("pmg", 0.6, 0.61), *runs("unet", 0.5, 0.51)) == ["0.605"]
    # Ahead by more than either spread of 0.014, not by that of both.
    between = runs("pmg", 0.60, 0.62) + runs("unet", 0.582, 0.602)
    assert marked(store, tmp_path, *between) == []
    single = [record(network="pmg", mean_iu=0.9), record(network="unet", mean_iu=0.1)]
    assert marked(store, tmp_path, *single) == []
    assert "One seed per network" in (tmp_path / "t.md").read_text()
    lower = runs("pmg", 0.5, 0.5, bce=0.01) + runs("unet", 0.5, 0.5, bce=0.02)
    assert marked(store, tmp_path, *lower) == ["0.0100"]


def test_a_measure_that_older_records_lack_is_a_dash(store, tmp_path, monkeypatch):
    for module in (kept, summaries, results, compare):
        monkeypatch.setattr(module, "MEASURES", (*MEASURES, "distance"))
    monkeypatch.setattr(results, "PER_RUN", (*results.PER_RUN, "distance"))
    monkeypatch.setattr(kept, "_OPTIONAL", kept._OPTIONAL | {"distance"})
    monkeypatch.setitem(summaries.TITLES, "distance", "distance ↓")
    older, newer = record(network="unet"), record(network="pmg", distance=2.5)
    results.write_results_table("segmentation", store(older, newer), prefix=tmp_path / "t")
    assert [row["distance"] for row in rows(tmp_path / "t.csv")] == ["", "2.5"]
    text = (tmp_path / "t.md").read_text()
    assert "| U-NET | 0.500 | 0.600 | 0.700 | 0.100 | 0.0200 | – |" in text
    assert "| 0.0200 | 2.500 |" in text and "or not measured yet when" in text
    mine, theirs = ({("a", "b"): s} for s in summaries.summarise([older, newer]))
    lines = {line.measure: line.verdict for line in compare.compare(mine, theirs)}
    assert lines["distance"] == "missing: ours" and lines["mean_iu"] == "same"
    for name in MEASURES:
        del older[name]
        with pytest.raises(UserError, match=f"no valid entry '{name}'"):
            summaries.read_metrics(store(older))
        older[name] = None


@pytest.mark.parametrize("measure", [*MEASURES, *CLASS_MEASURES, "distance"])
def test_the_best_is_where_the_arrow_points(measure, monkeypatch):
    monkeypatch.setitem(summaries.TITLES, "distance", "distance ↓")  # as of a measure to come
    runs = [
        record(network=network, seed=seed, **{measure: value})
        for network, value in (("unet", 0.1), ("pmg", 0.2), ("umg", 0.3))
        for seed in (0, 1)
    ]
    down = measure in ("bce", "distance", *CLASS_MEASURES)
    assert summaries.best(summaries.summarise(runs), measure) == ("unet" if down else "umg")


def trained(network, seed=0, **recipe):
    recipe = {"schedule": "paper", "learning_rate": 0.02, "epochs": 12} | recipe
    return record(network=network, seed=seed, settings={"training": {"recipe": recipe}})


@pytest.fixture
def note(store, tmp_path):
    """The sentence below the table of some records on how their recipes differ."""

    def note(*records):
        results.write_results_table("segmentation", store(*records), prefix=tmp_path / "t")
        found = re.findall(r"Settings of training differ: .*?\)\.", (tmp_path / "t.md").read_text())
        return found[0] if found else ""

    return note


def test_recipes_that_differ_are_named(note):
    unet, pmg = trained("unet"), trained("pmg")
    assert note(unet, pmg) == ""
    assert note(unet, trained("pmg", learning_rate=0.05, epochs=6), trained("umg")) == (
        "Settings of training differ: learning rate 0.02 (U-NET, U-MG), 0.05 (PMG); "
        "epochs 12 (U-NET, U-MG), 6 (PMG)."
    )
    assert note(unet, pmg, trained("pmg", seed=1, schedule="steps")) == (
        "Settings of training differ: schedule exponential (U-NET, PMG seed 0), steps (PMG seed 1)."
    )


def test_the_papers_schedule_counts_as_what_it_is_for_each_network(note):
    residual = trained("wide") | {"architecture": "r_pmg"}
    differ = "Settings of training differ: schedule"
    assert note(trained("unet"), trained("pmg"), trained("r_pmg"), residual) == (
        f"{differ} exponential (U-NET, PMG), steps (R-PMG, wide)."
    )
    assert note(trained("unet", schedule="steps"), residual) == ""
    again = trained("pmg", seed=1, schedule="exponential")  # by another name
    assert note(trained("unet", epochs=6), trained("pmg"), again) == (
        "Settings of training differ: epochs 6 (U-NET), 12 (PMG)."
    )
    assert note(trained("unet"), trained("gone")) == (
        f"{differ} exponential (U-NET), paper (gone)."
    )


def test_recipes_are_compared_within_a_task_and_where_they_are_known(store, tmp_path):
    other = trained("pmg", epochs=24) | {"dataset": "translation"}
    unknown = record(network="r_pmg", settings={"training": None})
    older = record(network="umg", settings={"training": {"recipe": {"schedule": "paper"}}})
    paths = store(trained("unet"), other, unknown, older)
    tasks = ["segmentation", "translation"]
    results.write_results_table(tasks, paths, prefix=tmp_path / "t")
    assert "Settings of training" not in (tmp_path / "t.md").read_text()


def measured_on(network, seed=0, **changes):
    """Measured on a test set that is the default run's but for `changes`; None: it does not say."""
    test = {"mode": "independent", "canvas": 32, "digit_size": 14, "images_sha256": "a"} | changes
    test = {name: value for name, value in test.items() if value is not None}
    return record(network=network, seed=seed, settings={"test": test})


def test_test_sets_that_differ_are_named(store, tmp_path):
    def note(*records):
        tasks = ["segmentation", "translation"]
        results.write_results_table(tasks, store(*records), prefix=tmp_path / "t")
        found = re.findall(r"Test sets differ: (.*)", (tmp_path / "t.md").read_text())
        return found[0].replace("\\", "") if found else ""

    unet, pmg = measured_on("unet"), measured_on("pmg")
    assert note(unet, pmg) == ""
    small = {"digit_size": 8, "canvas": 24, "images_sha256": "b"}
    assert note(unet, measured_on("pmg", **small), measured_on("umg")) == (
        "canvas 32 (U-NET, U-MG), 24 (PMG); digit size 14 (U-NET, U-MG), 8 (PMG)."
    )
    other = measured_on("pmg", 1, images_sha256="b")
    assert note(unet, pmg, other) == "different images for U-NET, PMG seed 0 and for PMG seed 1."
    assert note(unet, measured_on("pmg", digit_size=None, images_sha256=None)) == ""
    assert note(unet, record(network="pmg", settings={"training": None})) == ""
    assert note(unet, measured_on("pmg", digit_size=8) | {"dataset": "translation"}) == ""


def test_that_test_sets_have_no_constant_answer_in_common_is_said(store, tmp_path):
    def text(**changes):
        paths = store(measured_on("unet"), measured_on("pmg", digit_size=8) | changes)
        results.write_results_table("segmentation", paths, prefix=tmp_path / "t")
        return (tmp_path / "t.md").read_text()

    said = "8 (PMG). They have no constant answer in common: none is shown."
    same = text()
    assert "| *(constant answer)* |" in same and said not in same
    other = text(constant_answer=dict.fromkeys(MEASURES, 0.1))
    assert "| *(constant answer)* |" not in other and said in other


def test_undefined_is_a_dash_and_explained(store, tmp_path):
    results.write_results_table(
        "segmentation", store(record(network="sg", mean_acc=None)), prefix=tmp_path / "t"
    )
    for suffix, dash in (("md", "–"), ("html", "–"), ("tex", "--")):
        text = (tmp_path / f"t.{suffix}").read_text()
        assert dash in text and "not defined" in text
        shown = text.split("<script>")[0]
        assert "nan" not in shown.lower() and "None" not in shown


def test_a_mean_over_some_of_the_seeds_says_so_and_is_not_marked(store, tmp_path):
    def runs(network, *values):
        return [record(network=network, seed=i, mean_iu=v) for i, v in enumerate(values)]

    part, whole = runs("pmg", 0.8, 0.82, None), runs("unet", 0.5, 0.51, 0.52)
    assert marked(store, tmp_path, *part, *whole) == []
    text = (tmp_path / "t.md").read_text()
    assert "| PMG | 0.810 ± 0.014 (2 of 3) |" in text and "| U-NET | 0.510 ± 0.010 |" in text
    assert "(2 of 3): mean over the seeds for which the measure is defined" in text
    behind = runs("pmg", 0.3, 0.31, None)
    assert marked(store, tmp_path, *behind, *whole) == ["0.510"]
    assert marked(store, tmp_path, *runs("pmg", 0.8, 0.82, 0.81), *whole) == ["0.810"]
    assert "for which the measure is defined" not in (tmp_path / "t.md").read_text()


def test_the_dash_of_a_constant_answer_is_explained(store, tmp_path):
    results.write_results_table("segmentation", store(record()), prefix=tmp_path / "t")
    text = (tmp_path / "t.md").read_text()
    assert "| *(constant answer)* | 0.000 | – |" in text and "–: not defined" in text
    whole = dict.fromkeys(MEASURES, 0.1)
    paths = store(record(constant_answer=whole))
    results.write_results_table("segmentation", paths, prefix=tmp_path / "u")
    assert "not defined" not in (tmp_path / "u.md").read_text()


def test_controls_are_told_by_their_network_not_their_label(store, tmp_path):
    paths = store(record(network="sg", architecture="pmg"), record(network="w", architecture="sg"))
    results.write_results_table("segmentation", paths, prefix=tmp_path / "t")
    assert "* w: of our own, as a control" in (tmp_path / "t.md").read_text()
    results.write_results_table("segmentation", paths[:1], prefix=tmp_path / "u")
    assert "of our own" not in (tmp_path / "u.md").read_text()
    expected = [("r_sg", 0)]
    results.write_results_table("segmentation", [], prefix=tmp_path / "v", expected=expected)
    assert "* R-SG: of our own, as a control" in (tmp_path / "v.md").read_text()


def test_the_authors_numbers_stand_only_beside_their_test_set(store, tmp_path):
    test = results.AUTHORS_TEST
    ours = record(mean_iu=0.83, mean_acc=0.9, settings={"test": test})
    results.write_results_table("segmentation", store(ours), prefix=tmp_path / "t")
    _, printed = rows(tmp_path / "t_aggregated.csv")
    assert {key: value for key, value in printed.items() if value} == {
        "dataset": "segmentation",
        "network": "(published, network not named)",
        "mean_iu_mean": "0.81913",
        "mean_acc_mean": "0.91111",
    }
    assert "0.81913" not in (tmp_path / "t.csv").read_text()  # measured here
    text = (tmp_path / "t.md").read_text()
    assert "| PMG | 0.830 | 0.900 |" in text and "ours" not in text
    assert "| *(published, network not named)* | 0.819 | 0.911 |  |" in text
    for change in {"count": 400}, {"seed": 7}, {"digits": [2, 0.1]}, {"images_sha256": "0" * 64}:
        other = record(settings={"test": test | change})
        results.write_results_table("segmentation", store(other), prefix=tmp_path / "u")
        assert "published" not in (tmp_path / "u.md").read_text(), change


def test_the_authors_numbers_stand_beside_no_seed_of_another_test_set(store, tmp_path):
    tests = results.AUTHORS_TEST, results.AUTHORS_TEST | {"seed": 7}
    seeds = [record(seed=seed, settings={"test": test}) for seed, test in enumerate(tests)]
    results.write_results_table("segmentation", store(*seeds), prefix=tmp_path / "t")
    assert "published" not in (tmp_path / "t.md").read_text()


def test_the_authors_test_set_says_of_itself_what_is_asked():
    reference = Path(__file__).parent.parent / "results/reference/standard/models/segmentation"
    said = read_json(reference / "pmg/seed0/metrics.json")["settings"]["test"]
    assert {name: said[name] for name in results.AUTHORS_TEST} == results.AUTHORS_TEST


def test_the_authors_test_set_of_every_task_is_known():
    reference = Path(__file__).parent.parent / "results/reference"
    records = [read_json(path) for path in reference.rglob("metrics.json")]
    tests = [r["settings"]["test"] for r in records if r["settings"]["test"].get("mode") == "paper"]
    assert {test["task"] for test in tests} == set(TASKS)
    assert all(map(results.is_authors_test, tests))
    for change in {"seed": 7}, {"scale": [1, 2]}, {"labels_sha256": "0"}, {"task": "mine"}:
        assert not any(results.is_authors_test(test | change) for test in tests), change


def test_caption_says_what_was_run(store, tmp_path):
    paths = store(record(), record(network="unet", train_images=6400, device="a card"))
    results.write_results_table(
        "segmentation", paths, prefix=tmp_path / "t", run="demo", caption="A table."
    )
    caption = (tmp_path / "t.md").read_text().splitlines()[-1]
    for part in (
        "A table. Run demo: canvas 32×32",
        "400 test images",
        "6,400–19,200 training images seen",
        "12 epochs",
        "seed 0",
        "a card and some CPU",
        "abc123",
        "2026-01-02",
    ):
        assert part in caption


def test_caption_counts_one_as_one(store):
    once = record(train_images=1, test_images=1)
    once["settings"]["training"]["recipe"]["epochs"] = 1
    said = summaries.describe(summaries.read_metrics([store(once)[0]]))
    assert "; 1 test image; 1 training image seen; 1 epoch; seed 0; " in said


def test_caption_says_which_split_was_measured(store):
    def said(*splits):
        runs = [measured_on("pmg", seed, split=split) for seed, split in enumerate(splits)]
        return summaries.describe(summaries.read_metrics(store(*runs)))

    assert "; 400 training images measured; 19,200 training images seen; " in said("train")
    assert "; 400 validation images measured; 19," in said("valid")
    for split in "test", None:
        assert "; 400 test images; 19," in said(split)
    assert "; 400 test images; 400 training images measured; 19," in said("test", "train")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"dataset": "segmentation"}', "not json", "\xff\xfe"]
)
def test_foreign_files_are_refused(content, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(UserError, match="metrics.json"):
        summaries.read_metrics([path])
    path.write_text(json.dumps(record(mean_iu="high")))
    with pytest.raises(UserError, match="no valid entry 'mean_iu'"):
        summaries.read_metrics([path])
    with pytest.raises(UserError, match="absent"):
        summaries.read_metrics([tmp_path / "absent.json"])


def test_two_files_of_one_run_are_refused(store, tmp_path):
    (path,) = store(record())
    other = tmp_path / "other.json"
    other.write_text(path.read_text())
    with pytest.raises(UserError, match="second file for segmentation pmg 0"):
        summaries.read_metrics([path, other])


def test_seeds_of_one_label_are_of_one_network(store, tmp_path):
    def made(seed, options, **changes):
        run = record("translation", seed=seed, **changes)
        return run | {"settings": {**run["settings"], "network": options}}

    def refused(*records):
        paths = store(*records)
        with pytest.raises(UserError) as error:
            networks.run_rows(paths)
        for make in (
            lambda: results.write_results_table("translation", paths, prefix=tmp_path / "t"),
            lambda: write_claims_table(paths, prefix=tmp_path / "t"),
            lambda: quality_against_cost(paths, tmp_path / "f"),
        ):
            with pytest.raises(UserError, match=re.escape(str(error.value))):
                make()
        assert not [*tmp_path.glob("[tf].*")]
        return str(error.value), paths

    wide, narrow = made(0, {"width": [16, 8, 8]}), made(3, {"width": [3, 3, 3]})
    said, (first, second) = refused(wide, narrow)
    assert said == (
        "pmg on translation: seed 0 and seed 3 are of different networks (widths [16, 8, 8] and "
        f"[3, 3, 3]): {first} and {second}; train the older again, or leave the files of one out"
    )
    residual = made(3, {"width": [16, 8, 8]}, architecture="r_pmg")
    assert "(network pmg and r_pmg)" in refused(wide, residual)[0]
    assert (
        "(initialisation unit and released)"
        in refused(made(0, {}), made(3, {"initialisation": "released"}))[0]
    )
    unknown = [made(seed, {"new": seed}, architecture="gone") for seed in (0, 3)]
    assert "(new 0 and 3)" in refused(*unknown)[0]
    silent = made(0, None)  # of before options were written
    assert "seed 1 and seed 3" in refused(silent, made(1, {}), narrow)[0]


def test_one_network_may_be_said_in_several_ways(store):
    ways = [{}, {"width": None}, {"width": [64, 32, 16, 8], "blocks": 3}, {"grids": 4}, None]
    runs = [record(seed=seed, settings={"network": way}) for seed, way in enumerate(ways)]
    del runs[1]["architecture"]  # written since later
    others = record(network="unet"), record("translation")  # of another label, or another task
    assert len(summaries.read_metrics(store(*runs, *others))) == 7


class Page(HTMLParser):
    """Checks nesting, collects rows and everything that would load something."""

    VOID = {"meta", "link", "br", "input", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.loads = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1
        self.loads += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_renderings_are_well_formed(store, tmp_path):
    paths = store(
        record(network="my_net <b>&50%", mean_iu=0.4),
        record(network="my_net <b>&50%", seed=1, mean_iu=0.6),
        record(network="unet"),
    )
    results.write_results_table("segmentation", paths, prefix=tmp_path / "t", caption="A & B_c 5 %")
    page = Page((tmp_path / "t.html").read_text())
    assert len(page.rows) == 4 and len(set(page.rows)) == 1
    assert page.loads == ["data:,"]
    assert "http" not in (tmp_path / "t.html").read_text()

    tex = (tmp_path / "t.tex").read_text()
    assert tex.count(r"\begin{") == tex.count(r"\end{")
    body = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
    assert r"my\_net $<$b$>$\&50\%" in tex and r"0.500 $\pm$ 0.141" in tex
    assert tex.isascii()

    markdown = (tmp_path / "t.md").read_text()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1


def test_numbers_keep_their_size_in_readable_units():
    assert render.number(1238123, 1, 1e3).text == "1,238.1"
    assert render.spread(0.12345, 0.01).text == "0.123 ± 0.010"
    assert render.number(None).text == "–"
    cell = render.number(0.12345)
    assert (cell.text, cell.value) == ("0.123", 0.12345)


def test_options_that_are_left_out_are_the_papers_of_its_own_networks_alone(store, tmp_path):
    runs = [
        record(network=label, architecture=name) for label, name in (("a", "pmg"), ("b", "new"))
    ]
    for run in runs:
        run["settings"]["network"] = {}
    networks.write_network_table(networks.run_rows(store(*runs)), prefix=tmp_path / "n")
    text = (tmp_path / "n.md").read_text()
    assert "| a | Segmentation | the paper's |" in text and "| its defaults |" in text


def test_network_table(store, tmp_path):
    own = networks.run_rows(store(record(), record(seed=1), record("rotation", "unet")))
    assert [(r["dataset"], r["label"]) for r in own] == [
        ("segmentation", "pmg"),
        ("rotation", "unet"),
    ]
    kept = ("MG-6", "ResNet-50", "(network not named)")
    paper = [row for row in networks.paper_rows() if row["name"] in kept]
    networks.write_network_table([*own, *paper], prefix=tmp_path / "n")
    text = (tmp_path / "n.md").read_text()
    assert "| PMG | Segmentation | width {16,8,8} | 32 | 9 | 38.1 | 22.8 |" in text
    assert (
        "| MG | n\\_layer 1 | MG-6 | 6 | 8.344 | 8.34 | +0.05 | 116.8 | 116.63 | 116.63 | +0.11 | "
        "+0.00 | top-1 error (%): 32.08 |"
    ) in text
    assert "| difference (%) |" in text and text.count("what the authors call FLOPs") == 1
    assert "| (not built here) |  | ResNet-50 |" in text
    assert "| (not named) |  | (network not named) |" in text  # one of the authors' own
    assert {"38094", "8344164"} <= {r["parameters"] for r in rows(tmp_path / "n.csv")}


# ------------------------------------------------------------------------------ claims


def verdicts(store, tmp_path, *records):
    write_claims_table(store(*records), prefix=tmp_path / "c")
    return {(r["task"], r["claim"]): r for r in rows(tmp_path / "c.csv")}


def test_claims_are_judged_by_their_criteria(store, tmp_path):
    found = verdicts(
        store,
        tmp_path,
        record(network="unet", mean_iu=0.5),
        record(network="pmg", mean_iu=0.55),
        record(network="r_pmg", mean_iu=0.505),
        record("translation", "unet", image_iu=0.3),
        record("translation", "pmg", image_iu=0.6),
        record("rotation", "unet", image_iu=0.45),
        record("affine_transform", "unet", image_iu=None),
    )
    outcome = {key: row["verdict"] for key, row in found.items()}
    assert outcome["segmentation", "PMG segments better than U-NET"] == "holds"
    assert outcome["segmentation", "R-PMG segments better than U-NET"] == "does not hold"
    assert outcome["segmentation", "U-MG segments better than U-NET"] == "not run"
    assert outcome["translation", "U-NET does not output the clean, centred digit"] == "holds"
    assert outcome["translation", "PMG outputs the clean, centred digit"] == "holds"
    assert outcome["rotation", "U-NET outputs the clean, centred digit"] == "does not hold"
    assert outcome["affine_transform", "U-NET outputs the clean, centred digit"] == "not measurable"
    assert outcome["translation", "The attention of PMG follows the digit"] == "not run"
    row = found["segmentation", "PMG segments better than U-NET"]
    assert row["evidence"] == "mean IU 0.550 against 0.500"
    assert "0.01" in row["criterion"]


@pytest.mark.parametrize("iu, verdict", [(0.5, "holds"), (0.499, "does not hold")])
def test_half_of_the_digit_is_enough(iu, verdict, store, tmp_path):
    found = verdicts(store, tmp_path, record("rotation", "unet", image_iu=iu))
    assert found["rotation", "U-NET outputs the clean, centred digit"]["verdict"] == verdict


@pytest.mark.parametrize("ratio, verdict", [(2.0, claims.HOLDS), (1.99, claims.FAILS)])
def test_twice_as_much_on_the_digit_is_enough(ratio, verdict):
    claim = next(claim for claim in claims.CLAIMS if claim.kind == "follows")
    assert claims._judge_attention(claim, [(ratio, 0.5)])[0] == verdict


def test_the_paper_says_of_three_networks_that_they_fail_at_all_transformations():
    of = [c for c in claims.CLAIMS if c.task == "spatial_transform" and c.kind == "fails"]
    assert [claim.network for claim in of] == ["unet", "sg", "r_sg"]


def test_networks_of_different_test_sets_are_not_compared(store, tmp_path):
    unet, small = measured_on("unet"), measured_on("pmg", digit_size=8) | {"mean_iu": 0.9}
    alike = measured_on("umg", canvas=None) | {"mean_iu": 0.9}
    found = verdicts(store, tmp_path, unet, small, alike)
    row = found["segmentation", "PMG segments better than U-NET"]
    assert row["verdict"] == "not measurable"
    assert row["evidence"] == (
        "not comparable, since test sets differ: digit size 8 (PMG), 14 (U-NET)"
    )
    assert found["segmentation", "U-MG segments better than U-NET"]["verdict"] == "holds"


@pytest.mark.parametrize(
    ("params", "said"), [(1050, ""), (600, "; SG has 0.60 times the parameters")]
)
def test_a_control_of_another_size_is_said_to_be_one(store, tmp_path, params, said):
    runs = [record(network="pmg", mean_iu=0.5, params=1000), record(network="unet", params=3000)]
    runs += [record(network="sg", mean_iu=0.4, params=params)]
    found = verdicts(store, tmp_path, *runs)
    evidence = found["segmentation", "PMG segments better than SG"]["evidence"]
    assert evidence == f"mean IU 0.500 against 0.400{said}"
    assert "times" not in found["segmentation", "PMG segments better than U-NET"]["evidence"]


def test_a_lead_within_the_spread_does_not_count(store, tmp_path):
    runs = [record(network="unet", seed=i, mean_iu=v) for i, v in enumerate((0.40, 0.50))]
    runs += [record(network="pmg", seed=i, mean_iu=v) for i, v in enumerate((0.44, 0.54))]
    row = verdicts(store, tmp_path, *runs)["segmentation", "PMG segments better than U-NET"]
    assert row["verdict"] == "does not hold"
    assert row["evidence"].endswith("(2 seeds)")


@pytest.mark.parametrize("network, other", [("unet", "pmg"), ("pmg", "unet")])
def test_in_a_lead_over_or_of_one_seed_the_spread_of_the_other_stands_for_both(
    network, other, store, tmp_path
):
    def verdict(lead):  # of PMG over U-NET; the spread is 0.08
        means = {"pmg": 0.4 + lead, "unet": 0.4}
        runs = [record(network=other, mean_iu=means[other])]
        for seed, away in enumerate((-0.08, 0, 0.08)):
            runs.append(record(network=network, seed=seed, mean_iu=means[network] + away))
        found = verdicts(store, tmp_path, *runs)
        return found["segmentation", "PMG segments better than U-NET"]["verdict"]

    assert verdict(0.10) == "does not hold" and verdict(0.12) == "holds"


def test_evidence_names_the_seeds_of_each_network_and_where_there_is_but_one(store, tmp_path):
    runs = [record(network="pmg", seed=i, mean_iu=v) for i, v in enumerate((0.54, 0.55, 0.56))]
    runs += [record(network="unet", seed=i, mean_iu=v) for i, v in enumerate((0.44, 0.46))]
    found = verdicts(store, tmp_path, *runs, record("translation", "pmg"))
    evidence = found["segmentation", "PMG segments better than U-NET"]["evidence"]
    assert evidence == "mean IU 0.550 ± 0.010 against 0.450 ± 0.014 (3 and 2 seeds)"
    assert "without ± is of one seed" in (tmp_path / "c.md").read_text()
    verdicts(store, tmp_path, *runs)
    assert "of one seed" not in (tmp_path / "c.md").read_text()


def attention(path, network, seed, share):
    """A file of maps of which a share lies on the digit and the rest is even."""
    places = [(8, 6), (20, 10), (12, 24)]
    inputs = np.zeros((3, 1, 32, 32), np.float32)
    for image, (y, x) in zip(inputs, places, strict=True):
        image[0, y - 2 : y + 3, x - 2 : x + 3] = 1
    maps = share * inputs / 25 + (1 - share) / 1024
    arrays = {
        "index": np.arange(3),
        "input": inputs,
        "output": inputs,
        "points": np.zeros((3, 7, 2), np.int64),
        "map": np.repeat(maps, 7, 1).astype(np.float32),
        "skipped": np.zeros(0, np.int64),
    }
    facts = {"dataset": "translation", "network": network, "seed": seed, "window": 8, "stride": 2}
    with hdf5.whole(path) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **({"fletcher32": True} if array.size else {}))
        hdf5.write_attributes(file, facts)
    return path


def test_of_how_many_seeds_attention_was_measured_is_told():
    claim = next(claim for claim in claims.CLAIMS if claim.kind == "follows")
    known, unknown = (3.0, 0.5), (None, None)
    said = [claims._judge_attention(claim, seeds)[1] for seeds in ([known] * 2, [known, unknown])]
    assert said[0].endswith("the digit (2 seeds)") and said[1].endswith("the digit (1 of 2 seeds)")


def test_attention_is_judged_over_seeds(store, tmp_path):
    files = [
        attention(tmp_path / "a.h5", "pmg", 0, 0.5),
        attention(tmp_path / "b.h5", "pmg", 1, 0.3),
        attention(tmp_path / "c.h5", "r_pmg", 0, 0),
        attention(tmp_path / "d.h5", "unet", 0, 1),
        attention(tmp_path / "e.h5", "unet", 1, 0),
    ]
    write_claims_table(store(record()), prefix=tmp_path / "c", saliency_paths=files)
    found = {r["claim"]: (r["evidence"], r["verdict"]) for r in rows(tmp_path / "c.csv")}
    # A box has 25 of 1,024 pixels: of an even map that share lies in every box.
    even = 25 / 1024
    a, b = ((share + (1 - share) * even) / ((1 - share) * even) for share in (0.5, 0.3))
    ratio = f"{(a + b) / 2:.2f} ± {(a - b) / 2**0.5:.2f}"
    assert found["The attention of PMG follows the digit"] == (
        f"ratio {ratio}; the maps move 0.40 ± 0.14 times as far as the digit (2 seeds)",
        "holds",
    )
    evidence, verdict = found["The attention of R-PMG follows the digit"]
    assert evidence == "ratio 1.00; the maps move 0.00 times as far as the digit"
    assert verdict == "does not hold"
    evidence, verdict = found["The attention of U-NET does not follow the digit"]
    assert evidence.startswith("ratio inf; the maps move 0.50 ± 0.71") and verdict != "holds"


def test_a_constant_answer_is_no_success(store, tmp_path):
    lucky = {"image_iu": 0.6, "mean_iu": 0.6, "mean_acc": 0.6, "recall": 0.6, "bce": 0.1}
    found = verdicts(
        store, tmp_path, record("rotation", "unet", image_iu=0.55, constant_answer=lucky)
    )
    row = found["rotation", "U-NET outputs the clean, centred digit"]
    assert row["verdict"] == "does not hold"
    runs = [record(network="pmg", mean_iu=0.55, constant_answer=lucky), record(network="unet")]
    row = verdicts(store, tmp_path, *runs)["segmentation", "PMG segments better than U-NET"]
    assert row["verdict"] == "does not hold" and row["evidence"].endswith("; constant answer 0.600")


def test_a_commit_that_several_records_name_is_named_once(store):
    both = [record(seed=seed, commit=of) for seed, of in enumerate(["aa", "aa, bb"])]
    said = summaries.describe(summaries.read_metrics(store(*both)))
    assert "; commit aa, bb;" in said or said.endswith("; commit aa, bb.")
