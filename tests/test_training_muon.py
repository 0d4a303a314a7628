"""The optimiser for short trainings."""

import copy

import pytest
import torch

from mg.training.muon import Muon, orthogonal

RATE, DECAY = 0.1, 0.01


def stepped(optimizer, parameters, gradients):
    """The parameters after a step with each of several sets of gradients."""
    for each in gradients:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def drawn(*shapes, times=1):
    random = torch.Generator().manual_seed(0)
    found = [[torch.randn(shape, generator=random) for shape in shapes] for _ in range(times)]
    return found[0] if times == 1 else found


@pytest.mark.parametrize("shape", [(3, 16, 216), (2, 64, 9), (1, 1, 9)])
def test_only_the_directions_of_a_matrix_are_left(shape):
    (matrices,) = drawn(shape)
    u, sizes, v = torch.linalg.svd(matrices, full_matrices=False)
    scaled = u @ torch.diag_embed(sizes**2) @ v  # the same directions, further apart
    for given in (matrices, scaled):
        found = u.mT @ orthogonal(given) @ v.mT  # diagonal in these directions
        values = found.diagonal(dim1=1, dim2=2)
        assert torch.allclose(found, torch.diag_embed(values), atol=1e-4)
        assert 0.6 < values.min() and values.max() < 1.25


@pytest.mark.parametrize("decades", [0, 2, 6, 12])
@pytest.mark.parametrize("shape", [(64, 576), (512, 2304), (48, 48), (96, 10)])
def test_small_directions_do_not_disturb_the_large_ones(shape, decades):
    random = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=random).double(), full_matrices=False)
    sizes = 10 ** -torch.linspace(0, decades, min(shape), dtype=torch.float64)
    x = expected = u * sizes @ v
    expected = expected / expected.norm()
    for _ in range(5):  # the iteration as its source gives it
        square = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * square + 2.0315 * square @ square) @ expected
    found = orthogonal(x.float()[None])[0]
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("shape", [(16, 24, 3, 3), (64, 1, 3, 3), (12, 40)])
def test_a_kernel_moves_by_its_directions_as_far_as_by_adamw(shape):
    start, gradient = drawn(shape, shape)
    parameter = torch.nn.Parameter(start.clone())
    (after,) = stepped(Muon([parameter], RATE, DECAY), [parameter], [[gradient]])
    update = (start * (1 - RATE * DECAY) - after) / RATE
    assert 0.15 < update.square().mean().sqrt() < 0.25
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    nearest = (u @ v).reshape(shape)
    assert torch.nn.functional.cosine_similarity(update.flatten(), nearest.flatten(), 0) > 0.97


def test_the_momentum_of_a_kernel_is_nesterovs():
    one, two = drawn((4, 6), (4, 6))
    parameter = torch.nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([parameter], RATE, 0)
    (first,) = stepped(optimizer, [parameter], [[one]])
    (second,) = stepped(optimizer, [parameter], [[two]])
    momentum = 0.95 * (0.05 * one) + 0.05 * two
    ahead = 0.95 * momentum + 0.05 * two
    expected = first - RATE * 0.2 * 6**0.5 * orthogonal(ahead[None])[0]
    assert torch.allclose(second, expected, atol=1e-6)


def test_kernels_of_one_shape_do_not_disturb_each_other():
    shapes = ((4, 3, 3, 3), (4, 27), (4, 3, 3, 3), (5, 3, 3, 3))
    gradients = drawn(*shapes, times=4)
    together = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    found = stepped(Muon(together, RATE, DECAY), together, gradients)
    for i, shape in enumerate(shapes):
        alone = [torch.nn.Parameter(torch.ones(shape))]
        (expected,) = stepped(Muon(alone, RATE, DECAY), alone, [[each[i]] for each in gradients])
        assert torch.allclose(found[i], expected, atol=1e-5)


def test_vectors_are_left_to_adamw():
    gradients = drawn((5,), (4, 3, 3, 3), (), times=3)
    parameters = [torch.nn.Parameter(torch.ones_like(g)) for g in gradients[0]]
    found = stepped(Muon(parameters, RATE, DECAY), parameters, gradients)
    others = [torch.nn.Parameter(torch.ones_like(g)) for g in gradients[0]]
    adamw = torch.optim.AdamW(others, RATE, weight_decay=DECAY, fused=True)
    expected = stepped(adamw, others, gradients)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[2], expected[2])
    assert not torch.allclose(found[1], expected[1], atol=1e-2)


@pytest.mark.parametrize("shapes", [((4, 3, 3, 3), (5,)), ((4, 3, 3, 3),), ((5,),)])
def test_a_kept_state_goes_on_bit_for_bit(shapes):
    gradients = drawn(*shapes, times=5)
    parameters = [torch.nn.Parameter(torch.ones_like(g)) for g in gradients[0]]
    optimizer = Muon(parameters, RATE, DECAY)
    middle = stepped(optimizer, parameters, gradients[:2])
    state = copy.deepcopy(optimizer.state_dict())
    whole = stepped(optimizer, parameters, gradients[2:])
    again = [torch.nn.Parameter(value) for value in middle]
    other = Muon(again, 1.0, 0.0)
    other.load_state_dict(state)
    assert [group["lr"] for group in other.param_groups] == [RATE, RATE]
    resumed = stepped(other, again, gradients[2:])
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_what_has_no_gradient_stays_as_it_is():
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2, 2), (2,), (2,))]
    for moved in parameters[::2]:
        moved.grad = torch.ones_like(moved)
    Muon(parameters, RATE, DECAY).step()
    assert all(torch.equal(p, torch.ones_like(p)) for p in parameters[1::2])
    assert all((p != 1).all() for p in parameters[::2])
