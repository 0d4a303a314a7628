"""Training for real on a small set: learning, repeating, being interrupted and going on."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from marks import needs_cuda, needs_cxx
from torch import nn

from mg import cli, networks, provenance
from mg.data import hdf5
from mg.errors import UserError
from mg.evaluation.evaluate import evaluate
from mg.networks.pyramid import ConvBN
from mg.records import read_run
from mg.training import loop
from mg.training import run as moving
from mg.training.checkpoint import Checkpoints, read_torch, sole_training
from mg.training.feed import for_training
from mg.training.objective import PIXELS
from mg.training.prior import set_output_prior
from mg.training.recipe import Recipe
from mg.training.run import Run
from mg.training.step import Step
from mg.training.training import Training

WIDTH = {"width": [4, 4]}
RECORDED = ("graph", "compiled")
RECIPE = Recipe(
    optimizer="adamw", schedule="one_cycle", learning_rate=0.02, epochs=3, iterations=8, batch=8
)


CPU = torch.device("cpu")


def of(tiny, output, recipe=RECIPE, **changes):
    """A training on the small set."""
    arguments = {
        "network": "pmg",
        "dataset": "translation",
        "options": WIDTH,
        "seed": 3,
        "train_files": [tiny / "train.h5"],
        "valid_file": tiny / "valid.h5",
    }
    return Training(output=output, recipe=recipe, **arguments | changes)


HOW = {"device", "execution", "checkpoint_seconds", "tensorboard"}


def train(tiny, output, recipe=RECIPE, log=lambda line: None, **changes):
    how = {name: changes.pop(name) for name in HOW & changes.keys()}
    loop.train(of(tiny, output, recipe, **changes), threads=1, log=log, **{"device": CPU} | how)
    return read_torch(output / "model.pt")["state_dict"]


def read_history(output):
    """The columns of history.csv, numbers."""
    with open(output / "history.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def command(tiny, output, *more):
    """The same training as `train`, on the command line, slow enough to be interrupted."""
    return [
        *(sys.executable, "-m", "mg", "train", "--network", "pmg", "--task", "translation"),
        *("--options", json.dumps(WIDTH), "--seed", "3", "--optimizer", "adamw"),
        *("--schedule", "one_cycle", "--learning-rate", "0.02", "--epochs", "3"),
        *("--iterations", "60", "--batch", "8", "--threads", "1", "--device", "cpu"),
        *("--train", str(tiny / "train.h5"), "--valid", str(tiny / "valid.h5")),
        *("--output", str(output), *more),
    ]


def wait_for(path, process, seconds=240):
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert path.exists(), "the training did not get that far"


def test_it_learns_and_says_what_it_did(tiny, tmp_path):
    lines = []
    train(tiny, tmp_path, log=lines.append)
    with open(tmp_path / "history.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == PIXELS.history
    assert [int(row["images"]) for row in rows] == [64, 128, 192]
    assert float(rows[-1]["train_loss"]) < 0.6 * float(rows[0]["train_loss"])
    assert float(rows[-1]["valid_mean_iu"]) > 0.5
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["images"] == 192 and run["attempts"] == 1 and run["seed"] == 3
    assert run["data"][0]["examples"] == 64
    assert run["settings"]["recipe"] == RECIPE.as_dict()
    assert len(lines) == 1 + 3 and "mean IU" in lines[-1]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["history.csv", "model.pt", "run.json"]


def steps_of(monkeypatch, measure):
    """What `measure(step)` gives before and after each step that is taken from now on."""
    found = []

    def noted(step, batch, rate, take=Step.__call__):
        before = measure(step)
        take(step, batch, rate)
        found.append((before, measure(step)))

    monkeypatch.setattr(Step, "__call__", noted)
    return found


def test_every_step_is_taken_at_the_rate_that_the_recipe_says(tiny, tmp_path, monkeypatch):
    rates = steps_of(monkeypatch, lambda step: {g["lr"] for g in step.optimizer.param_groups})
    train(tiny, tmp_path, valid_file=None)
    assert [after for _, after in rates] == [{RECIPE.rate(i, False)} for i in range(RECIPE.steps)]


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(tiny, tmp_path, monkeypatch):
    sums = steps_of(monkeypatch, lambda step: float(step.loss_sum))
    train(tiny, tmp_path, replace(RECIPE, epochs=2, iterations=3))
    losses = [after - before for before, after in sums]
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert read_history(tmp_path)["train_loss"] == pytest.approx(means, rel=1e-5)


def test_sgd_forgets_its_momentum_at_every_epoch(tiny, tmp_path, monkeypatch):
    def momentum(step):
        return sum(float(s["momentum_buffer"].abs().sum()) for s in step.optimizer.state.values())

    sizes = steps_of(monkeypatch, momentum)
    train(tiny, tmp_path, replace(RECIPE, optimizer="sgd", iterations=3), valid_file=None)
    assert [i for i, (before, _) in enumerate(sizes) if not before] == [0, 3, 6]


def test_the_first_weights_follow_from_the_seed(tiny, tmp_path):
    """Not the order of the examples alone."""
    still = replace(SHORT, learning_rate=1e-30)
    one, other = (train(tiny, tmp_path / str(s), still, seed=s) for s in (3, 4))
    name = next(iter(one))
    assert name.endswith("conv.weight") and not torch.allclose(one[name], other[name])


def test_progress_is_measured_as_a_test_is(tiny, tmp_path):
    train(tiny, tmp_path, SHORT)
    metrics_path = tmp_path / "metrics.json"
    record = evaluate(tmp_path / "model.pt", tiny / "valid.h5", metrics_path=metrics_path)
    history = read_history(tmp_path)
    for column in ("mean_iu", "mean_acc"):
        assert history[f"valid_{column}"] == [pytest.approx(record[column], rel=1e-4)], column
    assert history["valid_loss"] == [pytest.approx(record["bce"], rel=1e-4)]


def test_a_task_has_one_name_in_results(tiny, tmp_path):
    train(tiny, tmp_path, dataset="mnist-tra")  # as the authors call it
    assert json.loads((tmp_path / "run.json").read_text())["dataset"] == "translation"
    assert read_torch(tmp_path / "model.pt")["dataset"] == "translation"
    assert not of(tiny, tmp_path, dataset="mnist-tra", options={}).is_finished()
    assert of(tiny, tmp_path, dataset="mnist-tra").is_finished()


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A folder with the results of `of(tiny, folder)`, cut short, and copies of its data."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("train.h5", "valid.h5"):
        shutil.copy(tiny / name, folder)
    train(folder, folder, SHORT)
    return folder


SHORT = Recipe(epochs=1, iterations=1, batch=8)


def changed(path, to, change):
    """A data set as it is in `path`, but for what `change(x, y, attributes)` changes in place."""
    data = hdf5.load(path)
    attributes = dict(data.attributes)
    change(data.x, data.y, attributes)
    hdf5.write(to, [(data.x, data.y)], attributes)
    return to


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y, attributes: x.__setitem__((0, 0, 0, 0), 1),
        lambda x, y, attributes: y.__setitem__((0, 0, 0, 0), 1 - y[0, 0, 0, 0]),
        lambda x, y, attributes: attributes.update(mode="other"),
    ],
    ids=["input", "target", "mode"],
)
@pytest.mark.parametrize("which", ["train_files", "valid_file"])
def test_a_training_of_other_data_is_not_taken_for_this_one(finished, tmp_path, change, which):
    """Under the same name and as old, in a copy: that is how data come to another machine."""
    path = finished / ("train.h5" if which == "train_files" else "valid.h5")
    same = changed(path, tmp_path / "same.h5", lambda x, y, attributes: None)
    other = changed(path, tmp_path / "other.h5", change)
    given = [[p] if which == "train_files" else p for p in (same, other)]
    assert of(finished, finished, SHORT, **{which: given[0]}).is_finished()
    assert not of(finished, finished, SHORT, **{which: given[1]}).is_finished()


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "other"},
        {"valid_file": None},
        {"seed": 4},
        {"network": "umg"},
        {"recipe": Recipe(epochs=1, iterations=2, batch=8)},
        {"options": {**WIDTH, "n_layer": 2}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_training_of_other_settings_is_not_taken_for_this_one(finished, changes):
    asked = of(finished, finished, **{"recipe": SHORT} | changes)
    assert not asked.is_finished()
    assert of(finished, finished, SHORT, label="pmg").is_finished()
    assert not of(finished, finished, SHORT).is_finished(processes=2)


def test_a_training_with_more_data_files_is_not_taken_for_one_with_fewer(finished):
    files = [finished / "train.h5", finished / "valid.h5"]
    assert not of(finished, finished, SHORT, train_files=files).is_finished()


def test_no_results_are_no_finished_training(finished, tmp_path):
    assert not of(finished, tmp_path, SHORT).is_finished()
    (tmp_path / "run.json").write_text("{")
    assert not of(finished, tmp_path, SHORT).is_finished()


@pytest.mark.parametrize("network", ["unet", "umg", "sg", "r_sg", "r_pmg"])
def test_every_network_trains(tiny, tmp_path, network):
    options = {"width": 4} if network.endswith("sg") else WIDTH
    train(tiny, tmp_path, network=network, options=options)
    with open(tmp_path / "history.csv", newline="") as handle:
        losses = [float(row["train_loss"]) for row in csv.DictReader(handle)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_seed_gives_the_same_weights_twice(tiny, tmp_path):
    first, again = train(tiny, tmp_path / "a"), train(tiny, tmp_path / "b")
    assert same(first, again)
    assert not same(first, train(tiny, tmp_path / "c", seed=4))


def test_validation_does_not_change_the_training(tiny, tmp_path):
    with_it = train(tiny, tmp_path / "a")
    assert same(with_it, train(tiny, tmp_path / "b", valid_file=None))


@pytest.mark.parametrize("network", ["unet", "umg", "sg", "r_sg", "pmg", "r_pmg"])
def test_the_output_prior_is_the_frequency_of_the_class(tiny, network):
    """Before training, the mean logit is that of the share of target pixels."""
    options = {"width": 4} if network.endswith("sg") else WIDTH
    examples = for_training("translation", [tiny / "train.h5"], torch.device("cpu"))
    torch.manual_seed(0)
    model = networks.build(network, "translation", **options)
    set_output_prior(model, examples)
    with torch.no_grad():
        mean = float(model.train()(examples.x).mean())
    assert mean == pytest.approx(float(torch.logit(examples.y.float().mean())), abs=1e-3)


def plain_head(channels, classes):
    """A batch norm of as many channels as there are classes, and a convolution after it."""
    widths = nn.Conv2d(channels, classes, 3, padding=1), nn.BatchNorm2d(classes), nn.ReLU()
    return nn.Sequential(*widths, nn.Conv2d(classes, classes, 1))


@pytest.mark.parametrize(
    "builder",
    [
        plain_head,
        lambda channels, classes: nn.Sequential(ConvBN(channels, 8), nn.Conv2d(8, classes, 1)),
        lambda channels, classes: nn.Sequential(plain_head(channels, classes)[:2], nn.ReLU()),
        lambda channels, classes: nn.Conv2d(channels, classes, 3, padding=1),
    ],
    ids=["hidden", "wider", "rectified", "none"],
)
def test_the_output_prior_is_refused_where_it_would_not_be_one(
    tiny, tmp_path, add_network, builder, capsys
):
    add_network(builder)
    arguments = command(tiny, tmp_path, "--output-prior", "--network", "new", "--options", "{}")
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments[3:])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mg train: error: output_prior") and line.endswith("set it false")


def test_deep_networks_may_start_at_the_output_prior(tiny):
    """Their logits are so large before training that a shift is lost in them."""
    examples = for_training("translation", [tiny / "train.h5"], torch.device("cpu"))
    torch.manual_seed(0)
    model = networks.build("r_pmg", "translation", n_layer=2)
    with torch.no_grad():
        assert model.eval()(examples.x[:1]).abs().max() > 1e5
    set_output_prior(model, examples)
    *_, last = (m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert last.bias.item() == pytest.approx(float(torch.logit(examples.y.float().mean())))


def test_the_output_prior_takes_little_memory_beside_the_examples():
    code = """
import resource
import torch
from mg import networks
from mg.training.feed import Clutter
from mg.training.prior import set_output_prior

model = networks.build("pmg", "segmentation", width=[4, 2])
x = torch.zeros(2000, 1, 64, 64)
y = torch.ones(2000, 10, 64, 64, dtype=torch.uint8)
peaks = []
for number in (10, 2000):
    set_output_prior(model, Clutter(x[:number], y[:number], []))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KiB


def test_what_evaluation_could_not_count_is_not_trained(tiny, tmp_path, add_network):
    class Unfit(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * float(x.detach().mean())  # no such number for shapes alone

    add_network(lambda channels, classes: Unfit(channels, classes, 3, padding=1))
    with pytest.raises(RuntimeError, match="meta"):
        train(tiny, tmp_path, network="new", options={})
    assert not any(tmp_path.iterdir())


def test_accumulation_adds_up_gradients(tiny, tmp_path):
    """In one step from the same weights, two half batches move the output bias as one batch does.

    Batch statistics differ between the two, so other weights only come close.
    """
    recipe = Recipe(epochs=1, iterations=1, batch=8, weight_decay=0)
    whole = train(tiny, tmp_path / "a", recipe)
    halves = train(tiny, tmp_path / "b", Recipe(**recipe.as_dict() | {"accumulate": 2}))
    name = list(whole)[-4]  # shift of the last batch norm, before its three statistics
    assert name.endswith("bn.bias")
    assert torch.allclose(whole[name], halves[name], atol=2e-3)
    assert not torch.equal(whole[name], torch.zeros_like(whole[name]))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The weights of `command`'s training when nothing interrupts it."""
    output = tmp_path_factory.mktemp("whole")
    subprocess.run(command(tiny, output), check=True, capture_output=True)
    return read_torch(output / "model.pt")["state_dict"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_training_ends_with_the_same_weights(tiny, whole, tmp_path, number):
    cut = tmp_path / "cut"
    started = command(tiny, cut, "--checkpoint-seconds", "0.2")
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True)
    wait_for(cut / "checkpoints" / "checkpoint.pt", process)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert not (cut / "model.pt").exists()
    if number != signal.SIGKILL:
        assert "the same command goes on" in messages

    done = subprocess.run(command(tiny, cut), check=True, capture_output=True, text=True)
    assert "resumed at epoch" in done.stderr
    assert same(whole, read_torch(cut / "model.pt")["state_dict"])
    assert json.loads((cut / "run.json").read_text())["attempts"] == 2
    assert not (cut / "checkpoints").exists()


def test_a_history_never_mixes_two_validation_sets(tiny, whole, tmp_path):
    """The weights do not follow from them, so the training goes on."""
    process = subprocess.Popen(command(tiny, tmp_path), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "checkpoints" / "history.csv", process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    with open(tmp_path / "checkpoints" / "history.csv", newline="") as handle:
        done = list(csv.DictReader(handle))
    assert all(row["valid_loss"] for row in done)

    other = command(tiny, tmp_path, "--valid", str(tiny / "train.h5"))
    ended = subprocess.run(other, check=True, capture_output=True, text=True)
    assert "validation is not that of before" in ended.stderr
    with open(tmp_path / "history.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [bool(row["valid_loss"]) for row in rows] == [i >= len(done) for i in range(len(rows))]
    assert [row["valid_mean_iu"] == "" for row in rows] == [i < len(done) for i in range(len(rows))]
    assert [row["train_loss"] for row in rows[: len(done)]] == [row["train_loss"] for row in done]
    assert same(whole, read_torch(tmp_path / "model.pt")["state_dict"])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_training_that_is_warned_twice_writes_a_checkpoint(tiny, tmp_path, number):
    """As by SGE before it kills."""
    started = command(tiny, tmp_path, "--checkpoint-seconds", "600")
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "checkpoints" / "history.csv", process)
    for _ in range(2):
        process.send_signal(number)
        time.sleep(0.005)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM at epoch" in messages and "the same command goes on" in messages
    assert (tmp_path / "checkpoints" / "checkpoint.pt").exists()


def test_a_training_whose_log_nobody_reads_any_more_goes_on(tiny, whole, tmp_path):
    process = subprocess.Popen(command(tiny, tmp_path), stderr=subprocess.PIPE, text=True)
    assert "epochs" in process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert same(whole, read_torch(tmp_path / "model.pt")["state_dict"])


def test_the_lock_of_a_folder_outlives_its_checkpoints(tmp_path):
    """Else who comes between the end of a training and that of its process makes another."""
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", {})
    with sole_training(tmp_path / "run", print):
        checkpoints.save({})
        checkpoints.remove()
        assert [path.name for path in checkpoints.newest.parent.iterdir()] == ["lock"]
    assert not (tmp_path / "run").exists()
    checkpoints.save({})
    checkpoints.remove()
    assert not checkpoints.newest.parent.exists()


def test_processes_that_begin_and_end_at_once_are_not_refused(tmp_path):
    script = """
import sys, time
from pathlib import Path
from mg.training.checkpoint import sole_training
end = time.monotonic() + 2
while time.monotonic() < end:
    with sole_training(Path(sys.argv[1]), lambda line: None):
        pass
"""
    started = [sys.executable, "-c", script, str(tmp_path / "run")]
    processes = [subprocess.Popen(started, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=120)[1] for process in processes] == [""] * 4


def end_in_the_third_epoch(line):
    """What a training logs to, to be asked to end there."""
    if line.startswith("epoch   2/"):
        os.kill(os.getpid(), signal.SIGTERM)


def interrupted(tiny, output):
    """Leave two checkpoints behind, as a training does that is killed in its last epoch."""
    with pytest.raises(loop.Interrupted, match="SIGTERM at epoch 3"):
        train(tiny, output, log=end_in_the_third_epoch)
    return output / "checkpoints" / "checkpoint.pt"


@pytest.mark.parametrize(
    "device, execution",
    [
        ("cpu", "eager"),
        pytest.param("cpu", "compiled", marks=needs_cxx),
        *(pytest.param("cuda", kind, marks=needs_cuda) for kind in RECORDED),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_every_execution_goes_on_where_it_was_interrupted(
    tiny, tmp_path, optimizer, device, execution
):
    """Up to rounding on a card; what is done apart from steps reads and restores the same state."""
    recipe = replace(RECIPE, optimizer=optimizer)
    how = {"recipe": recipe, "device": torch.device(device), "execution": execution}
    weights = train(tiny, tmp_path / "whole", **how)
    with pytest.raises(loop.Interrupted):
        train(tiny, tmp_path / "cut", log=end_in_the_third_epoch, **how)
    lines = []
    again = train(tiny, tmp_path / "cut", log=lines.append, **how)
    assert lines[0].startswith("resumed at epoch 3")
    assert device != "cpu" or same(weights, again)
    whole, cut = (read_history(tmp_path / name) for name in ("whole", "cut"))
    for column in ("train_loss", "valid_loss"):
        assert cut[column] == pytest.approx(whole[column], rel=0 if device == "cpu" else 0.1)
    run = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert run["execution"] == execution and run["attempts"] == 2


def test_seconds_are_those_of_all_attempts(tiny, tmp_path, monkeypatch):
    def long(run, tick=Run.tick):
        tick(run)
        run.seconds += 3600

    with monkeypatch.context() as patch:
        patch.setattr(Run, "tick", long)
        interrupted(tiny, tmp_path)
    train(tiny, tmp_path)
    assert read_run(tmp_path / "run.json")["seconds"] > 3600


def test_a_log_tells_what_begins_and_how_far_it_is(tiny, tmp_path):
    lines = []
    train(tiny, tmp_path, log=lines.append, checkpoint_seconds=0)  # a checkpoint after every step
    assert lines[0].startswith("pmg translation seed 3: 3 epochs of 8 iterations, batch 8, on ")
    assert lines[0].endswith(", float32")
    steps, ends = [line for line in lines if "iteration " in line], lines[9::9]
    assert len(lines) == 1 + 3 * (8 + 1) and len(steps) == 3 * 8
    for number, line in enumerate(steps):
        epoch, iteration = number // 8 + 1, number % 8 + 1
        assert line.startswith(f"epoch   {epoch}/3  iteration {iteration}/8  loss 0."), line
        assert line.endswith(" left") and " images/s  " in line
    with open(tmp_path / "history.csv", newline="") as handle:
        for row, line, last in zip(csv.DictReader(handle), ends, steps[7::8], strict=True):
            loss = f"loss {float(row['train_loss']):.4f}  "
            assert line.startswith(f"epoch   {row['epoch']}/3  {loss}valid loss ") and loss in last
    assert lines[-1].endswith("  00:00 left")


def test_the_time_left_does_not_count_a_slow_beginning_for_every_epoch(tiny, tmp_path, monkeypatch):
    taken = []

    def slow_at_first(step, *args, take=Step.__call__):
        if not taken:
            time.sleep(3)  # as where a step is compiled
        taken.append(step)
        take(step, *args)

    monkeypatch.setattr(Step, "__call__", slow_at_first)
    lines, recipe = [], replace(RECIPE, epochs=200)

    def log(line):
        lines.append(line)
        end_in_the_third_epoch(line)

    with pytest.raises(loop.Interrupted):
        train(tiny, tmp_path, recipe, log=log)
    speed, minutes, seconds = map(
        int, re.search(r"(\d+) images/s  (\d+):(\d\d) left$", lines[-1]).groups()
    )
    expected = 198 * recipe.iterations * recipe.batch / speed
    assert 60 * minutes + seconds == pytest.approx(expected, rel=0.05, abs=1)


def test_the_time_left_does_not_count_the_pace_of_an_earlier_attempt(tiny, tmp_path, monkeypatch):
    def suspended(run, tick=Run.tick):
        tick(run)
        run.seconds += 3600

    with monkeypatch.context() as patch:
        patch.setattr(Run, "tick", suspended)
        interrupted(tiny, tmp_path)
    lines = []
    train(tiny, tmp_path, log=lines.append, checkpoint_seconds=0)
    told = [line for line in lines if "images/s" in line]
    assert len(told) == 8 and told[0].startswith("epoch   3/3  iteration 2/8")
    assert all(re.search(r" [1-9]\d* images/s  \d\d:\d\d left$", line) for line in told), told


def test_a_training_goes_on_where_only_the_end_of_an_epoch_is_left(tiny, tmp_path):
    def end_at_the_last_step(line):
        if line.startswith("epoch   2/3  iteration 7/8"):
            os.kill(os.getpid(), signal.SIGTERM)

    weights = train(tiny, tmp_path / "whole")
    with pytest.raises(loop.Interrupted, match="at epoch 2, iteration 8"):
        train(tiny, tmp_path / "cut", log=end_at_the_last_step, checkpoint_seconds=0)
    lines = []
    assert same(weights, train(tiny, tmp_path / "cut", log=lines.append))
    assert lines[2].startswith("epoch   2/3  loss 0.") and " valid loss 0." in lines[2]


def test_a_checkpoint_of_other_settings_is_refused(tiny, tmp_path):
    checkpoint = interrupted(tiny, tmp_path)
    before = checkpoint.read_bytes()
    with pytest.raises(UserError, match=r"recipe\.learning_rate: 0\.02 there, 0\.01 here"):
        train(tiny, tmp_path, Recipe(**RECIPE.as_dict() | {"learning_rate": 0.01}))
    with pytest.raises(UserError, match=r"seed: 3 there, 5 here"):
        train(tiny, tmp_path, seed=5)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_checkpoint_of_another_network_of_that_name_is_refused(tiny, tmp_path, part):
    """As where its code changed meanwhile."""
    checkpoint = interrupted(tiny, tmp_path)
    state = read_torch(checkpoint)
    if part == "model":
        state["model"].popitem()
    else:
        state["optimizer"]["param_groups"][0]["params"].pop()
    torch.save(state, checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(
        UserError, match=rf"{tmp_path}/checkpoints holds .* delete it to start anew"
    ):
        train(tiny, tmp_path)
    assert checkpoint.read_bytes() == before


def test_validation_on_what_is_trained_on_is_said(tiny, tmp_path):
    said = "validation is on examples that are trained on"
    for name, expected in ("train.h5", True), ("valid.h5", False):
        lines = []
        train(tiny, tmp_path / name, log=lines.append, valid_file=tiny / name)
        assert any(line.startswith(said) for line in lines) is expected


def test_a_file_given_twice_to_train_on_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny)
    with pytest.raises(UserError, match="is given twice to train on; give it once"):
        of(tiny, tmp_path, train_files=[tiny / "train.h5", "train.h5"])


@pytest.mark.parametrize("seconds", [-5, float("nan")])
def test_a_time_between_checkpoints_that_is_none_is_refused(tiny, tmp_path, seconds):
    with pytest.raises(UserError, match="checkpoint_seconds is .*; it must be 0 or more"):
        train(tiny, tmp_path, checkpoint_seconds=seconds)


def test_a_training_that_goes_on_with_other_code_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "before")
    interrupted(tiny, tmp_path)
    monkeypatch.setattr(provenance, "commit", lambda: "after")
    lines = []
    train(tiny, tmp_path, log=lines.append)
    assert "other code" in lines[1] and "before, after" in lines[1]
    assert json.loads((tmp_path / "run.json").read_text())["commit"] == "before, after"


def test_a_training_that_goes_on_elsewhere_says_what_each_attempt_used(tiny, tmp_path, monkeypatch):
    """Precision auto, on a processor with instructions for bfloat16 after one without."""

    def here(name, kind, threads, versions, moment, peak):
        monkeypatch.setattr(moving, "_peak_host_bytes", lambda: peak)
        monkeypatch.setattr(moving, "device_name", lambda device: name)
        monkeypatch.setattr(loop, "activation_type", lambda precision, device: kind)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(provenance, "versions", lambda: versions)
        monkeypatch.setattr(provenance, "now", lambda: moment)

    here("one card", torch.float32, 1, {"torch": "9.9"}, "2026-01-01", 200)
    interrupted(tiny, tmp_path)
    here("another", torch.bfloat16, 2, {"torch": "10"}, "2026-01-02", 100)
    train(tiny, tmp_path)
    run = read_run(tmp_path / "run.json")
    assert (run["device"], run["activations"]) == ("one card and another", "float32 and bfloat16")
    assert run["execution"] == "eager" and run["threads"] is None and run["attempts"] == 2
    assert run["versions"] == {"torch": "9.9 and 10"}
    assert run["peak_host_bytes"] == 200 and run["peak_device_bytes"] is None
    assert (run["started"], run["finished"]) == ("2026-01-01", "2026-01-02")
    assert [(a["device"], a["activations"], a["threads"]) for a in run["each_attempt"]] == [
        ("one card", "float32", 1),
        ("another", "bfloat16", 2),
    ]


def test_attempts_alike_are_told_once(tiny, tmp_path):
    interrupted(tiny, tmp_path)
    train(tiny, tmp_path)
    run = read_run(tmp_path / "run.json")
    assert run["activations"] == "float32" and run["execution"] == "eager" and run["threads"] == 1
    assert run["device"] == run["each_attempt"][0]["device"] and len(run["each_attempt"]) == 2


def test_a_checkpoint_of_an_earlier_version_is_left_aside(tiny, tmp_path):
    """Its training begins anew, with a line that says so."""
    whole = train(tiny, tmp_path / "whole")
    checkpoint = interrupted(tiny, tmp_path / "cut")
    state = torch.load(checkpoint, weights_only=True)
    old = state | {"format": "mg-checkpoint-4", "attempts": 1, "commits": ["before"]}
    for path in (checkpoint, checkpoint.with_name("checkpoint-previous.pt")):
        torch.save(old, path)
    lines = []
    assert same(whole, train(tiny, tmp_path / "cut", log=lines.append))
    assert "not a checkpoint that this version of mg reads" in lines[0]
    assert read_run(tmp_path / "cut/run.json")["attempts"] == 1


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny, tmp_path, damage):
    whole = train(tiny, tmp_path / "whole")
    checkpoint = interrupted(tiny, tmp_path / "cut")
    checkpoint.with_name("checkpoint-previous.pt").write_bytes(checkpoint.read_bytes())
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    lines = []
    assert same(whole, train(tiny, tmp_path / "cut", log=lines.append))
    assert "ignored" in lines[0] and "resumed at epoch 3" in lines[1]


def test_a_checkpoint_is_not_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    checkpoints = Checkpoints(tmp_path, {})
    torch.save({"format": Malicious()}, checkpoints.newest)
    assert checkpoints.load(lambda line: None) is None
    assert not (tmp_path / "executed").exists()


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_one_to_fall_back_to(tmp_path):
    """Else a power cut within the next save would leave none."""
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save({"number": 1})
    checkpoints.save({"number": 2})
    checkpoints.newest.write_bytes(b"damaged")
    assert checkpoints.load(lambda line: None)["number"] == 1
    checkpoints.save({"number": 3})
    checkpoints.newest.unlink()
    assert checkpoints.load(lambda line: None)["number"] == 1
    checkpoints.save({"number": 4})
    checkpoints.save({"number": 5})
    assert read_torch(checkpoints.previous)["number"] == 4


def test_divergence_stops_with_epoch_and_rate(tiny, tmp_path):
    wild = Recipe(learning_rate=1e30, epochs=4, iterations=8, batch=8, schedule="one_cycle")
    with pytest.raises(UserError, match="no longer finite in epoch 1 at learning rate"):
        train(tiny, tmp_path, wild)
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_height_that_the_network_cannot_halve_is_refused(tiny, tmp_path, split):
    for name in ("train", "valid"):
        data = hdf5.load(tiny / f"{name}.h5")
        height = 15 if name == split else 16
        part = data.x[:, :, :height], data.y[:, :, :height]
        hdf5.write(tmp_path / f"{name}.h5", [part], data.attributes)
    with pytest.raises(UserError, match="cannot work on a canvas of 15 pixels"):
        train(tmp_path, tmp_path / "run", valid_file=tmp_path / "valid.h5")


def test_files_of_different_shapes_are_refused(tiny, tmp_path):
    import numpy as np

    other = tmp_path / "other.h5"
    x, y = np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 1, 8, 8), np.uint8)
    attributes = {"task": "translation", "split": "train", "mode": "independent", "seed": 0}
    hdf5.write(other, [(x, y)], attributes | {"canvas": 8})
    with pytest.raises(UserError, match="different shapes"):
        for_training("translation", [tiny / "train.h5", other], torch.device("cpu"))


def test_tensorboard_shows_every_epoch_once_after_an_interruption(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "board"
    with pytest.raises(loop.Interrupted):
        train(tiny, tmp_path / "out", tensorboard=board, log=end_in_the_third_epoch)
    train(tiny, tmp_path / "out", tensorboard=board)
    shown = EventAccumulator(str(board / "translation" / "pmg" / "seed3")).Reload()
    with open(tmp_path / "out" / "history.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for column in ("train_loss", "valid_mean_iu", "learning_rate"):
        points = [(event.step, event.value) for event in shown.Scalars(column)]
        assert [step for step, _ in points] == [64, 128, 192]
        assert [value for _, value in points] == pytest.approx(
            [float(row[column]) for row in rows], rel=1e-6
        )


def test_without_tensorboard_one_line_says_how_to_get_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # what Python does for a missing module
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match="TensorBoard is not installed"):
        train(tiny, tmp_path, tensorboard=tmp_path / "board")
