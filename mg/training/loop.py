"""Train one network on one task with one seed: data in, model.pt, history.csv and run.json out."""

import csv
import math
import resource
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mg import networks, provenance
from mg.data.progress import Bar
from mg.errors import UserError
from mg.files import atomic_path, write_json
from mg.networks.execution import accelerate
from mg.signals import heeded
from mg.training.board import Board
from mg.training.checkpoint import Checkpoints, write_torch
from mg.training.device import activation_type, device_name, use_processor
from mg.training.feed import Clutter, DeviceFeed, Epoch, Feed, Pair, for_testing, for_training
from mg.training.objective import Objective, objective
from mg.training.recipe import Recipe
from mg.training.step import GraphStep, Step, build_step, choose_execution
from mg.training.team import ALONE, Team, synchronise_batch_norm
from mg.training.training import Training

MODEL_FORMAT = "mg-model-1"
VALIDATION_BATCH = 100
VALIDATION_BATCH_ON_CARD = 500  # of what lies there already: fewer kernels to start
EXECUTED = {
    "eager": "",
    "graph": ", steps recorded",
    "compiled": ", steps compiled at the first, which takes a minute or more",
}


class Interrupted(Exception):
    """A signal ended the training after its checkpoint was written."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


def train(
    training: Training,
    device: torch.device,
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
        checkpoint_seconds: work that a killed training may lose.
        execution: how steps are executed, see `mg.training.step.build_step`; auto chooses.
        tensorboard: folder of TensorBoard's files; this training gets one of its own in it.
        team: the processes that train this network together; the first writes the files.
        log: takes lines for people.

    Raises:
        UserError: bad settings or files, a checkpoint of other settings, a loss that is not finite.
        Interrupted: one of `mg.signals.STOPPING` came; a checkpoint was written.
    """
    recipe, network, dataset = training.recipe, training.network, training.dataset
    output, seed = training.output, training.seed
    use_processor(threads and max(1, threads // team.world))
    if not team.first:
        log = _silence
    parts = math.ceil(recipe.accumulate / team.world)  # that each process computes
    if recipe.batch % (parts * team.world):
        raise UserError(
            f"batch {recipe.batch} cannot be shared by {team.world} processes in {parts} equal "
            "parts each; choose a multiple"
        )
    if parts * team.world != recipe.accumulate and not recipe.sync_batch_norm:
        log(
            f"{team.world} processes compute each batch in {parts * team.world} parts, not "
            f"{recipe.accumulate}; each part has its own batch-norm statistics"
        )
    workers = math.ceil(workers / team.world)
    torch.backends.cudnn.benchmark = True  # shapes stay: kernels are tried out once (CUDA)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(seed)
    train_feed = for_training(dataset, training.train_files, device, training.preparation, workers)
    valid_feed = None
    if training.valid_file and team.first:
        prepared = train_feed.preparation()
        valid_feed = for_testing(dataset, training.valid_file, device, prepared, workers)
    options = training.options_for(train_feed.classes)
    model = networks.build(network, dataset, **options)
    for feed in (train_feed, valid_feed or train_feed):
        for size in feed.shape[1:]:
            networks.check_canvas(network, dataset, size, **options)
    networks.depth(model, train_feed.shape)  # evaluation needs it: if that fails, then now

    model.to(device=device, memory_format=torch.channels_last)  # faster on CPUs too
    accelerate(model)
    if recipe.output_prior:
        if not isinstance(train_feed, Clutter):
            raise UserError(f"output_prior is for pixels, and {dataset} has classes; set it false")
        set_output_prior(model, train_feed)
    if team.world > 1:
        torch.manual_seed(seed + 1_000_003 * team.rank)  # each process drops out its own
        if recipe.sync_batch_norm:
            synchronise_batch_norm(model)
    residual = networks.registry.resolve_network(network, dataset).residual
    goal, optimizer = objective(dataset), recipe.build_optimizer(model)
    activations = activation_type(recipe.precision, device)
    decisive = training.decisive(train_feed.facts, team.world)
    checkpoints = Checkpoints(output / "checkpoints", decisive)
    state = checkpoints.load(log)
    if execution == "auto":
        done = state["epoch"] * recipe.iterations + state["iteration"] if state else 0
        left = (recipe.steps - done) * recipe.batch
        execution = choose_execution(device, team, isinstance(train_feed, Clutter), left)
    step = build_step(execution, team, log, model, goal.loss, optimizer, activations, parts)
    run = _Run(model, goal, recipe, seed, residual, train_feed, valid_feed, optimizer, step, team)
    if state:
        run.restore(state)
        log(f"resumed at epoch {run.epoch + 1}, iteration {run.iteration + 1}")
        if len(run.commits) > 1:
            log(f"goes on with other code than it began with: commits {', '.join(run.commits)}")
    board = None
    if tensorboard and team.first:
        board = Board(tensorboard / dataset / training.label / f"seed{seed}", run.history)
    log(
        f"{training.title}: {recipe.epochs} epochs of {recipe.iterations} iterations, "
        f"batch {recipe.batch}, on {device_name(device)}, {type_name(activations)}"
        f"{EXECUTED[step.execution]}"
    )
    _work(run, training, checkpoints, checkpoint_seconds, board, log)
    unreadable = len(run.unreadable())
    if not team.first:
        return

    write_torch(
        output / "model.pt",
        {
            "format": MODEL_FORMAT,
            **training.names,
            "options": options,
            "preparation": train_feed.preparation(),
            "state_dict": {k: v.cpu().contiguous() for k, v in model.state_dict().items()},
        },
    )
    run.write_history(output / "history.csv")
    facts = {
        **training.record(train_feed.facts, valid_feed.facts if valid_feed else None, team.world),
        **run.facts(),
        "unreadable_images": unreadable,
        "history_crc32": zlib.crc32((output / "history.csv").read_bytes()),
    }
    write_json(output / "run.json", facts)  # last: it says that all is there
    checkpoints.remove()


def set_output_prior(model: torch.nn.Module, examples: Clutter) -> None:
    """Shift the outputs so that `model` starts at the frequencies of the classes in `examples`.

    The shift of the batch norm that is executed last is set to the logit of each class's share of
    pixels.

    Raises:
        UserError: the output of the network is not shifted by as much.
    """
    executed: list[torch.nn.BatchNorm2d] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: executed.append(module))
        for module in model.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    model.eval()
    logits = model(examples.x[:1])
    for hook in hooks:
        hook.remove()
    if not executed or not _shifts(executed[-1], logits):
        raise UserError(
            "output_prior is for networks that end in a batch norm of one channel per class; this "
            "one does not, so set it false"
        )
    positive = sum(part.sum((0, 2, 3)) for part in examples.y.split(1000))
    share = (positive / examples.y[:, 0].numel()).clamp(1e-6, 1 - 1e-6)
    with torch.no_grad():
        executed[-1].bias.copy_(torch.logit(share))


def _shifts(norm: torch.nn.BatchNorm2d, logits: torch.Tensor) -> bool:
    """Whether a shift in `norm` is one of `logits` (1, classes, H, W), class by class.

    The gradient tells; differences of logits would not, as those of deep networks may be in the
    millions before training.
    """
    if not norm.affine or norm.num_features != logits.shape[1]:
        return False
    weights = torch.arange(1.0, norm.num_features + 1, device=logits.device)[:, None, None]
    weights = weights.expand_as(logits)
    (gradient,) = torch.autograd.grad(logits, norm.bias, weights, materialize_grads=True)
    return torch.allclose(gradient, weights.sum((0, 2, 3)))


class _Run:
    """The moving parts of a training: everything a checkpoint has to hold."""

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        recipe: Recipe,
        seed: int,
        residual: bool,
        train_feed: Feed,
        valid_feed: Feed | None,
        optimizer: torch.optim.Optimizer,
        step: Step | GraphStep,
        team: Team,
    ) -> None:
        self.model, self.objective, self.recipe = model, objective, recipe
        self.seed, self.residual, self.device = seed, residual, step.device
        self.train_feed, self.valid_feed = train_feed, valid_feed
        self.optimizer, self.take, self.team = optimizer, step, team
        self.epoch, self.iteration, self.seconds = 0, 0, 0.0
        self.earlier: list[dict[str, Any]] = []  # what attempts before this one say of themselves
        self._here = {
            "started": provenance.now(),
            "device": device_name(self.device),
            "activations": type_name(step.activations),
            "threads": None if self.device.type == "cuda" else torch.get_num_threads(),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
        }
        self.history: list[dict[str, Any]] = []
        self._batches: Iterator[Iterator[Pair]] | None = None  # the rest of this epoch's
        self._clock = time.perf_counter()
        self.epoch_began = 0.0

    def state(self) -> dict[str, Any]:
        self.tick()
        random = [torch.get_rng_state()]
        if self.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self.device))
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "iteration": self.iteration,
            "loss_sum": self.take.loss_sum,
            "history": self.history,
            "seconds": self.seconds,
            "epoch_began": self.epoch_began,
            "attempts": self.attempts(),
            "unreadable": self.unreadable(),
            "random": self.team.gather(random),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.iteration = state["epoch"], state["iteration"]
        self.take.loss_sum.copy_(state["loss_sum"])
        self.history, self.seconds = state["history"], state["seconds"]
        self.epoch_began, self.earlier = state["epoch_began"], state["attempts"]
        self.train_feed.unreadable.update(state["unreadable"])
        processor, *card = state["random"][self.team.rank]
        torch.set_rng_state(processor)
        if self.device.type == "cuda" and card:
            torch.cuda.set_rng_state(card[0], self.device)

    def attempts(self) -> list[dict[str, Any]]:
        """Where and how each attempt computed whose work is part of this training, in order."""
        on_card = self.device.type == "cuda"
        this = {
            **self._here,
            "execution": self.take.execution,  # that which steps came to, where another failed
            "peak_device_bytes": torch.cuda.max_memory_allocated(self.device) if on_card else None,
            "peak_host_bytes": _peak_host_bytes(),
        }
        return [*self.earlier, this]

    @property
    def commits(self) -> list[str]:
        """Of the code that the attempts ran."""
        return _distinct(attempt["commit"] for attempt in self.attempts())

    def facts(self) -> dict[str, Any]:
        """What run.json says of the work that was done, and of where."""
        images, attempts = self.recipe.images, self.attempts()
        threads = {attempt["threads"] for attempt in attempts}
        return {
            "train_examples": len(self.train_feed),
            "images": images,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(images / self.seconds, 1),
            **{
                name: " and ".join(_distinct(attempt[name] for attempt in attempts))
                for name in ("device", "activations", "execution")
            },
            "threads": threads.pop() if len(threads) == 1 else None,
            **{
                name: max(_distinct(attempt[name] for attempt in attempts), default=None)
                for name in ("peak_device_bytes", "peak_host_bytes")
            },
            "attempts": len(attempts),
            "each_attempt": attempts,
            "commit": ", ".join(self.commits) or None,
            "started": attempts[0]["started"],
            "finished": provenance.now(),
            "versions": {
                name: " and ".join(_distinct(attempt["versions"].get(name) for attempt in attempts))
                for name in provenance.versions()
            },
        }

    def unreadable(self) -> list[int]:
        """Training examples that any process had to leave out."""
        return sorted(set().union(*self.team.gather(self.train_feed.unreadable)))

    def tick(self) -> None:
        """Count the time since the last call."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now

    @property
    def rate(self) -> float:
        """The learning rate of the newest step."""
        step = self.epoch * self.recipe.iterations + self.iteration - 1
        return self.recipe.rate(step, self.residual)

    def step(self) -> None:
        """One optimiser step on one batch; nothing in it waits for the device."""
        recipe = self.recipe
        if self._batches is None:
            epoch = Epoch(
                *(self.seed, self.epoch, recipe.iterations, recipe.batch, self.take.accumulate),
                *(self.team.rank, self.team.world),
            )
            self._batches = self.train_feed.batches(epoch, self.iteration)
            self.model.train()
        if self.iteration == 0 and recipe.forgets_momentum:
            for state in self.optimizer.state.values():
                state["momentum_buffer"].zero_()  # in place: a recorded step goes on reading it
        self.iteration += 1
        self.take(next(self._batches), self.rate)

    def end_epoch(self) -> dict[str, Any]:
        """Measure on the validation set, note the epoch, move to the next."""
        valid = self._validate() if self.valid_feed else {}
        self.tick()
        images = self.recipe.iterations * self.recipe.batch
        spent = self.seconds - self.epoch_began
        row = {
            "epoch": self.epoch + 1,
            "images": (self.epoch + 1) * images,
            "train_loss": float(self.take.loss_sum) / self.recipe.iterations,
            **{column: valid.get(name) for column, name in self.objective.measures.items()},
            "learning_rate": self.rate,
            "images_per_second": round(images / spent, 1),
            "seconds": round(self.seconds, 3),
        }
        self.history.append(row)
        self.epoch, self.iteration, self._batches = self.epoch + 1, 0, None
        self.take.loss_sum.zero_()
        self.epoch_began = self.seconds
        return row

    def write_history(self, path: Path) -> None:
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as handle:
            writer = csv.DictWriter(handle, self.objective.history)
            writer.writeheader()
            writer.writerows(self.history)

    @torch.inference_mode()
    def _validate(self) -> dict[str, Any]:
        self.model.eval()
        metrics = self.objective.metrics()
        there = self.device.type == "cuda" and isinstance(self.valid_feed, DeviceFeed)
        for x, y in self.valid_feed.once(VALIDATION_BATCH_ON_CARD if there else VALIDATION_BATCH):
            metrics.update(self.take.forward(x).float(), y)
        return metrics.compute()


def _work(
    run: _Run,
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
    with bar, _signals(team) as received:
        while run.epoch < recipe.epochs:
            while run.iteration < recipe.iterations:
                run.step()
                bar.update()
                due = time.monotonic() - saved > checkpoint_seconds
                wish = team.largest(1 + received[0] if received else int(due))
                if wish:
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
                    log(_progress(run))
            _check_finite(run, checkpoints)
            row = run.end_epoch()
            if team.first:
                run.write_history(live_history)
            if board:
                board.add(row)
            if bar.disable:
                log(_summary(row, run))
            else:
                column, name = run.objective.shown
                bar.set_postfix({"loss": f"{row['train_loss']:.4f}", name: row[column]})


def _progress(run: _Run) -> str:
    """The epoch so far; an epoch of photographs takes hours."""
    loss = float(run.take.loss_sum) / run.iteration
    speed = run.iteration * run.recipe.batch / (run.seconds - run.epoch_began)
    return (
        f"epoch {run.epoch + 1:3d}/{run.recipe.epochs}"
        f"  iteration {run.iteration}/{run.recipe.iterations}  loss {loss:.4f}"
        f"  {speed:.0f} images/s  {_left(run)} left"
    )


def _summary(row: dict[str, Any], run: _Run) -> str:
    """The epoch that `row` is about."""
    valid = ""
    if row["valid_loss"] is not None:
        valid = f"  valid loss {row['valid_loss']:.4f}"
        column, name = run.objective.shown
        if row[column] is not None:
            valid += f"  {name} {row[column]:.4f}"
    return (
        f"epoch {row['epoch']:3d}/{run.recipe.epochs}  loss {row['train_loss']:.4f}{valid}"
        f"  {row['images_per_second']:.0f} images/s  {_left(run)} left"
    )


def _left(run: _Run) -> str:
    """Hours, minutes and seconds to the end, at the mean speed so far."""
    done = run.epoch * run.recipe.iterations + run.iteration
    return Bar.format_interval(run.seconds / done * (run.recipe.steps - done))


def _check_finite(run: _Run, checkpoints: Checkpoints) -> None:
    run.team.average(run.take.loss_sum)
    if math.isfinite(float(run.take.loss_sum)):
        return
    last = checkpoints.newest if checkpoints.newest.exists() else "none"
    raise UserError(
        f"the loss is no longer finite in epoch {run.epoch + 1} at learning rate "
        f"{run.rate:.2g}; train with a lower one "
        f"(last good checkpoint: {last})"
    )


@contextmanager
def _signals(team: Team):
    """Collect the signals that ask to end instead of dying of them; a second one does kill.

    Not one of several processes: what is sent to all reaches it once more from their launcher.
    """
    received: list[int] = []
    before = {}

    def note(number, frame):
        received.append(number)
        if team.world == 1:
            signal.signal(number, before[number])

    for number in heeded():
        before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def type_name(kind: torch.dtype) -> str:
    """What it is called without the library's name: bfloat16."""
    return str(kind).removeprefix("torch.")


def _silence(line: str) -> None:
    """What the processes say that are not the first of their team."""


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order; not those that are unknown."""
    return [value for value in dict.fromkeys(values) if value is not None]


def _peak_host_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
