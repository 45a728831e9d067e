"""Linear layer with a mask of its weights."""

from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.nn.sparse.rewirable import Preserve, kept_entries
from graphseq.sparsity.formats.masked import masked_linear

__all__ = ["MaskedLinear"]


class MaskedLinear(Recorded, nn.Linear):
    r"""Linear layer whose weights are nonzero only where its mask is true.

    .. math:: y = x\, (W \odot M)^\top + b

    The mask is a buffer: it moves with the module and is in checkpoints, so that the layer does not depend on the
    callback that set it. A callback that prunes or rewires sets the mask by :meth:`set_mask` and stores its own state
    in its ``state_dict``. Weights outside the mask get no gradient and are set to zero, so that a weight that is
    enabled again starts from zero.

    Args:
        in_features: size of each input sample.
        out_features: size of each output sample.
        bias: whether an additive bias is learned; it is never masked.

    Shape:
        input (*, in_features) -> output (*, out_features)

    Example:
        >>> layer = MaskedLinear(3, 2)
        >>> layer.set_mask(torch.tensor([[True, False, False], [False, False, True]]))
        >>> layer.weight.count_nonzero().item(), layer.density
        (2, 0.3333333432674408)
    """

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.register_buffer("mask", torch.ones(out_features, in_features, dtype=torch.bool))

    @property
    def density(self) -> float:
        """Share of the weights inside the mask. Reading it synchronises with the device."""
        return float(self.mask.float().mean())

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Set the mask, and set the weights outside it to zero.

        Args:
            mask: true for weights that are kept, bool (out_features, in_features).

        Raises:
            ValueError: if the shape or type differs.
        """
        if mask.shape != self.mask.shape or mask.dtype != torch.bool:
            raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; it must be bool {tuple(self.mask.shape)}")
        # momentum may have moved weights that did not exist: those that begin to exist are zeroed as well
        self.weight.masked_fill_(~(self.mask & mask), 0.0)
        self.mask.copy_(mask)

    def forward(self, input: Tensor) -> Tensor:
        """Return the affine map with the masked weights."""
        return masked_linear(input, self.weight, self.mask, self.bias)

    def dense_weight(self) -> Tensor:
        """Return the weight with zeros outside the mask (out_features, in_features)."""
        return self.weight * self.mask

    def connections(self) -> Tensor:
        """Return the mask (out_features, in_features)."""
        return self.mask

    def pool(self, score: Tensor, kind: Literal["norm", "mean"]) -> Tensor:
        """Return the scores of weights as they are: a connection is one weight.

        Args:
            score: score of each weight (out_features, in_features).
            kind: no effect here.
        """
        return score

    def budgets(self, preserve: Preserve) -> Tensor:
        """Return one budget for all weights; the layer has no groups.

        Args:
            preserve: no effect here.
        """
        return torch.zeros_like(self.mask, dtype=torch.int64)

    def rewire(self, connections: Tensor) -> dict[str, Tensor]:
        """Set another mask, and return where the entries of the weight were before.

        Args:
            connections: true for weights that exist from now on (out_features, in_features).
        """
        before = self.mask.clone()
        self.set_mask(connections)
        return {"weight": kept_entries(before, connections)}
