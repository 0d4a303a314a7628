"""The workflow for real, on the smallest data: what is made, and what again after a change."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas
import pytest
import yaml

from mg.data import hdf5

ROOT = Path(__file__).parent.parent
TINY = {
    "run": "tiny",
    "tasks": ["translation"],
    "networks": ["sg", "pmg"],
    "seeds": [0],
    "data": {"tasks": {"translation": {"train": 32, "valid": 16, "test": 16}}},
    "training": {"tasks": {"translation": {"epochs": 2, "iterations": 2, "batch": 8}}},
    "saliency": {"networks": ["pmg"], "examples": 1, "window": 8, "stride": 8},
    "figures": {"examples": 2},
}


def snakemake(directory: Path, config: dict, *arguments: str) -> subprocess.CompletedProcess:
    """Run the repository's workflow in another directory with `config` laid over the default."""
    path = directory / "changed.yaml"
    path.write_text(yaml.safe_dump(config))
    return subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")),
            *("--directory", str(directory), "--configfile", str(path), "--cores", "2"),
            *arguments,
        ],
        capture_output=True,
        text=True,
    )


def planned(directory: Path, config: dict, *targets: str, options=()) -> dict[str, int]:
    """The number of jobs per rule that Snakemake would run."""
    done = snakemake(directory, config, "--dry-run", *options, "--", *targets)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", text, re.S).group(1)
    return {rule: int(number) for rule, number in (line.split() for line in table.splitlines())}


@pytest.fixture(scope="module")
def config(mnist_directory):
    return TINY | {"mnist": {"directory": str(mnist_directory)}}


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A directory (with a space in its name) in which the tiny configuration was run."""
    directory = tmp_path_factory.mktemp("some where")
    done = snakemake(directory, config)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_everything_is_made(run):
    results = run / "results/tiny"
    model = results / "models/translation/pmg/seed0"
    for name in ("model.pt", "history.csv", "run.json", "metrics.json", "predictions.h5"):
        assert (model / name).stat().st_size
    assert (model / "saliency.h5").exists() and not (model / "checkpoints").exists()
    for name in ("spatial_transformation", "networks", "claims", "resources"):
        for ending in ("csv", "md", "tex", "html"):
            assert (results / f"tables/{name}.{ending}").stat().st_size
    for name in ("examples", "learning_curves", "spatial", "saliency_translation", "cost"):
        for ending in ("png", "svg"):
            assert (results / f"figures/{name}.{ending}").stat().st_size
    for name in ("overview", "explorer", "run"):
        assert (results / f"{name}.html").stat().st_size
    assert yaml.safe_load((results / "configuration.yaml").read_text())["run"] == "tiny"


def test_the_overview_leads_to_each_table_and_figure_once(run):
    text = (run / "results/tiny/overview.html").read_text()
    links = re.findall(r'href="((?:tables|figures)/[^"]*)"', text)
    tables = ("spatial_transformation", "networks", "claims", "resources")
    figures = ("examples", "learning_curves", "spatial", "saliency_translation", "cost")
    for name in tables:
        assert links.count(f"tables/{name}.html") == 1
    for name in (*figures, "receptive_fields"):
        assert f"figures/{name}.svg" in links
    assert {Path(link).suffix for link in links} == {".html", ".svg"}


def test_the_table_has_a_row_per_network_and_seed(run):
    table = pandas.read_csv(run / "results/tiny/tables/spatial_transformation.csv")
    assert list(table.columns) == [
        *("dataset", "network", "seed", "mean_iu", "mean_acc", "recall", "image_iu", "bce"),
        *("params", "macs", "train_images", "train_seconds", "device"),
    ]
    assert sorted(zip(table.network, table.seed, strict=True)) == [("pmg", 0), ("sg", 0)]
    assert (table.train_images == 32).all() and table.mean_iu.between(0, 1).all()


def test_the_report_shows_everything_in_a_browser(run, config, browser):
    done = snakemake(run, config, "--report", "results/tiny/report.html")
    assert done.returncode == 0, done.stdout + done.stderr
    report = run / "results/tiny/report.html"
    browser.open(report)
    browser.wait("document.querySelector('.prose .mg h1')?.textContent == 'Run tiny'")
    browser.wait("document.querySelector('.mg figure img')?.naturalWidth > 300")
    story = browser.driver.find_element("css selector", ".prose .mg")
    assert story.is_displayed() and story.size["width"] > 700
    for part in ("SG", "PMG", "canvas of 32 × 32 pixels", "PMG outputs the clean, centred digit"):
        assert part in story.text

    browser.run("[...document.querySelectorAll('.mg nav a')].at(0).click()")  # the explorer
    with frame(browser):
        browser.wait("document.querySelectorAll('#cards canvas').length > 3")
    seen = {}
    for path, kind in browser.run(
        "return Object.entries(results).map(([path, held]) => [path, held.mime_type])"
    ):
        if kind == "text/html" or kind.startswith("image/"):
            content = "html" if kind == "text/html" else "img"
            browser.run(
                """const [content, path] = arguments; app.showResultInfo(path);
                app.setView({ content, contentPath: results[path].data_uri, resultPath: path })""",
                content,
                path,
            )
            if content == "img":
                wanted = f"results[{path!r}].data_uri"
                image = f"[...document.images].find(i => i.src == {wanted})"
                browser.wait(f"{image}?.naturalWidth > 300")
                seen[path] = "image"
            else:
                with frame(browser):
                    browser.wait("document.querySelector('h1')?.innerText.length > 3")
                    browser.wait("document.querySelectorAll('tbody tr').length > 0")
                    seen[path] = "page"
    made = {*(run / "results/tiny").rglob("*.html"), *(run / "results/tiny").rglob("*.svg")}
    assert set(seen) == {str(path.relative_to(run)) for path in made - {report}}
    assert len(seen) >= 10
    browser.check_quiet(report)

    browser.open(run / "results/tiny/explorer.html")
    browser.wait("document.querySelectorAll('#cards canvas').length > 3")
    browser.check_quiet(run / "results/tiny/explorer.html")


@contextmanager
def frame(browser):
    """The page that the report shows in a frame."""
    browser.wait("document.querySelector('iframe')")
    browser.driver.switch_to.frame(browser.driver.find_element("tag name", "iframe"))
    yield
    browser.driver.switch_to.default_content()


def test_there_is_nothing_to_be_done_again(run, config):
    assert planned(run, config) == {}


def test_another_seed_trains_only_that_seed(run, config):
    jobs = planned(run, config | {"seeds": [0, 1]})
    assert jobs["train"] == jobs["evaluate"] == 2
    assert "generate" not in jobs


def test_another_network_trains_only_that_network(run, config):
    jobs = planned(run, config | {"networks": ["sg", "pmg", "unet"]})
    assert jobs["train"] == jobs["evaluate"] == 1
    assert "generate" not in jobs and "saliency" not in jobs


def test_another_task_leaves_the_first_alone(run, config):
    jobs = planned(run, config | {"tasks": ["translation", "scaling"]})
    assert (jobs["generate"], jobs["train"]) == (3, 2)


def test_a_changed_option_trains_only_its_network(run, config):
    jobs = planned(run, config | {"architectures": {"sg": {"options": {"width": 5}}}})
    assert jobs["train"] == jobs["evaluate"] == 1
    assert "saliency" not in jobs and "generate" not in jobs


def test_a_changed_schedule_keeps_the_data(run, config):
    changed = {"tasks": {"translation": {"epochs": 3}}}
    jobs = planned(run, config | {"training": changed})
    assert jobs["train"] == 2 and "generate" not in jobs


def test_to_train_on_the_validation_set_too_trains_again(run, config):
    changed = {"tasks": {"translation": {"include_valid": True}}}
    amounts = {**TINY["training"]["tasks"]["translation"], **changed["tasks"]["translation"]}
    jobs = planned(run, config | {"training": {"tasks": {"translation": amounts}}})
    assert jobs["train"] == jobs["evaluate"] == 2 and "generate" not in jobs


@pytest.mark.parametrize(
    "name, rule",
    [
        ("models/translation/pmg/seed0/model.pt", "train"),
        ("models/translation/pmg/seed0/history.csv", "train"),
        ("models/translation/pmg/seed0/run.json", "train"),
        ("models/translation/pmg/seed0/metrics.json", "evaluate"),
        ("models/translation/pmg/seed0/predictions.h5", "evaluate"),
        ("models/translation/pmg/seed0/saliency.h5", "saliency"),
        ("tables/spatial_transformation.csv", "results_table"),
        ("tables/spatial_transformation_aggregated.csv", "results_table"),
        ("tables/resources.csv", "resources_table"),
        ("figures/cost.png", "figure_cost"),
        ("data/translation/train.h5", None),
    ],
)
def test_what_is_deleted_is_made_again_but_data(name, rule, run, config):
    path, aside = run / "results/tiny" / name, run / "aside"
    path.rename(aside)
    try:
        jobs = planned(run, config)
    finally:
        aside.rename(path)
    assert jobs == {} if rule is None else jobs[rule] == 1


def test_deleted_data_that_are_made_by_name_keep_what_was_trained_on_them(run, config):
    """As the README says how; without checksums, which Snakemake keeps of small files only."""
    names = [f"results/tiny/data/translation/{split}.h5" for split in ("train", "valid", "test")]
    for name in names:
        (run / name).rename(run / f"{name}.aside")
    more, options = config | {"seeds": [0, 1]}, ["--max-checksum-file-size", "0"]
    try:
        assert planned(run, more, options=options)["train"] == 4
        done = snakemake(run, config, "--", *names)
        assert done.returncode == 0, done.stderr
        verified = Path(config["mnist"]["directory"], "verified.json").stat()
        for name in names:
            os.utime(run / name, ns=(verified.st_atime_ns, verified.st_mtime_ns))
        jobs = planned(run, more, options=options)
        assert jobs["train"] == jobs["evaluate"] == 2 and "generate" not in jobs
    finally:
        for name in names:
            (run / f"{name}.aside").replace(run / name)


def digits_of_ones_own(mnist_directory: Path, folder: Path) -> dict:
    """The settings that take the digits in `folder`, which are MNIST's."""
    folder.mkdir()
    for path in mnist_directory.glob("*ubyte"):
        shutil.copy(path, folder)
    return {"mnist": {"directory": str(folder), "sources": ["as-is"]}}


def change_a_digit(folder: Path) -> None:
    images = folder / "t10k-images-idx3-ubyte"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)


def test_other_digits_of_ones_own_make_other_data(mnist_directory, tmp_path):
    config = TINY | digits_of_ones_own(mnist_directory, tmp_path / "own")
    target = "results/tiny/data/translation/test.h5"
    assert snakemake(tmp_path, config, "--", target).returncode == 0
    assert planned(tmp_path, config, target) == {}
    before = hdf5.load(tmp_path / target, count=1).attributes["images_sha256"]
    change_a_digit(tmp_path / "own")
    assert planned(tmp_path, config, target)["generate"] == 1
    done = snakemake(tmp_path, config, "--", target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hdf5.load(tmp_path / target, count=1).attributes["images_sha256"] != before


def test_what_decides_nothing_makes_nothing_again(run, config, mnist_directory):
    """Where the same digits come from; how CIFAR's images would be prepared."""
    other = {"mnist": config["mnist"] | {"sources": [str(mnist_directory)]}}
    preparation = {"training": config["training"] | {"preparation": "plain"}}
    assert not {"fetch_mnist", "generate", "train"} & planned(run, config | other).keys()
    assert not {"fetch_mnist", "generate", "train"} & planned(run, config | preparation).keys()


def write_images(folder: Path, seed: int = 0) -> None:
    """Images of one's own for translation, where the workflow would generate its own."""
    random = np.random.default_rng(seed)
    for split in ("train", "valid", "test"):
        x = random.random((16, 1, 32, 32), np.float32)
        says = {"task": "translation", "split": split, "mode": "own", "seed": 0, "canvas": 32}
        hdf5.write(folder / f"{split}.h5", [(x, x > 0.5)], says)


def test_images_of_ones_own_are_used_and_never_overwritten(mnist_directory, tmp_path):
    """Also where the record of the digits is newer than they are."""
    config = TINY | {
        "run": "cells",
        "mnist": {"directory": "own", "sources": [str(mnist_directory)]},
    }
    model = "results/cells/models/translation/sg/seed0/model.pt"
    write_images(tmp_path / "results/cells/data/translation")
    images = tmp_path / "results/cells/data/translation/train.h5"
    before = images.read_bytes()
    fetched = snakemake(tmp_path, TINY | {"mnist": config["mnist"]}, "--", "own/verified.json")
    assert fetched.returncode == 0, fetched.stderr
    refused = snakemake(tmp_path, config, "--", model)
    line = refused.stderr.strip().splitlines()[-1]
    assert refused.returncode == 1 and "data.mode: " in line and "your own images in" in line
    announced = config | {"data": TINY["data"] | {"mode": "own"}}
    assert planned(tmp_path, announced, model) == {"train": 1, "total": 1}
    done = snakemake(tmp_path, announced, "--forceall", "--", model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert images.read_bytes() == before
    generated = snakemake(tmp_path, TINY | {"data": announced["data"]} | {"run": "tiny"})
    assert "results/tiny/data/translation/train.h5 is missing" in generated.stderr


def test_other_images_of_ones_own_are_noticed_however_old_their_files_are(tmp_path):
    """As where they were copied with their dates."""
    config = TINY | {"run": "cells", "networks": ["sg"], "data": {"mode": "own"}}
    data, model = tmp_path / "results/cells/data/translation", "results/cells/models/translation/sg"
    targets = [f"{model}/seed0/metrics.json", "results/cells/figures/examples.png"]
    write_images(data)
    done = snakemake(tmp_path, config, "--", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert planned(tmp_path, config, *targets) == {}
    write_images(tmp_path / "others", seed=1)
    for split, affected in (("test", {"evaluate", "figure_examples"}), ("train", {"train"})):
        shutil.copy(tmp_path / f"others/{split}.h5", data)
        os.utime(data / f"{split}.h5", (1e9, 1e9))
        assert planned(tmp_path, config, *targets).keys() >= affected
        if split == "test":
            assert "train" not in planned(tmp_path, config, *targets)


def test_generated_digits_are_not_taken_for_images_of_ones_own(run, config):
    done = snakemake(run, config | {"data": TINY["data"] | {"mode": "own"}}, "--dry-run")
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "holds generated digits" in line


def test_digits_fetched_again_hold_nothing_up(mnist_directory, tmp_path):
    """What they lead to is planned with them, and what was made of the same digits is kept."""
    config = TINY | {"mnist": {"directory": "own", "sources": [str(mnist_directory)]}}
    data, model = "results/tiny/data/translation/test.h5", "results/tiny/models/translation/sg"
    assert snakemake(tmp_path, config, "--", data).returncode == 0
    shutil.rmtree(tmp_path / "own")
    fetched = snakemake(tmp_path, config, "--", "own/verified.json")
    assert fetched.returncode == 0, fetched.stderr
    assert planned(tmp_path, config, data) == {}
    again = snakemake(tmp_path, config, "-n", "-R", "fetch_mnist", "--", f"{model}/seed0/run.json")
    assert again.returncode == 0, again.stderr
    assert re.search(r"^fetch_mnist +1$", again.stdout + again.stderr, re.M)
    assert re.search(r"^train +1$", again.stdout + again.stderr, re.M)


def test_the_package_of_the_checkout_computes_wherever_it_is_called(mnist_directory, tmp_path):
    """Not one that lies in the current folder."""
    (tmp_path / "mg").mkdir()
    (tmp_path / "mg/__init__.py").write_text("raise SystemExit('another package')")
    config = TINY | {"mnist": {"directory": str(mnist_directory)}}
    done = snakemake(tmp_path, config, "--", "results/tiny/data/translation/test.h5")
    assert done.returncode == 0, done.stdout + done.stderr
