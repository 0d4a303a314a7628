"""Damaged files at every place where they are read: refused in one line, or read as they were."""

import multiprocessing
import shutil

import h5py
import numpy as np
import pytest
from processes import checksums, evaluate, prepare, run_mg, saliency, train, train_classifier

from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.attention import read as read_saliency


def table(kind, maps=False):
    return lambda run, out: [
        *("table", kind, "--metrics", run / "metrics.json"),
        *(("--saliency", run / "saliency.h5") if maps else ()),
        *(() if kind == "networks" else ("--name", "r")),
        *("--output", out / "t"),
    ]


def figure(kind, *inputs):
    """`inputs` are names of options; the file of each has its name."""
    files = {"data": "test.h5", "history": "history.csv", "metrics": "metrics.json"}
    return lambda run, out: [
        *("figure", kind, "--output", out / "f"),
        *(a for i in inputs for a in (f"--{i}", run / files.get(i, f"{i}.h5"))),
    ]


def show(name):
    return lambda run, out: ["show", run / name]


def images(name):
    return lambda run, out: ["show", run / name, "--images", out / "i"]


def overview(run, out):
    return [
        *("page", "overview", "--metrics", run / "metrics.json", "--name", "r"),
        *("--saliency", run / "saliency.h5", "--output", out / "o.html"),
    ]


def explorer(run, out):
    return [
        *("page", "explorer", "--data", run / "test.h5", "--saliency", run / "saliency.h5"),
        *("--predictions", run / "predictions.h5", "--output", out / "e.html"),
    ]


def compare(ours, theirs):
    """`copy` is the run that may be damaged, `sound` another."""
    top = {"copy": lambda run: run.parents[3], "sound": lambda run: run.parents[4] / "sound"}
    return lambda run, out: ["compare", top[ours](run), top[theirs](run)]


def place(run, name):
    """Of a file of a run, by its name."""
    return (run.parents[3] if name == "configuration.yaml" else run) / name


def page_of_the_run(run, out):
    configuration = place(run, "configuration.yaml")
    return [
        *("page", "run", "--configuration", configuration, "--runs", run / "run.json"),
        *("--output", out / "r.html"),
    ]


def resources(run, out):
    (run.parents[4] / "benchmarks").mkdir(exist_ok=True)
    (run.parents[4] / "benchmarks/train.tsv").write_text("s\tcpu_time\tmax_rss\n1\t1\t9\n")
    return [
        *("table", "resources", "--benchmarks", run.parents[4] / "benchmarks"),
        *("--runs", run / "run.json", "--output", out / "t"),
    ]


def predict(run, out):
    return ["predict", "--model", run / "model.pt", "--device", "cpu", run / "image.png"]


COMPARED = {
    "compared, ours": compare("copy", "sound"),
    "compared, theirs": compare("sound", "copy"),
}
# Every file of a run, and the commands that read it.
PIXELS = {
    "train.h5": {
        "train": lambda run, out: train(out, run / "train.h5"),
        "show": show("train.h5"),
        "images": images("train.h5"),
    },
    "valid.h5": {
        "train": lambda run, out: train(out, run / "train.h5", "--valid", run / "valid.h5"),
    },
    "test.h5": {
        "evaluate": lambda run, out: evaluate(run),
        "saliency": lambda run, out: saliency(run),
        "figure of examples": figure("examples", "data"),
        "figure of outputs": figure("spatial", "data", "predictions"),
        "explorer": explorer,
    },
    "model.pt": {
        "evaluate": lambda run, out: evaluate(run),
        "saliency": lambda run, out: saliency(run),
        "show": show("model.pt"),
    },
    "run.json": {
        "evaluate": lambda run, out: evaluate(run),
        "figure of curves": figure("curves", "history"),
        "table of resources": resources,
        "page of the run": page_of_the_run,
        "show": show("run.json"),
    },
    "configuration.yaml": {"page of the run": page_of_the_run, **COMPARED},
    "history.csv": {"figure of curves": figure("curves", "history")},
    "metrics.json": {
        "table of results": table("results"),
        "table of networks": table("networks"),
        "table of claims": table("claims"),
        "figure of cost": figure("cost", "metrics"),
        "overview": overview,
        "show": show("metrics.json"),
        **COMPARED,
    },
    "predictions.h5": {
        "figure of outputs": figure("spatial", "data", "predictions"),
        "explorer": explorer,
        "show": show("predictions.h5"),
        "images": images("predictions.h5"),
    },
    "saliency.h5": {
        "table of claims": table("claims", maps=True),
        "figure of maps": figure("saliency", "saliency"),
        "overview": overview,
        "explorer": explorer,
        "show": show("saliency.h5"),
        "images": images("saliency.h5"),
    },
}
# Those of classifiers: of CIFAR, and of photographs.
CLASSES = {
    "cifar-10-python.tar.gz": {
        "prepare": lambda run, out: prepare("cifar10", "train", run, out / "made.h5"),
    },
    "train.h5": {
        "train": lambda run, out: train_classifier(out, "cifar10", run / "train.h5"),
        "show": show("train.h5"),
        "images": images("train.h5"),
    },
    "valid.h5": {
        "train": lambda run, out: train_classifier(
            *(out, "cifar10", run / "train.h5", "--valid", run / "valid.h5")
        ),
    },
    "test.h5": {"evaluate": lambda run, out: evaluate(run)},
    "model.pt": {
        "evaluate": lambda run, out: evaluate(run),
        "predict": predict,
        "show": show("model.pt"),
    },
    "run.json": {"evaluate": lambda run, out: evaluate(run)},
    "history.csv": {"figure of curves": figure("curves", "history")},
    "metrics.json": {
        "table of classifiers": table("classification"),
        "overview": lambda run, out: [
            *("page", "overview", "--metrics", run / "metrics.json", "--output", out / "o.html"),
        ],
        **COMPARED,
    },
    "predictions.h5": {"show": show("predictions.h5"), "images": images("predictions.h5")},
}
PHOTOGRAPHS = {
    "train.h5": {
        "train": lambda run, out: train_classifier(out, "imagenet", run / "train.h5"),
        "images": images("train.h5"),
    },
    "test.h5": {"evaluate": lambda run, out: evaluate(run)},
    "model.pt": {"evaluate": lambda run, out: evaluate(run)},
}
READERS = {"whole": PIXELS, "classified": CLASSES, "photographed": PHOTOGRAPHS}
CASES = [
    pytest.param(kind, name, reader, id=f"{kind}-{name}-{reader}")
    for kind, files in READERS.items()
    for name, readers in files.items()
    for reader in readers
]
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4
DAMAGES = {
    "zero-length": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-2],
    "a picture": lambda content: PNG,
    "a text": lambda content: b"<html>no such page</html>\n",
    "a list": lambda content: b"[1, 2]\n",
    "a number": lambda content: b"3\n",
}
# More for JSON and YAML, which read them.
UNLIKE = {
    "a string": lambda content: b'"text"\n',
    "another object": lambda content: b'{"a": 1}\n',
    "an object with less": lambda content: b'{"run": "r", "dataset": "translation", "seed": 0}\n',
}
ANY_JSON = {"a list", "a number", *UNLIKE}  # which can be shown
DAMAGED = [
    pytest.param(*case.values, damage, id=f"{case.id}-{damage}")
    for case in CASES
    for damage in (*DAMAGES, *UNLIKE)
    if damage in DAMAGES or case.values[1].endswith(("json", "yaml"))
    if not (case.values[1].endswith("json") and case.values[2] == "show" and damage in ANY_JSON)
]


@pytest.fixture
def copy(request, tmp_path):
    """Copies a finished run, by the name of its fixture, beside a folder to write to."""

    def make(kind):
        whole = request.getfixturevalue(kind)
        run = tmp_path / "copy" / whole.relative_to(whole.parents[3])
        shutil.copytree(whole.parents[3], tmp_path / "copy")
        (tmp_path / "sound").symlink_to(whole.parents[3])
        shutil.copy(run / "test.h5", run / "valid.h5")
        (tmp_path / "out").mkdir()
        return run, tmp_path / "out"

    return make


@pytest.mark.parametrize("kind,name,reader,damage", DAMAGED)
def test_a_damaged_file_is_refused_where_it_is_read(copy, kind, name, reader, damage):
    run, out = copy(kind)
    file = place(run, name)
    file.write_bytes((DAMAGES | UNLIKE)[damage](file.read_bytes()))
    before = checksums(run.parents[3])
    ended = run_mg(*READERS[kind][name][reader](run, out))
    assert name in ended.line
    assert checksums(run.parents[3]) == before, "what was there is as it was"
    assert not checksums(out), "nothing was written"


DATED = {"run.json", "metrics.json", "history.csv"}  # hold times: never the same twice


@pytest.mark.parametrize("kind,name,reader", CASES)
def test_a_flipped_bit_is_refused_or_changes_nothing(copy, kind, name, reader):
    """Wherever a bit is flipped: one line, or exactly what the sound file gives."""
    run, out = copy(kind)
    file = place(run, name)
    sound = file.read_bytes()
    random = np.random.default_rng(len(name) + len(reader))

    def result():
        ended = run_mg(*READERS[kind][name][reader](run, out))
        made = checksums(run, out)
        return ended, {p: made[p] for p in made if p.name not in {name} | DATED}

    expected, files = result()
    assert expected.code == 0, expected.err
    refused = 0
    used = np.flatnonzero(np.frombuffer(sound, np.uint8))  # the rest is mostly padding
    for byte in random.choice(used, size=5):
        damaged = bytearray(sound)
        damaged[byte] ^= 1 << int(random.integers(8))
        file.write_bytes(damaged)
        ended, made = result()
        if ended.code:
            assert name in ended.line
            refused += 1
        elif reader != "show":
            assert ended.out == expected.out
        assert made == files
    assert refused or reader.startswith(("show", "images", "figure"))  # these read only a part


@pytest.mark.parametrize(
    "kind,name,attribute",
    [
        ("whole", "test.h5", "mode"),
        ("whole", "predictions.h5", "network"),
        ("whole", "saliency.h5", "network"),
        ("classified", "test.h5", "classes"),
        ("classified", "predictions.h5", "classes"),
        ("photographed", "test.h5", "directory"),
    ],
)
def test_an_altered_text_in_a_file_is_noticed(copy, kind, name, attribute):
    """`kind 3` for `kind 2` would pass for a right name."""
    run, out = copy(kind)
    with h5py.File(run / name, "r+") as file:
        text = hdf5.read_attributes(file)[attribute]
        first = text if isinstance(text, str) else text[0]
    content = (run / name).read_bytes()
    assert content.count(first.encode())
    (run / name).write_bytes(content.replace(first.encode(), first[:-1].encode() + b"~"))
    assert name in run_mg("show", run / name, "--images", out / "i").line
    assert not checksums(out)


def read_predictions(path):
    with hdf5.results(path, "predictions") as file:
        return hdf5.read_attributes(file) | {"prediction": hdf5.part(file, "prediction")[:]}


def read_data(layout):
    return lambda path: vars(hdf5.load(path, layout=layout))


@pytest.mark.parametrize(
    "kind,name,read",
    [
        ("whole", "saliency.h5", read_saliency),
        ("whole", "predictions.h5", read_predictions),
        ("whole", "test.h5", read_data(hdf5.PIXELS)),
        ("classified", "predictions.h5", read_predictions),
        ("classified", "test.h5", read_data(hdf5.IMAGES)),
        ("photographed", "test.h5", read_data(hdf5.FILES)),
    ],
)
def test_a_changed_byte_of_hdf5_is_noticed_at_once(request, tmp_path, kind, name, read):
    """In its texts, their lengths and its own structures too: no byte makes HDF5 loop or crash."""
    content = (request.getfixturevalue(kind) / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content)
    sound = read(path)
    random = np.random.default_rng(0)
    places = random.choice(len(content), min(1500, len(content)), replace=False)

    def try_all():
        refused = 0
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= random.integers(1, 256)
            path.write_bytes(damaged)
            try:
                np.testing.assert_equal(read(path), sound)
            except UserError as error:
                assert name in str(error) and "\n" not in str(error)
                refused += 1
        assert refused > len(places) / 10

    process = multiprocessing.get_context("fork").Process(target=try_all)
    process.start()
    process.join(600)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_flipped_bit_of_the_digits_is_noticed(mnist_directory, tmp_path, name):
    """The digits are compared with what was verified when they were fetched, whenever read."""
    digits, out = tmp_path / "mnist", tmp_path / "out"
    shutil.copytree(mnist_directory, digits)
    record = ("--record", digits / "verified.json")
    assert run_mg("fetch", "--source", "as-is", "--output", digits, *record).code == 0
    few = ("--task", "translation", "--split", "test", "--count", "2")
    arguments = ("generate", *few, "--mnist", digits, "--output", out / "made.h5")
    assert run_mg(*arguments).code == 0
    content = bytearray((digits / name).read_bytes())
    content[len(content) // 2] ^= 1
    (digits / name).write_bytes(content)
    (out / "made.h5").unlink()
    assert name in run_mg(*arguments).line
    assert not checksums(out)
