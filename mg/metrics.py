"""The paper's measures, accumulated batch by batch.

Classification: ``top1_error`` and ``top5_error``, the share of examples whose class is not ranked
first, or not among the first five (with fewer than six classes it is 0); ``cross_entropy``, mean
over examples, in nats, None when an output is not finite.

Segmentation and spatial transformation: a pixel of a channel is predicted where the sigmoid is at
least 0.5, that is where the logit is at least 0. TP, FP and FN count pixels.

* ``mean_iu``: per class over the whole set TP / (TP + FP + FN); mean over classes (published).
* ``mean_acc``: per class TP / (TP + FP); mean over classes. The authors publish it as "mean Acc";
  it is a precision.
* ``recall``: per class TP / (TP + FN); mean over classes.
* ``image_iu``: per image TP / (TP + FP + FN) with the counts of all channels pooled, divided by the
  number of classes present in its target; mean over images. The authors' test run prints it. With
  one channel it is the plain IoU per image; with several, perfect predictions score below 1.
* ``bce``: binary cross-entropy, mean over pixels and channels, in nats.

What is undefined: a class whose ratio has denominator zero (for ``iu`` neither present nor
predicted, for ``mean_acc`` never predicted, for ``recall`` never present) has the value None and is
left out of that mean. An image without any target or predicted pixel is left out of ``image_iu``;
one with predictions and an empty target counts 0. A measure with nothing left is None, and so is
``bce`` when an output is not finite, or so large that no file holds the mean.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mg.files import LARGEST
from mg.records import CLASS_MEASURES, MEASURES


class Metrics:
    """Running counts of one test set, kept on the device of the outputs, in integers.

    `update` starts no transfer between devices; only `compute` waits for the results.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None  # (3, C) int64: true positive, predicted, present
        self._sums: Tensor | None = None  # (2,) float64: cross-entropy, image IU
        self._images: Tensor | None = None  # () int64: images with a defined image IU
        self._elements = 0

    @torch.no_grad()
    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: `logits` (B, C, H, W) of any float type, `targets` of that shape, 0 or 1.

        Of probabilities give `torch.logit(probabilities)`: what is above one half is above 0 then.

        Raises:
            ValueError: the shapes differ, or the number of channels is not that of earlier batches.
        """
        if logits.ndim != 4 or logits.shape != targets.shape:
            raise ValueError(
                "logits and targets must have one shape (B, C, H, W), "
                f"not {tuple(logits.shape)} and {tuple(targets.shape)}"
            )
        truth = targets.to(logits.device).bool()
        predicted = logits >= 0
        hits = (predicted & truth).sum((2, 3))  # (B, C), int64 as are the next two
        positive = predicted.sum((2, 3))
        present = truth.sum((2, 3))

        hit = hits.sum(1)
        union = positive.sum(1) + present.sum(1) - hit
        classes = (present > 0).sum(1)
        image_iu = hit.double() / (union * classes).clamp(min=1)
        entropy = binary_cross_entropy_with_logits(logits.float(), truth.float(), reduction="none")

        counts = torch.stack([hits.sum(0), positive.sum(0), present.sum(0)])
        sums = torch.stack([entropy.sum(dtype=torch.float64), image_iu.sum()])
        images = (union > 0).sum()
        if self._counts is None:
            self._counts, self._sums, self._images = counts, sums, images
        elif self._counts.shape != counts.shape:
            raise ValueError(
                f"this batch has {counts.shape[1]} channels, earlier ones {self._counts.shape[1]}"
            )
        else:
            self._counts += counts
            self._sums += sums
            self._images += images
        self._elements += logits.numel()

    def compute(self) -> dict[str, float | None | list[float | None]]:
        """The measures so far: `MEASURES`, and per_class_iu, per_class_acc, per_class_recall."""
        if self._counts is None or self._elements == 0:
            empty: dict = dict.fromkeys(MEASURES)
            return empty | {"per_class_iu": [], "per_class_acc": [], "per_class_recall": []}
        hits, positive, present = self._counts.tolist()
        entropy, image_iu = self._sums.tolist()
        images = int(self._images)
        union = [p + t - h for h, p, t in zip(hits, positive, present, strict=True)]
        iu, accuracy, recall = (_ratios(hits, n) for n in (union, positive, present))
        bce = entropy / self._elements
        return {
            "mean_iu": _mean(iu),
            "mean_acc": _mean(accuracy),
            "recall": _mean(recall),
            "image_iu": image_iu / images if images else None,
            "bce": _known(bce),
            "per_class_iu": iu,
            "per_class_acc": accuracy,
            "per_class_recall": recall,
        }


def constant_answer(targets: np.ndarray) -> dict[str, float | None]:
    """The measures of the best answer to `targets` (N, C, H, W) that ignores its input.

    For each class it is the pixels that most targets have, as many as give the highest mean IU;
    its `bce` is that of the mean target, the lowest. What a network has to beat before it can be
    said to have looked at the input.
    """
    frequency = targets.mean(axis=0, dtype=np.float64)
    answer = torch.as_tensor(np.stack([_often_enough(part) for part in frequency]))
    metrics = Metrics()
    for start in range(0, len(targets), 256):
        batch = torch.as_tensor(targets[start : start + 256])
        metrics.update(torch.where(answer, 1.0, -1.0).expand(batch.shape), batch)
    result = metrics.compute()
    entropy = torch.special.entr(torch.as_tensor(np.stack([frequency, 1 - frequency]))).sum(0)
    return {name: result[name] for name in MEASURES} | {"bce": float(entropy.mean())}


def _often_enough(frequency: np.ndarray) -> np.ndarray:
    """The pixels (H, W) of the answer with the highest IU; none of a class that never occurs."""
    order = np.argsort(-frequency, axis=None, kind="stable")
    hits = frequency.ravel()[order].cumsum()  # per target, of the first 1, 2, … pixels
    iu = hits / (np.arange(1, hits.size + 1) + hits[-1] - hits)
    chosen = np.zeros(frequency.size, bool)
    chosen[order[: iu.argmax() + 1]] = hits[-1] > 0
    return chosen.reshape(frequency.shape)


class ClassMetrics:
    """Running counts of one classified test set, kept on the device of the outputs.

    `update` starts no transfer between devices; only `compute` waits for the results.
    """

    def __init__(self) -> None:
        self._hits: Tensor | None = None  # (2,) int64: class ranked first, among the first five
        self._entropy: Tensor | None = None  # () float64
        self._examples = 0

    @torch.no_grad()
    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: `logits` (B, classes) of any float type, `targets` (B,) int64.

        Raises:
            ValueError: the shapes do not belong together.
        """
        if logits.ndim != 2 or targets.shape != logits.shape[:1]:
            raise ValueError(
                "logits must have shape (B, classes) and targets (B,), "
                f"not {tuple(logits.shape)} and {tuple(targets.shape)}"
            )
        targets = targets.to(logits.device)
        own = logits.gather(1, targets[:, None])
        # Of equal logits the earlier class ranks first; what is not finite counts as wrong.
        earlier = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]
        rank = (~(logits < own) & ((logits != own) | earlier)).sum(1)
        rank = rank.where(own[:, 0].isfinite(), 5)
        hits = torch.stack([(rank < 1).sum(), (rank < 5).sum()])
        entropy = cross_entropy(logits.double(), targets, reduction="sum")
        if self._hits is None:
            self._hits, self._entropy = hits, entropy
        else:
            self._hits += hits
            self._entropy += entropy
        self._examples += len(logits)

    def compute(self) -> dict[str, float | None]:
        """`CLASS_MEASURES` so far; None without examples."""
        if self._examples == 0:
            return dict.fromkeys(CLASS_MEASURES)
        first, five = self._hits.tolist()
        entropy = float(self._entropy) / self._examples
        return {
            "top1_error": (self._examples - first) / self._examples,
            "top5_error": (self._examples - five) / self._examples,
            "cross_entropy": _known(entropy),
        }


def _known(entropy: float) -> float | None:
    return entropy if entropy <= LARGEST else None  # not a number: None, too


def _ratios(numerators: list[int], denominators: list[int]) -> list[float | None]:
    return [n / d if d else None for n, d in zip(numerators, denominators, strict=True)]


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
