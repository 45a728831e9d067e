"""Energy detector: marks the bins of a spectrum whose smoothed power exceeds the noise by a threshold."""

import math

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["EnergyDetector"]


class EnergyDetector(Recorded, nn.Module):
    r"""Energy detector of occupied bins: compares smoothed power with a multiple of the estimated noise.

    .. math::
        z_k = \log \frac{\tfrac1w \sum_{|j - k| \le w/2} |x_j|^2}{\hat\sigma^2} - \log \tau, \qquad
        \hat\sigma^2 = \frac{\operatorname{quantile}_q |x|^2}{-\log(1 - q)}

    The power of noise in one bin is exponential, whose q-quantile is :math:`-\log(1-q)` times its mean; the estimate
    holds where less than about 1 - q of the bins are occupied. Bins with a positive logit are classified as occupied.
    There are no trained parameters; :func:`graphseq.ops.best_threshold` finds the best threshold for known masks.

    Args:
        window: number of bins w of the moving mean, odd and at least 1; 1 for no smoothing.
        threshold: ratio :math:`\tau` of power to noise in decibels.
        quantile: quantile q that estimates the noise, in (0, 1).

    Shape:
        x (B, N) complex -> logits (B, N) real

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the spectrum is not (B, N).
        TypeError: in ``forward``, if the spectrum is real.

    Example:
        >>> x = torch.ones(1, 9, dtype=torch.complex64)
        >>> x[0, 4] = 100
        >>> (EnergyDetector(threshold=20.0, quantile=0.5)(x) > 0).int().tolist()
        [[0, 0, 0, 0, 1, 0, 0, 0, 0]]
    """

    def __init__(self, window: int = 1, threshold: float = 10.0, quantile: float = 0.25) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window is {window}; it must be an odd number of at least 1")
        if not 0 < quantile < 1:
            raise ValueError(f"quantile is {quantile}; it must be in (0, 1)")
        if not math.isfinite(threshold):
            raise ValueError(f"threshold is {threshold}; give a finite number of decibels")
        self.window, self.threshold, self.quantile = window, threshold, quantile

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"window={self.window}, threshold={self.threshold:g}, quantile={self.quantile:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the bins.

        Args:
            x: complex spectra (B, N).
        """
        if not x.is_complex():
            raise TypeError(f"the spectrum is {x.dtype}; EnergyDetector takes complex numbers (B, N)")
        if x.dim() != 2 or not x.shape[1]:
            raise ValueError(f"the spectrum has shape {tuple(x.shape)}, where (B, N) is needed")
        if not len(x):
            return x.real.clone()
        power = x.real.square() + x.imag.square()
        noise = power.quantile(self.quantile, 1, keepdim=True) / -math.log1p(-self.quantile)
        smooth = nn.functional.avg_pool1d(
            power.unsqueeze(1), self.window, 1, self.window // 2, count_include_pad=False
        ).squeeze(1)
        ratio = smooth / noise.clamp(min=torch.finfo(noise.dtype).tiny)
        return ratio.clamp(min=torch.finfo(noise.dtype).tiny).log() - self.threshold * (math.log(10) / 10)
