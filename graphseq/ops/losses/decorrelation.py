"""Dependence between variables under sample weights: random features, weighted covariances, clusters of variables."""

from typing import Literal, cast

import torch
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from graphseq.ops.graphs.ties import to_steps

__all__ = [
    "cluster_variables",
    "correlation_dissimilarity",
    "decorrelation_loss",
    "effective_sample_size",
    "random_fourier_features",
    "weighted_cross_covariance",
]

Estimator = Literal["weighted", "product"]

_CHUNK_ELEMENTS = 2**24
"""Entries of a block of covariances held at once: 64 MB in float32."""


_SAME_DISSIMILARITY = 2.0**-16
"""Dissimilarities that differ by less count as equal: rounding in float32, and its square root near zero, is less."""


def random_fourier_features(
    z: Tensor,
    num_features: int = 5,
    *,
    standardize: bool = True,
    omega: Tensor | None = None,
    phase: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Random cosines of each variable, whose products average to a Gaussian kernel.

    .. math:: u_{jq}(z) = \sqrt{2} \cos(\omega_{jq} z_j + \phi_{jq}), \qquad \omega \sim N(0, 1),\ \phi \sim U(0, 2\pi)

    Source: arXiv 2312.12475, section 3.1 (random Fourier features of Rahimi and Recht, 2007). Differs
    from the released code: each variable has frequencies of its own, and arguments are not squeezed row by row into
    [0, pi / 2], which would couple the variables.

    Args:
        z: representations, one row for each sample.
        num_features: number of cosines Q of each variable, at least 1.
        standardize: whether each column is first standardised to mean 0 and deviation 1, without gradient through
            these. The features of a constant column are then 0, so that it does not contribute to the covariances.
        omega: frequencies (D, Q); None draws them.
        phase: phases (D, Q); None draws them.
        generator: generator of the frequencies and phases; None for torch's own.

    Shape:
        z (N, D) -> (N, D, Q)

    Raises:
        ValueError: if ``z`` is not a matrix or has no rows, or ``num_features`` is below 1.

    Example:
        >>> random_fourier_features(torch.randn(6, 3), 2).shape
        torch.Size([6, 3, 2])
    """
    if z.dim() != 2 or not len(z):
        raise ValueError(f"z is {tuple(z.shape)}; it must be (samples, variables) with at least one sample")
    if num_features < 1:
        raise ValueError(f"num_features is {num_features}; it must be at least 1")
    varies = None
    if standardize:
        fixed = z.detach()
        deviation = fixed.std(0, correction=0)
        # said of what is constant, so that NaN is not: it must reach the loss
        varies = ~(deviation <= 1e-6 * fixed.abs().amax(0).clamp(min=1e-6))
        z = torch.where(varies, (z - fixed.mean(0)) / torch.where(varies, deviation, 1.0), 0.0)
    shape = (z.size(1), num_features)
    options = {"device": z.device, "dtype": z.dtype, "generator": generator}
    if omega is None:
        omega = torch.randn(shape, **options)  # type: ignore[call-overload]
    if phase is None:
        phase = torch.rand(shape, **options) * (2 * torch.pi)  # type: ignore[call-overload]
    features = 2**0.5 * torch.cos(z[:, :, None] * omega + phase)
    # weights times a constant vary, which the product estimator would take for dependence
    return features if varies is None else torch.where(varies[:, None], features, 0.0)


def _factors(features: Tensor, weight: Tensor, estimator: Estimator) -> tuple[Tensor, Tensor, Tensor]:
    """Return matrices (N, D Q) and a mean (D Q,) with which the covariance is left' right - mean mean'."""
    if features.dim() != 3:
        raise ValueError(f"features are {tuple(features.shape)}; they must be (samples, variables, features)")
    if weight.shape != features.shape[:1]:
        raise ValueError(f"weight is {tuple(weight.shape)} for {len(features)} samples; one for each is needed")
    flat = features.flatten(1)
    if estimator == "weighted":
        share = weight / weight.sum()
        # any fixed shift leaves the covariance as it is; this one keeps the difference from losing digits, and what is
        # then left of the weighted mean costs a vector in the gradient, where weighted centring would cost a matrix
        shifted = flat - flat.detach().mean(0)
        return share[:, None] * shifted, shifted, share @ shifted
    if estimator == "product":
        scaled = weight[:, None] * flat
        centred = scaled - scaled.mean(0)
        return centred / max(len(flat) - 1, 1), centred, torch.zeros_like(centred[0])
    raise ValueError(f"estimator is {estimator!r}; it must be 'weighted' or 'product'")


def weighted_cross_covariance(features: Tensor, weight: Tensor, estimator: Estimator = "weighted") -> Tensor:
    r"""Covariances between the features of all pairs of variables under sample weights.

    .. math::
        C^{\mathrm{weighted}}_{ij} = \sum_n q_n u_{ni} u_{nj}^\top
            - \Bigl(\sum_n q_n u_{ni}\Bigr)\Bigl(\sum_n q_n u_{nj}\Bigr)^\top, \quad q_n = w_n / \textstyle\sum_m w_m

        C^{\mathrm{product}}_{ij} = \frac{1}{N - 1}
            \sum_n (w_n u_{ni} - \overline{w u_i})(w_n u_{nj} - \overline{w u_j})^\top

    Source: arXiv 2312.12475, eq. 4 (``product``, as printed) and its released code (``weighted``). They are not equal:
    weights that make two variables independent are a zero of the first alone, so it is the default.

    Args:
        features: features of each variable, such as :func:`random_fourier_features` returns.
        weight: weight of each sample, at least 0, not all 0.
        estimator: one of the estimators above.

    Shape:
        features (N, D, Q), weight (N,) -> (D, D, Q, Q); memory D^2 Q^2, which :func:`decorrelation_loss` does not take

    Raises:
        ValueError: if shapes do not fit or the estimator is unknown.

    Example:
        >>> weighted_cross_covariance(torch.randn(9, 3, 2), torch.ones(9)).shape
        torch.Size([3, 3, 2, 2])
    """
    left, right, mean = _factors(features, weight, estimator)
    variables, each = features.shape[1:]
    return (left.T @ right - mean[:, None] * mean).view(variables, each, variables, each).transpose(1, 2)


def decorrelation_loss(
    features: Tensor,
    weight: Tensor,
    cluster: Tensor | None = None,
    *,
    estimator: Estimator = "weighted",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    r"""Dependence between variables of different clusters under sample weights.

    .. math:: L = \sum_{i < j,\ c_i \neq c_j} \lVert C_{ij} \rVert_F^2

    divided by the number of such pairs and by Q^2 for ``mean``. Without clusters each variable is one of its own: all
    pairs count. With a single cluster the loss is exactly 0, and so is its gradient.

    Source: arXiv 2312.12475, eq. 5. Differs from it: the indicator of the printed equation is inverted, in
        contradiction to the text.

    Args:
        features: features of each variable, such as :func:`random_fourier_features` returns.
        weight: weight of each sample, at least 0, not all 0.
        cluster: cluster of each variable, int64; None for one cluster for each variable.
        estimator: estimator of :func:`weighted_cross_covariance`.
        reduction: reduction over the pairs of variables, ``mean`` or ``sum``.

    Shape:
        features (N, D, Q), weight (N,), cluster (D,) -> scalar; memory N D Q and a few blocks of 64 MB, with gradients
        as well: where one block does not hold all pairs, blocks are computed again on the way back

    Raises:
        ValueError: if shapes do not fit or a choice is unknown.

    Example:
        >>> features = random_fourier_features(torch.randn(50, 4))
        >>> decorrelation_loss(features, torch.ones(50), torch.zeros(4, dtype=torch.int64))
        tensor(0.)
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'")
    left, right, mean = _factors(features, weight, estimator)
    variables, each = features.shape[1:]
    if cluster is None:
        cluster = torch.arange(variables, device=features.device)
    elif cluster.shape != (variables,):
        raise ValueError(f"cluster is {tuple(cluster.shape)} for {variables} variables; one for each is needed")
    different = (cluster[:, None] != cluster[None, :]).to(right.dtype)
    rows = max(1, _CHUNK_ELEMENTS // max(1, each * each * variables))

    def block(start: int, left: Tensor, right: Tensor, mean: Tensor) -> Tensor:
        columns = slice(start * each, (start + rows) * each)
        covariance = left[:, columns].T @ right - mean[columns, None] * mean
        counted = covariance.view(-1, each, variables, each) * different[start : start + rows, None, :, None]
        return counted.square().sum()

    total = features.new_zeros(())
    for start in range(0, variables, rows):
        if rows >= variables:
            total = total + block(start, left, right, mean)
        else:
            part = checkpoint(block, start, left, right, mean, use_reentrant=False, preserve_rng_state=False)
            total = total + cast(Tensor, part)
    total = total / 2  # each pair was counted from both sides
    if reduction == "sum":
        return total
    pairs = different.sum() / 2
    return total / (pairs.clamp(min=1) * each * each)


def effective_sample_size(weight: Tensor) -> Tensor:
    r"""Effective sample size of weights, as a share of the number of samples.

    .. math:: \mathrm{ESS} = \frac{(\sum_n w_n)^2}{N \sum_n w_n^2} \in [1 / N, 1]

    Source: Kish, Survey Sampling (1965).

    Args:
        weight: weight of each sample, at least 0, not all 0.

    Shape:
        weight (N,) -> scalar

    Example:
        >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        tensor(0.5000)
    """
    return weight.sum().square() / (len(weight) * weight.square().sum())


def correlation_dissimilarity(z: Tensor, group: Tensor, min_count: int = 5) -> Tensor:
    r"""Standard deviation over groups of the correlation of two variables.

    .. math::
        \mathrm{Dis}_{ij} = \sqrt{\frac{1}{L_{ij} - 1} \sum_l \bigl(\rho^l_{ij} - \bar\rho_{ij}\bigr)^2}

    over the groups l with at least ``min_count`` samples in which both variables vary. A pair that has fewer than two
    such groups gets the mean dissimilarity of the others, or 0 if there are none.

    Source: arXiv 2312.12475, eq. 3 and 13, after Shen et al. (KDD 2020). Differs from it: groups are an argument; the
    paper takes mini-batches.

    Args:
        z: variables, one row for each sample, or for each node where groups are graphs.
        group: group of each row, int64, at least 0.
        min_count: number of rows that a group needs, at least 3.

    Shape:
        z (M, D), group (M,) -> (D, D), symmetric with a zero diagonal; memory L D (D + rows of the largest group)

    Raises:
        ValueError: if shapes do not fit or ``min_count`` is below 3.

    Example:
        >>> correlation_dissimilarity(torch.randn(40, 3), torch.arange(40) % 4).diagonal()
        tensor([0., 0., 0.])
    """
    if z.dim() != 2 or group.shape != z.shape[:1]:
        raise ValueError(f"z is {tuple(z.shape)} and group {tuple(group.shape)}; (M, D) and (M,) are needed")
    if min_count < 3:
        raise ValueError(f"min_count is {min_count}; two rows always correlate perfectly, so at least 3 are needed")
    if len(group) and int(group.min()) < 0:
        raise ValueError(f"group holds {int(group.min())}; groups are numbered from 0")
    groups = int(group.max()) + 1 if len(group) else 0
    count = torch.zeros(groups, dtype=z.dtype, device=z.device).index_add_(0, group, z.new_ones(len(z)))
    mean = z.new_zeros(groups, z.size(1)).index_add_(0, group, z) / count.clamp(min=1)[:, None]
    centred = z - mean.index_select(0, group)
    variance = z.new_zeros(groups, z.size(1)).index_add_(0, group, centred.square())
    scale = z.new_zeros(groups, z.size(1)).index_add_(0, group, z.square())
    # NaN is not constant: it must reach the result
    varies = ~(variance <= 1e-12 * scale.clamp(min=1e-12)) & (count >= min_count)[:, None]
    unit = centred / torch.where(varies, variance, 1.0).sqrt().index_select(0, group)
    # groups one after the other in the rows: products of pairs within each, without a loop over groups
    order = group.argsort(stable=True)
    padded = z.new_zeros(groups, int(count.max()) if groups else 0, z.size(1))
    start = count.cumsum(0) - count
    place = torch.arange(len(z), device=z.device) - start.long().index_select(0, group[order])
    padded[group[order], place] = unit[order]
    correlation = torch.bmm(padded.transpose(1, 2), padded)
    known = varies[:, :, None] & varies[:, None, :]
    number = known.sum(0)
    correlation = torch.where(known, correlation, 0.0)
    average = correlation.sum(0) / number.clamp(min=1)
    deviation = torch.where(known, correlation - average, 0.0).square().sum(0)
    result = (deviation / (number - 1).clamp(min=1)).sqrt()
    enough = (number >= 2).fill_diagonal_(False)
    typical = torch.where(enough, result, 0.0).sum() / enough.sum().clamp(min=1)
    return torch.where(number >= 2, result, typical).fill_diagonal_(0.0)


def cluster_variables(dissimilarity: Tensor, num_clusters: int) -> Tensor:
    r"""Clusters of variables by average linkage: the two clusters with the smallest mean dissimilarity are joined.

    Dissimilarities count as equal within steps of :math:`2^{-16}`, and of equal pairs the first is joined, so that
    clusters do not depend on the last bits, which differ between processors.

    Source: arXiv 2312.12475, section 3.2. Differs from it: the paper's k-means needs a mean of variables, which the
    dissimilarity does not define.

    Args:
        dissimilarity: symmetric, finite matrix with a zero diagonal.
        num_clusters: number of clusters, from 1 to the number of variables.

    Shape:
        dissimilarity (D, D) -> (D,) int64 in 0..num_clusters-1, numbered by their first variable

    Raises:
        ValueError: if the matrix is not square and finite, or there are more clusters than variables.

    Example:
        >>> cluster_variables(torch.tensor([[0.0, 0.1, 0.9], [0.1, 0.0, 0.8], [0.9, 0.8, 0.0]]), 2)
        tensor([0, 0, 1])
    """
    size = len(dissimilarity)
    if dissimilarity.shape != (size, size) or not bool(torch.isfinite(dissimilarity).all()):
        raise ValueError(f"dissimilarity is {tuple(dissimilarity.shape)}; it must be square, with finite entries")
    if not 1 <= num_clusters <= size:
        raise ValueError(f"num_clusters is {num_clusters}; there are {size} variables, so 1 to {size} are possible")
    if num_clusters == size:
        return torch.arange(size, device=dissimilarity.device)
    import numpy as np
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    steps = to_steps(dissimilarity.detach().cpu(), _SAME_DISSIMILARITY)
    distances = squareform(steps.numpy(), checks=False)
    labels = cut_tree(linkage(distances, "average"), num_clusters).ravel()
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[inverse]).to(dissimilarity.device)
