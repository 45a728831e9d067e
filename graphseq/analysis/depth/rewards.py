"""Rewards of a path: accuracy by an oracle that knows the targets, or the confidence of the network."""

import math

import torch
from torch import Tensor

__all__ = ["certainty_reward", "margin_reward", "oracle_reward"]


def oracle_reward(output: Tensor, target: Tensor) -> float:
    r"""Return the share of correct predictions, the reward of an oracle: it needs the targets.

    .. math:: R = \frac{1}{B} \sum_b \mathbb{1}[\arg\max_k y_{bk} = t_b]

    A path that is chosen by it shows what is possible: the resulting accuracy is an upper bound, not that of a usable
    classifier.

    Source: arXiv 2507.07996, section 3.

    Args:
        output: logits (K,) of one input or (B, K) of a batch.
        target: target classes, int64 () or (B,).

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
    r"""Return the mean difference between the two largest probabilities, a reward that needs no targets.

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
    r"""Return one minus the mean entropy divided by its maximum, a reward that needs no targets.

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
