"""Damped exponential moving averages with several rates for each channel."""

import torch
from torch import Tensor

__all__ = ["ema_convolution", "ema_kernel", "ema_recurrence"]


def ema_kernel(alpha: Tensor, damping: Tensor, expand: Tensor, project: Tensor, steps: int) -> Tensor:
    r"""Return the kernel of damped moving averages, by which they are one convolution.

    .. math:: \kappa_{c}(t) = \sum_{h} \eta_{ch}\, \alpha_{ch}\, \beta_{ch}\, (1 - \alpha_{ch} \delta_{ch})^t

    Source: arXiv 2209.10655, section 3.2 (MEGA), from memory. Differs from it: none known.

    Args:
        alpha: weight :math:`\alpha` of the new step, in (0, 1].
        damping: factor :math:`\delta` of what is forgotten, in (0, 1]; 1 is the usual moving average.
        expand: weights :math:`\beta` from a channel to its averages.
        project: weights :math:`\eta` from the averages back to the channel.
        steps: number T of lags, at least 1.

    Shape:
        alpha, damping, expand, project (C, H) -> (C, T)

    Example:
        >>> half, one = torch.full((1, 1), 0.5), torch.ones(1, 1)
        >>> ema_kernel(half, one, one, one, 3).tolist()
        [[0.5, 0.25, 0.125]]
    """
    lag = torch.arange(steps, device=alpha.device, dtype=alpha.dtype)
    decay = torch.pow((1 - alpha * damping)[..., None], lag)  # (C, H, T)
    return torch.einsum("ch,cht->ct", project * alpha * expand, decay)


def ema_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    r"""Return the causal convolution of each channel with a kernel as long as the sequence, by Fourier transforms.

    .. math:: y = F^{-1}\bigl(F(x) \odot F(\kappa)\bigr)

    of twice the length, so that the end does not come round to the beginning: T log T operations.

    Args:
        x: inputs.
        kernel: kernel of each channel, lag 0 first.

    Shape:
        x (B, T, C), kernel (C, T) -> (B, T, C)

    Raises:
        ValueError: if shapes do not fit together.

    Example:
        >>> y = ema_convolution(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[1.0, 10.0]])).flatten()
        >>> bool(torch.allclose(y, torch.tensor([1.0, 12.0]), atol=1e-4))
        True
    """
    if x.dim() != 3 or kernel.shape != (x.shape[2], x.shape[1]):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and kernel {tuple(kernel.shape)}, where (B, T, C) and (C, T) are needed"
        )
    if not len(x):
        return x  # torch's Fourier transforms take no empty batch
    size = 2 * x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        series = x.mT.to(kernel.dtype).contiguous()  # (B, C, T)
        spectrum = torch.fft.rfft(series, size) * torch.fft.rfft(kernel, size)
        return torch.fft.irfft(spectrum, size)[..., : x.shape[1]].mT.to(x.dtype)


def ema_recurrence(
    x: Tensor, alpha: Tensor, damping: Tensor, expand: Tensor, project: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return damped moving averages step by step, and their state after the last one.

    .. math:: u_{t} = \alpha \odot \beta\, x_t + (1 - \alpha \odot \delta) \odot u_{t-1}, \qquad
        y_t = \textstyle\sum_h \eta_h\, u_{th}

    for each channel: the reference of :func:`ema_convolution` with :func:`ema_kernel`, and the form for decoding.

    Source: arXiv 2209.10655, section 3.2 (MEGA), from memory. Differs from it: none known.

    Args:
        x: inputs.
        alpha: weight :math:`\alpha` of the new step, in (0, 1].
        damping: factor :math:`\delta` of what is forgotten, in (0, 1]; 1 is the usual moving average.
        expand: weights :math:`\beta` from a channel to its averages.
        project: weights :math:`\eta` from the averages back to the channel.
        state: averages before the first step.

    Shape:
        x (B, T, C), alpha, damping, expand, project (C, H), state (B, C, H) -> y (B, T, C), state (B, C, H)

    Example:
        >>> one = torch.ones(1, 1)
        >>> y, _ = ema_recurrence(torch.ones(1, 3, 1), 0.5 * one, one, one, one, torch.zeros(1, 1, 1))
        >>> y.flatten().tolist()
        [0.5, 0.75, 0.875]
    """
    kept, new, outputs = 1 - alpha * damping, alpha * expand, []
    for step in x.unbind(1):
        state = torch.addcmul(new * step[..., None], kept, state)  # (B, C, H)
        outputs.append((project * state).sum(-1))
    return torch.stack(outputs, 1).to(x.dtype), state
