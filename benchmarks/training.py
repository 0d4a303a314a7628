"""How fast the MNIST networks train: beside the device's floor, and beside PyTorch as it comes.

    python benchmarks/training.py                 # all of it; a few minutes on two CPU cores
    python benchmarks/training.py --full          # the paper's sizes; the default on a CUDA device
    python benchmarks/training.py --compile       # torch.compile as well, minutes more per network
    python benchmarks/training.py --side-by-side  # several trainings at once on the device

*Floor.* An image costs 2 operations per multiply-add forward, 4 backward (2 where a layer reads the
image, which needs no gradient). Its bytes: every layer's output and the gradient of it written once
and read once, the output read once more in the backward pass; weights, gradients and momentum once
per batch. The floor is the larger of operations / peak of a matrix product and bytes / bandwidth of
a copy, both measured here. (What fits a processor's cache is faster than that bandwidth.)

*Traffic.* What the operations of a step read and write when they are called one by one, each tensor
counted once per operation, and how many they are: the part that fusing them (torch.compile) or
recording them (CUDA graph) can save.

*Baseline.* The plain modules in float32, contiguous, batches gathered on the host and sent to the
device, PyTorch's default optimiser: a script without any of our tricks, in the same process. On a
card PyTorch's convolutions round float32 to TF32 unless told not to: so does the baseline, and so
does the matrix product that its floor is reckoned from. `mg` tells them not to.

All variants of a network are measured in turns, several rounds; rates are medians, ratios medians
of the ratios within a round. On one CPU thread the clock counts processor time, so that other work
on the machine matters less. What keeping freed memory brings there is rather underestimated: some
of it stays for the variants whose turn comes after.

*The same steps.* All variants begin with the same weights and are given the same images. How far
the weights of each are from the baseline's after five steps, as a share of the way that those went,
tells a faster execution from a wrong one: rounding in float32 makes some 10^-4 of it, in bfloat16
one to three hundredths.
"""

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg import networks  # noqa: E402
from mg.networks import execution  # noqa: E402
from mg.networks.counting import IMAGE, layers, total  # noqa: E402
from mg.networks.execution import SplitMultigridConv, accelerate  # noqa: E402
from mg.networks.pyramid import Pyramid  # noqa: E402
from mg.networks.registry import skeleton  # noqa: E402
from mg.training.device import activation_type, device_name, keep_freed_memory  # noqa: E402
from mg.training.feed import Clutter, Epoch  # noqa: E402
from mg.training.objective import PIXELS  # noqa: E402
from mg.training.recipe import Recipe  # noqa: E402
from mg.training.step import build_step  # noqa: E402
from mg.training.team import ALONE  # noqa: E402

TASK = "segmentation"
EXAMPLES = 1000
FIRST = 5  # steps before anything is timed, after which weights are compared
NETWORKS = ("unet", "umg", "sg", "r_sg", "pmg", "r_pmg")
NARROW = {  # config/config.yaml
    "unet": {"width": [24, 48, 96]},
    "umg": {"width": [16, 32, 64]},
    "sg": {"width": [16, 8, 8]},
    "r_sg": {"width": [16, 8, 8]},
    "pmg": {"width": [16, 8, 8]},
    "r_pmg": {"width": [16, 8, 8]},
}


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    name: str
    resident: bool = True  # batches gathered on the device, optimiser fused
    channels_last: bool = True
    faster: bool = True  # mg.networks.execution
    apart: bool = False  # ApartMultigridConv in its place
    padded: bool = True  # channels, where compiled in 16 bits
    activations: torch.dtype = torch.float32
    execution: str = "eager"
    compiler: tuple[str, ...] = ()  # switches of torch._inductor.config that are off by default
    tried: bool = False  # cuDNN times its kernels and takes the fastest
    rounded: bool = True  # float32 to TF32, on a card
    flush: bool = False  # denormal numbers
    keep: bool = False  # freed memory, on a processor


def variants(device: torch.device, compiled: bool) -> list[Variant]:
    """The baseline, then each trick on top of those before; after ours, what else there is."""
    found = [
        Variant("baseline", False, False, False),
        Variant("+ data on the device, fused optimiser", True, False, False),
    ]
    # cuDNN remembers what it chose for a convolution, tried out or not, for all that follow: only
    # those before share none with them.
    cuda = device.type == "cuda"
    name = "+ channels-last, cuDNN's kernels tried out" if cuda else "+ channels-last"
    found.append(Variant(name, True, True, False, tried=cuda))
    found.append(
        replace(found[-1], name="+ neighbours at their resolution, no biases", faster=True)
    )
    fast = activation_type("auto", device)
    if fast != torch.float32:
        found.append(replace(found[-1], name="+ bfloat16", activations=fast))
    if cuda:
        found.append(replace(found[-1], name="+ CUDA graph", execution="graph"))
    else:
        found.append(replace(found[-1], name="+ freed memory kept", keep=True))
        found.append(replace(found[-1], name="+ denormals flushed", flush=True))
    ours = found[-1] = replace(found[-1], name=found[-1].name + " (ours)")
    if cuda:
        precise = replace(ours, activations=torch.float32, rounded=False)
        found += [
            replace(precise, name="ours in float32, not rounded"),
            replace(precise, name="ours in float32, not rounded, contiguous", channels_last=False),
            replace(ours, name="ours, plain modules", faster=False),
            replace(ours, name="ours, contiguous", channels_last=False),
        ]
    if compiled:
        joined = replace(ours, name="ours, compiled", execution="compiled")
        found += [joined, replace(joined, name="ours, compiled, neighbours apart", apart=True)]
        if cuda:
            found += [
                replace(
                    precise, name="ours in float32, not rounded, compiled", execution="compiled"
                ),
                replace(joined, name="ours, compiled, channels not padded", padded=False),
                replace(joined, name="ours, compiled, plain modules", faster=False),
                replace(
                    joined,
                    name="ours, compiled, kernels of several grids in one",
                    compiler=("combo_kernels",),
                ),
                replace(
                    joined,
                    name="ours, compiled, kernels' blocks tried out",
                    compiler=("coordinate_descent_tuning",),
                ),
            ]
    return found


class ApartMultigridConv(SplitMultigridConv):
    """Reads neighbours at their own resolution when compiled too."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return self.apart(pyramid[: len(self.convs)])


# ------------------------------------------------------------------------ the device and the floor


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time on one thread of a processor, else the time on the wall."""
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if one_thread else time.perf_counter


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(run: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """Seconds of the fastest of the runs that fit into `seconds`, three at least."""
    run()
    clock, times = clock_of(device), []
    while len(times) < 3 or sum(times) < seconds:
        wait(device)
        start = clock()
        run()
        wait(device)
        times.append(clock() - start)
    return min(times)


def peak(device: torch.device, kind: torch.dtype) -> float:
    """Operations per second of a large matrix product, float32 rounded as convolutions do it."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, n, n, device=device).to(kind)
    torch.backends.cuda.matmul.allow_tf32 = True
    seconds = fastest(lambda: a @ b, device)
    torch.backends.cuda.matmul.allow_tf32 = False
    return 2 * n**3 / seconds


def bandwidth(device: torch.device) -> float:
    """Bytes per second, read or written, of a copy beyond every cache."""
    a = torch.zeros(2**28 if device.type == "cuda" else 2**26, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() * a.element_size() / fastest(lambda: b.copy_(a), device)


@dataclass(frozen=True)
class Cost:
    """What training takes per image."""

    parameters: int
    multiply_adds: int
    operations: float
    elements: float  # of outputs and their gradients, written or read
    weight_bytes: float

    def floor(self, peak: float, bandwidth: float, size: int) -> float:
        """Images per second that nothing can exceed, with activations of `size` bytes."""
        moved = self.elements * size + self.weight_bytes
        return 1 / max(self.operations / peak, moved / bandwidth)


def cost(network: str, options: dict, canvas: int, batch: int) -> Cost:
    model = skeleton(network, TASK, **options)
    every = layers(model, (1, canvas, canvas))
    live = [layer for layer in every if layer.live]  # the others are not computed
    parameters = total(model, every).parameters
    operations = sum(layer.multiply_adds * (4 if layer.reads == [IMAGE] else 6) for layer in live)
    elements = 5 * sum(prod(layer.output_shape) for layer in live)
    # Weights are read forward and backward; the optimiser reads weight, gradient and momentum and
    # writes weight and momentum; the gradient is written: 8 numbers of 4 bytes.
    return Cost(
        parameters,
        sum(layer.multiply_adds for layer in live),
        operations,
        elements,
        8 * 4 * parameters / batch,
    )


# ------------------------------------------------------------------------ training


class Training:
    """A training of random images with one variant, as `mg train` does it."""

    def __init__(
        self, network: str, options: dict, canvas: int, batch: int, variant: Variant, device
    ) -> None:
        torch.manual_seed(0)
        self.variant, self.device, self.batch = variant, device, batch
        model = networks.build(network, TASK, **options).to(device).train()
        if variant.channels_last:
            model.to(memory_format=torch.channels_last)
        if variant.faster:
            accelerate(model)
        if variant.apart:
            for module in model.modules():
                if type(module) is SplitMultigridConv:
                    module.__class__ = ApartMultigridConv
        recipe = Recipe(batch=batch)
        if variant.resident:
            optimizer = recipe.build_optimizer(model)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        place = device if variant.resident else torch.device("cpu")
        x = torch.randn(EXAMPLES, 1, canvas, canvas)  # not on the device: the same for all
        y = (torch.rand(EXAMPLES, 10, canvas, canvas) < 0.05).to(torch.uint8)
        self.feed = Clutter(x.to(place), y.to(place), [])
        self.parameters = list(model.parameters())
        self.beginning = self.weights()
        self.step = build_step(
            *(variant.execution, ALONE, lambda line: print(line, file=sys.stderr)),
            *(model, PIXELS.loss, optimizer, variant.activations),
        )
        self.epoch, self.batches = 0, iter(())
        self.compiler = nullcontext()
        if not variant.padded:
            self.compiler = mock.patch.object(execution, "compiled_in_16_bits", lambda x: False)
        if variant.compiler:
            # With options of its own: for equal ones PyTorch takes what another variant compiled,
            # whatever the compiler's configuration is by then.
            compiling = partial(torch.compile, options=dict.fromkeys(variant.compiler, True))
            self.compiler = mock.patch.object(torch, "compile", compiling)

    def take(self) -> None:
        """Start a step."""
        torch.backends.cudnn.benchmark = self.variant.tried
        torch.backends.cudnn.allow_tf32 = self.variant.rounded
        parts = next(self.batches, None)
        if parts is None:
            self.epoch += 1
            epoch = Epoch(0, self.epoch, 150, self.batch)
            self.batches = self.feed.batches(epoch, 0)
            parts = next(self.batches)
        if not self.variant.resident:
            parts = [(x.to(self.device), y.to(self.device)) for x, y in parts]
        with self.compiler:
            self.step(parts, 1e-3)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.take()
        wait(self.device)

    def weights(self) -> torch.Tensor:
        """All of them in one row, on the processor."""
        return torch.cat([p.detach().flatten().cpu().double() for p in self.parameters])

    def rate(self, seconds: float, clock: Callable[[], float]) -> float:
        """Images per second in a turn of about `seconds`."""
        torch.set_flush_denormal(self.variant.flush)
        keep_freed_memory(self.variant.keep)
        self.run(1)  # with memory as this variant leaves it
        steps, start = 0, clock()
        while clock() - start < seconds:
            more = max(1, steps // 4)
            self.run(more)
            steps += more
        spent = clock() - start
        torch.set_flush_denormal(False)
        return steps * self.batch / spent


class Interleaved(Training):
    """Several trainings in one process that take steps in turn, each on a stream of its own."""

    def __init__(self, number: int, *args) -> None:
        self.trainings = [Training(*args) for _ in range(number)]
        first = self.trainings[0]
        self.variant, self.device, self.batch = first.variant, first.device, number * first.batch
        cuda = self.device.type == "cuda"
        self.streams = [torch.cuda.Stream(self.device) if cuda else None for _ in self.trainings]
        wait(self.device)  # their streams do not, for what was made on another

    def take(self) -> None:
        for training, stream in zip(self.trainings, self.streams, strict=True):
            with torch.cuda.stream(stream):
                training.take()


def forget() -> None:
    """Give back what the trainings of a network held: recorded steps, compiled code."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def distances(trainings: list[Training]) -> list[float]:
    """How far the first steps of each lead from where those of the first do, of its way."""
    for training in trainings:
        training.run(FIRST)
    goal = trainings[0].weights()
    way = (goal - trainings[0].beginning).norm()
    return [float((training.weights() - goal).norm() / way) for training in trainings]


def compare(trainings: list[Training], seconds: float, rounds: int) -> list[tuple[float, float]]:
    """(images per second, ratio to the first) of each, in turns."""
    clock = clock_of(trainings[0].device)
    rates = []
    for turn in range(rounds):  # each time another one begins: what drifts, drifts for all
        order = [(turn + i) % len(trainings) for i in range(len(trainings))]
        found = {i: trainings[i].rate(seconds, clock) for i in order}
        rates.append([found[i] for i in range(len(trainings))])
    return [
        (median(column), median(rate / turn[0] for rate, turn in zip(column, rates, strict=True)))
        for column in zip(*rates, strict=True)
    ]


class Traffic(TorchDispatchMode):
    """Counts the operations that are called, and the bytes of the tensors they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation._schema.name.removeprefix("aten::")
        if not operation.is_view and not name.startswith(("empty", "new_empty", "profiler::")):
            self.operations += 1
            self.bytes += _bytes(args) + _bytes(result)
        return result


def _bytes(tensors: object) -> int:
    if isinstance(tensors, torch.Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(map(_bytes, tensors)) if isinstance(tensors, list | tuple) else 0


def traffic(training: Training) -> tuple[int, float]:
    """(operations per step, bytes per image) of a training whose steps are eager."""
    training.run(1)  # the optimiser has its state, the epoch its order
    with Traffic() as counted:
        training.run(1)
    return counted.operations, counted.bytes / training.batch


# ------------------------------------------------------------------------ side by side


@dataclass(frozen=True)
class Together:
    """Trainings at once: `processes` of `threads` each, in each of them `trainings` in turn."""

    processes: int = 1
    threads: int = 1
    trainings: int = 1

    def __str__(self) -> str:
        if self.trainings > 1:
            return f"{self.trainings} in one process"
        return f"{self.processes} x {self.threads} thread{'s' if self.threads > 1 else ''}"


def side_by_side(arguments: list[str], network: str, case: Together) -> float:
    """Images per second of all trainings of a case together."""
    processes, threads = case.processes, case.threads
    command = [sys.executable, __file__, *arguments, "--one", network, "--threads", str(threads)]
    command += ["--interleaved", str(case.trainings)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(processes)
    ]
    for process in running:
        if process.stdout.readline().strip() != "ready":
            sys.exit(f"a training of {network} side by side did not start")
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def one(training: Training, seconds: float) -> None:
    """What a process of `side_by_side` does."""
    training.run(10)
    print("ready", flush=True)
    sys.stdin.readline()
    print(training.rate(seconds, time.perf_counter))


# ------------------------------------------------------------------------ tables


def table(heading: list[str], rows: list[list[str]]) -> None:
    print(f"\n| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def shown(rate: float) -> str:
    """Images per second."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--full", action="store_true", help="the paper's sizes, on a CPU too")
    parser.add_argument("--canvas", type=int, help="side of the images")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--seconds", type=float, default=0.3, help="of one turn")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--side-by-side", action="store_true", help="several trainings at once")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--interleaved", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    settings = parse()
    torch.set_num_threads(settings.threads)
    if settings.device == "auto":
        settings.device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(settings.device)
    full = settings.full or device.type == "cuda"
    options = {name: {} if full else NARROW[name] for name in settings.networks}
    canvas = settings.canvas or (64 if full else 32)
    batch = settings.batch or (64 if full else 16)
    every = variants(device, settings.compile)
    ours = next(variant for variant in every if variant.name.endswith("(ours)"))

    if settings.one:
        options = {} if full else NARROW[settings.one]
        training = Interleaved(
            settings.interleaved, settings.one, options, canvas, batch, ours, device
        )
        return one(training, settings.seconds * settings.rounds)

    print(
        f"{device_name(device)}, PyTorch {torch.__version__}, {settings.threads} thread(s); "
        f"{TASK}, canvas {canvas}, batch {batch}, {'full' if full else 'narrow'} networks"
    )
    if settings.side_by_side:
        return report_side_by_side(settings, device, canvas, batch)
    kinds = {torch.float32: 4, ours.activations: ours.activations.itemsize}
    peaks = {kind: peak(device, kind) for kind in kinds}
    bytes_per_second = bandwidth(device)
    for kind, value in peaks.items():
        print(f"matrix product, {str(kind).removeprefix('torch.')}: {value / 1e12:.3f} TFLOP/s")
    print(f"copy: {bytes_per_second / 1e9:.1f} GB/s")

    costs = {name: cost(name, options[name], canvas, batch) for name in settings.networks}
    limits = {
        name: {kind: c.floor(peaks[kind], bytes_per_second, size) for kind, size in kinds.items()}
        for name, c in costs.items()
    }
    table(
        [
            *("network", "parameters", "million multiply-adds", "million operations per image"),
            *("MB per image, float32", *(f"floor {str(k)[6:]}, images/s" for k in kinds)),
        ],
        [
            [
                *(name, f"{c.parameters:,}", f"{c.multiply_adds / 1e6:.1f}"),
                *(f"{c.operations / 1e6:.1f}", f"{(c.elements * 4 + c.weight_bytes) / 1e6:.2f}"),
                *(shown(limits[name][kind]) for kind in kinds),
            ]
            for name, c in costs.items()
        ],
    )
    distinct = {(v.resident, v.faster, v.activations): v for v in reversed(every)}
    distinct = dict(reversed(distinct.items()))  # the first of those with the same operations
    rates, executed, moved, apart = {}, {}, {}, {}
    for name in settings.networks:
        moved[name] = [
            traffic(
                Training(name, options[name], canvas, batch, replace(v, execution="eager"), device)
            )
            for v in distinct.values()
        ]
        trainings = [Training(name, options[name], canvas, batch, v, device) for v in every]
        apart[name] = distances(trainings)
        rates[name] = compare(trainings, settings.seconds, settings.rounds)
        executed[name] = [training.step.execution for training in trainings]
        print(f"{name} measured", file=sys.stderr)
        del trainings
        forget()
    mine = every.index(ours)
    table(
        ["network", "baseline, images/s", "ours, images/s", "ratio", "of peak", "of floor"],
        [
            [
                *(name, shown(found[0][0]), shown(found[mine][0]), f"{found[mine][1]:.2f}"),
                f"{found[mine][0] * costs[name].operations / peaks[ours.activations]:.0%}",
                f"{found[mine][0] / limits[name][ours.activations]:.0%}",
            ]
            for name, found in rates.items()
        ],
    )
    table(
        ["variant: ratio to the baseline", *rates],
        [
            [variant.name, *(_ratio(rates[n][i][1], variant, executed[n][i]) for n in rates)]
            for i, variant in enumerate(every)
        ],
    )
    table(
        [f"variant: weights after {FIRST} steps, distance from baseline's of their way", *apart],
        [
            [variant.name, *(f"{found[i]:.1g}" for found in apart.values())]
            for i, variant in enumerate(every)
        ],
    )
    table(
        ["variant: operations per step, MB per image", *moved],
        [
            [
                variant.name,
                *(f"{found[i][0]:,}, {found[i][1] / 1e6:.2f}" for found in moved.values()),
            ]
            for i, variant in enumerate(distinct.values())
        ],
    )


def _ratio(ratio: float, variant: Variant, execution: str) -> str:
    """With what the steps came to, where they could not be recorded or compiled."""
    return f"{ratio:.2f}" + ("" if execution == variant.execution else f" ({execution})")


def report_side_by_side(
    settings: argparse.Namespace, device: torch.device, canvas: int, batch: int
) -> None:
    """Several trainings at once: processes on one card, or on the cores of a processor."""
    passed = ["--device", settings.device, "--canvas", str(canvas), "--batch", str(batch)]
    passed += ["--seconds", str(settings.seconds), "--rounds", str(settings.rounds)]
    passed += ["--full"] if settings.full else []
    if device.type == "cuda":
        cases = [Together(processes=n) for n in (1, 2, 4, 8)]
        cases += [Together(trainings=n) for n in (2, 4, 8)]
    else:
        cores = len(os.sched_getaffinity(0))
        cases = [Together(), Together(threads=cores), Together(processes=cores)]
        cases.append(Together(trainings=2))
    table(
        ["network, images/s of all together", *map(str, cases)],
        [[n, *(shown(side_by_side(passed, n, case)) for case in cases)] for n in settings.networks],
    )


if __name__ == "__main__":
    main()
