"""Damped exponential moving averages as a sequence layer."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import CausalLayer, positive
from graphseq.ops.sequences.moving_average import ema_convolution, ema_kernel, ema_recurrence

__all__ = ["MovingAverage"]


class MovingAverage(Recorded, CausalLayer):
    r"""Several damped exponential moving averages of each channel, the long-range part of MEGA.

    .. math:: u_{t} = \alpha \odot \beta\, x_t + (1 - \alpha \odot \delta) \odot u_{t-1}, \qquad
        y_t = \tfrac{1}{\sqrt H} \textstyle\sum_h \eta_h\, u_{th}

    Sequences of more than one step are computed as one convolution by fast Fourier transforms, in O(T log T); a single
    step is computed by the recurrence above. Both give the same numbers. The state is u, whose size does not depend on
    the number of steps.

    Source: arXiv 2209.10655, section 3.2, written from memory. Differs from it: the input has no weighted path of its
    own to the output.

    Args:
        channels: number C of channels.
        num_averages: number H of averages of each channel, at least 1.

    Shape:
        x (B, T, C), state (B, C, H), lengths (B,) -> y (B, T, C)

    Raises:
        ValueError: if a size is below 1; in ``forward`` if ``x``, ``state`` or ``lengths`` does not fit.

    Example:
        >>> y, state = MovingAverage(3, num_averages=4)(torch.randn(2, 7, 3))
        >>> y.shape, state.shape
        (torch.Size([2, 7, 3]), torch.Size([2, 3, 4]))
    """

    def __init__(self, channels: int, num_averages: int = 16) -> None:
        super().__init__()
        positive(channels=channels, num_averages=num_averages)
        self.input_size = self.output_size = channels
        self.num_averages = num_averages
        shape = (channels, num_averages)
        self.alpha_logit, self.damping_logit = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self.expand, self.project = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise: logits with standard deviation 0.2, input weights near ±1 in turn, output weights N(0, 1)."""
        nn.init.normal_(self.alpha_logit, std=0.2)
        nn.init.normal_(self.damping_logit, std=0.2)
        nn.init.normal_(self.expand, mean=1.0, std=0.02)
        self.expand[:, 1::2] *= -1
        nn.init.normal_(self.project)

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the share of the new step, the damping, and the input and output weights, (C, H) each."""
        project = self.project * self.num_averages**-0.5
        return self.alpha_logit.sigmoid(), self.damping_logit.sigmoid(), self.expand, project

    def forward(self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs of all steps and the averages after the last one.

        Args:
            x: inputs (B, T, C).
            state: averages before the first step, as this method returns them; None for zeros.
            lengths: number of steps of each sequence, int64 (B,), each in 0..T; None if all have T.
        """
        x, inside = self.checked(x, lengths)
        needed = (len(x), x.shape[2], self.num_averages)
        if state is not None and state.shape != needed:
            raise ValueError(f"state has shape {tuple(state.shape)}, where {needed} is needed")
        # Fourier transforms and powers of decays need more than half precision
        kind = x.dtype
        x = x.to(torch.promote_types(kind, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            y, after = self._averages(x, state, lengths)
        y = y.to(kind)
        return y if inside is None else y.masked_fill(~inside, 0), after

    def _averages(self, x: Tensor, state: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, steps, channels = x.shape
        alpha, damping, expand, project = (
            weight.to(torch.promote_types(weight.dtype, torch.float32)) for weight in self.weights()
        )
        if steps == 1 and lengths is None:
            start = x.new_zeros(batch, channels, self.num_averages) if state is None else state
            return ema_recurrence(x, alpha, damping, expand, project, start)
        y = ema_convolution(x, ema_kernel(alpha, damping, expand, project, steps))
        kept = (1 - alpha * damping)[..., None]  # (C, H, 1)
        lag = torch.arange(steps, device=x.device)
        number = torch.full((batch,), steps, device=x.device) if lengths is None else lengths.to(x.device)
        last = x
        if lengths is not None:  # move each sequence to the end, so that one kernel fits all
            source = lag - (steps - number)[:, None]  # (B, T)
            last = x.gather(1, source.clamp(min=0)[..., None].expand_as(x)).masked_fill(source[..., None] < 0, 0)
        after = alpha * expand * torch.einsum("btc,cht->bch", last, kept.pow(steps - 1 - lag))
        if state is not None:
            y = y + torch.einsum("bch,cht->btc", state * project, kept.pow(lag + 1)).to(y.dtype)
            after = after + state * kept[..., 0].pow(number[:, None, None])
        return y, after
