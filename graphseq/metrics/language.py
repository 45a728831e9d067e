"""Metrics of language models."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

__all__ = ["BitsPerCharacter", "bits_per_character"]


def bits_per_character(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    r"""Return the mean cross-entropy of the next character in bits.

    .. math:: -\frac{1}{|M|} \sum_{m \in M} \log_2 \operatorname{softmax}(f_m)_{y_m}

    Args:
        logits: unnormalised log-probabilities of the K characters.
        target: numbers of the characters.
        ignore_index: target at positions that do not count.

    Shape:
        logits (..., K), target int64 (...) -> ()

    Example:
        >>> bits_per_character(torch.zeros(1, 3, 4), torch.tensor([[0, 3, -100]]))
        tensor(2.)
    """
    total, count = _nats(logits, target, ignore_index)
    return (total / count / math.log(2)).float()


def _nats(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    if logits.shape[:-1] != target.shape:
        raise ValueError(f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; give one row a target")
    each = functional.cross_entropy(
        logits.reshape(-1, logits.size(-1)), target.reshape(-1), ignore_index=ignore_index, reduction="none"
    )
    return each.sum(dtype=torch.float64), (target != ignore_index).sum()


class BitsPerCharacter(Metric):
    """Mean cross-entropy of the next character in bits; reduction over processes: sum of losses over sum of counts.

    The functional twin is :func:`bits_per_character`.

    Args:
        ignore_index: target at positions that do not count.
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = BitsPerCharacter()
        >>> metric.update(torch.zeros(1, 3, 4), torch.tensor([[0, 3, -100]]))
        >>> metric.compute()
        tensor(2.)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, ignore_index: int = -100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: logits (..., K).
            target: numbers of the characters, int64 (...).
        """
        total, count = _nats(preds, target, self.ignore_index)
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """Return the mean; NaN without a position that counts."""
        return (self.total / self.count / math.log(2)).float()
