"""Drawings of networks, tables of their layers, receptive fields."""

import csv
import re

import matplotlib.image
import pytest
import torch

from mg.errors import UserError
from mg.networks.counting import count
from mg.networks.registry import skeleton
from mg.report import describe
from mg.report.figures import network as drawing
from mg.report.figures import receptive_fields


@pytest.mark.parametrize(
    ("network", "dataset", "options", "shape"),
    [
        ("umg", "segmentation", {}, (1, 64, 64)),
        ("r_pmg_seg", "imagenet", {"shortcut": "B"}, (3, 224, 224)),
        ("mg", "cifar100", {}, (3, 32, 32)),
    ],
)
def test_the_table_of_layers_adds_up(network, dataset, options, shape):
    rows = describe.layer_table(network, dataset, options)
    counts = count(skeleton(network, dataset, **options), shape)
    assert sum(row["parameters"] for row in rows) == counts.parameters
    assert sum(row["multiply_adds"] for row in rows) == counts.multiply_adds
    text = describe.format_layers(rows)
    assert len(text.splitlines()) == len(rows) + 4
    assert f"{counts.parameters:,}" in text.splitlines()[-1]
    assert text.count("cannot influence the output") == sum(not row["live"] for row in rows)


def test_a_network_of_layers_that_ours_do_not_have(add_network, tmp_path):
    """Norms under other names count, and a kernel is not drawn or called another."""

    class New(torch.nn.Sequential):
        def __init__(self, channels, classes):
            super().__init__(
                torch.nn.Conv2d(channels, 4, 3, dilation=2, padding=2),
                torch.nn.BatchNorm2d(4),
                torch.nn.ReLU(),
                torch.nn.Conv2d(4, classes, 5, padding=2),
            )

    add_network(New)
    rows = describe.layer_table("new", "translation", {})
    assert [row["type"] for row in rows[:-1]] == ["conv 3x3 dilated by 2", "conv 5x5"]
    assert (rows[-1]["name"], rows[-1]["parameters"]) == ("others", 8)
    text = describe.format_layers(rows)
    assert text.splitlines()[-1].split() == ["total", "2", str(40 + 8 + 101), f"{136 * 64**2:,}"]
    drawing.draw_network("new", "translation", {}, tmp_path / "new")
    svg = (tmp_path / "new.svg").read_text(encoding="utf-8")
    assert "other layer" in svg and "conv 3" not in svg


def test_layers_are_those_of_images_of_the_size_asked_for(tmp_path, capsys):
    options = {"width": [8, 4]}
    describe.describe("pmg", "segmentation", options, tmp_path / "pmg", 32)
    expected = count(skeleton("pmg", "segmentation", **options), (1, 32, 32))
    assert f"{expected.multiply_adds:,}" in capsys.readouterr().out
    svg = (tmp_path / "pmg.svg").read_text()
    assert "32 × 32" in svg and "64 × 64" not in svg
    with pytest.raises(UserError, match="30"):
        describe.describe("umg", "segmentation", {}, None, 30)


def test_a_row_of_the_table():
    row = describe.layer_table("unet", "segmentation", {})[4]
    assert row == {
        "name": "up.0.0.conv",
        "type": "transposed conv 2x2",
        "in": 512,
        "out": 256,
        "kernel": 2,
        "stride": 2,
        "size": "16x16",
        "depth": 5,
        "parameters": 512 * 256 * 4 + 3 * 256,
        "multiply_adds": 512 * 256 * 4 * 64,
        "live": True,
    }


@pytest.mark.parametrize("network", ["umg", "r_pmg"])
def test_describe_draws_and_lists(network, tmp_path, capsys):
    prefix = tmp_path / network
    options = {"width": [8, 8, 8] if network == "umg" else [8, 4]}
    if network == "umg":
        drawing.draw_network(network, "segmentation", options, prefix)
    else:
        describe.describe(network, "segmentation", options, prefix)
        assert "multiply-adds" in capsys.readouterr().out
        with open(f"{prefix}.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(describe.layer_table(network, "segmentation", options))
        files = {path.name for path in tmp_path.iterdir()}
        assert files == {"r_pmg.csv", "r_pmg.png", "r_pmg.svg"}  # nothing of other networks
    image = matplotlib.image.imread(f"{prefix}.png")
    assert image.shape[1] > 1000 and 0.6 < image[..., :3].mean() < 0.999
    svg = prefix.with_suffix(".svg").read_text(encoding="utf-8")
    assert "multiply-adds" in svg and "64 × 64" in svg


def test_drawing_shows_every_layer(tmp_path):
    drawing.draw_network("pmg", "rotation", {"width": [23, 17]}, tmp_path / "pmg")
    svg = (tmp_path / "pmg.svg").read_text(encoding="utf-8")
    assert svg.count(">23<") == 5
    assert svg.count(">17<") == 6
    assert "without influence" in svg


def test_unknown_networks_are_an_error(tmp_path):
    with pytest.raises(UserError, match="no network 'vnet'"):
        describe.describe("vnet", "segmentation", {}, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_network_too_deep_for_its_images_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot work on a canvas of 64 pixels"):
        describe.describe("pmg", "segmentation", {"width": [8] * 8}, tmp_path / "x")


def test_receptive_fields_grow_as_theory_says():
    """Without coarser grids by two pixels per layer; with them, doubled by each further grid."""
    single = receptive_fields.receptive_field("sg", "rotation", {"width": 8, "grids": 2}, canvas=32)
    assert single == [(depth, 2 * depth + 1) for depth in range(1, 8)]
    assert receptive_fields.receptive_fields_by_grids()[:3] == [(3, 12), (4, 24), (5, 48)]


def test_receptive_field_of_unet_is_smaller_than_the_canvas():
    fields = receptive_fields.receptive_field("unet", "rotation", {"width": [8] * 4})
    assert fields == [(1, 3), (9, 46), (10, 46), (11, 46)]
    assert receptive_fields.receptive_field("pmg", "rotation", {"width": [8] * 4})[-1] == (11, 64)


def test_receptive_fields_are_said_to_be_of_the_papers_networks(tmp_path):
    """Also in a run of others; where a layer has no feature on the finest grid nothing is drawn."""
    caption = receptive_fields.draw_receptive_fields(tmp_path / "fields")
    svg = (tmp_path / "fields.svg").read_text(encoding="utf-8")
    assert "the paper's networks, of four grids, and its canvas of 64" in caption
    assert "PMG with 2 to 6 grids" in caption and "SG: of our own, as a control" in svg
    # One gap each of U-NET, PMG and R-PMG, and no other dotted line but the canvas, twice.
    assert len(re.findall(r"stroke-dasharray: 1,2.5", svg)) == 3
