"""Distribution of a density over the layers of a network."""

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["layer_densities"]


def layer_densities(
    shapes: Sequence[Sequence[int]], density: float, allocation: Literal["uniform", "er", "erk"] = "erk"
) -> list[float]:
    r"""Return the density of each layer, such that all layers together have a given density.

    .. math:: d_\ell = \min\!\left(1,\ \varepsilon\, \frac{n_\ell + m_\ell \;(+\; k_\ell)}{n_\ell\, m_\ell\;(\cdot\;
        |k_\ell|)}\right)

    with :math:`n_\ell` outputs, :math:`m_\ell` inputs and, for ``erk``, the sum of the sizes of the kernel, over the
    number of weights. Layers that would exceed 1 are dense, and :math:`\varepsilon` is solved again for the others.
    ``uniform`` gives every layer the same density.

    Source: arXiv 1707.04780 (``er``), arXiv 1911.11134, appendix on sparsity distribution (``erk``).

    Args:
        shapes: shape of each weight: (outputs, inputs), or (outputs, inputs, *kernel) for convolutions.
        density: share of all weights that exist, in (0, 1].
        allocation: rule of the distribution; ``er`` and ``erk`` are equal for linear layers.

    Raises:
        ValueError: if ``density`` or ``allocation`` is outside its range, or there is no layer.

    Example:
        >>> [round(d, 3) for d in layer_densities([(100, 784), (10, 100)], 0.1)]
        [0.09, 0.879]
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density is {density}; it must be in (0, 1]")
    if allocation not in ("uniform", "er", "erk"):
        raise ValueError(f"allocation is {allocation!r}; it must be 'uniform', 'er' or 'erk'")
    if not shapes or any(len(shape) < 2 or min(shape) < 1 for shape in shapes):
        raise ValueError(f"shapes is {list(shapes)}; give (outputs, inputs, *kernel) of at least one layer")
    if allocation == "uniform":
        return [density] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape if allocation == "erk" else shape[:2]) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while True:
        free = [layer for layer in range(len(shapes)) if layer not in dense]
        if not free:
            return [1.0] * len(shapes)
        budget = density * sum(sizes) - sum(sizes[layer] for layer in dense)
        epsilon = budget / sum(raw[layer] * sizes[layer] for layer in free)
        over = {layer for layer in free if epsilon * raw[layer] > 1.0}
        if not over:
            return [1.0 if layer in dense else epsilon * raw[layer] for layer in range(len(shapes))]
        dense |= over
