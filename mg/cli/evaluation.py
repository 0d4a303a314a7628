"""Sub-commands that use a trained network."""

import json
from pathlib import Path

from mg.cli.arguments import (
    add_command,
    add_compute_options,
    add_workers_option,
    whole,
)


def add_evaluate(commands) -> None:
    def run(settings) -> None:
        from mg.evaluation.evaluate import evaluate
        from mg.training.device import choose_device

        evaluate(
            settings.model,
            settings.data,
            metrics_path=settings.metrics,
            predictions_path=settings.predictions,
            device=choose_device(settings.device),
            batch=settings.batch,
            threads=settings.threads,
            ten_crops=settings.ten_crops,
            workers=settings.workers,
        )

    parser = add_command(commands, "evaluate", run, "measure a trained network on a test set")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a training")
    parser.add_argument("--data", type=Path, required=True, help="HDF5 file of the test set")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--predictions", type=Path, help="HDF5 file to write, if they are wanted")
    parser.add_argument("--batch", type=whole(1), default=64, help="examples computed at once")
    parser.add_argument(
        "--ten-crops", action="store_true", help="measure ImageNet's images on ten crops each, too"
    )
    add_compute_options(parser)
    add_workers_option(parser)


def add_predict(commands) -> None:
    def run(settings) -> None:
        from mg.evaluation.images import predict_images
        from mg.training.device import choose_device

        answers = predict_images(
            settings.model,
            settings.images,
            output=settings.output,
            top=settings.top,
            device=choose_device(settings.device),
        )
        if settings.json:
            print(json.dumps(answers, indent=2))
            return
        for answer in answers:
            print(answer["image"])
            for name, probability in answer.get("classes", []):
                print(f"  {100 * probability:6.2f} %  {name}")
            for digit, number in answer.get("pixels", {}).items():
                print(f"  {number:6,} pixels  digit {digit}")
            if "output" in answer:
                print(f"  written to {answer['output']}")

    description = "classify images of your own, or segment or transform them"
    parser = add_command(commands, "predict", run, description)
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a training")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG, …")
    parser.add_argument(
        "--output", type=Path, help="folder for the pictures that networks of MNIST's tasks give"
    )
    parser.add_argument("--top", type=whole(1), default=5, help="number of classes to name")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def add_saliency(commands) -> None:
    def run(settings) -> None:
        from mg.evaluation.saliency import saliency
        from mg.training.device import choose_device

        saliency(
            settings.model,
            settings.data,
            settings.output,
            count=settings.examples,
            window=settings.window,
            stride=settings.stride,
            seed=settings.seed,
            device=choose_device(settings.device),
            batch=settings.batch,
            threads=settings.threads,
        )

    parser = add_command(commands, "saliency", run, "map where a trained network looks")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a training")
    parser.add_argument("--data", type=Path, required=True, help="HDF5 file of a spatial task")
    parser.add_argument(
        "--examples", type=whole(1), default=16, help="usable examples, from the first"
    )
    parser.add_argument(
        "--window", type=whole(1), default=8, help="side of the occlusion in pixels"
    )
    parser.add_argument("--stride", type=whole(1), default=2, help="its step in pixels")
    parser.add_argument("--seed", type=whole(0), default=1, help="of the noise in the window")
    parser.add_argument("--batch", type=whole(1), default=128, help="images computed at once")
    add_compute_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
