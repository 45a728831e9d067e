"""Causal convolution of each channel, as a sequence layer."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import CausalLayer, last_steps, positive
from graphseq.ops.sequences.convolution import causal_convolution

__all__ = ["CausalConvolution"]


class CausalConvolution(Recorded, CausalLayer):
    r"""Causal depthwise convolution: each channel has a kernel of its own, with an optional dilation.

    .. math:: y_{tc} = \sum_{j=0}^{K-1} w_{cj}\, x_{t - j\delta,\, c}

    The state is the last :math:`(K - 1)\,\delta` inputs, so that a step costs the same at every position.

    Source: arXiv 1609.03499, section 2.1 (dilated causal convolution). Differs from it: one kernel for each channel.

    Args:
        channels: number C of channels.
        kernel_size: number K of steps that are read, at least 1.
        dilation: distance :math:`\delta` in steps between those that are read, at least 1; 1 reads adjacent steps.

    Shape:
        x (B, T, C), state (B, (K - 1) dilation, C), lengths (B,) -> y (B, T, C)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.

    Example:
        >>> layer = CausalConvolution(3, kernel_size=4)
        >>> y, state = layer(torch.randn(2, 7, 3))
        >>> y.shape, state.shape
        (torch.Size([2, 7, 3]), torch.Size([2, 3, 3]))
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        positive(channels=channels, kernel_size=kernel_size, dilation=dilation)
        self.input_size = self.output_size = channels
        self.kernel_size, self.dilation = kernel_size, dilation
        self.weight = nn.Parameter(torch.zeros(channels, kernel_size))
        self.reset_parameters()

    @property
    def reach(self) -> int:
        """Number of steps before the present one that an output depends on."""
        return (self.kernel_size - 1) * self.dilation

    def reset_parameters(self) -> None:
        """Reinitialise the kernels uniformly in ±1 / sqrt(kernel_size), as ``torch.nn.Conv1d`` does."""
        nn.init.uniform_(self.weight, -(self.kernel_size**-0.5), self.kernel_size**-0.5)

    def forward(self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs of all steps and the state after the last one.

        Args:
            x: inputs (B, T, C).
            state: state before the first step, as this method returns it; None for zeros.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, inside = self.checked(x, lengths)
        y = causal_convolution(x, self.weight, dilation=self.dilation, before=state)
        start = x.new_zeros(len(x), self.reach, x.shape[2]) if state is None else state.to(x.dtype)
        after = last_steps(torch.cat([start, x], 1), self.reach, lengths)
        return y if inside is None else y.masked_fill(~inside, 0), after

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"{self.input_size}, kernel_size={self.kernel_size}, dilation={self.dilation}"
