"""Polynomials in place of elementary functions, for compiled loops that a processor is to work off in vectors."""

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
        low: lower end of the interval on which the polynomial stands for the function.
        high: upper end of that interval.
    """
    fitted = Chebyshev.interpolate(function, degree, [low, high]).convert(kind=Polynomial)
    return [np.float32(value) for value in fitted.coef]
