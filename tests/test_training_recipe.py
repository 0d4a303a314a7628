"""The schedules and optimisers of the paper and of the short recipe."""

from dataclasses import replace

import pytest
import torch

from mg.errors import UserError
from mg.training.muon import Muon
from mg.training.recipe import Recipe

PAPER = Recipe(epochs=200, iterations=150, batch=64)


def rate_in_epoch(recipe: Recipe, epoch: int, residual: bool) -> float:
    return recipe.rate((epoch - 1) * recipe.iterations, residual)


@pytest.mark.parametrize("epoch", [1, 2, 100, 200])
def test_plain_networks_decay_exponentially(epoch):
    expected = 10 ** -(1 + 3 * (epoch - 1) / 199)
    assert rate_in_epoch(PAPER, epoch, residual=False) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "epoch, expected",
    [(1, 0.1), (59, 0.1), (60, 0.02), (119, 0.02), (120, 0.004), (160, 0.0008), (200, 0.0008)],
)
def test_residual_networks_decay_in_steps(epoch, expected):
    assert rate_in_epoch(PAPER, epoch, residual=True) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule, kind", [("exponential", False), ("steps", True)])
@pytest.mark.parametrize("residual", [True, False])
def test_every_network_can_have_the_schedule_of_either_kind(schedule, kind, residual):
    recipe = replace(PAPER, schedule=schedule)
    found = [rate_in_epoch(recipe, epoch, residual) for epoch in range(1, 201)]
    assert found == [rate_in_epoch(PAPER, epoch, kind) for epoch in range(1, 201)]


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_even_a_short_training_of_a_residual_network_begins_at_the_full_rate(epochs):
    assert rate_in_epoch(Recipe(epochs=epochs), 1, residual=True) == 0.1


def test_the_rate_is_constant_within_an_epoch_of_the_paper():
    rates = {PAPER.rate(step, residual=False) for step in range(150, 300)}
    assert len(rates) == 1


@pytest.mark.parametrize("epoch, expected", [(1, 0.1), (30, 0.1), (31, 0.01), (90, 1e-3)])
@pytest.mark.parametrize("residual", [True, False])
def test_imagenet_drops_to_a_tenth_every_30_epochs(epoch, expected, residual):
    recipe = Recipe(schedule="every_30", epochs=200, iterations=10_000)
    assert rate_in_epoch(recipe, epoch, residual) == pytest.approx(expected, rel=1e-12)


def test_one_cycle_rises_to_its_peak_and_falls_to_zero():
    recipe = Recipe(schedule="one_cycle", learning_rate=0.01, epochs=10, iterations=10)
    rates = [recipe.rate(step, residual=True) for step in range(recipe.steps)]
    peak = rates.index(max(rates))
    assert max(rates) == 0.01 and peak == 19  # after a fifth of 100 steps
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-5


def test_the_images_seen_are_counted():
    assert PAPER.images == 200 * 150 * 64


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"optimizer": "adam"}, "optimizer"),
        ({"schedule": "cosine"}, "schedule"),
        ({"precision": "half"}, "precision"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 2.5}, "batch"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "1e-3"}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"batch": 10, "accumulate": 3}, "accumulate"),
    ],
)
def test_impossible_settings_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        Recipe(**settings)


def test_there_may_be_no_decay_but_no_rate_of_nothing():
    assert Recipe(weight_decay=0).weight_decay == 0
    with pytest.raises(UserError, match="weight_decay is -1; it must be a number of 0 or more"):
        Recipe(weight_decay=-1)
    with pytest.raises(UserError, match="learning_rate is 0; it must be a number above 0"):
        Recipe(learning_rate=0)


@pytest.mark.parametrize(
    "name, kind", [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("muon", Muon)]
)
def test_every_optimiser_decays_as_the_recipe_says(name, kind):
    recipe = Recipe(optimizer=name, weight_decay=0.25)
    optimizer = recipe.build_optimizer(torch.nn.Linear(2, 1))
    assert type(optimizer) is kind
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25}
    assert recipe.forgets_momentum == (name == "sgd")


def test_a_name_without_its_work_is_not_taken_for_another(monkeypatch):
    """Whoever adds an optimiser or a schedule to the choices alone does not get one of ours."""
    more = {"optimizer": ("sgd", "new"), "schedule": ("paper", "new")}
    monkeypatch.setattr(Recipe, "CHOICES", Recipe.CHOICES | more)
    with pytest.raises(ValueError, match="'new'"):
        Recipe(optimizer="new").build_optimizer(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="'new'"):
        Recipe(schedule="new").rate(0, residual=False)


def test_sgd_is_the_papers():
    model = torch.nn.Linear(2, 1)
    (group,) = PAPER.build_optimizer(model).param_groups
    assert (group["momentum"], group["dampening"], group["nesterov"]) == (0.9, 0, False)
    assert group["weight_decay"] == 5e-4
    assert PAPER.forgets_momentum
