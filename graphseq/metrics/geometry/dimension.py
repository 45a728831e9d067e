"""Participation ratio: the number of directions over which a representation spreads its variance."""

import math
from typing import Any

import torch
from torch import Tensor

from graphseq.metrics.geometry.alignment import _checked_kernels, _independence
from graphseq.metrics.geometry.moments import FeatureMoments, checked_rows

__all__ = ["ParticipationRatio", "kernel_participation_ratio", "participation_ratio"]


def _ratio(total: Tensor, squares: Tensor, varies: Tensor, undefined: float) -> Tensor:
    return torch.where(varies, total.square() / torch.where(varies, squares, 1.0), undefined)


def participation_ratio(features: Tensor, *, undefined: float = math.nan) -> Tensor:
    r"""Return the participation ratio of features, from 1 to the smaller of n - 1 and D.

    .. math:: \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
        = \frac{(\operatorname{tr} \tilde K)^2}{\operatorname{tr} \tilde K^2}

    with :math:`\lambda` the eigenvalues of the centred kernel, which are those of the covariance. Equal variances in r
    directions give r. See :func:`graphseq.metrics.effective_rank` for the same by entropy.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        features: representation of n samples or conditions, at least 2.
        undefined: value for features without variance.

    Shape:
        features (n, D) -> (), float64

    Raises:
        ValueError: if ``features`` is no matrix of at least 2 rows, or not finite.

    Example:
        >>> round(float(participation_ratio(torch.eye(4))), 4)
        3.0
    """
    rows = checked_rows(features, "features")
    centred = rows - rows.mean(0)
    products = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    varies = centred.abs().amax() > 64 * torch.finfo(torch.float64).eps * rows.abs().amax()
    return _ratio(products.trace(), products.square().sum(), varies, undefined)


def kernel_participation_ratio(kernel: Tensor, *, undefined: float = math.nan) -> Tensor:
    """Return the participation ratio of the centred kernel, see :func:`participation_ratio`.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        kernel: symmetric kernel over n samples or conditions, at least 2.
        undefined: value for a kernel without variance.

    Shape:
        kernel (n, n) -> (), float64

    Raises:
        ValueError: if ``kernel`` is not square, symmetric and finite.

    Example:
        >>> round(float(kernel_participation_ratio(torch.eye(4))), 4)
        3.0
    """
    kernels = _checked_kernels({"kernel": kernel}, False)
    squares, varies = _independence(kernels, False)
    # of the centred kernel: K less its mean
    trace = kernels[0].trace() - kernels[0].mean(0).sum()
    return _ratio(trace, squares[0, 0], varies[0], undefined)


class ParticipationRatio(FeatureMoments):
    """Participation ratio over the batches of an epoch, with memory that does not depend on the number of samples.

    Reduction over processes: moments are gathered and merged, or sums of conditions added. The functional twin is
    :func:`participation_ratio`.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        num_features: number D of features, at least 1.
        num_conditions: number P of conditions whose mean rows are taken; None to take all rows.
        undefined: value for features without variance.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if a size is too small; in ``compute``, if there are too few rows, or they are not finite.

    Example:
        >>> metric = ParticipationRatio(4)
        >>> metric.update(torch.eye(4))
        >>> round(float(metric.compute()), 4)
        3.0
    """

    def __init__(
        self, num_features: int, num_conditions: int | None = None, *, undefined: float = math.nan, **kwargs: Any
    ) -> None:
        super().__init__([num_features], num_conditions, **kwargs)
        self.undefined = undefined

    def update(self, features: Tensor, condition: Tensor | None = None) -> None:
        """Take one batch.

        Args:
            features: representation (B, D).
            condition: condition of each row, int64 (B,); None without conditions.
        """
        self.collect([features], condition)

    def compute(self) -> Tensor:
        """Return the participation ratio."""
        moments = self.moments()
        return _ratio(moments.lengths[0], moments.independence(False)[0, 0], moments.varies()[0], self.undefined)
