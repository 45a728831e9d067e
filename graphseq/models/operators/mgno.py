"""Network whose layers are multigrid cycles with learned stencils."""

import copy
import itertools
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.conv.multigrid import MgConv2d

__all__ = ["MgNO"]


class MgNO(Recorded, nn.Module):
    r"""Operator between fields whose layers are linear multigrid cycles between channels, and an activation.

    .. math:: u_{k+1} = \sigma(W_k u_k + L_k u_k + b_k), \qquad y = W u_K

    :math:`W_k` is a V-cycle of convolutions (:class:`graphseq.nn.MgConv2d`), which sees the boundary condition and
    reaches all points; :math:`L_k` a matrix and :math:`b_k` a vector that are the same at each point. Apart from the
    last matrix :math:`W` there are no layers that lift the input or project the output. No parameter depends on the
    grid: a network trained on one grid can be applied to any other that can be coarsened as often, though its stencils
    then span another length.

    .. code-block:: text

        x ─┬─ V-cycle ──────┬─ + ─ activation ─┬─ ... ─ 1 x 1 ─ y
           └─ 1 x 1 + bias ─┘                  └─ ...

    Source: arXiv 2310.19809, eq. 5 and the released code, by a description of its formulas. Differs from it: see
    :class:`graphseq.nn.MgConv2d`; the variants with layer norm within the cycle, which are not linear, are left out.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        width: number of channels of the layers.
        num_layers: number of layers K, at least 1.
        levels: number of grids of a cycle, at least 1; 1 for convolutions on the given grid only.
        pre: numbers of smoothing steps before the coarser grid, one number for each level; None for one step on each
            level and two on the coarsest.
        post: numbers of smoothing steps after it, one number for each level but the coarsest; None for no steps.
        boundary: values beyond the edge: ``dirichlet``, zeros; ``neumann``, mirrored; ``periodic``, those of the
            opposite side.
        alignment: which points a coarser grid has: ``vertex``, every second one, or ``cell``, one for each pair, for
            any size; see :class:`graphseq.nn.MgConv2d`.
        residual_restriction: whether the cycles restrict the residual, in place of the right-hand side.
        activation: activation :math:`\sigma`, of which each layer gets a copy; None for ``torch.nn.GELU()``.

    Shape:
        x (B, in_channels, Y, X) real -> (B, out_channels, Y, X)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if ``x`` has another shape, or a size that cannot be
            coarsened ``levels`` - 1 times.
        TypeError: if ``activation`` is not a module; in ``forward`` if ``x`` is complex or has an integer type.

    Example:
        >>> import torch
        >>> MgNO(1, 1, width=8, num_layers=2, levels=4)(torch.randn(2, 1, 32, 40)).shape
        torch.Size([2, 1, 32, 40])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 24,
        num_layers: int = 4,
        levels: int = 5,
        *,
        pre: Sequence[int] | None = None,
        post: Sequence[int] | None = None,
        boundary: Literal["dirichlet", "neumann", "periodic"] = "dirichlet",
        alignment: Literal["vertex", "cell"] = "cell",
        residual_restriction: bool = False,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        positive(in_channels=in_channels, out_channels=out_channels, width=width, num_layers=num_layers)
        if activation is not None and not isinstance(activation, nn.Module):
            raise TypeError(f"activation is {activation!r}; give a module, such as torch.nn.GELU()")
        pairs = list(itertools.pairwise([in_channels, *[width] * num_layers]))
        self.cycles = nn.ModuleList(
            MgConv2d(before, after, levels, pre, post, boundary, alignment, residual_restriction)
            for before, after in pairs
        )
        self.pointwise = nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in pairs)
        self.activations = nn.ModuleList(nn.GELU() if activation is None else copy.deepcopy(activation) for _ in pairs)
        self.head = nn.Conv2d(width, out_channels, 1, bias=False)

    def reset_parameters(self) -> None:
        """Reinitialise all convolutions as ``torch.nn.Conv2d`` does."""
        for layer in (*self.cycles, *self.pointwise, self.head):
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output fields.

        Args:
            x: input fields (B, in_channels, Y, X).
        """
        for cycle, pointwise, activation in zip(self.cycles, self.pointwise, self.activations, strict=True):
            x = activation(cycle(x) + pointwise(x))
        return self.head(x)
