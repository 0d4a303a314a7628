"""One optimiser step: from a batch to new weights, called op by op, recorded, or compiled.

A step of these small networks is hundreds of short kernels; a GPU runs them faster than Python can
start them. There, the whole step (forward, backward, optimiser) is recorded once as a CUDA graph
and then replayed, from buffers that always lie in the same place. Nothing in a step waits for the
device.
"""

import os
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mg.errors import UserError, first_line
from mg.training.feed import Pair
from mg.training.team import Team

EXECUTIONS = ("eager", "graph", "compiled")
COMPILED_FROM = 1_000_000  # images to train on that win back the time of compiling
COMPILERS = 4  # processes that compile for one training


class Step:
    """Take optimiser steps, one operation after the other.

    Args:
        model: in training mode when a step is taken.
        loss: (logits in float32, targets) -> mean over the examples.
        optimizer: over the parameters of `model`.
        activations: float32, or a type for autocast.
        accumulate: parts that every batch comes in.

    Attributes:
        loss_sum: scalar on the device; the losses of the steps since it was zeroed, in place.
        execution: `eager`, `graph` or `compiled`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        activations: torch.dtype = torch.float32,
        accumulate: int = 1,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.trained = model  # what is called in training: the model, or what averages gradients
        self.activations, self.accumulate = activations, accumulate
        self.device = next(model.parameters()).device
        self.loss_sum = torch.zeros((), device=self.device)
        self.execution = "eager"

    def __call__(self, batch: Iterable[Pair], rate: float | Tensor) -> None:
        """Update the weights with `batch`, given in its parts, at learning rate `rate`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        for x, y in batch:
            self.loss_sum += self.backward(x, y)
        self.optimizer.step()

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the gradients of a part; return its share of the batch's loss."""
        loss = self.share_of_loss(x, y)
        loss.backward()
        return loss.detach()

    def share_of_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What a part adds to the batch's loss."""
        return self.loss(self.forward(x, self.trained).float(), y) / self.accumulate

    def forward(self, x: Tensor, model: nn.Module | None = None) -> Tensor:
        """Logits of network inputs, activations in the type of this training."""
        reduced = self.activations != torch.float32
        # Weights are read once per pass: a cache of them brings nothing, and spoils a recording.
        with torch.autocast(
            self.device.type, self.activations, enabled=reduced, cache_enabled=False
        ):
            try:
                return (self.model if model is None else model)(x)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise UserError(
                    "the network's coarsest grid is one pixel, of which batch norm cannot take "
                    "statistics over one example; raise the batch or lower accumulate"
                ) from error


class TeamStep(Step):
    """Steps of several processes: each computes its share, gradients are averaged."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        # Of kernels of one pixel, whose memory is the same in every format.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # The running statistics of the first process, over its share of the parts, are kept; those
        # of the others never used.
        self.trained = DistributedDataParallel(self.model, forward_sync_buffers=False)
        self.parts = 0  # computed so far

    def __call__(self, batch: Iterable[Pair], rate: float | Tensor) -> None:
        super().__call__(batch, rate)
        parameters = self.model.named_parameters()
        if unused := [name for name, p in parameters if p.requires_grad and p.grad is None]:
            raise UserError(
                f"{', '.join(unused[:3])}{' …' if unused[3:] else ''} of the network got no "
                "gradient, for which several processes would wait: train in one, or say "
                "requires_grad_(False) of what is not used"
            )

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """As alone; the gradients of a batch are averaged with its last part, all at once."""
        self.parts += 1
        if self.parts % self.accumulate == 0:
            return super().backward(x, y)
        with self.trained.no_sync():
            return super().backward(x, y)


class CompiledStep(Step):
    """Steps whose network and loss are compiled (torch.compile) at the first batch."""

    def __init__(self, *args, log: Callable[[str], None], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log, self.execution, self.tried = log, "compiled", False

    def __call__(self, batch: Iterable[Pair], rate: float | Tensor) -> None:
        if not self.tried:
            batch = list(batch)
            self._compile(*batch[0])
        super().__call__(batch, rate)

    def _compile(self, x: Tensor, y: Tensor) -> None:
        """Compile and try, leaving no trace of the trial in the model."""
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        devices = [self.device] if self.device.type == "cuda" else []
        self.tried = True
        try:
            prepare_compiler()
            # The whole graph or none: where torch.compile gives up by itself it does not say so.
            self.share_of_loss = torch.compile(super().share_of_loss, fullgraph=True, dynamic=False)
            with torch.random.fork_rng(devices):
                self.backward(x, y)
        except Exception as error:  # compilers fail in every way there is
            self.__dict__.pop("share_of_loss", None)
            self.execution = "eager"
            self.log(f"not compiled, goes on without: {first_line(error)}")
        self.model.load_state_dict(before)


def prepare_compiler() -> None:
    """Let PyTorch compile as many networks as a process trains; by itself it stops after eight.

    With few processes, unless its own variable says how many.
    """
    from torch._dynamo import config as dynamo  # takes a second
    from torch._inductor import config as inductor

    dynamo.recompile_limit = dynamo.accumulated_recompile_limit
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
        inductor.compile_threads = min(COMPILERS, inductor.compile_threads)


class GraphStep:
    """Steps that are recorded as a CUDA graph and replayed.

    The first steps are taken as `step` takes them: libraries choose and prepare their kernels, and
    the optimiser makes its state. If the recording fails, all are.

    Args:
        step: what to record; on a CUDA device.
        log: takes a line when the recording fails.
    """

    WARM_UP = 3

    def __init__(self, step: Step, log: Callable[[str], None]) -> None:
        self.step, self.log = step, log
        self.rate = torch.zeros((), device=step.device)
        self.stream = torch.cuda.Stream(step.device)
        self.buffers: list[Pair] = []
        self.graph: torch.cuda.CUDAGraph | None = None
        self.taken, self.failed = 0, False

    @property
    def device(self) -> torch.device:
        return self.step.device

    @property
    def activations(self) -> torch.dtype:
        return self.step.activations

    @property
    def accumulate(self) -> int:
        return self.step.accumulate

    @property
    def loss_sum(self) -> Tensor:
        return self.step.loss_sum

    @property
    def execution(self) -> str:
        return self.step.execution if self.failed or self.step.execution != "eager" else "graph"

    def forward(self, x: Tensor) -> Tensor:
        return self.step.forward(x)

    def __call__(self, batch: Iterable[Pair], rate: float) -> None:
        self.rate.fill_(rate)
        batch = list(batch)
        if self.graph is None and not self.failed and self.taken == self.WARM_UP:
            self._record(batch)
        if self.graph is None:
            self._take(batch)
            self.taken += 1
            return
        for buffers, part in zip(self.buffers, batch, strict=True):
            for buffer, value in zip(buffers, part, strict=True):
                buffer.copy_(value)
        self.graph.replay()

    def _take(self, batch: list[Pair]) -> None:
        """A step like any other, on the stream that will record."""
        here = torch.cuda.current_stream(self.step.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            self.step(batch, self.rate)
        here.wait_stream(self.stream)

    def _record(self, batch: list[Pair]) -> None:
        """Record a step that reads `buffers`; nothing is computed yet."""
        self.buffers = [(x.clone(), y.clone()) for x, y in batch]
        here = torch.cuda.current_stream(self.step.device)
        groups = [g for g in self.step.optimizer.param_groups if "capturable" in g]
        graph = torch.cuda.CUDAGraph()
        # The gradients of a recorded step lie in the graph's own memory.
        self.step.optimizer.zero_grad(set_to_none=True)
        try:
            for group in groups:
                group["capturable"] = True
            # Threads that load data may go on meanwhile.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.step(self.buffers, self.rate)
            self.graph = graph
        except RuntimeError as error:
            self.failed = True
            # Ending a recording that failed fails, too.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            torch.cuda.set_stream(here)  # a recording that fails leaves its own as the current one
            self.step.optimizer.zero_grad(set_to_none=True)
            self.log(
                f"the step cannot be recorded as a CUDA graph, goes on without: {first_line(cause)}"
            )
        finally:
            for group in groups:
                group["capturable"] = False


def choose_execution(device: torch.device, team: Team, pixels: bool, images: int) -> str:
    """How to execute the steps of a training, by what was measured (docs/performance.md).

    On a card steps are recorded; where many images are left they are compiled too. Only networks
    that answer with `pixels` were measured there.

    Args:
        images: training examples that are left to be seen, repetitions counted.
    """
    if device.type != "cuda" or team.world > 1 or not pixels:
        return "eager"
    return "compiled" if images >= COMPILED_FROM else "graph"


def build_step(execution: str, team: Team, log: Callable[[str], None], *args) -> Step | GraphStep:
    """The step for an `execution`, one of `EXECUTIONS`; `args` are those of `Step`.

    `compiled` is recorded too on CUDA. Several processes that train together are `eager`.

    Raises:
        UserError: an execution that is unknown, or not possible here.
    """
    if execution not in EXECUTIONS:
        raise UserError(f"execution is {execution!r}; choose auto or {' or '.join(EXECUTIONS)}")
    if team.world > 1:
        if execution != "eager":
            raise UserError(f"execution {execution} is for one process; use eager")
        return TeamStep(*args)
    step = CompiledStep(*args, log=log) if execution == "compiled" else Step(*args)
    if step.device.type == "cuda" and execution != "eager":
        return GraphStep(step, log)
    if execution == "graph":
        raise UserError("execution graph needs a CUDA device; use eager")
    return step
