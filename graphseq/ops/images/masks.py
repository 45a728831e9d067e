"""Masks from logits, their intersection over union, and the threshold that serves it best."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["best_threshold", "decided_mask", "mask_iou"]

Decision = Literal["or", "and", "real"]


def decided_mask(logits: Tensor, decision: Decision = "or") -> Tensor:
    r"""Return the mask that logits stand for: where the sigmoid is above one half.

    Args:
        logits: logits; complex ones have two parts with a sigmoid each.
        decision: for complex logits ``or`` (either part is above one half), ``and`` (both are) or ``real`` (the real
            part is). Real logits have one decision.

    Shape:
        logits (*) real or complex -> (*) bool

    Raises:
        ValueError: if ``decision`` is another word.

    Example:
        >>> decided_mask(torch.tensor([1 - 1j, -1 + 1j, 1 + 1j]), "and").tolist()
        [False, False, True]
    """
    if decision not in get_args(Decision):
        raise ValueError(f"decision is {decision!r}; it must be 'or', 'and' or 'real'")
    if not logits.is_complex():
        return logits > 0
    real, imaginary = logits.real > 0, logits.imag > 0
    return real | imaginary if decision == "or" else real & imaginary if decision == "and" else real


def mask_iou(predicted: Tensor, true: Tensor) -> Tensor:
    r"""Return the intersection over union of two masks of each sample.

    .. math:: \mathrm{IoU} = \frac{|P \cap M|}{|P \cup M|}, \qquad \mathrm{IoU} = 1 \text{ if both are empty}

    Args:
        predicted: predicted mask, bool.
        true: true mask, bool.

    Shape:
        predicted (B, N), true (B, N) -> (B,)

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> mask_iou(torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]]))
        tensor([0.5000])
    """
    if predicted.shape != true.shape or true.dim() != 2:
        raise ValueError(f"masks are {tuple(predicted.shape)} and {tuple(true.shape)}; both must be (B, N)")
    both, either = (predicted & true).sum(1), (predicted | true).sum(1)
    return torch.where(either == 0, 1.0, both / either.clamp(min=1))


def best_threshold(scores: Tensor, true: Tensor, thresholds: Sequence[float]) -> tuple[float, float]:
    """Return the threshold over which scores give the mask of the largest mean intersection over union, and that mean.

    Args:
        scores: score of each entry, real (B, N).
        true: true mask, bool (B, N).
        thresholds: thresholds to try, at least one; of equally good ones the first is taken.

    Raises:
        ValueError: if the shapes differ, or there is no threshold.
        DataError: if there is no sample.

    Example:
        >>> best_threshold(torch.tensor([[0.1, 2.0, 5.0]]), torch.tensor([[False, False, True]]), [0.0, 1.0, 3.0])
        (3.0, 1.0)
    """
    if not len(thresholds):
        raise ValueError("thresholds is empty; give at least one number")
    if not len(true):
        raise DataError("there is no sample to choose a threshold by; give scores with known masks")
    means = [float(mask_iou(scores > threshold, true).mean()) for threshold in thresholds]
    best = max(range(len(means)), key=means.__getitem__)
    return float(thresholds[best]), means[best]
