"""Relative errors of fields on grids, in the norms of L2 and of H1."""

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Recorded

__all__ = ["RelativeH1", "RelativeL2"]


class RelativeL2(Recorded, nn.Module):
    r"""Mean over samples of the error's norm relative to that of the target.

    .. math:: \frac{1}{B} \sum_b \frac{\lVert u_b - v_b \rVert_2}{\lVert v_b \rVert_2}

    Norms run over the channels and points of a sample, in float32 or wider. The number does not depend on
    the grid, nor on a factor common to predictions and targets.

    Source: arXiv 2010.08895, section 5. Differs from it: none.

    Args:
        least: lower bound of the norm of a target, for targets that are zero, above 0.

    Shape:
        prediction (B, C, Y, X), target (B, C, Y, X) -> ()

    Raises:
        ValueError: if ``least`` is not above 0.
        DataError: in ``forward``, if shapes differ or are not (B, C, Y, X), which includes fields with unknown values.

    Example:
        >>> target = torch.ones(2, 1, 4, 4)
        >>> RelativeL2()(1.5 * target, target)
        tensor(0.5000)
    """

    def __init__(self, least: float = 1e-12) -> None:
        super().__init__()
        if not least > 0:
            raise ValueError(f"least is {least}; give a number above 0")
        self.least = least

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean relative error.

        Args:
            prediction: predicted fields (B, C, Y, X).
            target: true fields (B, C, Y, X).
        """
        check_fields(prediction, target)
        # squares leave the range of half precision
        wide = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
        prediction, target = prediction.to(wide), target.to(wide)
        error, size = (field.flatten(1).norm(dim=1) for field in (prediction - target, target))  # (B,)
        return (error / size.clamp(min=self.least)).mean()


class RelativeH1(Recorded, nn.Module):
    r"""Mean over samples of the relative error in a norm that counts derivatives, computed by Fourier transforms.

    .. math:: \frac{1}{B} \sum_b \frac{\lVert w\,(\hat u_b - \hat v_b) \rVert_2}{\lVert w\,\hat v_b \rVert_2}, \qquad
        w_k = \sqrt{1 + \min(k_x^2 + k_y^2,\ K^2)}

    with :math:`k` in waves over the field. Fields are treated as periodic, so that a jump between opposite edges counts
    as a derivative. Transforms are taken in float32 or wider.

    Source: a description of the released code of arXiv 2310.19809: weights of :math:`|k|` truncated at 20. Differs from
    it: the norm of k is bounded, which the description does not say in detail.

    Args:
        max_frequency: bound K of the frequency in the weights, at least 0; 0 gives the relative error in L2.
        least: lower bound of the norm of a target, for targets that are zero, above 0.

    Shape:
        prediction (B, C, Y, X), target (B, C, Y, X) -> ()

    Raises:
        ValueError: if an argument is out of range.
        DataError: in ``forward``, if shapes differ or are not (B, C, Y, X), which includes fields with unknown values.

    Example:
        >>> x = torch.arange(16) / 16 * 2 * torch.pi
        >>> wave = torch.cos(3 * x).expand(1, 1, 16, 16)
        >>> round(float(RelativeH1()(1.5 * wave, wave)), 4)
        0.5
    """

    def __init__(self, max_frequency: float = 20.0, least: float = 1e-12) -> None:
        super().__init__()
        if not max_frequency >= 0:
            raise ValueError(f"max_frequency is {max_frequency}; give a number of at least 0")
        if not least > 0:
            raise ValueError(f"least is {least}; give a number above 0")
        self.max_frequency, self.least = max_frequency, least

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean relative error.

        Args:
            prediction: predicted fields (B, C, Y, X).
            target: true fields (B, C, Y, X).
        """
        check_fields(prediction, target)
        wide = torch.promote_types(target.dtype, torch.float32)
        height, width = target.shape[2:]
        along_y = torch.fft.fftfreq(height, 1 / height, device=target.device, dtype=wide.to_real())
        along_x = torch.fft.fftfreq(width, 1 / width, device=target.device, dtype=wide.to_real())
        squared = along_y[:, None].square() + along_x.square()  # (Y, X)
        weight = (1 + squared.clamp(max=self.max_frequency**2)).sqrt()
        error, size = (
            (weight * torch.fft.fft2(field.to(wide), norm="ortho")).flatten(1).norm(dim=1)
            for field in (prediction - target, target)
        )
        return (error / size.clamp(min=self.least)).mean()


def check_fields(prediction: Tensor, target: Tensor) -> None:
    """Check that predictions and targets are whole fields of one shape.

    Args:
        prediction: predicted fields (B, C, Y, X).
        target: true fields (B, C, Y, X).

    Raises:
        DataError: if they are not.

    Example:
        >>> check_fields(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    """
    if target.dim() != 4 or prediction.shape != target.shape:
        raise DataError(
            f"predictions have shape {tuple(prediction.shape)} and targets {tuple(target.shape)}; both must be whole "
            "fields (B, C, Y, X). A task takes fields with NaN apart: leave out samples with unknown values"
        )
    if not len(target) or not (target.is_floating_point() or target.is_complex()):
        raise DataError(f"targets are {target.dtype} {tuple(target.shape)}; give at least one field, of real numbers")
