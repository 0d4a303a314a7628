"""What networks segment, and their errors."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke

from mg.report import style
from mg.report.figures.captions import controls_of, seeds_note
from mg.report.figures.panels import (
    check_count,
    colour_legend,
    digit_colours,
    draw_framed,
    draw_grey,
    grid,
    load_examples,
)
from mg.report.figures.reading import Paths, read_predictions
from mg.report.names import network_name

# On white, so that errors are not taken for digits.
RIGHT, MISSED, ADDED, CONFUSED = "#CFCFCF", style.BLUE, style.ORANGE, style.BLACK
ERRORS = {"right": RIGHT, "missed": MISSED, "added": ADDED, "wrong digit": CONFUSED}


def error_colours(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Right, missed, added and confused pixels of (C, H, W) booleans, as colours (H, W, 3)."""
    missed = (truth & ~predicted).any(0)
    added = (predicted & ~truth).any(0)
    image = np.ones((*missed.shape, 3))
    image[truth.any(0)] = to_rgb(RIGHT)
    image[missed] = to_rgb(MISSED)
    image[added] = to_rgb(ADDED)
    image[missed & added] = to_rgb(CONFUSED)
    return image


def segmentation_panel(
    data_path: str | os.PathLike, prediction_paths: Paths, prefix: str | os.PathLike, count: int = 3
) -> str:
    """The first `count` test examples: input and truth, then each network's classes and errors.

    Args:
        data_path: the test set.
        prediction_paths: predictions.h5 files; of several seeds of a network the lowest is shown.

    Raises:
        UserError: a file is damaged, or not of segmentation.
    """
    check_count(count)
    data = load_examples(data_path, count, channels=len(style.DIGITS))
    predictions = read_predictions(prediction_paths, data)
    caption = (
        "Segmentation: a network has to say which pixels belong to which digit. The first "
        f"{len(data.x)} test images, whatever they look like. Left column: input and, below it, "
        "the true digits. Other columns: the digits that a network predicts and, below them, its "
        "errors. The number is the pixel IU (intersection over union) of the image: of the pixels "
        "that are a digit in truth or prediction, the share that is right; 1 is perfect. "
        + seeds_note((network, answers.seed) for network, answers in predictions.items())
        + controls_of(predictions, prediction_paths)
    )
    with style.settings():
        figure, axes = grid(
            2 * len(data.x),
            1 + len(predictions),
            caption,
            left=0.24,
            right=0.24,
            legend=0.5,
            group=2,
        )
        for axis, name in zip(axes[0], ["", *map(network_name, predictions)], strict=True):
            axis.set_title(name, pad=4)
        for i, (upper, lower) in enumerate(axes.reshape(len(data.x), 2, -1)):
            truth = data.y[i] > 0
            draw_grey(upper[0], data.x[i, 0])
            lower[0].imshow(digit_colours(truth))
            _name_digits(lower[0], truth)
            for above, below, answers in zip(
                upper[1:], lower[1:], predictions.values(), strict=True
            ):
                predicted = answers.values[i] >= 0.5
                above.imshow(digit_colours(predicted))
                draw_framed(below, error_colours(predicted, truth))
                _score(below, predicted, truth)
            for axis, text, x in (
                (upper[0], "input", -0.12),
                (lower[0], "truth", -0.12),
                (upper[-1], "predicted", 1.12),
                (lower[-1], "errors", 1.12),
            ):
                axis.text(
                    x,
                    0.5,
                    text,
                    rotation=90,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    transform=axis.transAxes,
                )
        bottom = style.note_height(caption, figure.get_size_inches()[0])
        colour_legend(figure, "digit", enumerate(style.DIGITS), bottom + 0.33)
        colour_legend(figure, "errors", ERRORS.items(), bottom + 0.11)
        return style.save(figure, prefix, caption)


def _name_digits(axis: Axes, truth: np.ndarray) -> None:
    """Write each digit on its pixels, so that the colours need not be told apart."""
    for digit, pixels in enumerate(truth):
        places = np.argwhere(pixels)
        if len(places):
            y, x = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
            outline = [withStroke(linewidth=1.6, foreground="black")]
            axis.text(
                x,
                y,
                str(digit),
                color="white",
                fontsize=6.5,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=outline,
            )


def _score(axis: Axes, predicted: np.ndarray, truth: np.ndarray) -> None:
    union = (predicted | truth).sum()
    iu = (predicted & truth).sum() / union if union else 1
    shown = f"{iu if iu == 1 else min(iu, 0.99):.2f}"  # 1.00 is perfect
    axis.text(0.96, 0.96, shown, fontsize=6, ha="right", va="top", transform=axis.transAxes)
