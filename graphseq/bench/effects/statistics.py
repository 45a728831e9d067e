"""Intervals of paired comparisons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PairedInterval", "paired_interval"]


@dataclass(frozen=True)
class PairedInterval:
    """Mean of paired differences with its interval.

    Args:
        mean: mean of ``a - b``.
        low: lower end of the interval.
        high: upper end of the interval.
        count: number of pairs.

    Example:
        >>> PairedInterval(0.5, 0.1, 0.9, 3).above(0.0)
        True
    """

    mean: float
    low: float
    high: float
    count: int

    def above(self, bound: float) -> bool:
        """Return whether the whole interval lies above a bound.

        Args:
            bound: lower bound, in the units of the difference.
        """
        return self.low > bound


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> PairedInterval:
    r"""Return the mean of paired differences and its two-sided t-interval.

    .. math:: \bar d \pm t_{n-1,\,(1+c)/2}\; s_d / \sqrt{n}, \qquad d_i = a_i - b_i

    A single pair gives an infinite interval, since it has no estimate of the spread.

    Args:
        a: results of the method, one for each seed.
        b: results of the baseline, for the same seeds in the same order.
        confidence: coverage c of the interval, between 0 and 1.

    Raises:
        ValueError: if the lengths differ, nothing is given, or a value is not finite.

    Example:
        >>> result = paired_interval([0.9, 0.8, 0.85], [0.7, 0.7, 0.7])
        >>> f"{result.mean:.3f} [{result.low:.3f}, {result.high:.3f}]"
        '0.150 [0.026, 0.274]'
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1")
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(
            f"{len(a)} and {len(b)} values were given; pairs need as many of one as of the other, at least one"
        )
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if not np.isfinite(difference).all():
        seeds = np.flatnonzero(~np.isfinite(difference)).tolist()
        raise ValueError(f"pairs {seeds} hold a value that is not finite; decide first what a diverged run counts as")
    count, mean = len(difference), float(difference.mean())
    if count == 1:
        return PairedInterval(mean, -math.inf, math.inf, count)
    spread = float(difference.std(ddof=1))
    if spread == 0.0:  # scipy's t distribution has no scale 0
        return PairedInterval(mean, mean, mean, count)
    from scipy import stats  # half a second, which a speed comparison does not need

    low, high = stats.t.interval(confidence, df=count - 1, loc=mean, scale=spread / math.sqrt(count))
    return PairedInterval(mean, float(low), float(high), count)
