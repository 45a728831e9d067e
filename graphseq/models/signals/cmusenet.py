"""CMuSeNet: complex residual network that finds the occupied bins of a spectrum, and its real-valued counterpart."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Recorded
from graphseq.nn.complex.activations import CReLU
from graphseq.nn.complex.initialization import complex_kaiming_normal_, complex_xavier_normal_
from graphseq.nn.complex.norm import ComplexBatchNorm

__all__ = ["CMuSeNet", "RealMuSeNet", "num_real_parameters"]

Layout = Literal["1d", "square"]


def num_real_parameters(module: nn.Module) -> int:
    """Return the number of real parameters of a network, where a complex parameter counts as two.

    Args:
        module: any layer or network.

    Example:
        >>> num_real_parameters(nn.Linear(2, 3, dtype=torch.complex64))
        18
    """
    return sum(parameter.numel() * (1 + parameter.is_complex()) for parameter in module.parameters())


def _convolution(layout: Layout, before: int, after: int, kernel: int, stride: int, dtype: torch.dtype) -> nn.Module:
    layer = nn.Conv1d if layout == "1d" else nn.Conv2d
    return layer(before, after, kernel, stride, padding=kernel // 2, bias=False, dtype=dtype)


def _norm(layout: Layout, channels: int, dtype: torch.dtype) -> nn.Module:
    if dtype.is_complex:
        return ComplexBatchNorm(channels)
    return nn.BatchNorm1d(channels) if layout == "1d" else nn.BatchNorm2d(channels)


def _activation(dtype: torch.dtype) -> nn.Module:
    return CReLU() if dtype.is_complex else nn.ReLU()


class _Block(nn.Module):
    """Two convolutions of three bins with norms, added to the input, or to a convolution of it where sizes change."""

    def __init__(self, layout: Layout, before: int, after: int, stride: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(layout, before, after, 3, stride, dtype),
            _norm(layout, after, dtype),
            _activation(dtype),
            _convolution(layout, after, after, 3, 1, dtype),
            _norm(layout, after, dtype),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            projection = _convolution(layout, before, after, 1, stride, dtype)
            self.shortcut = nn.Sequential(projection, _norm(layout, after, dtype))
        self.activation = _activation(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class _ResidualSpectrum(Recorded, nn.Module):
    """What the complex network and its twin have in common: shape of the layers by the type of their numbers."""

    def __init__(
        self,
        out_features: int,
        channels: Sequence[int],
        num_blocks: Sequence[int],
        layout: Layout,
        num_positions: int,
        in_channels: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        if layout not in get_args(Layout):
            raise ValueError(f"layout is {layout!r}; it must be '1d' or 'square'")
        if out_features < 1 or (layout == "square" and math.isqrt(out_features) ** 2 != out_features):
            raise ValueError(
                f"out_features is {out_features}; the number of bins must be at least 1, and for the layout 'square' a "
                "square number, such as 16384 = 128 x 128"
            )
        channels, num_blocks = list(channels), list(num_blocks)
        if not channels or len(channels) != len(num_blocks) or min(*channels, *num_blocks) < 1:
            raise ValueError(
                f"channels is {channels} and num_blocks {num_blocks}; give one number of at least 1 for each stage"
            )
        if num_positions < 1:
            raise ValueError(f"num_positions is {num_positions}; it must be at least 1")
        self.out_features, self.layout, self.num_positions = out_features, layout, num_positions
        self.stem = nn.Sequential(
            _convolution(layout, in_channels, channels[0], 7, 2, dtype),
            _norm(layout, channels[0], dtype),
            _activation(dtype),
        )
        stages: list[nn.Module] = []
        before = channels[0]
        for place, (after, count) in enumerate(zip(channels, num_blocks, strict=True)):
            first = _Block(layout, before, after, 2 if place else 1, dtype)
            rest = [_Block(layout, after, after, 1, dtype) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
            before = after
        self.stages = nn.Sequential(*stages)
        cells = num_positions if layout == "1d" else num_positions**2
        self.head = nn.Linear(before * cells, out_features, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw convolutions by He's rule and the head by Glorot's, and reset norms and biases."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                if module.weight.is_complex():
                    complex_kaiming_normal_(module.weight, mode="fan_out")
                else:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ComplexBatchNorm | nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_parameters()
        if self.head.weight.is_complex():
            complex_xavier_normal_(self.head.weight)
        else:
            nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def _checked(self, x: Tensor) -> Tensor:
        """Return the spectrum as a feature map (B, 1, N) or (B, 1, S, S), after a check."""
        if not x.is_complex():
            raise TypeError(
                f"the spectrum is {x.dtype}; {type(self).__name__} takes complex numbers (B, {self.out_features}), "
                "such as graphseq.data.normalized_spectrum returns"
            )
        if x.dim() != 2 or x.shape[1] != self.out_features:
            raise ValueError(
                f"the spectrum has shape {tuple(x.shape)}, where (B, {self.out_features}) is needed: the network has "
                "one output for each bin"
            )
        x = x.resolve_conj()
        if x.device.type == "cpu" and not bool(torch.isfinite(torch.view_as_real(x)).all()):
            raise DataError("the spectrum holds NaN or infinite numbers; leave such recordings out")
        x = x.unsqueeze(1)
        return x if self.layout == "1d" else x.unflatten(2, (math.isqrt(self.out_features), -1))

    def _logits(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x))  # (B, C, T) or (B, C, Y, X)
        if features.is_complex():  # torch's pooling takes real numbers only
            return self.head(torch.complex(self._pooled(features.real), self._pooled(features.imag)))
        return self.head(self._pooled(features))

    def _pooled(self, x: Tensor) -> Tensor:
        pool = nn.functional.adaptive_avg_pool1d if self.layout == "1d" else nn.functional.adaptive_avg_pool2d
        return pool(x, self.num_positions).flatten(1)


class CMuSeNet(_ResidualSpectrum):
    r"""Complex-valued residual network that finds the occupied bins of a wideband spectrum (CV-MuSeNet).

    ::

        spectrum -> conv 7, stride 2, norm, CReLU -> stages of blocks -> mean over positions -> complex linear -> logits
        block:  x -> conv 3 -> norm -> CReLU -> conv 3 -> norm -> (+ x) -> CReLU

    All convolutions, norms and the head are complex. The stages have strides 1, 2, 2, 2, and there is no max pooling.
    Each bin has a complex logit; the sigmoids of its real and of its imaginary part both estimate whether the bin is
    occupied, see :class:`ComplexFocalLoss` and :class:`graphseq.metrics.ComplexIoU`. Convolutions and linear layers are
    torch's own on complex weights. The parameters are complex, so that mixed and half precision do not apply.

    Source: arXiv 2506.11048, section on the network, and its published implementation. Differs from it: widths and
    depths of the stages are arguments; ``num_positions`` above 1 pools to that many positions; the paper pools to 1,
    where the head learns the position of a bin from the padding of the convolutions alone.

    Args:
        out_features: number of bins N of the spectrum, a square number for the layout ``square``.
        channels: number of channels of each stage, each at least 1.
        num_blocks: number of blocks of each stage, each at least 1.
        layout: ``square`` to write the spectrum row by row into a square and use 2d convolutions, as in the paper, or
            ``1d`` for convolutions along the spectrum.
        num_positions: number of positions along each axis after the last average pooling, at least 1.

    Shape:
        x (B, N) complex -> logits (B, N) complex

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the spectrum has another length.
        TypeError: in ``forward``, if the spectrum is real.
        DataError: in ``forward`` on the CPU, if the spectrum is not finite.

    Example:
        >>> network = CMuSeNet(64, channels=(4, 8), num_blocks=(1, 1), layout="1d")
        >>> network(torch.randn(3, 64, dtype=torch.complex64)).dtype
        torch.complex64
    """

    def __init__(
        self,
        out_features: int = 16384,
        channels: Sequence[int] = (64, 128, 256, 512),
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        layout: Layout = "square",
        num_positions: int = 1,
    ) -> None:
        super().__init__(out_features, channels, num_blocks, layout, num_positions, 1, torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        """Return the complex logits of the bins.

        Args:
            x: complex spectra (B, N).
        """
        x = self._checked(x)
        if not self.head.weight.is_complex():
            raise TypeError(
                f"the weights were cast to {self.head.weight.dtype}, which drops their imaginary parts; train "
                "with precision 32-true or 64-true"
            )
        return self._logits(x)


class RealMuSeNet(_ResidualSpectrum):
    r"""Real-valued counterpart of :class:`CMuSeNet`: real convolutions, norms, ReLU and head.

    It reads the spectrum as two real channels, or its modulus as one. A complex network has twice as many real
    parameters as one of equal widths; :func:`num_real_parameters` counts them.

    Source: arXiv 2506.11048, the real-valued network of its comparison. Differs from it as :class:`CMuSeNet` does.

    Args:
        out_features: number of bins N of the spectrum, a square number for the layout ``square``.
        channels: number of channels of each stage, each at least 1.
        num_blocks: number of blocks of each stage, each at least 1.
        layout: ``square`` or ``1d``, see :class:`CMuSeNet`.
        num_positions: number of positions along each axis after the last average pooling, at least 1.
        reading: ``parts`` for real and imaginary part as two channels, ``magnitude`` for the modulus as one.

    Shape:
        x (B, N) complex -> logits (B, N) real

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the spectrum has another length.
        TypeError: in ``forward``, if the spectrum is real.
        DataError: in ``forward`` on the CPU, if the spectrum is not finite.

    Example:
        >>> network = RealMuSeNet(64, channels=(4, 8), num_blocks=(1, 1), layout="1d", reading="magnitude")
        >>> network(torch.randn(3, 64, dtype=torch.complex64)).shape
        torch.Size([3, 64])
    """

    def __init__(
        self,
        out_features: int = 16384,
        channels: Sequence[int] = (64, 128, 256, 512),
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        layout: Layout = "square",
        num_positions: int = 1,
        reading: Literal["parts", "magnitude"] = "parts",
    ) -> None:
        if reading not in ("parts", "magnitude"):
            raise ValueError(f"reading is {reading!r}; it must be 'parts' or 'magnitude'")
        in_channels = 2 if reading == "parts" else 1
        super().__init__(out_features, channels, num_blocks, layout, num_positions, in_channels, torch.float32)
        self.reading = reading

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the bins.

        Args:
            x: complex spectra (B, N).
        """
        x = self._checked(x)
        x = torch.cat([x.real, x.imag], 1) if self.reading == "parts" else x.abs()
        return self._logits(x.to(self.head.weight.dtype))
