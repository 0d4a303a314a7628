"""What a training tells people in its log; nothing here decides its weights."""

from typing import Any

from mg.progress import Bar
from mg.training.run import Run

EXECUTED = {
    "eager": "",
    "graph": ", steps recorded",
    "compiled": ", steps compiled at the first, which takes a minute or more",
}


def beginning(run: Run, title: str) -> str:
    """What is going to be done, and where."""
    recipe, here = run.recipe, run.attempts()[-1]
    return (
        f"{title}: {recipe.epochs} epochs of {recipe.iterations} iterations, "
        f"batch {recipe.batch}, on {here['device']}, {here['activations']}"
        f"{EXECUTED[here['execution']]}"
    )


def progress(run: Run, began: tuple[int, float]) -> str:
    """The epoch so far; an epoch of photographs takes hours.

    Args:
        began: iteration and seconds at which this attempt began with the epoch.
    """
    loss = float(run.take.loss_sum) / run.iteration
    return (
        f"epoch {run.epoch + 1:3d}/{run.recipe.epochs}"
        f"  iteration {run.iteration}/{run.recipe.iterations}  loss {loss:.4f}"
        f"  {_pace(run, run.iteration, run.seconds, began)}"
    )


def summary(row: dict[str, Any], run: Run, began: tuple[int, float]) -> str:
    """The epoch that `row` of the history is about, just ended; `began` as for `progress`."""
    valid = ""
    if row["valid_loss"] is not None:
        valid = f"  valid loss {row['valid_loss']:.4f}"
        column, name = run.objective.shown
        if row[column] is not None:
            valid += f"  {name} {row[column]:.4f}"
    return (
        f"epoch {row['epoch']:3d}/{run.recipe.epochs}  loss {row['train_loss']:.4f}{valid}"
        f"  {_pace(run, run.recipe.iterations, run.seconds, began)}"
    )


def _pace(run: Run, iteration: int, seconds: float, began: tuple[int, float]) -> str:
    """The speed since `began`, in the epoch that `iteration` is of, and how long the rest takes.

    At the mean speed of the training, compiling in the first epoch would count for every one to
    come, and so would the pace of an earlier attempt, on another machine or beside other work.
    """
    steps, spent = iteration - began[0], seconds - began[1]
    if not steps:  # an earlier attempt had done them all
        return "steps of an earlier attempt"
    done = run.epoch * run.recipe.iterations + run.iteration
    left = Bar.format_interval(spent / steps * (run.recipe.steps - done))
    return f"{steps * run.recipe.batch / spent:.0f} images/s  {left} left"
