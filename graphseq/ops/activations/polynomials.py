"""Polynomial approximations of elementary functions, for compiled loops that a CPU can vectorise."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

__all__: list[str] = []


def coefficients(function: Callable[[Any], Any], degree: int, low: float, high: float) -> list[np.float32]:
    """Return the coefficients of the polynomial through a function at Chebyshev's points, lowest power first.

    Args:
        function: function of a number or an array.
        degree: degree of the polynomial.
        low: lower end of the interval of approximation.
        high: upper end of the interval of approximation.
    """
    fitted = Chebyshev.interpolate(function, degree, [low, high]).convert(kind=Polynomial)
    return [np.float32(value) for value in fitted.coef]
