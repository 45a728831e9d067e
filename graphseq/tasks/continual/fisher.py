"""Diagonal of the empirical Fisher information of the weights of a network."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from graphseq.core.continual import TaskBatch

__all__: list[str] = []


def diagonal_fisher(
    logits: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    weights: Mapping[str, Tensor],
    batches: Iterable[TaskBatch],
) -> dict[str, Tensor]:
    r"""Return the mean square of the gradient of the log-likelihood of each sample, for each weight.

    .. math:: F_p = \frac{1}{N} \sum_n (\partial \log p(y_n \mid x_n; \theta) / \partial \theta_p)^2

    Source: arXiv 1612.00796, with the labels of the samples; the paper leaves open which labels are meant.

    Args:
        logits: function from weights and inputs (1, *) to logits (1, K).
        weights: weights by name.
        batches: batches of labelled samples, with at least one sample.

    Example:
        >>> batch = TaskBatch(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]), 0)
        >>> diagonal_fisher(lambda w, x: x @ w["w"], {"w": torch.zeros(1, 2)}, [batch])["w"]
        tensor([[0.6250, 0.6250]])
    """

    def loss(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits(own, x[None]), y[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    given = {name: weight.detach() for name, weight in weights.items()}
    sums = {name: torch.zeros_like(weight) for name, weight in given.items()}
    count = 0
    for batch in batches:
        for name, gradient in gradients(given, batch.x, batch.y).items():
            sums[name] += gradient.square().sum(0)
        count += len(batch)
    return {name: total / count for name, total in sums.items()}
