"""Pooling by the tropical polynomial of a partially ordered set, and the mixed pooling it is compared with."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.spec import Recorded
from graphseq.ops import Poset, tropical_polynomial

__all__ = ["MixedPool2d", "PosetConv2d", "PosetGraphPool", "PosetPool2d"]

Ties = Literal["one", "split"]


class PosetPool2d(Recorded, nn.Module):
    r"""Largest sum over an upper set of each window, whose pixels are the points of a partially ordered set.

    .. math:: y = \max_{U \text{ upper set of } P} \sum_{i \in U} x_i

    The pixels of a window are the points a, b, c, d row by row: the upper left is a, the upper right b, the lower left
    c, the lower right d. Since labels of points are places in the window, orders that differ in their labels alone are
    different layers. There are no weights.

    The result is at least 0, and a gradient of 1 goes to the pixels of the largest upper set, any number of them.
    **Where no value is negative, every order gives the sum of the window**, four times its average: after a ReLU all
    orders are the same layer. Give it values of both signs, such as those of a batch norm.

    ====================  ==============  ========================================
    name                  number          relations
    ====================  ==============  ========================================
    ``antichain``         1               none: the sum of ReLUs
    ``N``                 12              a<b, c<b, c<d
    ``diamond``           14              a<b, a<c, b<d, c<d
    ``Y``                 7               a<b, b<c, b<d
    ``claw``              9               a<b, a<c, a<d
    ``butterfly``         11              a<c, a<d, b<c, b<d
    ``chain``             13              a<b<c<d
    ====================  ==============  ========================================

    Source: arXiv 2412.06097, whose table of the 16 orders of four points gives the numbers. Differs from it: windows of
    other sizes and strides are possible.

    Args:
        poset: name or number of an order of four points, relations such as ``a<b c<d``, or an order of as many points
            as a window has pixels; see :meth:`graphseq.ops.Poset.of`.
        kernel_size: rows and columns of a window, or one number for both.
        stride: rows and columns between windows, or one number for both; None for those of a window.
        padding: ``zero`` for zeros below and to the right, so that windows cover images of any size; ``none`` for an
            error if they do not cover the image.
        ties: upper sets that take the gradient where they are equally large: ``one`` of them, or all in equal shares,
            ``split``, see :func:`graphseq.ops.tropical_polynomial`.

    Shape:
        x (B, C, Y, X) real -> (B, C, ceil((Y - kernel) / stride) + 1, ceil((X - kernel) / stride) + 1)

    Raises:
        ValueError: if an argument is out of range, or the number of points of the order is not the number of pixels of
            a window; in ``forward`` if ``x`` is not (B, C, Y, X), or, with ``padding="none"``, windows do not cover it.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> image = torch.tensor([[[[1.0, -2.0], [-3.0, 4.0]]]])
        >>> [PosetPool2d(name)(image).item() for name in ("antichain", "N", "chain")]
        [5.0, 4.0, 4.0]
    """

    def __init__(
        self,
        poset: str | int | Poset = "N",
        kernel_size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] | None = None,
        padding: Literal["zero", "none"] = "zero",
        ties: Ties = "one",
    ) -> None:
        super().__init__()
        self.poset = Poset.of(poset)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _pair("stride", stride)
        if math.prod(self.kernel_size) != self.poset.size:
            raise ValueError(
                f"poset has {self.poset.size} points, a window of {self.kernel_size[0]} x {self.kernel_size[1]} has "
                f"{math.prod(self.kernel_size)} pixels; give an order of as many points"
            )
        if padding not in ("zero", "none"):
            raise ValueError(f"padding is {padding!r}; it must be 'zero' or 'none'")
        if ties not in get_args(Ties):
            raise ValueError(f"ties is {ties!r}; it must be 'one' or 'split'")
        self.padding = padding
        self.ties: Ties = ties

    def _missing(self, height: int, width: int) -> list[int]:
        """Rows and columns of zeros that make windows cover the image."""
        return [
            max(math.ceil((size - kernel) / stride), 0) * stride + kernel - size
            for size, kernel, stride in zip((height, width), self.kernel_size, self.stride, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of all windows.

        Args:
            x: images (B, C, Y, X).
        """
        _check_images(x)
        rows, columns = self._missing(*x.shape[2:])
        if rows or columns:
            if self.padding == "none":
                raise ValueError(
                    f"images of {x.shape[2]} x {x.shape[3]} are not covered by windows of {self.kernel_size[0]} x "
                    f"{self.kernel_size[1]}; pad or crop them, or give padding='zero'"
                )
            x = functional.pad(x, (0, columns, 0, rows))
        return tropical_polynomial(self._pixels(x), self.poset, self.ties)

    def _pixels(self, x: Tensor) -> list[Tensor]:
        """Each pixel of all windows, row by row, (B, C, Y', X'); views of the images."""
        (height, width), (down, right) = self.kernel_size, self.stride
        if self.kernel_size == self.stride:
            # axes of their own for the place in a window: the gradient of an unbind is one stack, while that of a
            # slice is an image of zeros for each pixel of a window
            lines = x.unflatten(2, (-1, height)).unbind(3)
            return [pixel for line in lines for pixel in line.unflatten(3, (-1, width)).unbind(4)]
        tall, wide = ((size - kernel) // stride + 1 for size, kernel, stride
                      in zip(x.shape[2:], self.kernel_size, self.stride, strict=True))  # fmt: skip
        return [
            x[:, :, row : row + (tall - 1) * down + 1 : down, column : column + (wide - 1) * right + 1 : right]
            for row in range(height) for column in range(width)
        ]  # fmt: skip

    def extra_repr(self) -> str:
        """Return the order by the relations it follows from, and the windows, for ``repr``."""
        return f"{_shown(self.poset)}, kernel_size={self.kernel_size}, stride={self.stride}"


class PosetConv2d(PosetPool2d):
    r"""Largest sum over an upper set of each window around a pixel: a filter that keeps the size of the image.

    .. math:: y = \max_U\, K_U * x, \qquad K_U = [\,i \in U\,]_i

    It is a convolution with the kernels of 0 and 1 of all upper sets, see :meth:`kernels`, followed by the maximum over
    them, for each channel by itself: the network with integer weights that belongs to the order polytope. The window of
    a pixel has it in its upper left corner; beyond the lower and right edge there are zeros.

    Source: arXiv 2412.06097. Differs from it: none.

    Args:
        poset: order of as many points as a window has pixels, see :class:`PosetPool2d`.
        kernel_size: rows and columns of a window, or one number for both.
        ties: upper sets that take the gradient where upper sets are equally large, see :class:`PosetPool2d`.

    Shape:
        x (B, C, Y, X) real -> (B, C, Y, X)

    Raises:
        ValueError: as :class:`PosetPool2d`.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> layer = PosetConv2d("chain")
        >>> layer(torch.randn(2, 3, 5, 6)).shape, layer.kernels().shape
        (torch.Size([2, 3, 5, 6]), torch.Size([5, 1, 2, 2]))
    """

    def __init__(
        self, poset: str | int | Poset = "N", kernel_size: int | tuple[int, int] = 2, ties: Ties = "one"
    ) -> None:
        super().__init__(poset, kernel_size, stride=1, ties=ties)

    def _missing(self, height: int, width: int) -> list[int]:
        return [size - 1 for size in self.kernel_size]

    def kernels(self) -> Tensor:
        """Return the kernel of each upper set, float32 (F, 1, kernel rows, kernel columns)."""
        return torch.tensor(self.poset.filters(), dtype=torch.float32).view(-1, 1, *self.kernel_size)


class PosetGraphPool(Recorded, nn.Module):
    r"""Largest sum over an upper set of each group of nodes, whose places are the points of a partially ordered set.

    .. math:: y_g = \max_{U \text{ upper set of } P} \sum_{i \in U} x_{\mathrm{groups}_{g i}}

    For each feature by itself. Groups are those of a coarsening of the graph; where the order is not an antichain, the
    places of nodes within a group matter.

    Source: arXiv 2412.06097 for the formula. Differs from it: groups of nodes take the place of windows, an addition of
    this library.

    Args:
        poset: order of as many points as a group has places, see :meth:`graphseq.ops.Poset.of`.
        ties: upper sets that take the gradient where upper sets are equally large, see :class:`PosetPool2d`.

    Shape:
        x (N, D) real, groups int64 (G, n) -> (G, D)

    Raises:
        ValueError: if there is no such order; in ``forward`` if ``x`` or ``groups`` has another shape, or, on the CPU,
            if a group names a node that does not exist.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> x = torch.tensor([[1.0], [-2.0], [4.0]])
        >>> PosetGraphPool("a<b")(x, torch.tensor([[0, 1], [1, 2], [2, -1]]))
        tensor([[0.],
                [4.],
                [4.]])
    """

    def __init__(self, poset: str | int | Poset = "N", ties: Ties = "one") -> None:
        super().__init__()
        self.poset = Poset.of(poset)
        if ties not in get_args(Ties):
            raise ValueError(f"ties is {ties!r}; it must be 'one' or 'split'")
        self.ties: Ties = ties

    def forward(self, x: Tensor, groups: Tensor) -> Tensor:
        """Return the value of each group.

        Args:
            x: features of nodes (N, D).
            groups: nodes of each group in the order of the points, int64 (G, n); -1 for a place without a node, which
                counts as zeros.
        """
        if x.dim() != 2:
            raise ValueError(f"x has shape {tuple(x.shape)}; features of nodes (N, D) are needed")
        if groups.dim() != 2 or groups.shape[1] != self.poset.size or groups.dtype != torch.int64:
            raise ValueError(
                f"groups is {groups.dtype} {tuple(groups.shape)}; nodes int64 (G, {self.poset.size}) are needed, -1 "
                "for a place without one"
            )
        if not x.is_floating_point():
            raise TypeError(f"x is {x.dtype}; give real numbers")
        if groups.device.type == "cpu" and groups.numel():  # elsewhere the check would wait for the device
            low, high = (int(bound) for bound in groups.aminmax())
            if not -1 <= low <= high < len(x):
                raise ValueError(
                    f"groups range from {low} to {high} for {len(x)} nodes; give nodes in 0..{len(x) - 1}, or -1 for a "
                    "place without one"
                )
        if not len(x):
            return x.new_zeros(len(groups), x.shape[1])  # no place has a node
        values = x.index_select(0, groups.clamp(min=0).flatten()).unflatten(0, groups.shape)  # (G, n, D)
        values = values.masked_fill((groups < 0)[..., None], 0.0)
        return tropical_polynomial(values.unbind(1), self.poset, self.ties)

    def extra_repr(self) -> str:
        """Return the order by the relations it follows from, for ``repr``."""
        return _shown(self.poset)


class MixedPool2d(Recorded, nn.Module):
    r"""Learned mixture of the maximum and the average of each window.

    .. math:: y = \sigma(w)\, \max_i x_i + (1 - \sigma(w))\, \mathrm{mean}_i\, x_i

    Source: arXiv 1509.08985, section 3.1, one share for a layer. Differs from it: the share is kept in (0, 1) by a
    sigmoid.

    Args:
        kernel_size: rows and columns of a window, at least 1.
        stride: rows and columns between windows, at least 1; None for ``kernel_size``.
        share: initial share of the maximum, in (0, 1).

    Shape:
        x (B, C, Y, X) real -> as ``torch.nn.MaxPool2d``

    Raises:
        ValueError: if ``share`` is outside (0, 1), or a size below 1; in ``forward`` if ``x`` is not (B, C, Y, X).
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> MixedPool2d(share=0.25)(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
        3.75
    """

    def __init__(self, kernel_size: int = 2, stride: int | None = None, share: float = 0.5) -> None:
        super().__init__()
        _pair("kernel_size", kernel_size)
        if stride is not None:
            _pair("stride", stride)
        if not 0 < share < 1:
            raise ValueError(f"share is {share}; it must be in (0, 1)")
        self.kernel_size, self.stride, self.share = kernel_size, stride, share
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the share to its initial value."""
        nn.init.constant_(self.weight, math.log(self.share / (1 - self.share)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of all windows.

        Args:
            x: images (B, C, Y, X).
        """
        _check_images(x)
        largest = functional.max_pool2d(x, self.kernel_size, self.stride)
        mean = functional.avg_pool2d(x, self.kernel_size, self.stride)
        return torch.lerp(mean, largest, self.weight.sigmoid().to(x.dtype))

    def extra_repr(self) -> str:
        """Return the windows and the initial share, for ``repr``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, share={self.share}"


def _check_images(x: Tensor) -> None:
    if x.dim() != 4:
        raise ValueError(f"images have shape {tuple(x.shape)}, where (B, C, Y, X) is needed; add the missing axis")
    if not x.is_floating_point():
        raise TypeError(f"images are {x.dtype}; give real numbers")


def _shown(poset: Poset) -> str:
    return " ".join(f"{chr(97 + i)}<{chr(97 + j)}" for i, j in poset.covers()) or "antichain"


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(size, int) and size >= 1 for size in pair):
        raise ValueError(f"{name} is {value}; give a whole number of at least 1, or one for rows and one for columns")
    return pair[0], pair[1]
