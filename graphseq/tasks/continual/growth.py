"""Growth of a hypernetwork in the middle of a run, and of the optimiser with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphseq.nn.hyper.recurrent import GrownParameter

__all__ = ["GrowthRule", "extend_optimizer"]


@dataclass
class GrowthRule:
    """Rule for growing a hypernetwork: it grows if the loss of a new task is still too high after a trial.

    Args:
        num_units: number of hidden units to add, at least 1.
        threshold: mean loss of the second half of the trial above which the network grows.
        trial_steps: number of training steps of the trial at the beginning of a task, at least 2.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> GrowthRule(num_units=8, threshold=0.5).trial_steps
        100
    """

    num_units: int
    threshold: float
    trial_steps: int = 100

    def __post_init__(self) -> None:
        """Check the numbers."""
        if math.isnan(self.threshold):
            raise ValueError("threshold is NaN; give a mean loss")
        for name, number, least in (("num_units", self.num_units, 1), ("trial_steps", self.trial_steps, 2)):
            if number < least:
                raise ValueError(f"{name} is {number}; it must be at least {least}")


def extend_optimizer(optimizer: torch.optim.Optimizer, grown: Sequence[GrownParameter]) -> None:
    """Replace grown parameters in an optimiser: its state of old entries is kept, that of new entries is 0.

    Args:
        optimizer: optimiser of the old parameters, whose state for a parameter is made of scalars and of tensors of its
            shape, as in ``torch.optim``.
        grown: replaced parameters, as ``grow`` of the hypernetwork returns them.

    Example:
        >>> from torch import nn
        >>> from graphseq.nn import RNNHyperNetwork
        >>> hyper = RNNHyperNetwork(nn.Linear(2, 2), num_tasks=1, hidden_size=3)
        >>> adam = torch.optim.Adam(hyper.parameters())
        >>> extend_optimizer(adam, hyper.grow(2))
        >>> {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in hyper.parameters()}
        True
    """
    by_old = {id(each.old): each for each in grown}
    for group in optimizer.param_groups:
        group["params"] = [by_old[id(p)].new if id(p) in by_old else p for p in group["params"]]
    for each in grown:
        state = optimizer.state.pop(each.old, None)
        if state is not None:
            optimizer.state[each.new] = {name: _spread(value, each) for name, value in state.items()}


def _spread(value: object, grown: GrownParameter) -> object:
    return grown.spread(value) if isinstance(value, Tensor) and value.shape == grown.old.shape else value
