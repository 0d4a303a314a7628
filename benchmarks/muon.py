"""What a step of Muon costs, beside its floor, the iteration as its source gives it, and AdamW.

    python benchmarks/muon.py              # networks of the default configuration; seconds
    python benchmarks/muon.py --full       # the paper's sizes; the default on a CUDA device

*Floor.* Operations of the matrix products (of `orthogonal` in `mg/training/muon.py`) / the float32
peak of a large one, measured here. Times are medians of turns, ratios medians of the ratios within
a turn; on one CPU thread processor time is counted. Gradients are drawn at random.
"""

import argparse
from collections.abc import Callable
from statistics import median
from unittest import mock

import torch
from torch import Tensor
from training import NARROW, NETWORKS, TASK, clock_of, peak, table, wait

from mg import networks
from mg.training import muon
from mg.training.device import configure_torch, device_name


def direct(matrices: Tensor) -> Tensor:
    """`mg.training.muon.orthogonal`, every round with the whole matrix."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = muon.COEFFICIENTS
    for _ in range(muon.ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def operations(parameters: list[Tensor]) -> int:
    """Of the matrix products of a step: two with a matrix, of a round four with its square."""
    total = 0
    for p in parameters:
        if p.ndim > 1:
            short, long = sorted(p.flatten(1).shape)
            total += 2 * short**2 * (2 * long + (4 * muon.ITERATIONS - 3) * short)
    return total


def steps_of(parameters: list[Tensor]) -> dict[str, Callable[[], None]]:
    """A step of each optimiser, on parameters of its own."""

    def own() -> list[Tensor]:
        copies = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
        for p in copies:
            p.grad = torch.randn_like(p)
        return copies

    adamw = torch.optim.AdamW(own(), fused=True)
    source, ours = (muon.Muon(own(), 1e-3, 0.05) for _ in range(2))
    patched = mock.patch.object(muon, "orthogonal", direct)
    return {"AdamW": adamw.step, "source": patched(source.step), "ours": ours.step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--full", action="store_true", help="the paper's sizes, on a CPU too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--rounds", type=int, default=9)
    settings = parser.parse_args()
    if settings.device == "auto":
        settings.device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(settings.device)
    configure_torch(settings.threads)
    full = settings.full or device.type == "cuda"
    fastest = peak(device, torch.float32)
    print(
        f"{device_name(device)}, PyTorch {torch.__version__}, {settings.threads} thread(s); "
        f"{'full' if full else 'narrow'} networks; matrix product {fastest / 1e9:.0f} GFLOP/s"
    )
    clock, rows = clock_of(device), []
    for name in settings.networks:
        torch.manual_seed(0)
        model = networks.build(name, TASK, **({} if full else NARROW[name])).to(device)
        parameters = [p for p in model.parameters() if p.requires_grad]
        steps = steps_of(parameters)
        turns = []
        for turn in range(settings.rounds + 1):
            times = {}
            for kind, step in steps.items():
                wait(device)
                start = clock()
                step()
                wait(device)
                times[kind] = clock() - start
            if turn:  # the first makes the state
                turns.append(times)
        shown = [operations(parameters) / fastest]
        shown += [median(times[kind] for times in turns) for kind in steps]
        ratio = median(times["source"] / times["ours"] for times in turns)
        rows.append([name, *(f"{1e3 * value:.2f}" for value in shown), f"{ratio:.2f}"])
    table(
        ["milliseconds of a step", "floor", "AdamW", "Muon as in its source", "ours", "ratio"], rows
    )


if __name__ == "__main__":
    main()
