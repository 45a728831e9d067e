"""Batch normalisation of complex numbers by whitening of their real and imaginary parts."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.complex.activations import check_complex

__all__ = ["ComplexBatchNorm"]


class ComplexBatchNorm(Recorded, nn.Module):
    r"""Batch normalisation that whitens real and imaginary part of each channel together, then mixes and shifts them.

    .. math::
        y = \Gamma\, (V + \epsilon I)^{-1/2}
            \begin{pmatrix} \operatorname{Re}(x - \mu) \\ \operatorname{Im}(x - \mu) \end{pmatrix} + \beta

    with :math:`\mu` the complex mean of the channel over batch and positions and V the 2 x 2 covariance of the two
    parts; :math:`\Gamma` is a learned symmetric matrix, at first :math:`I / \sqrt 2`, and :math:`\beta` a learned
    complex number, at first 0. So at first the two parts of the output are uncorrelated with variance 1/2 each, and
    :math:`\operatorname{E}|y|^2 = 1`. Normalising the two parts independently would not remove their correlation.

    The input may have any number of positions, (B, C), (B, C, T) or (B, C, Y, X): the layer serves as ``BatchNorm1d``
    and ``BatchNorm2d``. In evaluation the running mean and covariance are used. The 2 x 2 roots are taken in float64.
    With several processes, each normalises by its own share of the batch; ``sync_batchnorm`` does not convert this
    layer.

    Source: arXiv 1705.09792, section 3.5.

    Args:
        num_features: number of channels C, at least 1.
        eps: number added to the variance of both parts, above 0; relative to inputs of order one.
        momentum: weight of the current batch in the running statistics, in (0, 1].

    Shape:
        x (B, C, *) complex -> (B, C, *) complex

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if the number of channels differs, or in training
            if there is only one value for each channel, or none.
        TypeError: in ``forward``, if the input is real.

    Example:
        >>> norm = ComplexBatchNorm(4)
        >>> y = norm(torch.randn(64, 4, 8, dtype=torch.complex64) * (3 + 1j))
        >>> y.shape, round(y.abs().square().mean().item(), 3)
        (torch.Size([64, 4, 8]), 1.0)
    """

    running_mean: Tensor
    running_covariance: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features is {num_features}; it must be at least 1")
        if not (eps > 0 and 0 < momentum <= 1):
            raise ValueError(f"eps is {eps} and momentum {momentum}; eps must be above 0 and momentum in (0, 1]")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = nn.Parameter(torch.empty(3, num_features))  # entries rr, ii and ri of the symmetric matrix
        self.bias = nn.Parameter(torch.empty(num_features, dtype=torch.complex64))
        self.register_buffer("running_mean", torch.empty(num_features, dtype=torch.complex64))
        self.register_buffer("running_covariance", torch.empty(3, num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the running statistics to a circular distribution of power 1, the matrix and the shift."""
        with torch.no_grad():
            for entries, value in ((self.running_covariance, 0.5), (self.weight, math.sqrt(0.5))):
                entries[:2].fill_(value)
                entries[2].zero_()
            self.running_mean.zero_()
            self.bias.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # module.to(torch.complex128) casts real tensors, too; the matrices are real
        if self.weight.is_complex():
            self.weight = nn.Parameter(self.weight.detach().real.clone(), self.weight.requires_grad)
            self.running_covariance = self.running_covariance.real.clone()
        return self

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised input.

        Args:
            x: complex input (B, C, *).
        """
        check_complex(x, self, f" (B, {self.num_features}, *)")
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"the input has shape {tuple(x.shape)}, where (B, {self.num_features}, *) is needed")
        column = (self.num_features, *[1] * (x.dim() - 2), 2)
        parts = torch.view_as_real(x.resolve_conj())  # (B, C, *, 2): real arithmetic is faster than complex
        if self.training:
            if x.numel() <= x.shape[1]:
                raise ValueError(
                    f"the input has shape {tuple(x.shape)}, one value for each channel or none, which has no variance; "
                    "train with batches of at least 2"
                )
            others = [dim for dim in range(x.dim()) if dim != 1]
            mean = parts.mean(others)  # (C, 2)
            centred = parts - mean.view(column)
            squares = centred.square().mean(others)
            covariance = torch.stack(
                [*squares.unbind(1), (centred[..., 0] * centred[..., 1]).mean(others)]
            )  # (3, C): rr, ii, ri
            with torch.no_grad():
                running = torch.view_as_real(self.running_mean)
                running.lerp_(mean.to(running), self.momentum)
                self.running_covariance.lerp_(covariance.to(self.running_covariance), self.momentum)
        else:
            covariance = self.running_covariance
            centred = parts - torch.view_as_real(self.running_mean).to(parts.dtype).view(column)
        own, other = (factor.to(parts.dtype).view(column) for factor in self._mixing(covariance))
        y = centred * own + centred.flip(-1) * other + torch.view_as_real(self.bias).to(parts.dtype).view(column)
        return torch.view_as_complex(y)

    def _mixing(self, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each part of the output takes of its own part and of the other one, (C, 2) each."""
        rr, ii, ri = covariance.double()
        # without eps a variance along one line gives 0, which rounding may turn negative
        determinant = (rr * ii - ri.square()).clamp(min=0) + self.eps * (rr + ii) + self.eps**2
        rr, ii = rr + self.eps, ii + self.eps
        root = determinant.sqrt()
        scale = root * (rr + ii + 2 * root).sqrt()
        whiten = torch.stack([ii + root, rr + root, -ri]) / scale  # of V^(-1/2): rr, ii, ri
        (w_rr, w_ii, w_ri), (g_rr, g_ii, g_ri) = whiten, self.weight.double()
        a, b = g_rr * w_rr + g_ri * w_ri, g_rr * w_ri + g_ri * w_ii
        c, d = g_ri * w_rr + g_ii * w_ri, g_ri * w_ri + g_ii * w_ii
        return torch.stack([a, d], 1), torch.stack([b, c], 1)
