"""Protocol of layers whose connections can be rewired during training."""

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["RewirableLayer"]

Preserve = Literal["group_pair", "total"]


@runtime_checkable
class RewirableLayer(Protocol):
    """Sparse linear layer whose connections can be replaced without a change of any shape.

    A connection is what the layer stores as one: a weight, or an input that all units of a group read. Scores of
    weights, which have the shape of the dense weight, become scores of connections by :meth:`pool`.

    Example:
        >>> from graphseq.nn import MaskedLinear
        >>> isinstance(MaskedLinear(3, 2), RewirableLayer)
        True
    """

    in_features: int
    out_features: int

    def connections(self) -> Tensor:
        """Return true where a connection exists, bool (targets, sources)."""
        ...

    def pool(self, score: Tensor, kind: Literal["norm", "mean"]) -> Tensor:
        """Return the score of each connection (targets, sources) from those of weights (out_features, in_features)."""
        ...

    def budgets(self, preserve: Preserve) -> Tensor:
        """Return the budget of each connection: those of one budget keep their number, int64 (targets, sources)."""
        ...

    def rewire(self, connections: Tensor) -> Mapping[str, Tensor]:
        """Replace connections: those that stay keep their weights, new ones start from zero.

        Returns:
            For each parameter whose entries moved, its name and where each entry along its leading axes was before;
            -1 for new ones. The optimiser's moments follow it.
        """
        ...

    def dense_weight(self) -> Tensor:
        """Return the weight with zeros where there is no connection (out_features, in_features)."""
        ...


def kept_entries(before: Tensor, after: Tensor) -> Tensor:
    """Return where each entry of a dense parameter was: its own place where it stays, -1 elsewhere.

    Args:
        before: entries that existed.
        after: entries that exist now.
    """
    places = torch.arange(before.numel(), device=before.device).view(before.shape)
    return torch.where(before & after, places, -1)
