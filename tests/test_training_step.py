"""Steps in every execution lead to the same weights."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from marks import needs_cuda, needs_cxx
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor

from mg.errors import UserError
from mg.networks import build
from mg.networks.execution import accelerate
from mg.training.objective import CLASSES, PIXELS
from mg.training.recipe import Recipe
from mg.training.step import (
    COMPILED_FROM,
    COMPILERS,
    build_step,
    choose_execution,
    prepare_compiler,
)
from mg.training.team import ALONE, Team

RECIPES = [
    Recipe(optimizer="sgd", learning_rate=0.125, batch=8),
    Recipe(optimizer="sgd", learning_rate=0.125, batch=8, accumulate=2),
    Recipe(optimizer="adamw", learning_rate=2**-6, batch=8),
    Recipe(optimizer="muon", learning_rate=2**-6, batch=8),
]
STEPS = 8


def batches(recipe, device="cpu"):
    """For every step the parts of its batch, and its rate, which float32 holds exactly."""
    random = torch.Generator().manual_seed(1)
    size = recipe.batch // recipe.accumulate
    for i in range(STEPS):
        parts = [
            (
                torch.randn(size, 1, 16, 16, generator=random).to(device),
                (torch.rand(size, 1, 16, 16, generator=random) < 0.3).to(torch.uint8).to(device),
            )
            for _ in range(recipe.accumulate)
        ]
        yield parts, recipe.learning_rate * 2**-i


def trained(
    recipe,
    execution="eager",
    device="cpu",
    activations=torch.float32,
    *,
    network="pmg",
    loss=PIXELS.loss,
    take=lambda step, parts, rate: step(parts, rate),
    **options,
):
    """State dict, sum of losses, execution and logged lines after `STEPS` steps."""
    torch.manual_seed(0)
    model = build(network, "translation", **options or {"width": [4, 4]})
    accelerate(model).to(device, memory_format=torch.channels_last).train()
    lines = []
    optimizer = recipe.build_optimizer(model)
    step = build_step(
        execution, ALONE, lines.append, model, loss, optimizer, activations, recipe.accumulate
    )
    for parts, rate in batches(recipe, device):
        take(step, parts, rate)
    return model.state_dict(), float(step.loss_sum), step.execution, lines


@pytest.mark.parametrize("recipe", RECIPES)
def test_steps_from_buffers_in_place_are_the_same_bit_for_bit(recipe):
    """What a recorded step relies on: batch and rate may come from memory that is refilled."""
    kept = {}

    def refill(step, parts, rate):
        if not kept:
            kept.update(parts=copy.deepcopy(parts), rate=torch.tensor(0.0))
        for buffers, part in zip(kept["parts"], parts, strict=True):
            for buffer, value in zip(buffers, part, strict=True):
                buffer.copy_(value)
        kept["rate"].fill_(rate)
        step(kept["parts"], kept["rate"])

    plain, plain_loss, *_ = trained(recipe)
    again, loss, *_ = trained(recipe, take=refill)
    assert loss == plain_loss
    for name, value in plain.items():
        assert torch.equal(again[name], value), name


@needs_cxx
@pytest.mark.parametrize(
    "small",
    [
        {"network": "sg", "width": 4, "grids": 2, "blocks": 0},  # a sequence of units
        {"network": "unet", "width": [2, 4]},  # a module of its own
    ],
    ids=lambda small: small["network"],
)
@dynamo.patch(recompile_limit=1)  # PyTorch would compile the first alone
def test_a_compiled_step_gives_the_same_weights(small):
    recipe = Recipe(optimizer="sgd", learning_rate=0.125, batch=8)
    plain, plain_loss, *_ = trained(recipe, **small)
    compiled, loss, execution, lines = trained(recipe, "compiled", **small)
    assert execution == "compiled" and not lines
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for name, value in plain.items():
        assert torch.allclose(compiled[name], value, rtol=1e-4, atol=1e-5), name


def test_where_nothing_can_be_compiled_training_goes_on_unchanged(monkeypatch):
    monkeypatch.setattr(inductor.cpp, "cxx", ("/bin/false",))
    torch.compiler.reset()
    with torch._inductor.utils.fresh_inductor_cache():
        found, loss, execution, lines = trained(RECIPES[1], "compiled")
    plain, plain_loss, *_ = trained(RECIPES[1])
    assert execution == "eager" and len(lines) == 1 and "not compiled" in lines[0]
    assert loss == plain_loss
    assert all(torch.equal(found[name], value) for name, value in plain.items())


@pytest.mark.parametrize("message", ["the mask has the wrong length", "Expected more than 1 value"])
def test_an_error_of_an_own_network_is_not_called_another(message):
    class Own(torch.nn.Conv2d):
        def forward(self, x):
            raise ValueError(message)

    model = Own(1, 1, 1)
    step = build_step(
        "eager", ALONE, print, model, PIXELS.loss, RECIPES[0].build_optimizer(model), torch.float32
    )
    with pytest.raises(ValueError, match=message):
        step.forward(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("objective", [PIXELS, CLASSES])
def test_losses_are_computed_of_float32_logits(objective):
    """Of activations in bfloat16 too, in whose eight bits a loss could hardly fall any further."""
    found = []

    def loss(logits, targets):
        found.append(logits.dtype)
        return objective.loss(logits, targets)

    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten())
    optimizer = RECIPES[0].build_optimizer(model)
    step = build_step("eager", ALONE, print, model, loss, optimizer, torch.bfloat16)
    x = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 4 if objective is CLASSES else torch.ones(8, 4, dtype=torch.uint8)
    assert step.forward(x).dtype == torch.bfloat16
    step([(x, y)], 0.125)
    assert found == [torch.float32]


def test_few_processes_compile_unless_the_user_says_otherwise(monkeypatch):
    for said, expected in ((None, COMPILERS), ("32", 32)):
        monkeypatch.setattr(inductor, "compile_threads", 32)
        monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
        if said:
            monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", said)
        prepare_compiler()
        assert inductor.compile_threads == expected


def test_an_execution_that_is_not_there_is_refused():
    for execution, message in (("graph", "needs a CUDA device"), ("quick", "choose auto or eager")):
        with pytest.raises(UserError, match=message):
            trained(RECIPES[0], execution)


def test_auto_compiles_long_trainings_on_a_card_and_records_short_ones():
    card, long = torch.device("cuda"), COMPILED_FROM
    assert choose_execution(torch.device("cpu"), ALONE, True, long) == "eager"
    assert choose_execution(card, ALONE, True, long - 1) == "graph"
    assert choose_execution(card, ALONE, True, long) == "compiled"
    assert choose_execution(card, ALONE, False, long) == "eager"
    assert choose_execution(card, Team(0, 2), True, long) == "eager"


@needs_cuda
@pytest.mark.parametrize("activations", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["graph", "compiled"])
def test_a_recorded_step_gives_the_same_weights(kind, recipe, activations):
    """Up to rounding: sums on a GPU come in any order.

    AdamW scales a gradient that is little more than rounding up to a whole step, as Muon does a
    direction; there, only the losses are compared.
    """
    eager, eager_loss, *_ = trained(recipe, "eager", "cuda", activations)
    graph, loss, execution, lines = trained(recipe, kind, "cuda", activations)
    assert execution == kind and not lines
    tolerance = 1e-3 if activations == torch.float32 else 2e-2
    assert loss == pytest.approx(eager_loss, rel=tolerance)
    if recipe.optimizer == "sgd":
        for name, value in eager.items():
            assert torch.allclose(graph[name], value, rtol=tolerance, atol=tolerance), name


def a_step_that_cannot_be_recorded():
    def waits(logits, targets):
        return PIXELS.loss(logits, targets) * (1 if float(logits.sum()) < 1e30 else 0)

    eager, eager_loss, *_ = trained(RECIPES[0], "eager", "cuda")
    found, loss, execution, lines = trained(RECIPES[0], "graph", "cuda", loss=waits)
    assert execution == "eager" and len(lines) == 1 and "cannot be recorded" in lines[0]
    assert loss == pytest.approx(eager_loss, rel=1e-3)
    for name, value in eager.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-3), name


@needs_cuda
def test_a_step_that_cannot_be_recorded_is_taken_unrecorded():
    """In a process of its own: what a failed recording leaves behind is no other test's matter."""
    name = a_step_that_cannot_be_recorded.__name__
    subprocess.run(
        [sys.executable, "-c", f"import {__name__}; {__name__}.{name}()"],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
