"""Killed, starved and doubled processes: nothing finished is lost, and the same command goes on."""

import csv
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from processes import Running, checksums, evaluate, prepare, run_mg, saliency, train

from mg.data import hdf5
from mg.files import read_json, write_json

ROOT = Path(__file__).parent.parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def weights(run):
    return torch.load(run / "model.pt", weights_only=True)["state_dict"]


def losses(run):
    """The history without what depends on the clock."""
    with open(run / "history.csv", newline="") as file:
        return [
            {name: row[name] for name in row if "second" not in name}
            for row in csv.DictReader(file)
        ]


def assert_same_training(run, other):
    a, b = weights(run), weights(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert losses(run) == losses(other)


def killed_at(moment, number, *arguments):
    """The process, sent a signal after so many seconds if it still runs then."""
    process = Running(*arguments)
    time.sleep(moment)
    os.kill(process.pid, number)  # a zombie at most: it was not waited for
    return process.end()


def long_training(run, tiny, *more):
    """A second or two of steps, a checkpoint after each."""
    lasting = ("--epochs", "3", "--iterations", "20", "--checkpoint-seconds", "0")
    return train(run, tiny / "train.h5", "--valid", tiny / "valid.h5", *lasting, *more)


def test_a_training_killed_at_twenty_random_moments_ends_bit_identical(tiny, tmp_path):
    """Each restart goes on from the last; when it gets to its end, another training begins."""
    began = time.monotonic()
    assert run_mg(*long_training(tmp_path / "whole", tiny)).code == 0
    lasts = time.monotonic() - began
    moments, kills, finished = random.Random(20), 0, 0
    while kills < 20 or not finished:
        run = tmp_path / f"cut{finished}"
        moment, number = moments.uniform(0, lasts / 2), SIGNALS[kills % 3]
        if kills >= 20:
            moment = 60 * lasts  # enough; let it end
            ended = run_mg(*long_training(run, tiny))
        else:
            ended = killed_at(moment, number, *long_training(run, tiny))
        print(f"{number!r} after {moment:.3f} s: status {ended.code}, {ended.err[-200:]}")
        assert "Traceback" not in ended.err
        if ended.code == 0:
            assert_same_training(run, tmp_path / "whole")
            assert not (run / "checkpoints").exists()
            finished += 1
        else:
            assert ended.code in (-number, 128 + number)
            kills += 1


@pytest.fixture(scope="module")
def mnist(mnist_directory):
    return mnist_directory


def generate(run, mnist):
    return [
        *("generate", "--task", "segmentation", "--split", "test", "--count", "3000"),
        *("--mnist", mnist, "--output", run / "made.h5"),
    ]


COMMANDS = {
    "generate": (lambda run, mnist: generate(run, mnist), {"made.h5"}),
    "prepare": (
        lambda run, mnist: prepare("cifar10", "train", run, run / "made.h5"),
        {"made.h5"},
    ),
    "evaluate": (lambda run, mnist: evaluate(run), {"predictions.h5"}),
    "saliency": (lambda run, mnist: saliency(run), {"saliency.h5"}),
    "render": (
        lambda run, mnist: [
            *("figure", "spatial", "--data", run / "test.h5", "--output", run / "f"),
            *("--predictions", run / "predictions.h5"),
        ],
        {"f.png", "f.svg"},
    ),
    "table": (
        lambda run, mnist: [
            *("table", "claims", "--metrics", run / "metrics.json", "--output", run / "t"),
        ],
        {"t.csv", "t.md", "t.tex", "t.html"},
    ),
    "page": (
        lambda run, mnist: [
            *("page", "explorer", "--data", run / "test.h5", "--output", run / "e.html"),
            *("--predictions", run / "predictions.h5", "--saliency", run / "saliency.h5"),
        ],
        {"e.html"},
    ),
}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("step", COMMANDS)
def test_a_step_killed_at_random_moments(step, number, whole, classified, mnist, tmp_path):
    """After every kill each file is the old one, or the new one whole; then the step ends right."""
    arguments, products = COMMANDS[step]
    sound, run = tmp_path / "sound", tmp_path / "run"
    for folder in (sound, run):
        shutil.copytree(classified if step == "prepare" else whole, folder)
    began = time.monotonic()
    assert run_mg(*arguments(sound, mnist)).code == 0
    lasts = time.monotonic() - began
    right = {name: checksums(sound)[sound / name] for name in products}
    others = {p: c for p, c in checksums(run).items() if p.name not in {*products, "metrics.json"}}
    moments = random.Random(f"{step} {number}")
    for _ in range(4):
        moment = moments.uniform(0, lasts)
        for name in products:
            (run / name).unlink(missing_ok=True)
        ended = killed_at(moment, number, *arguments(run, mnist))
        print(f"{number!r} after {moment:.3f} s: status {ended.code}, {ended.err[-200:]}")
        assert ended.code in (0, -number, 128 + number) and "Traceback" not in ended.err
        found = checksums(run)
        assert all(found[run / name] == right[name] for name in products if run / name in found)
        assert {p: found[p] for p in others} == others
        if number != signal.SIGKILL:
            assert not list(run.rglob("*.partial*")), "half-written files are cleared away"
        json.loads((run / "metrics.json").read_text())
    assert run_mg(*arguments(run, mnist)).code == 0
    assert {name: checksums(run)[run / name] for name in products} == right


# ------------------------------------------------------------------------ memory and disk


def starved(megabytes=50):
    """As on a machine with too little memory: so much more than the process has already."""

    def limit():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + int(megabytes * 1e6)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return limit


HUGE = ("--options", '{"width": [1024, 1024]}', "--batch", "256")


def test_a_training_without_memory_says_so(tiny, tmp_path):
    ended = run_mg(*train(tmp_path / "run", tiny / "train.h5", *HUGE), before=starved())
    assert "not enough memory" in ended.line
    assert not checksums(tmp_path)


def test_generating_without_memory_says_so(mnist, tmp_path):
    ended = run_mg(*generate(tmp_path, mnist), "--canvas", "2048", before=starved(5))
    assert "not enough memory" in ended.line
    assert not checksums(tmp_path)


def without_threads():
    """As where a user's processes and threads are as many as the system allows."""
    if os.geteuid() == 0:  # for whom there is no such limit: as somebody who may read all the same
        kernel = ctypes.CDLL(None)
        keep_capabilities, version, reading = (28, 1 << 2), 0x20080522, 1 << 1 | 1 << 2
        if kernel.prctl(*keep_capabilities, 0, 0, 0):
            os._exit(77)
        os.setresuid(65534, 65534, 65534)
        header = (ctypes.c_uint32 * 2)(version, 0)
        kernel.capset(header, (ctypes.c_uint32 * 6)(reading, reading))
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


def test_generating_without_threads_says_so(mnist, tmp_path):
    ended = run_mg(*generate(tmp_path, mnist), "--workers", "2", before=without_threads)
    if ended.code == 77:
        pytest.skip("root without the right to give up its capabilities one by one")
    assert "no more threads or processes" in ended.line and "ulimit -u" in ended.line
    assert not checksums(tmp_path), "nothing was written"


@pytest.fixture(scope="module")
def large(whole, tmp_path_factory):
    """A finished run whose every file takes far more memory than a process has to spare."""
    run = tmp_path_factory.mktemp("large") / "translation/pmg/seed0"
    shutil.copytree(whole, run)
    y = np.zeros((12, 1, 1024, 1024), np.uint8)
    y[:, :, 300:500, 300:500] = 1
    noise = np.random.default_rng(0).uniform(0, 0.2, y.shape)
    attributes = {"task": "translation", "split": "test", "mode": "independent", "seed": 0}
    x = np.clip(0.8 * y + noise, 0, 1).astype(np.float32)
    hdf5.write(run / "test.h5", [(x, y)], attributes | {"canvas": 1024})
    assert run_mg(*evaluate(run)).code == 0
    record = read_json(run / "metrics.json")
    write_json(run / "metrics.json", record | {"remark": 60_000_000 * "x"})
    return run


STARVED = {
    "evaluate": lambda run, out: FILLING["evaluate"](run, out, None),
    "saliency": lambda run, out: FILLING["saliency"](run, out, None),
    "table": lambda run, out: FILLING["table"](run, out, None),
    "figure": lambda run, out: [
        *("figure", "spatial", "--data", run / "test.h5", "--output", out / "f"),
        *("--predictions", run / "predictions.h5"),
    ],
    "overview": lambda run, out: [
        *("page", "overview", "--metrics", run / "metrics.json", "--output", out / "o.html"),
    ],
    "explorer": lambda run, out: FILLING["page"](run, out, None),
}


@pytest.mark.parametrize("megabytes", [0, 1, 5, 10, 20, 30, 50])
@pytest.mark.parametrize("step", STARVED)
def test_a_step_without_memory_says_so(step, megabytes, large, tmp_path):
    """Wherever memory ends: each library says it in its own way, some as of a damaged file."""
    ended = run_mg(*STARVED[step](large, tmp_path), before=starved(megabytes))
    assert "not enough memory" in ended.line
    assert not checksums(tmp_path), "nothing was written"


@pytest.mark.parametrize("megabytes", [60, 90, 120])
def test_a_checkpoint_that_memory_does_not_suffice_for_is_not_passed_over(
    megabytes, checkpointed, tiny, tmp_path
):
    """Nor is it called damaged, and begun anew what was half done."""
    run = tmp_path / "run"
    shutil.copytree(checkpointed, run)
    before = checksums(run)
    ended = run_mg(*wide_training(run, tiny), before=starved(megabytes))
    assert "not enough memory" in ended.err.splitlines()[-1] and ended.code == 2
    assert "ignored" not in ended.err and "Traceback" not in ended.err
    assert checksums(run) == before


def wide_training(run, tiny):
    wide = ("--options", '{"width": [256, 256]}', "--batch", "1", "--checkpoint-seconds", "0")
    return train(run, tiny / "train.h5", *wide)


@pytest.fixture(scope="module")
def checkpointed(tiny, tmp_path_factory):
    """A training with checkpoints of a hundred megabytes."""
    run = tmp_path_factory.mktemp("checkpointed") / "run"
    process = Running(*wide_training(run, tiny))
    process.wait_until_said("epoch   1/2")
    os.kill(process.pid, signal.SIGTERM)
    ended = process.end()
    assert ended.code == 128 + signal.SIGTERM, ended.err
    return run


def test_a_photograph_that_memory_does_not_suffice_for_is_not_left_out(photographed, tmp_path):
    """As one that cannot be read is: the measure would be of fewer images."""
    run = tmp_path / "imagenet/r_mg/seed0"
    shutil.copytree(photographed, run)
    Image.new("RGB", (8000, 8000)).save(run / "images/val/n01/n01_000.JPEG")
    arguments = prepare("imagenet", "test", run / "images", run / "test.h5")
    assert run_mg(*arguments).code == 0
    assert run_mg(*evaluate(run)).code == 0
    before = checksums(run)
    ended = run_mg(*evaluate(run), before=starved(150))
    assert "not enough memory" in ended.line
    assert checksums(run) == before


def test_a_disk_that_fills_while_checkpointing(tiny, tmp_path, small_disk):
    """The checkpoints before it stay; with room again the same command ends bit-identical."""
    assert run_mg(*long_training(tmp_path / "whole", tiny, "--epochs", "6")).code == 0
    disk = small_disk(1000)
    run = disk / "run"
    filler = disk / "filler"
    process = Running(*long_training(run, tiny, "--epochs", "6"))
    process.wait_until_said("epoch   1/6")
    with pytest.raises(OSError, match="No space"), open(filler, "wb") as file:
        while True:
            file.write(bytes(1024))
            file.flush()
    ended = process.end()
    assert "checkpoint.pt: No space left on device" in ended.err.splitlines()[-1]
    assert ended.code == 2 and "Traceback" not in ended.err
    assert not list(run.rglob("*.partial*"))
    filler.unlink()
    ended = run_mg(*long_training(run, tiny, "--epochs", "6"))
    assert ended.code == 0 and "resumed at epoch" in ended.err
    assert_same_training(run, tmp_path / "whole")


FILLING = {
    "generate": lambda run, out, mnist: generate(out, mnist),
    "train": lambda run, out, mnist: train(out, run / "train.h5"),
    "evaluate": lambda run, out, mnist: [
        *evaluate(run)[:7],
        *("--metrics", out / "metrics.json", "--predictions", out / "predictions.h5"),
    ],
    "saliency": lambda run, out, mnist: [*saliency(run), "--output", out / "saliency.h5"],
    "table": lambda run, out, mnist: [
        *("table", "claims", "--metrics", run / "metrics.json", "--output", out / "claims"),
    ],
    "figure": lambda run, out, mnist: [
        *("figure", "curves", "--history", run / "history.csv", "--output", out / "curves"),
    ],
    "page": lambda run, out, mnist: [
        *("page", "explorer", "--data", run / "test.h5", "--output", out / "e.html"),
        *("--predictions", run / "predictions.h5"),
    ],
    "fetch": lambda run, out, mnist: ["fetch", "--source", mnist, "--output", out / "mnist"],
}


@pytest.mark.parametrize("step", FILLING)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(step, whole, mnist, small_disk):
    out = small_disk(24)
    (out / "kept").write_bytes(bytes(range(256)) * 72)
    before = checksums(out)
    ended = run_mg(*FILLING[step](whole, out, mnist))
    assert "No space left on device" in ended.err.splitlines()[-1]
    assert ended.code == 2 and "Traceback" not in ended.err
    assert before.items() <= checksums(out).items()
    assert not list(out.rglob("*.partial*"))


@pytest.mark.parametrize("step", FILLING)
def test_a_read_only_file_system_is_one_line(step, whole, mnist, small_disk):
    out = small_disk(24)
    subprocess.run(["mount", "-o", "remount,ro", out], check=True)
    ended = run_mg(*FILLING[step](whole, out, mnist))
    assert "Read-only file system" in ended.line and str(out) in ended.line


# ------------------------------------------------------------------------ two at once


def test_a_second_training_waits_for_the_first_and_takes_its_results(tiny, tmp_path):
    run = tmp_path / "run"
    first = Running(*long_training(run, tiny, "--epochs", "6"))
    first.wait_until_said("epoch   1/6")
    second = Running(*long_training(run, tiny, "--epochs", "6"))
    second.wait_until_said("is training into")
    assert f"process {first.pid} on" in second.said()
    os.kill(second.pid, signal.SIGSTOP)  # before it takes the lock, in the same folder
    assert first.end().code == 0
    made = checksums(run)
    os.kill(second.pid, signal.SIGCONT)
    ended = second.end()
    assert ended.code == 0 and "its results stand" in ended.err
    assert checksums(run) == made and not (run / "checkpoints").exists()


def test_a_second_training_on_other_data_makes_its_own_results(tiny, tmp_path):
    """Although its files have the same names: their content was changed meanwhile."""
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(tiny, data)
    first = Running(*long_training(run, data, "--epochs", "6"))
    first.wait_until_said("epoch   1/6")
    second = Running(*long_training(run, data, "--epochs", "6"))
    second.wait_until_said("is training into")
    shutil.copy(data / "valid.h5", data / "train.h5")
    assert first.end().code == 0
    ended = second.end()
    assert ended.code == 0 and "its results stand" not in ended.err
    assert json.loads((run / "run.json").read_text())["data"][0]["split"] == "valid"


def test_a_second_training_goes_on_where_the_first_was_killed(tiny, tmp_path):
    assert run_mg(*long_training(tmp_path / "whole", tiny, "--epochs", "6")).code == 0
    run = tmp_path / "run"
    first = Running(*long_training(run, tiny, "--epochs", "6"))
    first.wait_until_said("epoch   1/6")
    second = Running(*long_training(run, tiny, "--epochs", "6"))
    second.wait_until_said("is training into")
    os.kill(first.pid, signal.SIGKILL)
    first.end()
    ended = second.end()
    assert ended.code == 0 and "resumed at epoch" in ended.err
    assert_same_training(run, tmp_path / "whole")


# ------------------------------------------------------------------------ Snakemake


def snakemake(directory, *more, seeds=(0,)):
    """The real workflow up to trained networks, on data that are there already."""
    models = [f"results/killed/models/translation/pmg/seed{seed}/model.pt" for seed in seeds]
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")),
        *("--directory", str(directory), "--configfile", str(directory / "changed.yaml")),
        *("--cores", "1", *models, "--allowed-rules", "train", "--rerun-triggers", "mtime", *more),
    ]


@pytest.fixture
def project(tiny, tmp_path):
    config = {
        "run": "killed",
        "tasks": ["translation"],
        "networks": ["pmg"],
        "seeds": [0, 1],
        "architectures": {"pmg": {"options": {"width": [4, 4]}}},
        "training": {"tasks": {"translation": {"epochs": 4, "iterations": 40, "batch": 8}}},
    }
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(config))
    data = tmp_path / "results/killed/data/translation"
    data.mkdir(parents=True)
    for split in ("train", "valid"):
        shutil.copy(tiny / f"{split}.h5", data)
    return tmp_path


def wait_for(condition, process):
    end = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def content(log):
    """What a job has written so far; Snakemake removes the log of an attempt before the next."""
    try:
        return log.read_text()
    except FileNotFoundError:
        return ""


def trainings(directory):
    """The processes that train into a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if {b"mg", b"train"} <= {*words} and os.readlink(path / "cwd") == str(directory):
                found.append(int(path.name))
        except OSError:
            pass
    return found


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


@pytest.fixture
def half_way(project):
    """A Snakemake of two trainings, the folders of both, and its job: the first, held half way."""
    models = [project / f"results/killed/models/translation/pmg/seed{seed}" for seed in (0, 1)]
    process = subprocess.Popen(snakemake(project, seeds=(0, 1)), **PIPES, start_new_session=True)
    begun = [model / "checkpoints/history.csv" for model in models]
    wait_for(lambda: any(path.exists() for path in begun), process)
    if begun[1].exists():  # Snakemake does not promise an order
        models.reverse()
    (job,) = trainings(project)
    os.kill(job, signal.SIGSTOP)  # so that it does not end before the signal
    return process, *models, job


def finish(project, model, other):
    """The same command again, without unlocking; what it has said."""
    done = subprocess.run(snakemake(project, seeds=(0, 1)), **PIPES)
    assert done.returncode == 0, done.stdout
    for folder in (model, other):
        assert {path.name for path in folder.iterdir()} == {"model.pt", "history.csv", "run.json"}
        epochs = [row["epoch"] for row in losses(folder)]
        assert epochs == [str(epoch) for epoch in range(1, 5)], "each once"
    return done.stdout


def log_of(model):
    return model.parents[3] / f"logs/train/translation/pmg/{model.name}.log"


def test_snakemake_that_is_asked_to_end_lets_its_job_end(project, half_way):
    """SIGTERM: the training that runs is finished, the next is not begun."""
    process, model, other, job = half_way
    process.terminate()
    time.sleep(2)
    assert process.poll() is None and trainings(project) == [job], "it waits"
    os.kill(job, signal.SIGCONT)
    output, _ = process.communicate()
    assert process.returncode == 1, output
    assert not trainings(project) and not other.exists()
    made = checksums(model)
    assert {path.name for path in made} == {"model.pt", "history.csv", "run.json"}
    finish(project, model, other)
    assert checksums(model) == made, "it was not trained again"


def test_an_interrupted_snakemake_leaves_a_checkpoint(project, half_way):
    """SIGINT to all processes, as Ctrl-C sends it: the next Snakemake goes on from there."""
    process, model, other, job = half_way
    os.killpg(process.pid, signal.SIGINT)
    os.kill(job, signal.SIGCONT)
    output, _ = process.communicate()
    assert process.returncode == 1, output
    assert not trainings(project) and not other.exists(), output
    said = log_of(model).read_text()
    assert "mg train: SIGINT at epoch" in said and "the same command goes on" in said
    assert "checkpoint.pt" in {path.name for path in (model / "checkpoints").iterdir()}
    assert not (model / "model.pt").exists()
    finish(project, model, other)
    assert "resumed at epoch" in log_of(model).read_text()


def test_a_job_that_the_system_kills_is_explained(project, half_way):
    """As the kernel does when memory ends; the other training is made, the same command goes on."""
    process, model, other, job = half_way
    os.kill(job, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 1
    (line,) = [line for line in output.splitlines() if "memory" in line and "SIGKILL" in line]
    assert "train" in line and "--cores" in line
    made = checksums(other)
    assert not (model / "model.pt").exists() and other / "model.pt" in made
    assert "SIGKILL" not in finish(project, model, other)
    assert checksums(other) == made


def test_a_killed_snakemake_leaves_one_training_and_the_next_waits_for_it(project):
    """While the first runs, a second is refused; after its death the orphan is waited for."""
    model = project / "results/killed/models/translation/pmg/seed0"
    log = project / "results/killed/logs/train/translation/pmg/seed0.log"
    first = subprocess.Popen(snakemake(project), **PIPES)
    wait_for(lambda: (model / "checkpoints/history.csv").exists(), first)
    (orphan,) = trainings(project)
    os.kill(orphan, signal.SIGSTOP)  # so that it does not end before the others have come

    both = subprocess.run(snakemake(project), **PIPES)
    assert both.returncode != 0 and "cannot be locked" in both.stdout

    first.kill()
    first.communicate()
    assert trainings(project) == [orphan]
    subprocess.run(snakemake(project, "--unlock"), check=True, capture_output=True)
    second = subprocess.Popen(snakemake(project), **PIPES)
    wait_for(lambda: "is training into" in content(log), second)
    os.kill(orphan, signal.SIGCONT)
    output, _ = second.communicate()
    assert second.returncode == 0, output
    assert "its results stand" in log.read_text()
    assert not (model / "checkpoints").exists()
    end = time.monotonic() + 60
    while trainings(project):  # the orphan lets go of the folder before its last moments
        assert time.monotonic() < end, "a training went on"
        time.sleep(0.02)
    json.loads((model / "run.json").read_text())
