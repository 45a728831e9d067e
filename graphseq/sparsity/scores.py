"""Scores of weights: which to prune, and which of those that do not exist to add."""

import torch
from torch import Generator, Tensor, nn

__all__ = [
    "RunningCorrelation",
    "distance_score",
    "gradient_score",
    "keep_highest",
    "magnitude_score",
    "movement_score",
    "random_score",
]


def magnitude_score(weight: Tensor) -> Tensor:
    """Return the absolute value of each weight.

    Args:
        weight: weights of any shape.

    Example:
        >>> magnitude_score(torch.tensor([-2.0, 0.5]))
        tensor([2.0000, 0.5000])
    """
    return weight.detach().abs()


def random_score(weight: Tensor, generator: Generator | None = None) -> Tensor:
    """Return a random score in [0, 1) for each weight.

    Args:
        weight: weights, of which only shape and device are used.
        generator: generator on the CPU, so that all devices draw the same scores; None for the global one.

    Example:
        >>> random_score(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def gradient_score(grad: Tensor) -> Tensor:
    """Return the absolute value of the gradient of each weight, also of those that do not exist.

    Source: arXiv 1911.11134, which grows the weights of largest gradient.

    Args:
        grad: gradient of the loss by the dense weight.

    Example:
        >>> gradient_score(torch.tensor([-2.0, 0.5]))
        tensor([2.0000, 0.5000])
    """
    return grad.detach().abs()


def movement_score(weight: Tensor, grad: Tensor) -> Tensor:
    r"""Return :math:`-w\, \partial L / \partial w`: large where a step of training moves the weight away from zero.

    Source: arXiv 2005.07683, eq. 6; its score is the sum over the steps of training, which the caller adds up.

    Args:
        weight: weights of any shape.
        grad: gradient of the loss by them, of the same shape.

    Example:
        >>> movement_score(torch.tensor([1.0, 1.0]), torch.tensor([-2.0, 2.0]))
        tensor([ 2., -2.])
    """
    _same_shape(weight, grad=grad)
    return -(weight * grad).detach()


def distance_score(weight: Tensor, start: Tensor) -> Tensor:
    r"""Return :math:`|w - w_0|`: how far each weight has moved since training, or its last rewinding, began.

    Source: the criterion of arXiv 2212.06145 among negative weights.

    Args:
        weight: weights of any shape.
        start: weights at the beginning, of the same shape.

    Example:
        >>> distance_score(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.0]))
        tensor([0.5000, 2.0000])
    """
    _same_shape(weight, start=start)
    return (weight.detach() - start).abs()


def keep_highest(score: Tensor, density: float, among: Tensor | None = None) -> Tensor:
    """Return the mask of the weights with the highest scores; of equal ones, those that come first.

    Args:
        score: score of each weight.
        density: share of all weights that is kept, in [0, 1]; their number is rounded, ties never exceed it.
        among: true for weights that may be kept, of the shape of ``score``; None for all.

    Returns:
        True for kept weights, of the shape of ``score``.

    Raises:
        ValueError: if ``density`` is outside [0, 1] or more weights are asked for than may be kept.

    Example:
        >>> keep_highest(torch.tensor([3.0, 1.0, 2.0, 2.0]), 0.5)
        tensor([ True, False,  True, False])
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density is {density}; it must be in [0, 1]")
    count = round(density * score.numel())
    flat = score.detach().flatten()
    if among is not None:
        if count > int(among.sum()):
            raise ValueError(f"density is {density}, {count} weights, where {int(among.sum())} may be kept")
        flat = flat.masked_fill(~among.flatten(), -torch.inf)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[:count]] = True
    return kept.view(score.shape)


class RunningCorrelation(nn.Module):
    r"""Pearson correlation between the units of two layers, gathered over batches: a Hebbian score of each weight.

    A batch with means :math:`\mu`, covariances :math:`C` and share :math:`\alpha` of the samples so far updates

    .. math:: m \leftarrow m + \alpha \delta, \qquad
        S \leftarrow (1-\alpha) S + \alpha C + \alpha (1-\alpha)\, \delta \delta^\top, \qquad \delta = \mu - m

    and :math:`\rho_{ji} = S_{ji} / \sqrt{v_i v_j}`. With the share of the samples the result is exactly the correlation
    over all of them; ``decay`` keeps :math:`\alpha \ge 1 - \beta`, which forgets old batches exponentially.
    Units that never change have correlation 0.

    Args:
        pre_features: number of units of the layer before, i.
        post_features: number of units of the layer after, j.
        decay: factor :math:`\beta` in (0, 1) by which a batch loses weight with each later one; None for equal weights
            of all samples.

    Raises:
        ValueError: if ``decay`` is outside its range.

    Example:
        >>> statistics = RunningCorrelation(1, 1)
        >>> x = torch.randn(50, 1)
        >>> statistics.update(x, 3 * x + 1)
        >>> round(float(statistics.correlation()), 4)
        1.0
    """

    count: Tensor
    pre_mean: Tensor
    post_mean: Tensor
    pre_variance: Tensor
    post_variance: Tensor
    covariance: Tensor

    def __init__(self, pre_features: int, post_features: int, decay: float | None = None) -> None:
        super().__init__()
        if decay is not None and not 0.0 < decay < 1.0:
            raise ValueError(f"decay is {decay}; it must be in (0, 1), or None")
        self.decay = decay
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("pre_mean", torch.zeros(pre_features))
        self.register_buffer("post_mean", torch.zeros(post_features))
        self.register_buffer("pre_variance", torch.zeros(pre_features))
        self.register_buffer("post_variance", torch.zeros(post_features))
        self.register_buffer("covariance", torch.zeros(post_features, pre_features))

    def reset(self) -> None:
        """Forget all batches."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def update(self, pre: Tensor, post: Tensor) -> None:
        """Add a batch; all axes but the last are samples.

        Args:
            pre: activations of the layer before (*, pre_features).
            post: activations of the layer after (*, post_features).
        """
        pre = pre.detach().reshape(-1, pre.size(-1)).to(self.covariance)  # (B, I)
        post = post.detach().reshape(-1, post.size(-1)).to(self.covariance)  # (B, J)
        self.count += len(pre)
        share = len(pre) / self.count
        if self.decay is not None:
            share = share.clamp(min=1.0 - self.decay)
        share = share.to(self.covariance)
        pre_mean, post_mean = pre.mean(0), post.mean(0)
        pre, post = pre - pre_mean, post - post_mean
        to_pre, to_post = pre_mean - self.pre_mean, post_mean - self.post_mean
        between = share * (1 - share)
        for variance, batch, shift in ((self.pre_variance, pre, to_pre), (self.post_variance, post, to_post)):
            variance.lerp_(batch.square().mean(0), share).addcmul_(shift * between, shift)
        self.covariance.mul_(1 - share).add_(post.t() @ pre * (share / len(pre))).addr_(to_post * between, to_pre)
        self.pre_mean += share * to_pre
        self.post_mean += share * to_post

    def correlation(self) -> Tensor:
        """Return the correlation of each pair of units (post_features, pre_features), in [-1, 1]."""
        scale = self.post_variance.sqrt()[:, None] * self.pre_variance.sqrt()
        return torch.where(scale > 0, self.covariance / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)


def _same_shape(weight: Tensor, **others: Tensor) -> None:
    for name, value in others.items():
        if value.shape != weight.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; that of weight, {tuple(weight.shape)}, is needed")
