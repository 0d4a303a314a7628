"""Which code makes a rule run again: what its results follow from, all of it and nothing else."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow"))
import hashes

FAMILIES = ("mnist", "cifar", "imagenet")
# How files are read and written, watched and resumed; and where the digits come from.
MEANS = {
    *("errors.py", "files.py", "provenance.py", "records.py", "signals.py", "networks/__init__.py"),
    *(
        "networks/options.py",
        "data/__init__.py",
        "data/download.py",
        "data/hdf5.py",
        "data/mnist.py",
    ),
    *("data/parallel.py", "data/progress.py"),
    *("training/board.py", "training/cards.py", "training/checkpoint.py"),
}


def test_what_decides_weights_and_measures_is_listed():
    """A module that they come to import belongs into the list or, if it decides nothing, here."""
    training = {module for family in FAMILIES for module in hashes.trained_by(family)}
    testing = {module for family in FAMILIES for module in hashes.evaluated_by(family)}
    assert set(hashes.imported(["training/loop.py"])) - MEANS - testing <= training
    assert set(hashes.imported(["evaluation/predict.py"])) - MEANS <= training | testing
    assert "networks/registry.py" in training  # defaults of the options
    assert all((hashes.SOURCES / module).is_file() for module in training | testing)
    others = {"networks/cifar.py", "data/cifar.py", "networks/imagenet.py"}
    assert not others & set(hashes.trained_by("mnist"))


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        ("report/figures.py", {"report/tables.py", "report/style.py", "evaluation/attention.py"}),
        ("report/explorer.py", {"report/figures.py", "report/style.py"}),
        ("report/networks.py", {"networks/counting.py", "networks/pyramid.py"}),
        ("report/classification.py", {"networks/table.py", "networks/counting.py"}),
    ],
)
def test_what_a_page_or_figure_shows_with_is_found(module, shown):
    found = hashes.shown_by(module)
    assert shown | {module} <= set(found)
    assert all(path.startswith(("networks/", "evaluation/", "report/")) for path in found)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write the two modules of a small package; the hash of what it shows."""

    def write(a="from mg.report.b import two\none = two", b="two = 2"):
        (tmp_path / "report").mkdir(exist_ok=True)
        (tmp_path / "report/a.py").write_text(a)
        (tmp_path / "report/b.py").write_text(b)
        hashes._read.cache_clear()
        return hashes.code(hashes.shown_by("report/a.py"))

    monkeypatch.setattr(hashes, "SOURCES", tmp_path)
    yield write
    hashes._read.cache_clear()


def test_comments_and_layout_change_nothing_and_code_does(package):
    first = package()
    assert package(b='"""What it is."""\n\n# why\ntwo = (2)\n') == first
    assert package(b="two = 3") != first
    assert package(a="from mg.report.b import two\none = two + 1") != first


def test_an_import_within_a_function_counts(package):
    late = "def one():\n    from mg.report import b\n    return b.two"
    assert package(a=late) != package(a=late, b="two = 3")
