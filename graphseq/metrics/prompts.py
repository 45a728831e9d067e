"""How many nodes are prompted, and how strongly."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from graphseq.ops import segment_sum
from graphseq.ops.segment.index import check_segments

__all__ = ["PromptCoverage", "PromptMagnitude", "prompt_coverage", "prompt_magnitude"]


def _check(prompt: Tensor, ptr: Tensor) -> None:
    if prompt.dim() != 2 or ptr.dim() != 1:
        raise ValueError(f"prompt is {tuple(prompt.shape)} and ptr {tuple(ptr.shape)}; (N, D) and (G+1,) are needed")
    check_segments(prompt, None, ptr, None)


def _shares(prompt: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over graphs of the share of nodes with a prompt, and the number of graphs that have nodes."""
    _check(prompt, ptr)
    prompted = (prompt != 0).any(1).to(torch.float64)
    nodes = ptr.diff()
    return (segment_sum(prompted, ptr=ptr) / nodes.clamp(min=1)).sum(), (nodes > 0).sum()


def _sizes(prompt: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over prompted nodes of the mean absolute entry of their prompts, and their number."""
    _check(prompt, ptr)
    prompted = (prompt != 0).any(1)
    return prompt.abs().mean(1, dtype=torch.float64).sum(), prompted.sum()


def prompt_coverage(prompt: Tensor, ptr: Tensor) -> Tensor:
    r"""Return the mean over graphs of the share of their nodes that have a prompt (prompt coverage ratio, PCR).

    A policy that chooses uniformly, as often as a graph has nodes, covers :math:`1 - (1 - 1/n)^n` of it in the mean.

    Source: arXiv 2408.03195.

    Args:
        prompt: prompt of each node, 0 where there is none, (N, D).
        ptr: first node of each graph and, last, the number of nodes.

    Raises:
        ValueError: if a shape does not fit, or ``ptr`` does not run from 0 to the number of nodes.

    Example:
        >>> prompt_coverage(torch.tensor([[1.0], [0.0], [2.0]]), torch.tensor([0, 2, 3]))
        tensor(0.7500)
    """
    total, count = _shares(prompt, ptr)
    return (total / count).float()


def prompt_magnitude(prompt: Tensor, ptr: Tensor) -> Tensor:
    r"""Return the mean over prompted nodes of the mean absolute entry of their prompts (average prompt magnitude, APM).

    .. math:: \frac{1}{|\{i : p_i \ne 0\}|} \sum_i \frac{\lVert p_i \rVert_1}{D}

    Source: arXiv 2408.03195.

    Args:
        prompt: prompt of each node, 0 where there is none, (N, D).
        ptr: first node of each graph and, last, the number of nodes.

    Raises:
        ValueError: if a shape does not fit, or ``ptr`` does not run from 0 to the number of nodes.

    Example:
        >>> prompt_magnitude(torch.tensor([[1.0], [0.0], [-2.0]]), torch.tensor([0, 2, 3]))
        tensor(1.5000)
    """
    total, count = _sizes(prompt, ptr)
    return (total / count.clamp(min=1)).float()


class _Mean(Metric):
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, total: Tensor, count: Tensor) -> None:
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """Return the mean; 0 before the first update."""
        return (self.total / self.count.clamp(min=1)).float()


class PromptCoverage(_Mean):
    """Mean over graphs of the share of prompted nodes; reduction over processes: sum of shares over sum of counts.

    The functional twin is :func:`prompt_coverage`.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = PromptCoverage()
        >>> metric.update(torch.tensor([[1.0], [0.0]]), torch.tensor([0, 2]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def update(self, prompt: Tensor, ptr: Tensor) -> None:
        """Add the graphs of a batch.

        Args:
            prompt: prompt of each node, 0 where there is none, (N, D).
            ptr: first node of each graph and, last, the number of nodes.
        """
        self._add(*_shares(prompt, ptr))


class PromptMagnitude(_Mean):
    """Mean absolute entry of the prompts of prompted nodes; reduction over processes: sum of sums over sum of counts.

    The functional twin is :func:`prompt_magnitude`.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = PromptMagnitude()
        >>> metric.update(torch.tensor([[1.0], [0.0]]), torch.tensor([0, 2]))
        >>> metric.compute()
        tensor(1.)
    """

    def update(self, prompt: Tensor, ptr: Tensor) -> None:
        """Add the nodes of a batch.

        Args:
            prompt: prompt of each node, 0 where there is none, (N, D).
            ptr: first node of each graph and, last, the number of nodes.
        """
        self._add(*_sizes(prompt, ptr))
