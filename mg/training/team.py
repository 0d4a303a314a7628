"""Several processes that train one network together, as `launch` or `torchrun` starts them.

Each computes an equal share of every batch on its own device; gradients are averaged, so all hold
the same weights. The first writes files and measures progress. Batch norm sees what its process
computes at once, as each GPU's in the original, or, synchronised, what all of them do.
"""

import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from mg.errors import UserError
from mg.signals import heeded


@dataclass(frozen=True)
class Team:
    """This process's place among those that train one network; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def average(self, value: Tensor) -> None:
        """Replace `value` by its mean over the processes."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers, the same in each; never waits for a GPU."""
        if self.world == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        self.largest(0)


ALONE = Team()
# For the others to start: who began this process may not have come to begin them.
START = timedelta(minutes=10)
# The others wait while the first measures the validation set. What ends one process ends all.
PATIENCE = timedelta(days=1)


def launched() -> bool:
    """Whether this is a process that `launch` or torchrun started."""
    return dist.is_torchelastic_launched()


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `mg` with `arguments` in several processes of a team on this machine, as torchrun does.

    A signal is passed on to all; they have half a minute to end. If one fails, the others are
    ended.

    Returns:
        The exit status: 0, or that of the process that failed first.

    Raises:
        UserError: `processes` is no number of processes.
    """
    if processes < 1:
        raise UserError(f"processes is {processes}; it must be at least 1")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR + 1)  # mg says it itself
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle=",".join([*(number.name for number in heeded()), "SIGQUIT"]),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "mg", *arguments)
    except ChildFailedError as error:
        return _status(error.get_first_failure()[1].exitcode)
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


def _status(code: int) -> int:
    """What a shell calls a process's end: a signal is a negative number in Python."""
    return code if code >= 0 else 128 - code


@contextmanager
def join_team(device: torch.device) -> Iterator[Team]:
    """Join the processes that were started together; be alone if this was not.

    What all have to say of a user's mistake, the first of them to find it says.

    Raises:
        UserError: there are more processes than CUDA cards, the others do not start, or one of
            them has ended.
    """
    if not launched() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    if device.type == "cuda":
        cards = torch.cuda.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > cards:
            raise UserError(f"there are more processes than the {cards} visible cards; start fewer")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=START))
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except dist.DistError as error:
        raise UserError(
            f"the other processes of this training did not start within "
            f"{START.total_seconds() / 60:g} minutes; see what they or their launcher said"
        ) from error
    try:
        with _one_voice(store):
            yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def _one_voice(store: dist.Store) -> Iterator[None]:
    """Let an error that all processes meet be told once: the others end without a word."""
    try:
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise UserError(
                "another process of this training has ended; see what it said, or what ended it"
            ) from error
    except UserError as error:
        if store.add(str(error), 1) > 1:
            sys.exit(2)
        raise


class TeamBatchNorm(nn.BatchNorm2d):
    """Batch norm over the equal shares of all processes, on any device.

    PyTorch's own SyncBatchNorm computes the same, on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        world, values = dist.get_world_size(), x.float()
        mean = all_reduce(values.mean((0, 2, 3))) / world
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().mean((0, 2, 3))) / world
        with torch.no_grad():
            number = world * values[:, 0].numel()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (number / (number - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Let every batch norm of `model` see the batches of all processes; its state stays."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = TeamBatchNorm
