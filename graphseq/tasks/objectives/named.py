"""Objectives by their names in configs."""

from typing import Literal

from torch import nn

from graphseq.tasks.objectives.classes import Classes, Labels
from graphseq.tasks.objectives.objective import Objective
from graphseq.tasks.objectives.quantities import Numbers

__all__ = ["objective_of"]


def objective_of(
    target: Literal["multiclass", "multilabel", "regression"],
    num_outputs: int,
    measure: nn.Module | None = None,
) -> Objective:
    """Return the objective that the argument ``target`` of a task names.

    Args:
        target: name of the kind of target.
        num_outputs: number of classes, labels or quantities K.
        measure: loss of :class:`Numbers`; None for squared error. It is not used with other kinds.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> objective_of("multilabel", 3)
        Labels(num_outputs=3)
    """
    if target not in ("multiclass", "multilabel", "regression"):
        raise ValueError(f"target is {target!r}; it must be 'multiclass', 'multilabel' or 'regression'")
    if target == "multiclass":
        return Classes(num_outputs)
    if target == "multilabel":
        return Labels(num_outputs)
    return Numbers(num_outputs, nn.MSELoss() if measure is None else measure)
