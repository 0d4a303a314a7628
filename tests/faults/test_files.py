"""Damaged files at every place where they are read: refused in one line, or read as they were."""

import shutil

import numpy as np
import pytest
from processes import checksums, evaluate, run_mg, saliency, train


def table(kind, maps=False):
    return lambda run, out: [
        *("table", kind, "--metrics", run / "metrics.json"),
        *(("--saliency", run / "saliency.h5") if maps else ()),
        *("--name", "r", "--output", out / "t"),
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


# Every file, and the commands that read it.
READERS = {
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
        "show": show("run.json"),
    },
    "history.csv": {"figure of curves": figure("curves", "history")},
    "metrics.json": {
        "table of results": table("results"),
        "table of networks": table("networks"),
        "table of claims": table("claims"),
        "figure of cost": figure("cost", "metrics"),
        "overview": overview,
        "show": show("metrics.json"),
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
CASES = [(name, reader) for name, readers in READERS.items() for reader in readers]
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4
DAMAGES = {
    "zero-length": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-2],
    "a picture": lambda content: PNG,
    "a text": lambda content: b"<html>no such page</html>\n",
    "a list": lambda content: b"[1, 2]\n",
}


@pytest.fixture
def copy(whole, tmp_path):
    """The finished run, to be damaged, and an empty folder to write to."""
    run = tmp_path / "translation/pmg/seed0"
    shutil.copytree(whole, run)
    shutil.copy(run / "test.h5", run / "valid.h5")
    (tmp_path / "out").mkdir()
    return run, tmp_path / "out"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name,reader", CASES)
def test_a_damaged_file_is_refused_where_it_is_read(copy, name, reader, damage):
    run, out = copy
    if reader == "show" and name.endswith("json") and damage == "a list":
        pytest.skip("any JSON can be shown")
    (run / name).write_bytes(DAMAGES[damage]((run / name).read_bytes()))
    before = checksums(run)
    ended = run_mg(*READERS[name][reader](run, out))
    assert name in ended.line
    assert checksums(run) == before, "what was there is as it was"
    assert not checksums(out), "nothing was written"


DATED = {"run.json", "metrics.json", "history.csv"}  # hold times: never the same twice


@pytest.mark.parametrize("name,reader", CASES)
def test_a_flipped_bit_is_refused_or_changes_nothing(copy, name, reader):
    """Wherever a bit is flipped: one line, or exactly what the sound file gives."""
    run, out = copy
    sound = (run / name).read_bytes()
    random = np.random.default_rng(len(name) + len(reader))

    def result():
        ended = run_mg(*READERS[name][reader](run, out))
        made = checksums(run, out)
        return ended, {p: made[p] for p in made if p.name not in {name} | DATED}

    expected, files = result()
    assert expected.code == 0, expected.err
    refused = 0
    for place in random.integers(len(sound), size=4):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(random.integers(8))
        (run / name).write_bytes(damaged)
        ended, made = result()
        if ended.code:
            assert name in ended.line
            refused += 1
        elif reader != "show":
            assert ended.out == expected.out
        assert made == files
    assert refused or reader.startswith(("show", "images", "figure"))  # these read only a part


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
