"""Wideband signals of several emitters: where they transmit, what a receiver samples, and the bins they occupy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from graphseq.core.errors import DataError
from graphseq.data.signals.modulation import MODULATIONS, baseband, symbol_rates

__all__ = ["Emitters", "draw_emitters", "emitter_signals", "normalized_spectrum", "occupied_bins", "received"]

_ROUNDS = 1000


@dataclass(frozen=True)
class Emitters:
    """Emitters of several recordings; places of a recording beyond its number of emitters have the bandwidth 0.

    Args:
        center: centre frequency in Hz, in -rate/2..rate/2, (B, M).
        bandwidth: bandwidth in Hz, 0 where there is no emitter, (B, M).
        modulation: number of the modulation, see :func:`graphseq.data.baseband`, int64 (B, M).
        power: power in decibels, (B, M).
        sample_rate: number of complex samples a second.

    Example:
        >>> one = Emitters(torch.zeros(1, 1), torch.full((1, 1), 1e6), torch.zeros(1, 1).long(), torch.zeros(1, 1), 2e7)
        >>> one.present.tolist()
        [[True]]
    """

    center: Tensor
    bandwidth: Tensor
    modulation: Tensor
    power: Tensor
    sample_rate: float

    @property
    def present(self) -> Tensor:
        """Whether there is an emitter at each place, bool (B, M)."""
        return self.bandwidth > 0


def draw_emitters(
    count: int,
    *,
    num_emitters: tuple[int, int] = (1, 10),
    bandwidths: Sequence[float] = (1e5, 2e5, 5e5, 1e6, 2e6),
    gap: float = 1e5,
    power_range: float = 20.0,
    sample_rate: float = 2e7,
    generator: Generator | None = None,
) -> Emitters:
    """Return emitters that do not overlap, at random frequencies, with random bandwidths, powers and modulations.

    The frequencies are uniform over all arrangements that keep the gap: what emitters and gaps leave of the band is
    divided between them at random. Bandwidths that do not fit into the band together are drawn again.

    Source: the data of arXiv 2506.11048, whose numbers are the defaults.

    Args:
        count: number of recordings B.
        num_emitters: smallest and largest number of emitters of a recording, at least 1, each number in between being
            equally likely.
        bandwidths: possible bandwidths in Hz, above 0.
        gap: least distance in Hz between the bands of two emitters, at least 0.
        power_range: powers are uniform in 0..``power_range`` decibels.
        sample_rate: number of complex samples a second, which is the width of the band in Hz.
        generator: generator of all of it; None for torch's global one.

    Raises:
        ValueError: if an argument is out of range, or the emitters do not fit into the band.

    Example:
        >>> emitters = draw_emitters(3, num_emitters=(2, 4), generator=Generator().manual_seed(0))
        >>> emitters.center.shape, emitters.present.sum(1).min() >= 2
        (torch.Size([3, 4]), tensor(True))
    """
    least, most = num_emitters
    if not 1 <= least <= most:
        raise ValueError(
            f"num_emitters is {tuple(num_emitters)}; give a smallest number of at least 1 and a largest: without an "
            "emitter there is no signal whose ratio to the noise could be set"
        )
    if not len(bandwidths) or not all(0 < width < sample_rate for width in bandwidths):
        raise ValueError(f"bandwidths is {list(bandwidths)}; give numbers above 0, below sample_rate={sample_rate:g}")
    if gap < 0 or power_range < 0:
        raise ValueError(f"gap is {gap} and power_range {power_range}; they must be at least 0")
    if most * min(bandwidths) + (most - 1) * gap > sample_rate:
        raise ValueError(
            f"num_emitters is {tuple(num_emitters)}: {most} emitters of {min(bandwidths):g} Hz with gaps of {gap:g} Hz "
            f"do not fit into {sample_rate:g} Hz"
        )
    number = torch.randint(least, most + 1, (count, 1), generator=generator)
    present = torch.arange(most) < number  # (B, M)
    widths = torch.tensor(list(bandwidths), dtype=torch.float64)
    bandwidth = torch.zeros(count, most, dtype=torch.float64)
    again = torch.ones(count, dtype=torch.bool)
    for _ in range(_ROUNDS):
        drawn = widths[torch.randint(len(widths), (count, most), generator=generator)] * present
        bandwidth = torch.where(again[:, None], drawn, bandwidth)
        room = sample_rate - bandwidth.sum(1) - gap * (number[:, 0] - 1)
        again = room < 0
        if not bool(again.any()):
            break
    else:
        raise ValueError(
            f"bandwidths is {list(bandwidths)}: up to {most} of them hardly ever fit into {sample_rate:g} Hz; give "
            "fewer emitters or smaller bandwidths"
        )
    # order statistics of what is left of the band; places without an emitter come last, at its end
    cuts = torch.rand(count, most, generator=generator, dtype=torch.float64)
    cuts = torch.where(present, cuts, 1.0).sort(1).values * room[:, None]
    before = (bandwidth + gap).cumsum(1) - (bandwidth + gap)
    center = torch.where(present, cuts + before + bandwidth / 2 - sample_rate / 2, 0.0)
    modulation = torch.randint(len(MODULATIONS), (count, most), generator=generator)
    power = torch.rand(count, most, generator=generator) * power_range
    return Emitters(center, bandwidth, modulation, power, sample_rate)


def emitter_signals(
    emitters: Emitters, num_samples: int, roll_off: float = 0.35, generator: Generator | None = None
) -> Tensor:
    """Return what each emitter sends, at its frequency and of its power over the samples.

    Args:
        emitters: the emitters (B, M).
        num_samples: number of samples N.
        roll_off: roll-off of linear modulations, in (0, 1].
        generator: generator of the symbols; None for torch's global one.

    Returns:
        Signals, complex64 (B, M, N); 0 where there is no emitter.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> emitters = draw_emitters(2, num_emitters=(3, 3))
        >>> emitter_signals(emitters, 512).shape
        torch.Size([2, 3, 512])
    """
    present = emitters.present
    bandwidth, modulation = emitters.bandwidth[present], emitters.modulation[present]
    samples_per_symbol = emitters.sample_rate / symbol_rates(modulation, bandwidth, roll_off)
    signal = baseband(modulation, samples_per_symbol, num_samples, roll_off, generator)  # (E, N)
    turns = emitters.center[present, None] / emitters.sample_rate * torch.arange(num_samples)  # float64
    amplitude = 10 ** (emitters.power[present] / 20)
    carrier = torch.polar(amplitude[:, None].expand_as(turns).float(), ((turns % 1) * (2 * math.pi)).float())
    signals = torch.zeros(*present.shape, num_samples, dtype=torch.complex64)
    signals[present] = signal * carrier
    return signals


def received(signals: Tensor, snr: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Return the sum of the signals and white noise, at a ratio to the noise that is that of the weakest emitter.

    .. math:: \mathrm{SNR} = 10 \log_{10} \frac{\min_m P_m}{\sigma^2}

    with :math:`P_m` the mean power of emitter m over the samples and :math:`\sigma^2` the power of the noise in the
    whole band. The ratio within the band of an emitter is larger by the ratio of the bandwidths.

    Args:
        signals: signals of the emitters, complex (B, M, N); places of zeros hold no emitter.
        snr: ratio of the weakest emitter to the noise in decibels, (B,).
        generator: generator of the noise; None for torch's global one.

    Raises:
        DataError: if a recording has no emitter, or signals or ratios are of another type or shape.

    Example:
        >>> received(torch.ones(1, 2, 4, dtype=torch.complex64), torch.tensor([300.0])).real.round(decimals=3)
        tensor([[2., 2., 2., 2.]])
    """
    if not signals.is_complex() or signals.dim() != 3 or snr.shape != signals.shape[:1]:
        raise DataError(
            f"signals are {signals.dtype} {tuple(signals.shape)} and snr {tuple(snr.shape)}; complex signals (B, M, N) "
            "and a ratio for each recording (B,) are needed"
        )
    if not signals.shape[1]:
        raise DataError("signals have no place for an emitter; give at least one signal that is not 0")
    power = (signals.real.square() + signals.imag.square()).mean(2)  # (B, M)
    weakest = torch.where(power > 0, power, float("inf")).amin(1)
    if not bool(torch.isfinite(weakest).all()):
        raise DataError(
            f"recording {int(weakest.isinf().int().argmax())} has no emitter, so that its ratio of signal to noise is "
            "not defined; give at least one signal that is not 0"
        )
    deviation = (weakest / 10 ** (snr.to(weakest) / 10)).sqrt()[:, None]
    noise = torch.randn(len(signals), signals.shape[2], dtype=signals.dtype, generator=generator)  # of power 1
    return signals.sum(1) + deviation * noise


def occupied_bins(emitters: Emitters, num_bins: int) -> Tensor:
    r"""Return the bins of a centred spectrum that lie in the band of an emitter, bool (B, N).

    .. math:: \bigl\lfloor (f - b/2)\,N/f_s \bigr\rfloor \le k < \bigl\lceil (f + b/2)\,N/f_s \bigr\rceil

    with the frequency f counted from the lower end of the band.

    Args:
        emitters: the emitters (B, M).
        num_bins: number of bins N.

    Example:
        >>> center, width = torch.tensor([[0.0]]), torch.tensor([[2.0]])
        >>> one = Emitters(center, width, torch.zeros(1, 1).long(), torch.zeros(1, 1), 8.0)
        >>> occupied_bins(one, 8).int().tolist()
        [[0, 0, 0, 1, 1, 0, 0, 0]]
    """
    unit = num_bins / emitters.sample_rate
    middle, half = (emitters.center + emitters.sample_rate / 2) * unit, emitters.bandwidth / 2 * unit
    first, end = (middle - half).floor(), (middle + half).ceil()
    bins = torch.arange(num_bins)
    inside = (bins >= first[..., None]) & (bins < end[..., None]) & emitters.present[..., None]  # (B, M, N)
    return inside.any(1)


def normalized_spectrum(iq: Tensor) -> Tensor:
    r"""Return the centred discrete Fourier transform of samples, divided by its largest modulus.

    .. math:: x = X / \max_k |X_k|, \qquad X = \mathrm{fftshift}(\mathrm{FFT}(s))

    Args:
        iq: complex samples.

    Shape:
        iq (B, N) complex -> (B, N) complex

    Raises:
        TypeError: if the samples are real.
        DataError: if a recording holds NaN or infinite samples, or zeros only.

    Example:
        >>> normalized_spectrum(torch.ones(1, 4, dtype=torch.complex64)).abs()
        tensor([[0., 0., 1., 0.]])
    """
    if not iq.is_complex():
        raise TypeError(f"samples are {iq.dtype}; give complex ones, torch.complex(in_phase, quadrature)")
    if iq.dim() != 2 or not iq.shape[1]:
        raise DataError(f"samples have shape {tuple(iq.shape)}; (B, N) with at least one sample is needed")
    spectrum = torch.fft.fftshift(torch.fft.fft(iq), dim=1)
    largest = spectrum.abs().amax(1, keepdim=True)
    bad = ~(torch.isfinite(largest) & (largest > 0)).flatten()
    if bool(bad.any()):
        raise DataError(
            f"recording {int(bad.int().argmax())} holds NaN or infinite samples, or zeros only; leave it out"
        )
    return spectrum / largest
