"""What a training tells people in its log; nothing here decides its weights."""

from typing import Any

from mg.data.progress import Bar
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


def progress(run: Run) -> str:
    """The epoch so far; an epoch of photographs takes hours."""
    loss = float(run.take.loss_sum) / run.iteration
    return (
        f"epoch {run.epoch + 1:3d}/{run.recipe.epochs}"
        f"  iteration {run.iteration}/{run.recipe.iterations}  loss {loss:.4f}"
        f"  {_pace(run, run.iteration, run.seconds - run.epoch_began)}"
    )


def summary(row: dict[str, Any], run: Run) -> str:
    """The epoch that `row` of the history is about, just ended."""
    began = run.history[-2]["seconds"] if len(run.history) > 1 else 0.0
    valid = ""
    if row["valid_loss"] is not None:
        valid = f"  valid loss {row['valid_loss']:.4f}"
        column, name = run.objective.shown
        if row[column] is not None:
            valid += f"  {name} {row[column]:.4f}"
    return (
        f"epoch {row['epoch']:3d}/{run.recipe.epochs}  loss {row['train_loss']:.4f}{valid}"
        f"  {_pace(run, run.recipe.iterations, row['seconds'] - began)}"
    )


def _pace(run: Run, steps: int, seconds: float) -> str:
    """The speed of the newest `steps`, and how long the rest takes at it.

    At the mean speed so far, compiling in the first epoch would count for every one to come, and
    so would another machine's pace after a resumption.
    """
    done = run.epoch * run.recipe.iterations + run.iteration
    left = Bar.format_interval(seconds / steps * (run.recipe.steps - done))
    return f"{steps * run.recipe.batch / seconds:.0f} images/s  {left} left"
