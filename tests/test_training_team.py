"""Two processes on one network: the weights of one process, one set of files, one end for both."""

import csv
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from test_training_loop import WIDTH, wait_for

from mg.errors import UserError
from mg.training import loop, team
from mg.training.checkpoint import read_torch
from mg.training.objective import PIXELS
from mg.training.recipe import Recipe
from mg.training.step import TeamStep
from mg.training.team import launch

# Rounding differs in the order of sums, and grows from step to step.
CLOSE = {"rtol": 1e-3, "atol": 2e-4}


def command(tiny, output, processes, *more, epochs=1, iterations=6, batch=8):
    start = [sys.executable, "-m", "mg"]
    if processes > 1:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start = [*run, f"--nproc-per-node={processes}", "-m", "mg"]
    return [
        *(*start, "train", "--network", "pmg", "--task", "translation", "--seed", "3"),
        *("--options", json.dumps(WIDTH), "--schedule", "one_cycle", "--learning-rate", "0.02"),
        *("--epochs", str(epochs), "--iterations", str(iterations), "--batch", str(batch)),
        *("--threads", "1", "--device", "cpu", "--train", str(tiny / "train.h5")),
        *("--valid", str(tiny / "valid.h5"), "--output", str(output), *more),
    ]


def trained(*arguments, **settings):
    done = subprocess.run(command(*arguments, **settings), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    output = arguments[1]
    return read_torch(output / "model.pt")["state_dict"], json.loads(
        (output / "run.json").read_text()
    )


def loss(output):
    with open(output / "history.csv", newline="") as handle:
        return float(list(csv.DictReader(handle))[-1]["train_loss"])


@pytest.mark.parametrize("parts", ["2", "4"])
def test_two_processes_train_as_one_that_computes_the_parts_alone(tiny, tmp_path, parts):
    """Each part of a batch has its own batch statistics in both."""
    one, _ = trained(tiny, tmp_path / "one", 1, "--accumulate", parts)
    two, run = trained(tiny, tmp_path / "two", 2, "--accumulate", parts)
    assert run["processes"] == 2
    parameters = [name for name in one if "running" not in name and "tracked" not in name]
    for name in parameters:
        assert torch.allclose(two[name], one[name], **CLOSE), name
    losses = [loss(tmp_path / name) for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_with_synchronised_batch_norm_they_train_as_one_with_whole_batches(tiny, tmp_path):
    one, _ = trained(tiny, tmp_path / "one", 1)
    two, run = trained(tiny, tmp_path / "two", 2, "--sync-batch-norm")
    assert run["settings"]["recipe"]["sync_batch_norm"]
    for name, value in one.items():
        assert torch.allclose(two[name], value, **CLOSE), name
    apart, _ = trained(tiny, tmp_path / "apart", 2)
    assert not all(torch.allclose(apart[name], value, **CLOSE) for name, value in one.items())


def of_rank(rank, launcher):
    """The process of that rank below torchrun."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return next(
        int(child)
        for child in children
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    )


def test_a_signal_to_any_process_stops_all_with_a_checkpoint_to_go_on_from(tiny, tmp_path):
    slow = {"epochs": 2, "iterations": 40}
    whole, _ = trained(tiny, tmp_path / "whole", 2, **slow)
    cut = tmp_path / "cut"
    launcher = subprocess.Popen(
        command(tiny, cut, 2, "--checkpoint-seconds", "0.2", **slow),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(cut / "checkpoints" / "checkpoint.pt", launcher)
    os.kill(of_rank(1, launcher), signal.SIGTERM)
    _, messages = launcher.communicate(timeout=60)
    assert launcher.returncode != 0 and not (cut / "model.pt").exists()
    assert messages.count("SIGTERM at epoch") == 2  # both ended of themselves
    again, run = trained(tiny, cut, 2, **slow)
    assert run["attempts"] == 2
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_what_processes_cannot_share_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="processes is 0"):
        launch(0, [])
    asked = command(tiny, tmp_path, 1, "--processes", "2", batch=9)
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "batch 9 cannot be shared by 2 processes" in line
    for device, problem in ("cuda:0", "device cuda:0 is one card"), ("gpu", "device 'gpu' is not"):
        asked[asked.index("--device") + 1] = device
        done = subprocess.run(asked, capture_output=True, text=True)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and problem in line


@pytest.fixture
def group(tmp_path):
    """A group of processes, of one."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_what_gets_no_gradient_is_named_before_others_wait_for_it(group):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.used(x)

    model = Two()
    optimizer = Recipe(learning_rate=0.1).build_optimizer(model)
    step = TeamStep(model, PIXELS.loss, optimizer)
    part = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    with pytest.raises(UserError, match=r"^unused.weight, unused.bias of the network got no grad"):
        step([part], 0.1)
    model.unused.requires_grad_(False)
    step = TeamStep(model, PIXELS.loss, optimizer)
    for _ in range(2):
        step([part], 0.1)


@pytest.mark.parametrize(
    ("accumulate", "world", "synchronised", "parts", "said"),
    [
        (1, 1, False, 1, None),
        (4, 2, False, 2, None),
        (1, 2, False, 1, "2 processes compute each batch in 2 parts, not 1; each part has its own"),
        (1, 2, True, 1, None),
        (4, 2, True, 2, "2 processes compute each batch in 2 parts, not 4; each part has its own"),
        (1, 1, True, 1, "sync_batch_norm changes nothing: there is one process"),
    ],
)
def test_batch_statistics_of_other_parts_are_told(accumulate, world, synchronised, parts, said):
    lines = []
    recipe = Recipe(batch=8, accumulate=accumulate, sync_batch_norm=synchronised)
    assert loop._parts(recipe, team.Team(0, world), lines.append) == parts
    assert [line[: len(said or "")] for line in lines] == ([said] if said else [])


def test_kernels_of_one_pixel_bring_no_warnings(tiny, tmp_path):
    asked = command(tiny, tmp_path, 1, "--processes", "2", iterations=2)
    asked[asked.index("pmg")] = "umg"
    asked[asked.index(json.dumps(WIDTH))] = json.dumps({"width": [8, 8]})
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0 and "arning" not in done.stderr, done.stderr


@pytest.mark.parametrize("killed", [0, 1])
def test_what_ends_one_process_ends_the_others_without_tracebacks(tiny, tmp_path, killed):
    asked = command(tiny, tmp_path / "out", 1, "--processes", "2", epochs=40, iterations=40)
    asked += ["--checkpoint-seconds", "0.2"]
    launcher = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out" / "checkpoints" / "checkpoint.pt", launcher)
    os.kill(of_rank(killed, launcher), signal.SIGKILL)
    _, messages = launcher.communicate(timeout=60)
    assert launcher.returncode not in (0, 1) and "Traceback" not in messages
    assert messages.count("another process of this training has ended") <= 1


def test_a_full_disk_is_told_in_one_line(tiny, tmp_path):
    asked = command(tiny, tmp_path / "out", 1, "--processes", "2", batch=8)
    full = f"ulimit -f 8; exec {shlex.join(asked)}"
    done = subprocess.run(["bash", "-c", full], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert "File too large" in errors[0]
    assert errors[1:] in ([], [line for line in errors if "another process" in line])


def test_a_process_whose_launcher_is_gone_does_not_wait_for_long(monkeypatch):
    """Who began it could not begin the others, or was killed: nobody answers any more."""
    with socket.socket() as nobody:
        nobody.bind(("localhost", 0))
        port = nobody.getsockname()[1]
    started = {"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (started | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(team, "START", timedelta(seconds=2))
    with (
        pytest.raises(UserError, match="other processes of this training did not start"),
        team.join_team(torch.device("cpu")),
    ):
        pass
