"""Alignment of representations: centred kernel alignment from kernels and from features, unbiased and partial."""

import math
from typing import Any

import torch
from torch import Tensor

from graphseq.metrics.geometry.moments import FeatureMoments, Moments, block_membership, checked_rows

__all__ = [
    "FeatureAlignment",
    "PartialFeatureAlignment",
    "centered_kernel",
    "feature_alignment",
    "kernel_alignment",
    "partial_feature_alignment",
    "partial_kernel_alignment",
]

# a centred kernel of float64 below this share of the kernel is rounding
_ROUNDING = 64 * torch.finfo(torch.float64).eps


def _checked_kernels(kernels: dict[str, Tensor], unbiased: bool) -> list[Tensor]:
    least = 4 if unbiased else 2
    found = []
    for name, kernel in kernels.items():
        if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1]:
            raise ValueError(f"{name} is {tuple(kernel.shape)}; a kernel is a square matrix (n, n)")
        found.append(checked_rows(kernel, name, least))
        square = found[-1].detach()
        if bool((square - square.T).abs().max() > 1e-5 * square.abs().max()):
            raise ValueError(f"{name} is not symmetric; a kernel is, such as features @ features.T")
    sizes = {len(kernel) for kernel in found}
    if len(sizes) > 1:
        raise ValueError(f"kernels have {sorted(sizes)} rows; they must be over the same samples")
    return found


def centered_kernel(kernel: Tensor) -> Tensor:
    r"""Return a kernel of the samples without their mean.

    .. math:: \tilde K = H K H, \qquad H = I - \tfrac{1}{n} 1 1^\top

    Args:
        kernel: symmetric kernel over samples.

    Shape:
        kernel (n, n) -> (n, n)

    Raises:
        ValueError: if ``kernel`` is not square.

    Example:
        >>> centered_kernel(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([[ 0.5000, -0.5000],
                [-0.5000,  0.5000]])
    """
    if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel is {tuple(kernel.shape)}; a kernel is a square matrix (n, n)")
    kernel = kernel if kernel.is_floating_point() else kernel.double()  # such as a power of an adjacency matrix
    rows = kernel - kernel.mean(0)
    return rows - rows.mean(1, keepdim=True)


def _independence(kernels: list[Tensor], unbiased: bool) -> tuple[Tensor, Tensor]:
    """Return the criteria of all pairs of kernels (m, m), and whether each kernel has any variance (m,)."""
    centred = torch.stack([centered_kernel(kernel) for kernel in kernels])  # (m, n, n)
    norms = torch.stack([torch.linalg.matrix_norm(kernel) for kernel in kernels])
    varies = torch.linalg.matrix_norm(centred) > _ROUNDING * norms
    if not unbiased:
        return torch.einsum("aij,bij->ab", centred, centred), varies
    n = len(kernels[0])
    hollow = centred - torch.diag_embed(centred.diagonal(dim1=1, dim2=2))
    rows = hollow.sum(2)  # (m, n)
    totals = rows.sum(1)
    criteria = torch.einsum("aij,bij->ab", hollow, hollow) + totals[:, None] * totals / ((n - 1) * (n - 2))
    return criteria - 2 / (n - 2) * rows @ rows.T, varies


def _normalised(criteria: Tensor, varies: Tensor, undefined: float) -> Tensor:
    own = criteria.diagonal()
    there = varies & (own > 0)
    scale = torch.where(there, own, 1.0).sqrt()
    defined = there[:, None] & there
    return torch.where(defined, criteria / (scale[:, None] * scale), undefined)


def _partial(pairs: Tensor, undefined: float) -> Tensor:
    """Return the partial alignment of the first two of three from the alignments of all pairs (3, 3)."""
    one, other = 1 - pairs[0, 2].square(), 1 - pairs[1, 2].square()
    defined = (one > 1e-12) & (other > 1e-12)  # False for NaN, too
    scale = torch.where(defined, one * other, 1.0).sqrt()
    return torch.where(defined, (pairs[0, 1] - pairs[0, 2] * pairs[1, 2]) / scale, undefined)


def kernel_alignment(kernel: Tensor, other: Tensor, *, unbiased: bool = False, undefined: float = math.nan) -> Tensor:
    r"""Return the centred alignment of two kernels (CKA), in [0, 1] for positive semidefinite kernels.

    .. math:: \frac{\langle \tilde K, \tilde L \rangle_F}{\lVert \tilde K \rVert_F \lVert \tilde L \rVert_F}

    ``unbiased`` puts in place of each product the estimate without diagonals,

    .. math::
        \frac{1}{n (n - 3)} \Bigl( \operatorname{tr}(K' L') + \frac{1^\top K' 1 \, 1^\top L' 1}{(n - 1)(n - 2)}
        - \frac{2}{n - 2} 1^\top K' L' 1 \Bigr)

    which is 0 in the mean for independent samples, and may be negative. Any kernel fits, such as a power of the
    normalised adjacency matrix of a graph.

    Source: arXiv 2401.13558; the alignment is that of arXiv 1905.00414, the estimate that of arXiv 2010.15327. Differs
    from them: none.

    Args:
        kernel: symmetric kernel over n samples or conditions, at least 2, or 4 with ``unbiased``.
        other: symmetric kernel over the same.
        unbiased: whether to leave the diagonals out.
        undefined: value where a kernel has no variance, so that the quotient is 0 / 0; also where an unbiased estimate
            of a kernel with itself is not above 0.

    Shape:
        kernel (n, n), other (n, n) -> (), float64

    Raises:
        ValueError: if a kernel is not square, symmetric and finite, sizes differ, or there are too few samples.

    Example:
        >>> inputs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> labels = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
        >>> round(float(kernel_alignment(inputs @ inputs.T, labels @ labels.T)), 4)
        0.7071
    """
    kernels = _checked_kernels({"kernel": kernel, "other": other}, unbiased)
    return _normalised(*_independence(kernels, unbiased), undefined)[0, 1]


def partial_kernel_alignment(
    kernel: Tensor, other: Tensor, given: Tensor, *, unbiased: bool = False, undefined: float = math.nan
) -> Tensor:
    r"""Return the alignment of two kernels beyond what a third one gives.

    .. math:: \frac{r_{12} - r_{13} r_{23}}{\sqrt{(1 - r_{13}^2)(1 - r_{23}^2)}}

    with :math:`r` the alignments of :func:`kernel_alignment`.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        kernel: symmetric kernel over n samples or conditions.
        other: symmetric kernel over the same.
        given: symmetric kernel over the same whose part is taken out.
        unbiased: whether to leave the diagonals out.
        undefined: value where a kernel has no variance, or is aligned with ``given`` entirely.

    Shape:
        kernel (n, n), other (n, n), given (n, n) -> (), float64

    Raises:
        ValueError: as :func:`kernel_alignment`.

    Example:
        >>> x, y = torch.eye(4), torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
        >>> float(partial_kernel_alignment(x @ x.T + y @ y.T, x @ x.T, y @ y.T)) > 0.99
        True
    """
    kernels = _checked_kernels({"kernel": kernel, "other": other, "given": given}, unbiased)
    return _partial(_normalised(*_independence(kernels, unbiased), math.nan), undefined)


def _feature_pairs(parts: dict[str, Tensor], unbiased: bool, undefined: float) -> Tensor:
    found = [checked_rows(part, name, 4 if unbiased else 2) for name, part in parts.items()]
    if len({len(part) for part in found}) > 1:
        given = {name: len(part) for name, part in parts.items()}
        raise ValueError(f"rows of features are {given}; they must be the same samples")
    sizes = [part.shape[1] for part in found]
    if len(found[0]) < sum(sizes):  # the kernels are the smaller matrices
        centred = [part - part.mean(0) for part in found]
        criteria, _ = _independence([part @ part.T for part in centred], unbiased)
        level = torch.stack([part.abs().amax() for part in found])
        spread = torch.stack([part.abs().amax() for part in centred])
        return _normalised(criteria, spread > _ROUNDING * level, undefined)
    moments = Moments.of(torch.cat(found, 1), block_membership(sizes))
    return _normalised(moments.independence(unbiased), moments.varies(), undefined)


def feature_alignment(
    features: Tensor, other: Tensor, *, unbiased: bool = False, undefined: float = math.nan
) -> Tensor:
    r"""Return the centred alignment of the linear kernels of features (linear CKA).

    .. math::
        \frac{\lVert S_{xy} \rVert_F^2}{\lVert S_{xx} \rVert_F \lVert S_{yy} \rVert_F}, \qquad
        S_{xy} = \sum_n (x_n - \bar x)(y_n - \bar y)^\top

    It equals :func:`kernel_alignment` of ``x @ x.T`` and ``y @ y.T``, without a matrix over samples where these are
    more than the features. It does not change with rotations, shifts and a common scale of all features of one side,
    but with other linear maps.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        features: representation x of n samples or conditions, at least 2, or 4 with ``unbiased``.
        other: representation, input or target y of the same; classes as one-hot rows.
        unbiased: whether to leave the diagonals of the kernels out, see :func:`kernel_alignment`.
        undefined: value where one side has no variance.

    Shape:
        features (n, D), other (n, E) -> (), float64

    Raises:
        ValueError: if shapes do not fit, there are too few rows, or features are not finite.

    Example:
        >>> x = torch.randn(20, 3)
        >>> rotation = torch.linalg.qr(torch.randn(3, 3)).Q
        >>> round(float(feature_alignment(x, 5 * x @ rotation + 1)), 4)
        1.0
    """
    return _feature_pairs({"features": features, "other": other}, unbiased, undefined)[0, 1]


def partial_feature_alignment(
    features: Tensor, other: Tensor, given: Tensor, *, unbiased: bool = False, undefined: float = math.nan
) -> Tensor:
    r"""Return the alignment of features with others beyond what given ones explain.

    See :func:`partial_kernel_alignment`, of which these are the linear kernels: with inputs as ``other`` and targets as
    ``given`` it tells whether a representation keeps the geometry of the inputs beyond their labels.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        features: representation of n samples or conditions.
        other: representation, input or target of the same.
        given: features of the same whose part is taken out.
        unbiased: whether to leave the diagonals of the kernels out, see :func:`kernel_alignment`.
        undefined: value where a part has no variance, or is aligned with ``given`` entirely.

    Shape:
        features (n, D), other (n, E), given (n, F) -> (), float64

    Raises:
        ValueError: as :func:`feature_alignment`.

    Example:
        >>> inputs, labels = torch.eye(4), torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
        >>> float(partial_feature_alignment(inputs, inputs, labels)) > 0.99
        True
    """
    parts = {"features": features, "other": other, "given": given}
    return _partial(_feature_pairs(parts, unbiased, math.nan), undefined)


class FeatureAlignment(FeatureMoments):
    """Linear CKA over the batches of an epoch, exact, with memory that does not depend on the number of samples.

    Averages of the alignments of batches would be biased upward; moments are collected instead, in float64. Reduction
    over processes: moments are gathered and merged, or sums of conditions added. The functional twin is
    :func:`feature_alignment`.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        num_features: number D of features of the representation, at least 1.
        num_reference_features: number E of features of what it is compared with, at least 1.
        num_conditions: number P of conditions whose mean rows are compared; None to compare all rows.
        unbiased: whether to leave the diagonals of the kernels out, see :func:`kernel_alignment`.
        undefined: value where one side has no variance.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if a size is too small; in ``compute``, if there are too few rows, or they are not finite.

    Example:
        >>> metric = FeatureAlignment(3, 1)
        >>> x = torch.randn(20, 3)
        >>> for part in x.split(8):
        ...     metric.update(part, part[:, :1])
        >>> torch.testing.assert_close(metric.compute(), feature_alignment(x, x[:, :1]))
    """

    def __init__(
        self,
        num_features: int,
        num_reference_features: int,
        num_conditions: int | None = None,
        *,
        unbiased: bool = False,
        undefined: float = math.nan,
        **kwargs: Any,
    ) -> None:
        super().__init__([num_features, num_reference_features], num_conditions, **kwargs)
        self.unbiased, self.undefined = unbiased, undefined

    def update(self, features: Tensor, reference: Tensor, condition: Tensor | None = None) -> None:
        """Take one batch.

        Args:
            features: representation (B, D).
            reference: what it is compared with, (B, E).
            condition: condition of each row, int64 (B,); None without conditions.
        """
        self.collect([features, reference], condition)

    def compute(self) -> Tensor:
        """Return the alignment."""
        moments = self.moments(4 if self.unbiased else 2)
        return _normalised(moments.independence(self.unbiased), moments.varies(), self.undefined)[0, 1]


class PartialFeatureAlignment(FeatureMoments):
    """Partial alignment over the batches of an epoch, with memory that does not depend on the number of samples.

    Reduction over processes: as of :class:`FeatureAlignment`. The functional twin is
    :func:`partial_feature_alignment`.

    Source: arXiv 2401.13558. Differs from it: none.

    Args:
        num_features: number D of features of the representation, at least 1.
        num_reference_features: number E of features of what it is compared with, at least 1.
        num_given_features: number F of features of what is taken out, at least 1.
        num_conditions: number P of conditions whose mean rows are compared; None to compare all rows.
        unbiased: whether to leave the diagonals of the kernels out, see :func:`kernel_alignment`.
        undefined: value where a part has no variance, or is aligned with what is given entirely.
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: if a size is too small; in ``compute``, if there are too few rows, or they are not finite.

    Example:
        >>> metric = PartialFeatureAlignment(4, 4, 1, num_conditions=4)
        >>> inputs, labels = torch.eye(4), torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
        >>> metric.update(inputs, inputs, labels, torch.arange(4))
        >>> round(float(metric.compute()), 4)
        1.0
    """

    def __init__(
        self,
        num_features: int,
        num_reference_features: int,
        num_given_features: int,
        num_conditions: int | None = None,
        *,
        unbiased: bool = False,
        undefined: float = math.nan,
        **kwargs: Any,
    ) -> None:
        super().__init__([num_features, num_reference_features, num_given_features], num_conditions, **kwargs)
        self.unbiased, self.undefined = unbiased, undefined

    def update(self, features: Tensor, reference: Tensor, given: Tensor, condition: Tensor | None = None) -> None:
        """Take one batch.

        Args:
            features: representation (B, D).
            reference: what it is compared with, (B, E).
            given: what is taken out, (B, F).
            condition: condition of each row, int64 (B,); None without conditions.
        """
        self.collect([features, reference, given], condition)

    def compute(self) -> Tensor:
        """Return the partial alignment."""
        moments = self.moments(4 if self.unbiased else 2)
        return _partial(_normalised(moments.independence(self.unbiased), moments.varies(), math.nan), self.undefined)
