"""Linear layer whose connections are a random bipartite graph."""

import torch

from graphseq.nn.sparse.group import draw_sparse_weights_
from graphseq.nn.sparse.masked import MaskedLinear
from graphseq.sparsity.masks import random_mask

__all__ = ["ERLinear"]


class ERLinear(MaskedLinear):
    r"""Linear layer with a given number of weights at uniform places: an Erdős–Rényi graph, the control of any pattern.

    Weights are drawn from :math:`U(\pm 1/\sqrt{k_j})`, with :math:`k_j` inputs of unit j.

    Args:
        in_features: size of each input sample.
        out_features: size of each output sample.
        density: share of the weights that exist, in (0, 1].
        bias: whether an additive bias is learned.
        seed: seed of the connections; None to draw them from the global generator.

    Shape:
        input (*, in_features) -> output (*, out_features)

    Raises:
        ValueError: if ``density`` is outside its range, or leaves a unit without inputs.

    Example:
        >>> round(ERLinear(64, 32, density=0.25, seed=0).density, 2)
        0.25
    """

    def __init__(
        self, in_features: int, out_features: int, density: float = 0.25, bias: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.mask.copy_(random_mask(out_features, in_features, density, generator))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights that exist and the bias; the mask stays."""
        if hasattr(self, "mask"):  # the constructor of nn.Linear calls it before there is one
            with torch.no_grad():
                self.weight.copy_(draw_sparse_weights_(self.mask, self.bias))
