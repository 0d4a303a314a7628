"""The moving parts of a training: its state, a step, the end of an epoch, and what it tells."""

import csv
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from mg import networks, provenance
from mg.files import atomic_path
from mg.training.device import device_name
from mg.training.feed import DeviceFeed, Epoch, Feed, Pair
from mg.training.objective import objective
from mg.training.step import GraphStep, Step
from mg.training.team import Team
from mg.training.training import Facts, Training

VALIDATION_BATCH = 100
VALIDATION_BATCH_ON_CARD = 500  # of what lies there already: fewer kernels to start


class Run:
    """The moving parts of a training: everything a checkpoint has to hold."""

    def __init__(
        self,
        training: Training,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        step: Step | GraphStep,
        train_feed: Feed,
        valid_feed: Feed | None,
        team: Team,
    ) -> None:
        self.recipe, self.seed = training.recipe, training.seed
        self.objective = objective(training.dataset)
        network = networks.registry.resolve_network(training.network, training.dataset)
        self.residual = network.residual
        self.model, self.optimizer, self.take, self.device = model, optimizer, step, step.device
        self.train_feed, self.valid_feed, self.team = train_feed, valid_feed, team
        self.epoch, self.iteration, self.seconds = 0, 0, 0.0
        self.earlier: list[dict[str, Any]] = []  # what attempts before this one say of themselves
        self._here = {
            "started": provenance.now(),
            "device": device_name(self.device),
            "activations": _type_name(step.activations),
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
            "valid_data": self.valid_data,
            "seconds": self.seconds,
            "epoch_began": self.epoch_began,
            "attempts": self.attempts(),
            "unreadable": self.unreadable(),
            "random": self.team.gather(random),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`; what another validation set measured is taken out of the history."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.iteration = state["epoch"], state["iteration"]
        self.take.loss_sum.copy_(state["loss_sum"])
        self.history, self.seconds = state["history"], state["seconds"]
        if state["valid_data"] != self.valid_data:
            for row in self.history:
                row.update(dict.fromkeys(self.objective.measures))
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
    def valid_data(self) -> Facts | None:
        """What the validation examples are, if there are any."""
        return self.valid_feed.facts if self.valid_feed else None

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

    def average_loss(self) -> None:
        """Make the sum of the epoch's losses so far the mean over the team's processes."""
        self.team.average(self.take.loss_sum)

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


def _type_name(kind: torch.dtype) -> str:
    """What it is called without the library's name: bfloat16."""
    return str(kind).removeprefix("torch.")


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order; not those that are unknown."""
    return [value for value in dict.fromkeys(values) if value is not None]


def _peak_host_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
