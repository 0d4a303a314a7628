"""Which code makes a rule run again: what its results follow from, all of it and nothing else."""

import shutil
import sys
from itertools import product
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow"))
import hashes

from mg.data.tasks import TASKS
from mg.networks.registry import NETWORKS

RECIPES = set(product(("sgd", "adamw", "muon"), (False, True)))  # optimiser and output prior
PRIOR = {(optimizer, prior) for optimizer, prior in RECIPES if prior}
TASK = {"mnist": "translation", "cifar": "cifar10", "imagenet": "imagenet"}
FAMILIES = ("mnist", "cifar", "imagenet")
# How files are read and written, watched and resumed; and where the digits come from.
MEANS = {
    *("errors.py", "files.py", "provenance.py", "records.py", "signals.py", "networks/__init__.py"),
    *(
        "data/__init__.py",
        "data/download.py",
        "data/hdf5.py",
        "data/mnist.py",
        "data/tasks.py",
    ),
    *("data/parallel.py", "progress.py"),
    *("training/board.py", "training/cards.py", "training/checkpoint.py"),
    *("training/messages.py", "training/model.py"),
    "evaluation/outcome.py",
}


def test_what_decides_weights_and_measures_is_listed():
    """A module that they come to import belongs into the list or, if it decides nothing, here."""
    training = {module for family in FAMILIES for module in hashes.trained_by(family, "muon", True)}
    testing = {module for family in FAMILIES for module in hashes.evaluated_by(family)}
    assert all((hashes.SOURCES / module).is_file() for module in training | testing)
    networks = {
        module
        for family, names in NETWORKS.items()
        for network in names
        for module, _ in hashes.built_by(family, TASK[family], network)
    }
    assert "networks/registry.py" in networks  # defaults of the options
    known = MEANS | training | testing | networks
    builders = [f"networks/{family}.py" for family in FAMILIES]
    assert set(hashes.imported(["training/loop.py", *builders])) <= known
    assert set(hashes.imported(["evaluation/evaluate.py"])) <= known
    others = {"networks/cifar.py", "data/cifar.py", "data/cifar_preparation.py"}
    others |= {"networks/imagenet.py", "data/imagenet_preparation.py"}
    assert not others & set(hashes.trained_by("mnist", "muon", True))
    assert not others & {module for module, _ in hashes.built_by("mnist", "rotation", "pmg")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_counts_with_what_builds_it(family):
    for network in NETWORKS[family]:
        parts = hashes.built_by(family, TASK[family], network)
        assert {
            (f"networks/{family}.py", network),
            ("networks/pyramid.py", "ConvBN"),
            ("networks/registry.py", "build"),
            ("networks/registry.py", "NETWORKS"),
            ("networks/registry.py", "DATASETS"),
            ("networks/settings.py", NETWORKS[family][network].settings.__name__),
            ("networks/initialisation.py", "initialise"),
        } <= set(parts)
    assert ("networks/mnist.py", "UNet") not in hashes.built_by("mnist", "translation", "pmg")


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        ("report/figures/cost.py", {"report/tables/summaries.py", "report/style.py"}),
        ("report/figures/saliency.py", {"report/figures/panels.py", "evaluation/attention.py"}),
        ("report/explorer.py", {"report/figures/reading.py", "report/style.py"}),
        ("report/figures/receptive_fields.py", {"networks/counting.py", "networks/pyramid.py"}),
        ("report/tables/classification.py", {"report/tables/networks.py", "networks/counting.py"}),
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


# ------------------------------------------------------------------------ definitions


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Change a copy of the package: `copy(module, old, new)`, old text once in it; or add to it."""
    shutil.copytree(hashes.SOURCES, tmp_path / "mg", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(hashes, "SOURCES", tmp_path / "mg")

    def change(module, old="", new=""):
        path = tmp_path / "mg" / module
        text = path.read_text() if path.exists() else ""
        assert not old or text.count(old) == 1
        path.write_text(text.replace(old, new) if old else text + new)
        hashes._read.cache_clear()

    hashes._read.cache_clear()
    yield change
    hashes._read.cache_clear()


def trainings(optimizer="muon", output_prior=True):
    """Hashes of the trainings of every network by a recipe, by network."""
    recipe = optimizer, output_prior
    return {
        (family, network): hashes.code_of_training(family, TASK[family], network, *recipe)
        for family in FAMILIES
        for network in NETWORKS[family]
    }


def datasets():
    return {task: hashes.code_of_data(task) for task in TASKS}


def changed(before, after):
    return {key for key in before if before[key] != after[key]}


def test_another_network_task_or_measure_leaves_the_rest_as_it_is(copy):
    weights, data = trainings(), datasets()
    copy("networks/mnist.py", new="\n\ndef deep(channels, classes):\n    return 1\n")
    copy("networks/settings.py", new="\n\ndef deep(*, n_layer=1):\n    return n_layer\n")
    entry = '"r_sg": Network(settings.single_grid, True),'
    copy("networks/registry.py", entry, entry + '\n        "deep": Network(settings.deep, False),')
    entry = 'DatasetSpec("cifar10", "cifar", 3, 10, 32),'
    copy("networks/registry.py", entry, entry + '\n    DatasetSpec("svhn", "cifar", 3, 10, 32),')
    entry = '"translation": Task("mnist-tra", "anywhere"),'
    copy("data/tasks.py", entry, entry + '\n    "shear": Task("mnist-she", "centre", shear=30),')
    copy("metrics.py", new="\n\ndef dice():\n    return 1\n")
    assert trainings() == weights and datasets() == data
    recipe = "sgd", False
    first = (
        hashes.code_of_training("mnist", "translation", "deep", *recipe),
        hashes.code_of_data("shear"),
    )
    copy("networks/settings.py", "def deep(*, n_layer=1)", "def deep(*, n_layer=2)")
    copy("data/tasks.py", "shear=30", "shear=40")
    assert trainings() == weights and datasets() == data
    assert hashes.code_of_training("mnist", "translation", "deep", *recipe) != first[0]
    assert hashes.code_of_data("shear") != first[1]


@pytest.mark.parametrize(
    ("module", "old", "new", "networks"),
    [
        ("networks/registry.py", "(settings.unet, False)", "(settings.unet, True)", {"unet"}),
        ("networks/mnist.py", "def pmg(", "def pmg(  # why\n    ", set()),
        ("networks/settings.py", "def umg(", "@cache\ndef umg(", {"umg"}),
        ("networks/pyramid.py", "class UpConv(", "class UpConv(object, ", {"unet", "umg"}),
        ("networks/initialisation.py", "def initialise(", "@cache\ndef initialise(", None),
        ("networks/pyramid.py", "class ConvBN(", "class ConvBN(object, ", None),
        ("training/step.py", "WARM_UP = 3", "WARM_UP = 4", None),
    ],
)
def test_code_that_a_network_is_built_by_counts_for_it(copy, module, old, new, networks):
    mnist = set(NETWORKS["mnist"])
    before = trainings()
    copy(module, old, new)
    now = {network for family, network in changed(before, trainings()) if family == "mnist"}
    assert now == (mnist if networks is None else networks)


@pytest.mark.parametrize(
    ("module", "old", "new", "recipes"),
    [
        (
            "training/muon.py",
            "def orthogonal(",
            "@cache\ndef orthogonal(",
            {("muon", False), ("muon", True)},
        ),
        ("training/prior.py", "def set_output_prior(", "@cache\ndef set_output_prior(", PRIOR),
        ("training/recipe.py", "class Recipe:", "class Recipe(object):", RECIPES),
    ],
)
def test_an_optimiser_or_prior_counts_for_those_who_train_by_it(copy, module, old, new, recipes):
    before = {recipe: trainings(*recipe) for recipe in RECIPES}
    copy(module, old, new)
    assert changed(before, {recipe: trainings(*recipe) for recipe in RECIPES}) == recipes


def test_code_that_makes_a_data_set_counts_for_it(copy):
    before = datasets()
    copy("data/tasks.py", "CLASSES = 10", "CLASSES = 11")
    assert changed(before, datasets()) == set(TASKS)
    before = datasets()
    copy("data/tasks.py", '"mnist-rot", "centre", rotation=60', '"mnist-rot", "centre", rotation=7')
    rotated = datasets()
    assert changed(before, rotated) == {"rotation"}
    copy("data/clutter.py", "_BLOCK = 128", "_BLOCK = 256")
    other = datasets()
    assert changed(rotated, other) == set(TASKS)
    copy("data/compiled.py", "_CENTRE = (SIDE - 1) / 2", "_CENTRE = SIDE / 2")
    assert changed(other, datasets()) == set(TASKS)


def test_which_digits_make_a_split_counts_and_how_they_are_fetched_does_not(copy):
    before = datasets()
    copy("data/mnist.py", "VALIDATION = 10_000", "VALIDATION = 9_000")
    held_out = datasets()
    assert changed(before, held_out) == set(TASKS)
    copy("data/mnist.py", "def fetch(", "@functools.cache\ndef fetch(")
    assert datasets() == held_out


@pytest.mark.parametrize("family", FAMILIES)
def test_measures_follow_from_the_code_of_their_kind(family):
    kinds = {"evaluation/pixels.py", "evaluation/classify.py"}
    own = "pixels" if family == "mnist" else "classify"
    assert kinds & set(hashes.evaluated_by(family)) == {f"evaluation/{own}.py"}


def test_the_forward_pass_counts_for_maps_of_saliency(copy):
    before = hashes.code(hashes.mapped_by())
    copy("evaluation/pixels.py", "def forward(", "@functools.cache\ndef forward(")
    assert hashes.code(hashes.mapped_by()) != before


def images():
    """Hashes of what is made of archives and folders of images."""
    made = {family: hashes.code_of_images(family) for family in ("cifar", "imagenet")}
    return made | {"digits": hashes.code_of_digit_archive()}


@pytest.mark.parametrize(
    ("module", "old", "new", "made", "trained"),
    [
        ("data/cifar.py", "could not be fetched; tried", "not fetched; tried", set(), set()),
        ("data/cifar.py", "SIZE = 32", "SIZE = 33", {"cifar", "digits"}, set()),
        ("data/cifar.py", "HELD_OUT = 10 ", "HELD_OUT = 5 ", {"cifar"}, set()),
        ("data/cifar.py", "(SIZE - 28) // 2", "(SIZE - 28) // 3", {"digits"}, set()),
        ("data/cifar_pickle.py", "GLOBAL REDUCE", "REDUCE", {"cifar"}, set()),
        ("data/cifar_pickle.py", '"F" if fortran else "C"', '"C"', {"cifar"}, set()),
        ("data/cifar_pickle.py", '(b"u")', '(b"v")', {"digits"}, set()),
        ("data/cifar_preparation.py", "BORDER = 4", "BORDER = 3", set(), {"cifar"}),
        ("data/imagenet.py", "HELD_OUT = 25 ", "HELD_OUT = 20 ", {"imagenet"}, set()),
        ("data/imagenet_preparation.py", "_IN_A_ROW = 100", "_IN_A_ROW = 9", set(), {"imagenet"}),
        ("data/download.py", "PIECE = 1 << 16", "PIECE = 1 << 17", set(), set()),
    ],
)
def test_code_that_makes_images_counts_for_what_follows_from_it(
    copy, module, old, new, made, trained
):
    before, weights = images(), trainings()
    copy(module, old, new)
    assert changed(before, images()) == made
    assert {family for family, _ in changed(weights, trainings())} == trained


def test_a_new_module_that_a_builder_imports_counts(copy):
    copy(
        "networks/attention.py",
        new="def focus():\n    return late()\n\n\ndef late():\n    return 1\n",
    )
    copy("networks/mnist.py", "def pmg(", "from mg.networks import attention\n\n\ndef pmg(")
    copy("networks/mnist.py", "def r_pmg(", "@attention.focus\ndef r_pmg(")
    before = trainings()
    copy("networks/attention.py", "return 1", "return 2")
    assert changed(before, trainings()) == {("mnist", "r_pmg")}


def test_what_is_not_defined_is_no_hash():
    with pytest.raises(KeyError, match="defines no pmgg"):
        hashes.code_of_training("mnist", "translation", "pmgg", "sgd", False)
