"""Multigrid cycles of convolutions: linear operators between the channels of fields on a grid."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.conv.spectral import check_real_fields

__all__ = ["MgConv2d"]

Boundary = Literal["dirichlet", "neumann", "periodic"]
Alignment = Literal["vertex", "cell"]
Padding = Literal["zeros", "reflect", "replicate", "circular"]

# values beyond the edge: none, those within mirrored at the last vertex or at the edge of the last cell, or those of
# the opposite side
_PADDING: dict[tuple[Boundary, Alignment], Padding] = {
    ("dirichlet", "vertex"): "zeros",
    ("dirichlet", "cell"): "zeros",
    ("neumann", "vertex"): "reflect",
    ("neumann", "cell"): "replicate",
    ("periodic", "vertex"): "circular",
    ("periodic", "cell"): "circular",
}


class MgConv2d(Recorded, nn.Module):
    r"""Linear operator between channels of fields: one V-cycle of multigrid whose stencils are learned convolutions.

    With :math:`f^1` the input and levels :math:`l = 1 \dots J`, from fine to coarse,

    .. math::
        u^1 &\leftarrow S_{1,1} f^1, \qquad
        u^l \leftarrow u^l + S_{l,i}\,(f^l - A_{l,i} u^l) \quad (i = 1 \dots \nu_l), \\
        f^{l+1} &= R_l f^l \ \text{ or }\ R_l (f^l - A_l u^l), \qquad u^{l+1} = \Pi_l u^l, \\
        u^l &\leftarrow u^l + P_l u^{l+1}, \qquad
        u^l \leftarrow u^l + S'_{l,i}\,(f^l - A'_{l,i} u^l) \quad (i = 1 \dots \nu'_l),

    and :math:`u^1` is the output. All letters are convolutions without bias, 3 x 3 and each with weights of its own, so
    that the output is linear in the input, and with enough levels every output point depends on every input point, at a
    cost linear in the number of points.

    A grid with ``alignment="vertex"`` keeps every second point: with ``dirichlet`` the grid holds interior points only,
    and the edge around them is 0 (31, 15, 7, 3, 1 points along an axis); with ``neumann`` it holds the points of the
    edge, too (33, 17, 9, 5, 3); with ``periodic`` it has an even number of points. With the stencils of an equation,
    linear interpolation, full weighting and ``residual_restriction=True`` the layer *is* one cycle of multigrid.
    ``alignment="cell"`` merges pairs of cells and takes grids of any size; its interpolation is 4 x 4, its restriction
    the 3 x 3 around the first of each four cells, as published.

    Source: arXiv 2310.19809, section 3 and a description of the formulas of the released code. Differs from it: the
    restriction of the residual reads an operator of its own, interpolation sees the boundary condition, a cell grid of
    odd size is cut after interpolation, and mirrored values follow the edge of the alignment.

    Args:
        in_channels: number of channels of the input f.
        out_channels: number of channels of the output u.
        levels: number of grids J, at least 1; 1 smooths on the given grid only.
        pre: numbers :math:`\nu_l` of smoothing steps before the coarser grid, one number for each level, the first at
            least 1; None for one step on each level and two on the coarsest grid.
        post: numbers :math:`\nu'_l` of smoothing steps after it, one number for each level but the coarsest; None for
            no steps.
        boundary: values beyond the edge: ``dirichlet``, zeros; ``neumann``, mirrored; ``periodic``, those of the
            opposite side.
        alignment: which points a coarser grid has: ``vertex`` or ``cell``.
        residual_restriction: whether the residual is restricted to the coarser grid, instead of the right-hand side f.

    Shape:
        f (B, in_channels, Y, X) real -> u (B, out_channels, Y, X)

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if ``f`` has another shape, or a size that cannot be
            coarsened ``levels`` - 1 times.
        TypeError: in ``forward``, if ``f`` is complex or has an integer type.

    Example:
        >>> import torch
        >>> layer = MgConv2d(3, 8, levels=5, alignment="vertex")
        >>> layer(torch.randn(2, 3, 31, 63)).shape, layer.grid_sizes(63)
        (torch.Size([2, 8, 31, 63]), [63, 31, 15, 7, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        levels: int = 5,
        pre: Sequence[int] | None = None,
        post: Sequence[int] | None = None,
        boundary: Boundary = "dirichlet",
        alignment: Alignment = "cell",
        residual_restriction: bool = False,
    ) -> None:
        super().__init__()
        positive(in_channels=in_channels, out_channels=out_channels, levels=levels)
        if boundary not in get_args(Boundary):
            raise ValueError(f"boundary is {boundary!r}; it must be one of {', '.join(get_args(Boundary))}")
        if alignment not in get_args(Alignment):
            raise ValueError(f"alignment is {alignment!r}; it must be 'vertex' or 'cell'")
        for name, numbers in (("pre", pre), ("post", post)):
            if isinstance(numbers, int):
                raise ValueError(f"{name} is {numbers}; give a list with one number for each level")
        before = [1] * (levels - 1) + [2] if pre is None else list(pre)
        after = [0] * (levels - 1) if post is None else list(post)
        if len(before) != levels or before[0] < 1 or min(before) < 0:
            raise ValueError(f"pre is {before}; give a number for each of the {levels} levels, the first at least 1")
        if len(after) != levels - 1 or min(after, default=0) < 0:
            raise ValueError(f"post is {after}; give a number for each of the {levels} levels but the coarsest")
        self.in_channels, self.out_channels, self.levels = in_channels, out_channels, levels
        self.boundary: Boundary = boundary
        self.alignment: Alignment = alignment
        self.residual_restriction = residual_restriction
        padding = _PADDING[boundary, alignment]

        def smoothing(number: int, from_zero: bool = False) -> nn.ModuleList:
            steps = (_Smoothing(in_channels, out_channels, padding, from_zero and not i) for i in range(number))
            return nn.ModuleList(steps)

        def halving(channels: int) -> nn.Conv2d:
            inside = boundary == "dirichlet" and alignment == "vertex"  # whose edge is not part of the grid
            return nn.Conv2d(channels, channels, 3, 2, 0 if inside else 1, padding_mode=padding, bias=False)

        coarser = range(levels - 1)
        self.pre = nn.ModuleList(smoothing(number, level == 0) for level, number in enumerate(before))
        self.post = nn.ModuleList(smoothing(number) for number in after)
        residuals = coarser if residual_restriction else ()
        self.residual = nn.ModuleList(_stencil(out_channels, in_channels, padding) for _ in residuals)
        self.restrict = nn.ModuleList(halving(in_channels) for _ in coarser)
        self.project = nn.ModuleList(halving(out_channels) for _ in coarser)
        self.prolong = nn.ModuleList(_Prolongation(out_channels, boundary, alignment) for _ in coarser)

    def reset_parameters(self) -> None:
        """Reinitialise all convolutions as ``torch.nn.Conv2d`` does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()

    def grid_sizes(self, size: int) -> list[int]:
        """Return the numbers of points along an axis on all levels, from fine to coarse.

        Args:
            size: number of points along the axis on the finest grid.

        Raises:
            ValueError: if the size does not coarsen as often as the layer has coarser grids.
        """
        least = 2 if (self.boundary, self.alignment) == ("neumann", "vertex") else 1  # to be mirrored at a vertex
        if size < least:
            raise ValueError(f"there are {size} points along an axis; at least {least} are needed")
        sizes = [size]
        for _ in range(self.levels - 1):
            last = sizes[-1]
            if self.boundary == "periodic":
                fits, kind = last % 2 == 0, "even sizes, such as 64"
            elif self.alignment == "cell":
                fits, kind = last > 1, "at least 2 points"
            else:
                fits, kind = last % 2 == 1 and last > 1, f"odd sizes, such as {63 if self.boundary[0] == 'd' else 65}"
            if not fits:
                raise ValueError(
                    f"{size} points along an axis do not coarsen {self.levels - 1} times: grid {len(sizes)} has {last},"
                    f" where boundary={self.boundary!r} with alignment={self.alignment!r} needs {kind}; change the "
                    f"grid, take fewer levels than {self.levels}"
                    + (", or alignment='cell'" if self.boundary != "periodic" and self.alignment == "vertex" else "")
                )
            edges = 1 if self.alignment == "vertex" and self.boundary == "dirichlet" else -1
            sizes.append((last - edges) // 2 if self.boundary != "periodic" else last // 2)
        return sizes

    def forward(self, f: Tensor) -> Tensor:
        """Return the operator applied to fields.

        Args:
            f: fields (B, in_channels, Y, X).
        """
        check_real_fields(f)
        if f.dim() != 4 or f.shape[1] != self.in_channels:
            raise ValueError(f"fields have shape {tuple(f.shape)}, where (B, {self.in_channels}, Y, X) is needed")
        self.grid_sizes(f.shape[2]), self.grid_sizes(f.shape[3])
        u: Tensor | None = None
        visited: list[tuple[Tensor, Tensor]] = []  # right-hand side and solution of each finer grid
        for level, steps in enumerate(self.pre):
            for step in steps:  # type: ignore[attr-defined]  # a list of modules
                u = step(f, u)
            assert u is not None  # the first level has a step
            if level + 1 < self.levels:
                visited.append((f, u))
                rest = f - self.residual[level](u) if self.residual_restriction else f
                f, u = self.restrict[level](rest), self.project[level](u)
        for level, (f, before) in reversed(list(enumerate(visited))):
            u = before + self.prolong[level](u, before.shape)
            for step in self.post[level]:  # type: ignore[attr-defined]
                u = step(f, u)
        return u  # type: ignore[return-value]  # as above

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        sizes = f"{self.in_channels}, {self.out_channels}, levels={self.levels}"
        return f"{sizes}, boundary={self.boundary!r}, alignment={self.alignment!r}"


def _stencil(in_channels: int, out_channels: int, padding: Padding) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode=padding, bias=False)


class _Smoothing(nn.Module):
    """One step u + S (f - A u); S f alone where u is zero."""

    def __init__(self, in_channels: int, out_channels: int, padding: Padding, from_zero: bool) -> None:
        super().__init__()
        self.operator = None if from_zero else _stencil(out_channels, in_channels, padding)
        self.smoother = _stencil(in_channels, out_channels, padding)

    def forward(self, f: Tensor, u: Tensor | None) -> Tensor:
        if self.operator is None or u is None:
            return self.smoother(f)
        return u + self.smoother(f - self.operator(u))


class _Prolongation(nn.ConvTranspose2d):
    """Interpolation from every second point, or from pairs of cells, with the values beyond the edge."""

    def __init__(self, channels: int, boundary: Boundary, alignment: Alignment) -> None:
        ghosts = boundary == "periodic" or (boundary, alignment) == ("neumann", "cell")
        inside = (boundary, alignment) == ("dirichlet", "vertex")  # the edge is not part of the grid
        # one more row of coarse points at each side spreads over three fine ones, which are cut off
        cut = 3 if ghosts else 0 if inside else 1
        super().__init__(channels, channels, 3 if alignment == "vertex" else 4, stride=2, padding=cut, bias=False)
        self.mode = _PADDING[boundary, alignment] if ghosts else None
        self.cut = cut
        self.extra = int((boundary, alignment) == ("periodic", "vertex"))

    def forward(self, u: Tensor, shape: Sequence[int]) -> Tensor:  # type: ignore[override]
        if self.mode is not None:
            u = functional.pad(u, (1, 1, 1, 1), self.mode)
        fine = functional.conv_transpose2d(u, self.weight, stride=2, padding=self.cut, output_padding=self.extra)
        return fine[..., : shape[2], : shape[3]]
