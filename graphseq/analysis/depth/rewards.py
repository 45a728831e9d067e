"""Rewards of a path for its answer: by an oracle that knows the right one, or by how sure the network is."""

import math

import torch
from torch import Tensor

__all__ = ["certainty_reward", "margin_reward", "oracle_reward"]


def oracle_reward(output: Tensor, target: Tensor) -> float:
    r"""Return the share of right answers, an oracle's reward: it takes the answer that is asked for.

    .. math:: R = \frac{1}{B} \sum_b \mathbb{1}[\arg\max_k y_{bk} = t_b]

    A path that is chosen by it is one that exists; how often it is right is an upper bound, no accuracy of a network
    that could be used.

    Source: arXiv 2507.07996, section 3.

    Args:
        output: logits (K,) of one input or (B, K) of a batch.
        target: right classes, int64 () or (B,).

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> oracle_reward(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        0.5
    """
    logits = _rows(output)
    if target.shape != output.shape[:-1]:
        raise ValueError(f"target is {tuple(target.shape)}; give one class for each of {tuple(output.shape[:-1])}")
    return float((logits.argmax(-1) == target.reshape(-1)).double().mean())


def margin_reward(output: Tensor) -> float:
    r"""Return the mean difference between the two largest probabilities, a reward that needs no answer.

    .. math:: R = \frac{1}{B} \sum_b \bigl(p_{b(1)} - p_{b(2)}\bigr), \qquad p = \operatorname{softmax}(y)

    Args:
        output: logits (K,) of one input or (B, K) of a batch, with K at least 2.

    Raises:
        ValueError: if the shape does not fit.

    Example:
        >>> round(margin_reward(torch.tensor([0.75, 0.25]).log()), 4)
        0.5
    """
    largest = _rows(output).softmax(-1).topk(2, -1).values
    return _clipped((largest[:, 0] - largest[:, 1]).mean())


def certainty_reward(output: Tensor) -> float:
    r"""Return one less the mean entropy over its largest value, a reward that needs no answer.

    .. math:: R = 1 + \frac{1}{B \ln K} \sum_{b,k} p_{bk} \ln p_{bk}, \qquad p = \operatorname{softmax}(y)

    Args:
        output: logits (K,) of one input or (B, K) of a batch, with K at least 2.

    Raises:
        ValueError: if the shape does not fit.

    Example:
        >>> certainty_reward(torch.tensor([100.0, 0.0, 0.0]))
        1.0
    """
    logits = _rows(output)
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1).mean()
    return _clipped(1 - entropy / math.log(logits.shape[-1]))


def _rows(output: Tensor) -> Tensor:
    if output.dim() not in (1, 2) or output.shape[-1] < 2 or not output.numel():
        raise ValueError(f"output is {tuple(output.shape)}; give logits (K,) or (B, K) of at least two classes")
    return output.detach().double().reshape(-1, output.shape[-1])


def _clipped(reward: Tensor) -> float:
    """Return the number without what rounding puts outside [0, 1]."""
    return float(reward.clamp(0.0, 1.0))
