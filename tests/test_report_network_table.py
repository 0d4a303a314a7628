"""The table of networks and its printed forms."""

import pytest

from mg.report.published import published_results
from mg.report.tables.networks import NETWORKS, format_rows, paper_rows


@pytest.fixture(scope="module")
def table():
    return paper_rows()


def test_every_published_number_is_in_the_table(table):
    shown = {
        (row["name"], m, v) for row in table for m, v in (row["published_results"] or {}).items()
    }
    assert shown == {(e["name"], e["metric"], e["value"]) for e in published_results()}
    assert len(shown) == 14
    assert len(table) == len(NETWORKS) + 3  # ResNet-50, WRN-34 and the unnamed one


def test_our_counts_equal_the_published_ones(table):
    cifar = [row for row in table if row["multiply_adds_512_256"] is not None]
    assert [row["name"] for row in cifar] == [
        *("MG-6", "MG-11", "MG-16", "MG-21"),
        *("R-MG-12", "R-MG-22", "R-MG-32", "R-MG-42"),
    ]
    for row in cifar:
        assert row["depth"] == int(row["name"].split("-")[-1])
        assert abs(row["parameters_difference_percent"]) <= 0.05
        assert row["multiply_adds_512_256_difference_percent"] == 0
        assert row["multiply_adds"] > row["multiply_adds_512_256"]
    (imagenet,) = [row for row in table if row["name"] == "R-MG-34"]
    assert imagenet["parameters_difference_percent"] == 0
    assert imagenet["multiply_adds_difference_percent"] == 0


def test_text_aligns(table):
    text = format_rows(table).splitlines()
    start = text[0].index("parameters") + len("parameters")
    assert all(len(line) < start or line[start - 1] != " " for line in text[2 : 2 + len(NETWORKS)])
    assert "{512, 256}" in format_rows(table)
