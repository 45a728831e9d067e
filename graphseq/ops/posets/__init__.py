"""Partially ordered sets, and the tropical polynomials of their order polytopes in two forms."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from graphseq.ops.posets import fused, plain
from graphseq.ops.posets.order import Poset

__all__ = ["tropical_polynomial"]

Ties = Literal["one", "split"]


def tropical_polynomial(values: Sequence[Tensor], poset: Poset, ties: Ties = "one") -> Tensor:
    r"""Return the largest sum of values over an upper set of a partially ordered set, entry by entry.

    .. math:: p_P(x) = \max_{U \text{ upper set of } P} \sum_{i \in U} x_i

    The empty upper set counts, so that the result is at least 0. For an antichain it is the sum of the ReLUs, for a
    chain :math:`\mathrm{ReLU}(x_n + \mathrm{ReLU}(x_{n-1} + \dots))`; where no value is negative, it is the sum for
    every order. It is convex, and :math:`p(t x) = t\, p(x)` for t of at least 0. The gradient is 1 for the values in
    the largest upper set and 0 for the others.

    Of equally large upper sets one takes the gradient, a smaller one before a larger one, or all take an equal share.
    The former is computed by about ten sums and maxima of two, the latter from the sums over all upper sets.

    Source: arXiv 2412.06097. Differs from it: none.

    Args:
        values: value of each point, n tensors of one shape and dtype.
        poset: order of the n points.
        ties: upper sets that take the gradient where several of them are the largest: ``one`` or all in equal shares,
            ``split``.

    Returns:
        Tensor of the shape of the values.

    Raises:
        ValueError: if there is not one value for each point, the values differ in shape, or ``ties`` is unknown.

    Example:
        >>> import torch
        >>> a, b, c = torch.tensor([[3.0, 1.0], [-1.0, -2.0], [0.5, 0.5]])
        >>> tropical_polynomial([a, b, c], Poset.parse("a<b<c"))
        tensor([2.5000, 0.5000])
    """
    if len(values) != poset.size:
        raise ValueError(f"values are {len(values)}, for {poset.size} points of the order; give one for each")
    if any(value.shape != values[0].shape for value in values[1:]):
        raise ValueError(f"values have shapes {[tuple(value.shape) for value in values]}; give tensors of one shape")
    if ties not in get_args(Ties):
        raise ValueError(f"ties is {ties!r}; it must be 'one' or 'split'")
    if ties == "one":
        return fused.evaluate(fused.plan_of(poset), values)
    return plain.tropical_polynomial(values, poset)
