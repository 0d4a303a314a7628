"""The sub-command that trains."""

import sys
from pathlib import Path

from mg.cli.arguments import (
    CLASSIFICATION,
    add_command,
    add_compute_options,
    add_workers_option,
    fail,
    json_object,
    whole,
)
from mg.data.tasks import TASKS
from mg.errors import UserError
from mg.progress import say


def add_train(commands) -> None:
    def run(settings) -> None:
        from mg.training.checkpoint import sole_training
        from mg.training.device import check_device, choose_device
        from mg.training.loop import Interrupted, train
        from mg.training.recipe import Recipe
        from mg.training.team import join_team, launch, launched
        from mg.training.training import Training

        if settings.processes != 1 and settings.device.startswith("cuda:"):
            raise UserError(
                f"device {settings.device} is one card; several processes take one each with "
                "--device cuda (CUDA_VISIBLE_DEVICES says of which)"
            )
        recipe = Recipe(**{name: getattr(settings, name) for name in Recipe.__dataclass_fields__})
        training = Training(
            settings.network,
            settings.task,
            settings.options,
            recipe,
            settings.seed,
            settings.train,
            settings.output,
            valid_file=settings.valid,
            preparation=settings.preparation,
            label=settings.label,
        )
        if settings.processes != 1 and not launched():
            check_device(settings.device)
            sys.exit(launch(settings.processes, settings.arguments))
        device = choose_device(settings.device)
        try:
            with sole_training(settings.output, say) as waited, join_team(device) as team:
                waited = any(team.gather(waited))
                if waited and training.is_finished(team.world):
                    if team.first:
                        say("the training that was waited for was this one; its results stand")
                    return
                train(
                    training,
                    device,
                    threads=settings.threads,
                    workers=settings.workers,
                    checkpoint_seconds=settings.checkpoint_seconds,
                    execution=settings.execution,
                    tensorboard=settings.tensorboard,
                    team=team,
                    log=say,
                )
        except Interrupted as interruption:
            sys.exit(fail(f"mg train: {interruption}", 128 + interruption.signal))

    parser = add_command(commands, "train", run, "train one network on one task with one seed")
    parser.add_argument("--network", required=True, help="name of a network (see mg networks)")
    parser.add_argument("--task", required=True, help=", ".join((*TASKS, *CLASSIFICATION)))
    parser.add_argument(
        "--options", type=json_object, default={}, help="the network's, as a JSON object"
    )
    parser.add_argument("--label", help="name in tables; the network's if unset")
    parser.add_argument("--seed", type=whole(0), default=0, help="of weights and order of examples")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="HDF5 files")
    parser.add_argument("--valid", type=Path, help="HDF5 file to measure progress on")
    parser.add_argument("--optimizer", default="sgd", help="sgd, adamw or muon")
    parser.add_argument(
        "--schedule",
        default="paper",
        help="of the rate: paper, exponential, steps, every_30 or one_cycle",
    )
    parser.add_argument("--learning-rate", type=float, default=0.1, help="highest rate")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="of what is trained")
    parser.add_argument("--epochs", type=whole(1), default=200, help="number of epochs")
    parser.add_argument(
        "--iterations", type=whole(1), default=150, help="optimiser steps per epoch"
    )
    parser.add_argument("--batch", type=whole(1), default=64, help="examples per optimiser step")
    parser.add_argument(
        "--accumulate", type=whole(1), default=1, help="parts to compute a batch in"
    )
    parser.add_argument(
        "--processes",
        type=whole(1),
        default=1,
        help="that train the network together and share batch, parts, threads and workers; one per "
        "GPU",
    )
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or auto")
    parser.add_argument(
        "--preparation", default="whitened", help="of CIFAR's images: whitened or plain"
    )
    parser.add_argument(
        "--output-prior", action="store_true", help="start at the frequencies of the classes"
    )
    parser.add_argument(
        "--sync-batch-norm",
        action="store_true",
        help="batch-norm statistics over all processes, of the part that each computes at once",
    )
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=60, help="work that a kill may lose"
    )
    parser.add_argument(
        "--execution",
        default="auto",
        help="of a step: eager, graph (recorded once and replayed, on CUDA), compiled "
        "(torch.compile, takes a minute or more to start) or auto: MNIST's tasks on CUDA recorded, "
        "with a million images ahead compiled too, all else eager",
    )
    parser.add_argument(
        "--tensorboard", type=Path, help="folder for TensorBoard's files, if it is installed"
    )
    add_compute_options(parser)
    add_workers_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
