"""Train one network on one task with one seed: data in, model.pt, history.csv and run.json out."""

import math
import signal
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mg import networks
from mg.errors import UserError, short_of_memory
from mg.files import write_json
from mg.networks.counting import layers
from mg.networks.execution import accelerate
from mg.progress import Bar
from mg.signals import collected
from mg.training import messages
from mg.training.board import Board
from mg.training.checkpoint import Checkpoints
from mg.training.device import activation_type, configure_torch, denormals_as_zero
from mg.training.feed import Feed, for_testing, for_training
from mg.training.model import write_model
from mg.training.objective import objective
from mg.training.prior import set_output_prior
from mg.training.recipe import Recipe
from mg.training.run import Run
from mg.training.step import build_step, choose_execution
from mg.training.team import ALONE, Team, synchronise_batch_norm
from mg.training.training import Training


class Interrupted(Exception):
    """A signal ended the training after its checkpoint was written."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


@denormals_as_zero()
def train(
    training: Training,
    device: str | torch.device,
    threads: int | None = None,
    workers: int = 0,
    checkpoint_seconds: float = 60,
    execution: str = "auto",
    tensorboard: Path | None = None,
    team: Team = ALONE,
    log: Callable[[str], None] = print,
) -> None:
    """Carry out `training` and write model.pt, history.csv and run.json into its folder.

    A training that was killed goes on from its last checkpoint in the folder's checkpoints/ and
    ends, on a CPU, with the same weights bit for bit. Checkpoints are removed at the end.

    Args:
        device: where to compute.
        threads: processor threads of all processes together; PyTorch's choice if None.
        workers: processes that decode ImageNet's images ahead, of all that train together; 0 for
            none besides those.
        checkpoint_seconds: work that a killed training may lose, from 0 (after every step) on.
        execution: how steps are executed, see `mg.training.step.build_step`; auto chooses.
        tensorboard: folder of TensorBoard's files; this training gets one of its own in it.
        team: the processes that train this network together; the first writes the files.
        log: takes lines for people.

    Raises:
        UserError: bad settings or files, a checkpoint of other settings, a loss that is not finite.
        Interrupted: one of `mg.signals.STOPPING` came; a checkpoint was written.
    """
    if not checkpoint_seconds >= 0:  # NaN neither
        raise UserError(f"checkpoint_seconds is {checkpoint_seconds:g}; it must be 0 or more")
    device = torch.device(device)
    configure_torch(threads and max(1, threads // team.world))
    if not team.first:
        log = _silence
    parts = _parts(training.recipe, team, log)
    torch.backends.cudnn.benchmark = True  # shapes stay: kernels are tried out once (CUDA)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(training.seed)
    train_feed, valid_feed = _feeds(training, device, math.ceil(workers / team.world), team)
    model = _network(training, train_feed, valid_feed, device, team)
    decisive = training.decisive(train_feed.facts, team.world)
    checkpoints = Checkpoints(training.output / "checkpoints", decisive)
    state = checkpoints.load(log)
    if execution == "auto":
        execution = _chosen(training, state, device, team)
    optimizer = training.recipe.build_optimizer(model)
    loss = objective(training.dataset).loss
    activations = activation_type(training.recipe.precision, device)
    step = build_step(execution, team, log, model, loss, optimizer, activations, parts)
    run = Run(training, model, optimizer, step, train_feed, valid_feed, team)
    if state:
        try:
            run.restore(state)
        except (RuntimeError, ValueError, KeyError) as error:
            if short_of_memory(error):
                raise
            before = ", ".join(sorted({attempt["commit"] or "?" for attempt in state["attempts"]}))
            raise UserError(
                f"{checkpoints.newest.parent} holds checkpoints of other code (commit {before}), "
                f"whose {training.network} is another network; delete it to start anew"
            ) from error
        log(f"resumed at epoch {run.epoch + 1}, iteration {run.iteration + 1}")
        if len(run.commits) > 1:
            log(f"goes on with other code than it began with: commits {', '.join(run.commits)}")
        if run.history and state["valid_data"] != run.valid_data:
            log("validation is not that of before: the history leaves out what was measured then")
    if any(fact in train_feed.facts for fact in run.valid_data or []):
        log("validation is on examples that are trained on: it says nothing of others")
    board = None
    if tensorboard and team.first:
        folder = tensorboard / training.dataset / training.label / f"seed{training.seed}"
        board = Board(folder, run.history)
    log(messages.beginning(run, training.title))
    _work(run, training, checkpoints, checkpoint_seconds, board, log)
    unreadable = len(run.unreadable())
    if team.first:
        _write_results(run, training, unreadable)
        checkpoints.remove()


def _parts(recipe: Recipe, team: Team, log: Callable[[str], None]) -> int:
    """In how many parts each process computes its share of a batch.

    Raises:
        UserError: the processes cannot share it.
    """
    if team.world == 1 and recipe.sync_batch_norm:
        log("sync_batch_norm changes nothing: there is one process")
    parts = math.ceil(recipe.accumulate / team.world)
    if recipe.batch % (parts * team.world):
        raise UserError(
            f"batch {recipe.batch} cannot be shared by {team.world} processes in {parts} equal "
            "parts each; choose a multiple"
        )
    apart = parts if recipe.sync_batch_norm else parts * team.world
    if apart != recipe.accumulate:
        log(
            f"{team.world} processes compute each batch in {apart} parts, not "
            f"{recipe.accumulate}; each part has its own batch-norm statistics"
        )
    return parts


def _feeds(
    training: Training, device: torch.device, workers: int, team: Team
) -> tuple[Feed, Feed | None]:
    """The examples to train on, and those to measure progress on in the first process."""
    kind = training.preparation
    train_feed = for_training(training.dataset, training.train_files, device, kind, workers)
    if not training.valid_file or not team.first:
        return train_feed, None
    prepared = train_feed.preparation()
    return train_feed, for_testing(training.dataset, training.valid_file, device, prepared, workers)


def _network(
    training: Training,
    train_feed: Feed,
    valid_feed: Feed | None,
    device: torch.device,
    team: Team,
) -> torch.nn.Module:
    """The network before its first step, on the device; its weights follow from the seed.

    Raises:
        UserError: the options are wrong, or it cannot work on these examples.
    """
    names = (training.network, training.dataset)
    options = training.options_for(train_feed.classes)
    model = networks.build(*names, **options)
    for feed in (train_feed, valid_feed or train_feed):
        for size in feed.shape[1:]:
            networks.check_canvas(*names, size, **options)
    layers(model, train_feed.shape)  # evaluation needs them: if that fails, then now
    model.to(device=device, memory_format=torch.channels_last)  # faster on CPUs too
    accelerate(model)
    if training.recipe.output_prior:
        if not networks.resolve_dataset(training.dataset).pixels:
            raise UserError(
                f"output_prior is for pixels, and {training.dataset} has classes; set it false"
            )
        set_output_prior(model, train_feed)
    if team.world > 1:
        # Each process drops out its own.
        torch.manual_seed(training.seed + 1_000_003 * team.rank)
        if training.recipe.sync_batch_norm:
            synchronise_batch_norm(model)
    return model


def _chosen(
    training: Training, state: dict[str, Any] | None, device: torch.device, team: Team
) -> str:
    """The execution of what is left to do."""
    recipe, dataset = training.recipe, networks.resolve_dataset(training.dataset)
    done = state["epoch"] * recipe.iterations + state["iteration"] if state else 0
    left = (recipe.steps - done) * recipe.batch
    return choose_execution(device, team, dataset.pixels, left)


def _write_results(run: Run, training: Training, unreadable: int) -> None:
    """model.pt, history.csv and, when they are there, run.json."""
    output, train_feed = training.output, run.train_feed
    description = {
        **training.names,
        "options": training.options_for(train_feed.classes),
        "preparation": train_feed.preparation(),
    }
    write_model(output / "model.pt", run.model, description)
    run.write_history(output / "history.csv")
    facts = {
        **training.record(train_feed.facts, run.valid_data, run.team.world),
        **run.facts(),
        "unreadable_images": unreadable,
        "history_crc32": zlib.crc32((output / "history.csv").read_bytes()),
    }
    write_json(output / "run.json", facts)


def _work(
    run: Run,
    training: Training,
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    board: Board | None,
    log: Callable[[str], None],
) -> None:
    """Run to the end of the recipe: progress, checkpoints, signals."""
    recipe, team = run.recipe, run.team
    live_history = training.output / "checkpoints" / "history.csv"
    bar = Bar(
        total=recipe.steps,
        initial=run.epoch * recipe.iterations + run.iteration,
        desc=training.title,
        unit="it",
        disable=not (team.first and sys.stderr.isatty()),
    )
    saved = time.monotonic()
    began = run.iteration, run.seconds  # what this attempt does of an epoch, for the log
    # A second signal kills; not one of several processes: what is sent to all reaches it once more
    # from their launcher.
    with bar, collected(once=team.world == 1) as received:
        while run.epoch < recipe.epochs:
            while run.iteration < recipe.iterations:
                run.step()
                bar.update()
                due = time.monotonic() - saved > checkpoint_seconds
                wish = team.largest(1 + received[0] if received else int(due))
                if wish:
                    run.average_loss()
                    _check_finite(run, checkpoints)
                    state = run.state()
                    if team.first:
                        checkpoints.save(state)
                    team.wait()  # before anything ends a process, and with it the others
                    saved = time.monotonic()
                if wish > 1:
                    raise Interrupted(
                        wish - 1,
                        f"{signal.Signals(wish - 1).name} at epoch {run.epoch + 1}, iteration "
                        f"{run.iteration}: wrote {checkpoints.newest}; the same command goes on",
                    )
                if wish and bar.disable:
                    log(messages.progress(run, began))
            run.average_loss()
            _check_finite(run, checkpoints)
            row = run.end_epoch()
            if team.first:
                run.write_history(live_history)
            if board:
                board.add(row)
            if bar.disable:
                log(messages.summary(row, run, began))
            else:
                column, name = run.objective.shown
                shown = {"loss": f"{row['train_loss']:.4f}", name: row[column]}
                bar.set_postfix({key: value for key, value in shown.items() if value is not None})
            began = run.iteration, run.seconds


def _check_finite(run: Run, checkpoints: Checkpoints) -> None:
    if math.isfinite(float(run.take.loss_sum)):
        return
    last = checkpoints.newest if checkpoints.newest.exists() else "none"
    raise UserError(
        f"the loss is no longer finite in epoch {run.epoch + 1} at learning rate "
        f"{run.rate:.2g}; train with a lower one "
        f"(last good checkpoint: {last})"
    )


def _silence(line: str) -> None:
    """What the processes say that are not the first of their team."""
