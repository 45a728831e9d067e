"""Tie-breaking by rule: values that differ only by rounding count as equal when one of them is selected.

The last bit of sums and products differs between processors. If the smallest of several values is selected, the choice
between values that are equal in exact arithmetic would depend on the machine.
"""

import torch
from torch import Tensor

__all__: list[str] = []

_OFFSET = 0.381966
"""Places the limits between steps where whole numbers, halves and other plain values do not come to lie."""


def to_steps(values: Tensor, step: float = 2.0**-30) -> Tensor:
    r"""Return values rounded to whole numbers of steps, so that values that differ only by rounding are equal.

    .. math:: \lfloor v / s + 0.381966 \rfloor

    For algorithms of other libraries, which choose inside. Equal values fall on two sides of a limit between steps
    with a probability of rounding over step: the step must be far above rounding. See :func:`first_least`, which has
    no such limits.

    Args:
        values: floating-point values; infinite ones are unchanged.
        step: width of a step, above the rounding errors of ``values``.

    Shape:
        values (*) -> (*), float64

    Example:
        >>> to_steps(torch.tensor([0.1 + 0.2, 0.3, torch.inf], dtype=torch.float64)).diff()[0]
        tensor(0., dtype=torch.float64)
    """
    return (values.double() / step).add_(_OFFSET).floor_()


def first_least(values: Tensor, tolerance: float) -> Tensor:
    r"""Return the position of the first value, along the last dimension, that is smallest up to a tolerance.

    .. math:: \min \{ i : v_i \le \min_j v_j + \epsilon \}

    Args:
        values: floating-point values without NaN.
        tolerance: tolerance :math:`\epsilon`, far above the rounding errors of ``values`` and far below relevant
            differences.

    Shape:
        values (*, K) -> (*), int64

    Example:
        >>> first_least(torch.tensor([[2.0, 1.0 + 1e-6, 1.0]]), 1e-5)
        tensor([1])
    """
    # of equal values argmax takes the first
    return (values <= values.amin(-1, keepdim=True) + tolerance).to(torch.uint8).argmax(-1)
