"""Regulariser that keeps the weights a hypernetwork generates for earlier tasks."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["OutputRegularizer"]


class OutputRegularizer(Recorded, nn.Module):
    r"""Squared distance of the weights generated for earlier tasks from copies stored when the current task began.

    .. math:: R = \frac{\beta}{T - 1} \sum_{t < T} \sum_p F_{t p} \, (\theta_{t p} - \theta^*_{t p})^2

    It is a mean over tasks and a sum over weights. F is 1, or the importance of each weight.

    Source: arXiv 1906.00695, eq. 2, without the look-ahead by a step of the optimiser; with importances it follows the
    idea of arXiv 2209.07712.

    Args:
        beta: factor :math:`\beta`, at least 0; 0 for no regularisation, the control.
        weighted: whether each squared difference is multiplied by the importance of its weight, a diagonal Fisher
            information with mean 1 for each task.
        num_sampled: number of earlier tasks that are drawn at random in each step, at least 1; None for all.

    Shape:
        generated, noted and importance (T - 1, P) -> scalar

    Raises:
        ValueError: if ``beta`` is negative or ``num_sampled`` below 1; in ``forward`` if the shapes differ.

    Example:
        >>> OutputRegularizer(beta=0.5)(torch.ones(2, 3), torch.zeros(2, 3))
        tensor(1.5000)
    """

    def __init__(self, beta: float = 0.01, weighted: bool = False, num_sampled: int | None = None) -> None:
        super().__init__()
        if not 0 <= beta < float("inf"):
            raise ValueError(f"beta is {beta}; it must be at least 0")
        if num_sampled is not None and num_sampled < 1:
            raise ValueError(f"num_sampled is {num_sampled}; it must be at least 1, or None for all tasks")
        self.beta, self.weighted, self.num_sampled = beta, weighted, num_sampled

    def choose(self, count: int) -> list[int]:
        """Return the numbers of the earlier tasks that are penalised in this step.

        Args:
            count: number of tasks before the current one.
        """
        if self.num_sampled is None or self.num_sampled >= count:
            return list(range(count))
        return torch.randperm(count)[: self.num_sampled].tolist()

    def forward(self, generated: Tensor, noted: Tensor, importance: Tensor | None = None) -> Tensor:
        """Return the penalty; 0 without earlier tasks.

        Args:
            generated: weights generated for the chosen earlier tasks, one row each, (*, P).
            noted: stored weights of these tasks, without a gradient, (*, P).
            importance: importance of each weight, (*, P); None for 1.
        """
        if generated.shape != noted.shape or (importance is not None and importance.shape != noted.shape):
            shapes = [tuple(each.shape) for each in (generated, noted, importance) if each is not None]
            raise ValueError(f"generated, noted and importance have the shapes {shapes}; they must be equal")
        if not len(generated):
            return generated.new_zeros(())
        squares = (generated - noted).square()
        return self.beta * (squares if importance is None else importance * squares).sum(1).mean()

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"beta={self.beta}, weighted={self.weighted}, num_sampled={self.num_sampled}"
