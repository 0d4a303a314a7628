"""The overview, the page of a run, and time and memory: whole, honest about what is missing."""

import csv
import html
import json
import re

import pytest
from configurations import write_configuration
from test_report_tables import Page, record

from mg.errors import UserError
from mg.report import pages
from mg.report.tables import resources
from mg.report.tables.results import AUTHORS_TEST

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    "<dc:description>A &amp; B.</dc:description></svg>"
)


def training(**changes):
    """What `mg train` writes, as far as the pages read it."""
    return {
        "dataset": "segmentation",
        "label": "pmg",
        "seed": 0,
        "settings": {},
        "images": 19200,
        "seconds": 69.5,
        "images_per_second": 276.3,
        "device": "some CPU",
        "activations": "bfloat16",
        "threads": 1,
        "peak_host_bytes": 801_447_936,
        "peak_device_bytes": None,
        "attempts": 2,
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:15+00:00",
        "commit": "abc123",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "data": [
            {"task": "segmentation", "split": "train", "examples": 20000, "crc32": [1, 255]},
        ],
    } | changes


@pytest.fixture
def folder(tmp_path):
    """metrics.json of two networks, one training missing, a figure and a table to link to."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/claims.html").write_text("<title>Claims &amp; more</title>")
    (tmp_path / "panel.svg").write_text(SVG)
    for network, iu in (("unet", 0.4), ("pmg", 0.5)):
        content = record(network=network, mean_iu=iu)
        (tmp_path / f"{network}.json").write_text(json.dumps(content))
    return tmp_path


def overview(folder, **changes):
    settings = {
        "figures": [folder / "panel.svg"],
        "links": [folder / "tables/claims.html", folder / "panel.svg"],
        "run": "demo",
        "description": "A run <b>",
        "expected": [("segmentation", n, 0) for n in ("unet", "pmg", "r_pmg")],
    }
    metrics = [folder / "unet.json", folder / "pmg.json"]
    pages.write_overview(metrics, folder / "overview.html", **settings | changes)
    return (folder / "overview.html").read_text()


def test_the_overview_tells_what_was_run_and_what_came_out(folder):
    text = overview(folder)
    page = Page(text)
    assert all(target.startswith(("data:", "tables/", "panel.svg")) for target in page.loads)
    assert "A run &lt;b&gt;" in text and 'alt="A &amp; B."' in text
    assert "2 of 3; missing: Segmentation R-PMG seed 0" in text
    assert re.search(r"<td>R-PMG</td><td class=\"n missing\">missing</td>", text)
    assert "canvas of 32 × 32 pixels, digits of 14, examples of our own seed<" in text
    for part in ("some CPU", "abc123", "2026-01-02", "19,200"):
        assert part in text
    assert re.search(r'<td>PMG segments better than U-NET</td><td class="good">holds</td>', text)
    assert re.search(r'<b class="good">1</b> hold\b', text)
    assert "Claims &amp; more</a>" in text and 'href="tables/claims.html"' in text
    hidden = text.split("<details>")[1]
    assert "Translation: U-NET does not output the clean, centred digit." in hidden
    assert "nan" not in text.lower() and ">None<" not in text


def test_the_overview_tells_which_networks_are_controls(folder):
    assert "of our own, as" not in overview(folder)
    (folder / "unet.json").write_text(json.dumps(record(network="mine", architecture="sg")))
    assert "<li>mine: of our own, as a control; the authors" in overview(folder)


@pytest.mark.parametrize(
    "change, said",
    [
        ({}, "the authors' examples"),
        ({"seed": 7}, "the authors' stream with other settings or digits"),
        ({"images_sha256": "0" * 64}, "the authors' stream with other settings or digits"),
        ({"mode": "own"}, "own"),
    ],
)
def test_the_overview_tells_whose_examples_they_are(folder, change, said):
    for network in ("unet", "pmg"):
        content = record(network=network, settings={"test": AUTHORS_TEST | change})
        (folder / f"{network}.json").write_text(json.dumps(content))
    text = html.unescape(overview(folder))
    assert f"canvas of 64 × 64 pixels, digits of 28, {said}<" in text


def test_an_overview_of_nothing_says_so(folder):
    pages.write_overview([], folder / "empty.html", expected=[("segmentation", "pmg", 0)])
    text = (folder / "empty.html").read_text()
    assert "0 of 1; missing: Segmentation PMG seed 0" in text
    assert "None of the claims concerns what was run" in text


def test_classifiers_are_ranked_by_their_error(tmp_path):
    paths = []
    for network, errors in (("vgg", (0.4, 0.41)), ("r_mg", (0.3, 0.31))):
        for seed, error in enumerate(errors):
            settings = {"network": {}, "test": {"task": "cifar100", "canvas": 32}}
            content = record("cifar100", network, seed, settings=settings)
            for key in ("mean_iu", "mean_acc", "recall", "image_iu", "bce", "per_class_iu"):
                del content[key]
            content |= {"top1_error": error, "top5_error": 0.1, "cross_entropy": 1.2}
            paths.append(tmp_path / f"{network}{seed}.json")
            paths[-1].write_text(json.dumps(content))
    pages.write_overview(paths, tmp_path / "overview.html", run="classes")
    text = (tmp_path / "overview.html").read_text()
    assert "top-1 error, % ↓" in text and "mean IU" not in text
    assert "canvas of 32 × 32 pixels<" in text and "digits of" not in text
    assert re.search(r'<td class="n best"[^>]*>30.50 ± 0.71</td>', text)
    assert re.search(r'<td class="n"[^>]*>40.50 ± 0.71</td>', text)
    assert "None of the claims concerns what was run" in text and "MNIST's digits" not in text

    settings = {"run": "classes", "expected": [("cifar100", "mg", 0)], "digits": True}
    pages.write_overview(paths, tmp_path / "overview.html", **settings)
    text = html.unescape((tmp_path / "overview.html").read_text())
    assert "missing: MNIST's digits in CIFAR-100's format MG seed 0" in text
    assert "CIFAR-100" not in text.replace("MNIST's digits in CIFAR-100's format", "")


def test_a_mean_over_some_of_the_seeds_says_so_and_does_not_lead(tmp_path):
    paths = []
    for network, values in (("pmg", (0.8, 0.82, None)), ("unet", (0.5, 0.5, 0.5))):
        for seed, iu in enumerate(values):
            paths.append(tmp_path / f"{network}{seed}.json")
            paths[-1].write_text(json.dumps(record(network=network, seed=seed, mean_iu=iu)))
    pages.write_overview(paths, tmp_path / "overview.html")
    text = (tmp_path / "overview.html").read_text()
    assert re.search(r'<td class="n"[^>]*>0.810 ± 0.014 \(2 of 3\)</td>', text)
    assert "(2 of 3): mean over the seeds" in text and 'class="n best"' not in text


def test_what_cannot_be_shown_is_refused(folder):
    with pytest.raises(UserError, match="absent.svg"):
        overview(folder, figures=[folder / "absent.svg"])
    with pytest.raises(UserError, match="absent.html"):
        overview(folder, links=[folder / "absent.html"])


def test_the_page_of_a_run_shows_configuration_and_environment(tmp_path):
    write_configuration(tmp_path / "configuration.yaml", description="<tiny>")
    card = {"seed": 1, "device": "a card", "threads": None, "peak_device_bytes": 2**30}
    for name, changes in (("a", {"threads": 2}), ("b", card)):
        (tmp_path / f"{name}.json").write_text(json.dumps(training(**changes)))
    pages.write_run_page(
        tmp_path / "configuration.yaml",
        [tmp_path / "a.json", tmp_path / "b.json"],
        tmp_path / "run.html",
        run="demo",
    )
    text = (tmp_path / "run.html").read_text()
    assert Page(text).loads == ["data:,"]
    assert "description: &lt;tiny&gt;\n</pre>" in text and "crc32: " not in text
    for name, value, number in (
        ("device", "some CPU", 1),
        ("device", "a card", 1),
        ("processor threads", "2", 1),
        ("torch", "2.13.0", 2),
        ("commit", "abc123", 2),
    ):
        assert re.search(rf"<td>{name}</td><td>{value}</td><td[^>]*>{number}</td>", text)
    assert text.count("<td>processor threads</td>") == 1
    assert "00000001 000000ff" in text and re.search(r"numpy==\d", text, re.I)


@pytest.fixture
def benchmarks(tmp_path):
    lines = {
        "train/translation/pmg/seed0.tsv": "60.5\t0:01:00\t800.25\t1\t1\t1\t0\t0\t97.0\t58.0",
        "train/translation/pmg/seed1.tsv": "40.5\t0:00:40\t900.75\t1\t1\t1\t0\t0\t97.0\t38.0",
        "tables/claims.tsv": "0.4\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA",
        "overview.tsv": "2.0\t0:00:02\t50.00\t1\t1\t1\t-\t-\t0.00\t1.50",
    }
    for name, line in lines.items():
        path = tmp_path / "benchmarks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{HEADER}\n{line}\n")
    return tmp_path / "benchmarks"


def test_time_and_memory_are_added_up_per_rule(benchmarks, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(training()))
    resources.write_resources_table(benchmarks, [tmp_path / "run.json"], prefix=tmp_path / "r")
    with open(tmp_path / "r.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 4
    assert rows[3] == {
        "rule": "train",
        "job": "translation/pmg/seed1",
        "seconds": "40.5",
        "cpu_seconds": "38.0",
        "max_rss_mb": "900.75",
    }
    text = (tmp_path / "r.md").read_text()
    assert "| train | 2 | 101 | 96 | 50.5 | 60.5 | 901 |" in text
    assert "| tables | 1 | 0 | – | 0.4 | 0.4 | – |" in text
    assert "| all | 4 |" in text
    assert "| train | translation · pmg · seed0 | 60.5 |" in text
    assert "| Segmentation | PMG | 0 | 19,200 | 69.5 | 276 | 801 | – | 1 |" in text
    assert Page((tmp_path / "r.html").read_text()).loads == ["data:,"]


def test_damaged_benchmarks_are_refused(benchmarks, tmp_path):
    with pytest.raises(UserError, match="holds no benchmark files"):
        resources.read_benchmarks(tmp_path / "nowhere")
    (benchmarks / "overview.tsv").write_text("s\tmax_rss\nlong\t1\n")
    with pytest.raises(UserError, match="overview.tsv is not a readable benchmark"):
        resources.read_benchmarks(benchmarks)
