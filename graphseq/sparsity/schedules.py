"""How much to prune or rewire as training goes on."""

import math
from typing import Literal

__all__ = ["drop_fraction", "gradual_sparsity"]


def _check(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value}; it must be in [0, 1]")


def drop_fraction(
    progress: float, initial: float, decay: Literal["constant", "cosine", "linear"] = "constant"
) -> float:
    r"""Return the share of the weights that an update replaces.

    ``constant``: :math:`\alpha`; ``cosine``: :math:`\frac{\alpha}{2} (1 + \cos \pi t)`; ``linear``:
    :math:`\alpha (1 - t)`.

    Source: arXiv 1911.11134, section 3 (``cosine``).

    Args:
        progress: share t of the updating phase that is over, in [0, 1].
        initial: share :math:`\alpha` at the start, in [0, 1].
        decay: course over time.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> drop_fraction(0.5, 0.3, "cosine")
        0.15
    """
    _check("progress", progress)
    _check("initial", initial)
    if decay not in ("constant", "cosine", "linear"):
        raise ValueError(f"decay is {decay!r}; it must be 'constant', 'cosine' or 'linear'")
    if decay == "constant":
        return initial
    return initial * (1.0 - progress) if decay == "linear" else 0.5 * initial * (1.0 + math.cos(math.pi * progress))


def gradual_sparsity(progress: float, final: float, initial: float = 0.0, power: float = 3.0) -> float:
    r"""Return the sparsity at a point of gradual pruning, fast at first and slow towards the end.

    .. math:: s(t) = s_f + (s_i - s_f)\,(1 - t)^{p}

    Source: arXiv 1710.01878, eq. 1, with p = 3.

    Args:
        progress: share t of the pruning phase that is over, in [0, 1].
        final: sparsity :math:`s_f` at the end, in [0, 1].
        initial: sparsity :math:`s_i` at the start, in [0, 1].
        power: exponent p, above 0; 1 is linear.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> [round(gradual_sparsity(t, 0.8), 3) for t in (0.0, 0.5, 1.0)]
        [0.0, 0.7, 0.8]
    """
    for name, value in {"progress": progress, "final": final, "initial": initial}.items():
        _check(name, value)
    if not power > 0:
        raise ValueError(f"power is {power}; it must be above 0")
    return final + (initial - final) * (1.0 - progress) ** power
