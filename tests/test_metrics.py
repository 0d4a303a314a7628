"""The measures against values computed by the authors' own code, and where they are undefined."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_cuda

from mg.metrics import MEASURES, ClassMetrics, Metrics, constant_answer

# Thresholded predictions and targets of 50 images per task, with what the authors' test run
# ("mnistIU") and notebook ("nb") print for them.
VECTORS = Path(__file__).parent / "data" / "metrics.npz"


def measure(predicted, target, batch=7):
    logits = torch.as_tensor(predicted).float() * 2 - 1
    metrics = Metrics()
    for i in range(0, len(logits), batch):
        metrics.update(logits[i : i + batch], torch.as_tensor(target[i : i + batch]))
    return metrics.compute()


@pytest.mark.parametrize("task", ["segmentation", "spatial_transform"])
def test_agrees_with_the_original(task):
    vectors = np.load(VECTORS)
    predicted, target = vectors[f"{task}_pred_ge_half"], vectors[f"{task}_target"]
    result = measure(predicted, target)
    assert result["mean_iu"] == pytest.approx(float(vectors[f"{task}_lua_nb_meanIU"]), abs=1e-9)
    assert result["mean_acc"] == pytest.approx(float(vectors[f"{task}_lua_nb_meanAcc"]), abs=1e-9)
    assert result["image_iu"] == pytest.approx(float(vectors[f"{task}_lua_mnistIU"]), abs=1e-9)
    perfect = measure(target, target)
    assert perfect["mean_iu"] == perfect["mean_acc"] == perfect["recall"] == 1
    assert perfect["image_iu"] == pytest.approx(
        float(vectors[f"{task}_lua_perfect_mnistIU"]), abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    channels=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    batch=st.integers(1, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_counts_like_a_plain_loop_whatever_the_batches(n, channels, density, batch, seed):
    rng = np.random.default_rng(seed)
    predicted = rng.random((n, channels, 5, 6)) < density
    target = rng.random((n, channels, 5, 6)) < 0.1
    result = measure(predicted, target, batch)

    ious, precisions = [], []
    for c in range(channels):
        tp = int(np.sum(predicted[:, c] & target[:, c]))
        union = int(np.sum(predicted[:, c] | target[:, c]))
        ious.append(tp / union if union else None)
        precisions.append(tp / predicted[:, c].sum() if predicted[:, c].any() else None)
    assert result["per_class_iu"] == ious
    assert result["per_class_acc"] == precisions
    images = []
    for p, t in zip(predicted, target, strict=True):
        if (p | t).any():
            iou = (p & t).sum() / (p | t).sum()
            images.append(iou / max(1, t.any((1, 2)).sum()))
    if images:
        assert result["image_iu"] == pytest.approx(np.mean(images), rel=1e-12)
    else:
        assert result["image_iu"] is None


def test_undefined_ratios_are_left_out():
    target = torch.zeros(2, 3, 4, 4)
    logits = torch.full((2, 3, 4, 4), -1.0)
    target[0, 0, 0, :2] = 1  # class 0: present, half found
    logits[0, 0, 0, 1:3] = 1
    target[1, 1, 0, 0] = 1  # class 1: present, never predicted; class 2: neither
    metrics = Metrics()
    metrics.update(logits, target)
    result = metrics.compute()
    assert result["per_class_iu"] == [pytest.approx(1 / 3), 0.0, None]
    assert result["per_class_acc"] == [0.5, None, None]
    assert result["per_class_recall"] == [0.5, 0.0, None]
    assert result["mean_iu"] == pytest.approx(1 / 6)
    assert result["mean_acc"] == 0.5
    assert result["recall"] == 0.25
    assert result["image_iu"] == pytest.approx((1 / 3 + 0) / 2)


def test_nothing_present_or_predicted_is_none():
    metrics = Metrics()
    metrics.update(torch.full((2, 3, 4, 4), -1.0), torch.zeros(2, 3, 4, 4))
    result = metrics.compute()
    assert all(result[name] is None for name in ("mean_iu", "mean_acc", "recall", "image_iu"))
    assert result["bce"] == pytest.approx(math.log1p(math.exp(-1)))
    assert all(Metrics().compute()[name] is None for name in MEASURES)


def test_predictions_on_an_empty_target_count_zero():
    metrics = Metrics()
    metrics.update(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    assert metrics.compute()["image_iu"] == 0


def test_threshold_is_inclusive_and_half_precision_is_exact():
    logits = torch.tensor([0.0, -0.0, -1e-4, 1e-4], dtype=torch.bfloat16).reshape(1, 1, 2, 2)
    metrics = Metrics()
    metrics.update(logits, torch.tensor([1, 1, 0, 1], dtype=torch.uint8).reshape(1, 1, 2, 2))
    assert metrics.compute()["mean_iu"] == 1


def test_cross_entropy_of_outputs_that_are_not_finite_is_none():
    metrics = Metrics()
    metrics.update(torch.full((1, 1, 2, 2), math.nan), torch.ones(1, 1, 2, 2))
    result = metrics.compute()
    assert result["bce"] is None
    assert result["mean_iu"] == 0


def test_shapes_must_agree():
    metrics = Metrics()
    with pytest.raises(ValueError, match="one shape"):
        metrics.update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    metrics.update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="channels"):
        metrics.update(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))


def test_constant_answer_is_what_most_targets_have():
    target = np.zeros((300, 1, 2, 2), np.uint8)
    target[:200, 0, 0, 0] = 1  # two thirds of the images
    target[:75, 0, 0, 1] = 1  # a quarter: with this pixel too it would be 275 / 600
    result = constant_answer(target)
    entropies = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (2 / 3, 1 / 4)]
    assert result["bce"] == pytest.approx(sum(entropies) / 4)  # the other pixels cost nothing
    assert result["mean_iu"] == pytest.approx(200 / (300 + 75))
    assert result["image_iu"] == pytest.approx((75 * 0.5 + 125 * 1 + 100 * 0) / 300)


def test_no_answer_that_ignores_its_input_has_a_higher_mean_iu():
    random = np.random.default_rng(0)
    target = (random.random((9, 3, 2, 3)) < random.random((3, 2, 3)) ** 2).astype(np.uint8)
    target[:, 2] = 0  # a class that never occurs
    best = constant_answer(target)
    scores = []
    for number in range(2**6):
        marked = np.array([number >> i & 1 for i in range(6)], bool).reshape(2, 3)
        metrics = Metrics()
        logits = torch.tensor(np.where(marked, 1.0, -1.0)).expand(target.shape)
        metrics.update(logits, torch.tensor(target))
        scores.append(metrics.compute()["per_class_iu"])
    for_each_class = [max(column) for column in list(zip(*scores, strict=True))[:2]]
    assert best["mean_iu"] == pytest.approx(sum(for_each_class) / 2)


@needs_cuda
def test_update_never_waits_for_the_device():
    logits = torch.randn(4, 10, 32, 32, device="cuda")
    target = (torch.rand(4, 10, 32, 32, device="cuda") < 0.1).to(torch.uint8)
    metrics = Metrics()
    previous = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metrics.update(logits, target)
        metrics.update(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode(previous)
    on_host = Metrics()
    on_host.update(logits.cpu(), target.cpu())
    assert metrics.compute()["per_class_iu"] == on_host.compute()["per_class_iu"]


def test_errors_of_classes_are_counted_by_rank():
    """Against sorting, example by example."""
    random = np.random.default_rng(4)
    logits = random.normal(size=(200, 12)).round(1)  # with ties
    targets = random.integers(0, 12, 200)
    metrics = ClassMetrics()
    for part in (slice(0, 90), slice(90, 200)):
        metrics.update(torch.tensor(logits[part]), torch.tensor(targets[part]))
    ranks = np.argsort(-logits, axis=1, kind="stable")
    found = metrics.compute()
    assert found["top1_error"] == pytest.approx(np.mean(ranks[:, 0] != targets))
    five = [target not in row[:5] for target, row in zip(targets, ranks, strict=True)]
    assert found["top5_error"] == pytest.approx(np.mean(five))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(shares[np.arange(200), targets]).mean()
    assert found["cross_entropy"] == pytest.approx(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_no_finite_number_is_wrong(value):
    metrics = ClassMetrics()
    metrics.update(torch.tensor([[value, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert metrics.compute() == {"top1_error": 0.5, "top5_error": 0.5, "cross_entropy": None}
    assert set(ClassMetrics().compute().values()) == {None}
