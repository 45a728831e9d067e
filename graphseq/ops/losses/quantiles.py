"""Losses of predicted quantiles."""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["pinball_loss"]


def pinball_loss(prediction: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    r"""Return the pinball loss of predicted quantiles, the mean over the levels of each target.

    .. math:: \ell = \frac{1}{Q} \sum_q \max\bigl(\tau_q (y - f_q),\ (\tau_q - 1)(y - f_q)\bigr)

    Args:
        prediction: predicted quantiles.
        target: observed numbers.
        levels: quantile levels :math:`\tau` in (0, 1).

    Shape:
        prediction (..., Q), target (...) -> (...)

    Raises:
        ValueError: if the shapes do not agree.

    Example:
        >>> import torch
        >>> pinball_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([2.0]), levels=[0.25, 0.75])
        tensor([0.2500])
    """
    if prediction.shape != (*target.shape, len(levels)):
        raise ValueError(
            f"predictions are {tuple(prediction.shape)}, targets {tuple(target.shape)}; with {len(levels)} levels "
            f"predictions must be {(*target.shape, len(levels))}"
        )
    rest = target.unsqueeze(-1) - prediction  # (..., Q)
    level = prediction.new_tensor(levels)
    return (rest * (level - (rest < 0).to(rest.dtype))).mean(-1)
