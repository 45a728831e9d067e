"""Encodings of hypernetwork inputs in [0, 1]."""

import math

import torch
from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["ComplementEncoding", "CosineEncoding"]


def _check_range(z: Tensor) -> None:
    if z.is_complex():
        raise ValueError(f"inputs are {z.dtype}; real numbers in [0, 1] are needed")
    # a device would have to be waited for
    if z.device.type != "cpu" or torch.compiler.is_compiling() or not z.numel():
        return
    low, high = (float(bound) for bound in z.detach().aminmax())
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"inputs range from {low:g} to {high:g}; they must be in [0, 1], where no two inputs have the same "
            "encoding: rescale each input by its own minimum and maximum"
        )


class CosineEncoding(Recorded, nn.Module):
    r"""Encode each number of [0, 1] as a point of a quarter circle, so that all inputs have the same norm.

    .. math:: E(z) = [\cos(\pi z / 2), \; \sin(\pi z / 2)], \qquad \lVert E(z) \rVert_2 = \sqrt D

    Source: arXiv 2304.07645. Differs from the paper: inputs outside [0, 1] raise an error, on the CPU only.

    Shape:
        z (*, D), each in [0, 1] -> (*, 2 D): all cosines, then all sines

    Raises:
        ValueError: in ``forward``, if a number is outside [0, 1]; checked on the CPU only, since a check on another
            device would force a synchronisation.

    Example:
        >>> CosineEncoding()(torch.tensor([0.0, 0.5]))
        tensor([1.0000, 0.7071, 0.0000, 0.7071])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Encode numbers.

        Args:
            z: numbers in [0, 1], (*, D).
        """
        _check_range(z)
        angle = z * (math.pi / 2)
        return torch.cat([angle.cos(), angle.sin()], -1)


class ComplementEncoding(Recorded, nn.Module):
    r"""Encode each number of [0, 1] beside its difference to 1; the norm of the result depends on the input.

    .. math:: E(z) = [z, \; 1 - z]

    Source: an alternative in the authors' code of arXiv 2304.07645, a control for the constant norm of
    :class:`CosineEncoding`.

    Shape:
        z (*, D), each in [0, 1] -> (*, 2 D): all numbers, then all differences

    Raises:
        ValueError: in ``forward``, if a number is outside [0, 1], see :class:`CosineEncoding`.

    Example:
        >>> ComplementEncoding()(torch.tensor([0.25]))
        tensor([0.2500, 0.7500])
    """

    def forward(self, z: Tensor) -> Tensor:
        """Encode numbers.

        Args:
            z: numbers in [0, 1], (*, D).
        """
        _check_range(z)
        return torch.cat([z, 1 - z], -1)
