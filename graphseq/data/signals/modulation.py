"""Baseband signals of common modulations, at any number of samples for a symbol."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

__all__ = ["baseband", "root_raised_cosine"]

MODULATIONS = ("QPSK", "BPSK", "8-PSK", "8-QAM", "16-QAM", "GMSK", "2-FSK")
"""Names of the modulations, in the order of their numbers."""


def _ring(count: int, turn: float = 0.0) -> list[complex]:
    angles = (torch.arange(count, dtype=torch.float64) + turn) * (2 * math.pi / count)
    return [complex(math.cos(angle), math.sin(angle)) for angle in angles.tolist()]


_CONSTELLATIONS: Mapping[str, list[complex]] = MappingProxyType(
    {
        "QPSK": _ring(4, 0.5),
        "BPSK": _ring(2),
        "8-PSK": _ring(8),
        "8-QAM": [complex(x, y) / math.sqrt(6) for x in (-3, -1, 1, 3) for y in (-1, 1)],
        "16-QAM": [complex(x, y) / math.sqrt(10) for x in (-3, -1, 1, 3) for y in (-3, -1, 1, 3)],
        "GMSK": [-1, 1],
        "2-FSK": [-1, 1],
    }
)

_GAUSSIAN = 0.3  # product of bandwidth and symbol time of the filter of GMSK
_SPAN = 5  # symbols on either side that reach a sample of a linear modulation


def symbol_rates(modulation: Tensor, bandwidth: Tensor, roll_off: float) -> Tensor:
    """Return the symbol rate whose signal fills a bandwidth: all of its power but about one or two hundredths.

    Args:
        modulation: number of the modulation of each signal, int64 (E,).
        bandwidth: bandwidth of each signal in Hz (E,).
        roll_off: roll-off of the linear modulations, in (0, 1].

    Example:
        >>> symbol_rates(torch.tensor([0, 5, 6]), torch.full((3,), 2e6), 1.0)
        tensor([1000000., 2000000., 1000000.])
    """
    # a pulse of roll-off b ends at (1 + b) / 2 of the rate; GMSK and 2-FSK (index 1) have 99 and 98 % within these
    widths = torch.tensor([1 + roll_off] * 5 + [1.0, 2.0], dtype=bandwidth.dtype)
    return bandwidth / widths[modulation]


def root_raised_cosine(time: Tensor, roll_off: float) -> Tensor:
    r"""Return the root-raised-cosine pulse of unit energy for one symbol.

    .. math::
        g(u) = \frac{\sin(\pi u (1 - b)) + 4 b u \cos(\pi u (1 + b))}{\pi u\, (1 - (4 b u)^2)}

    with the limits at :math:`u = 0` and :math:`|u| = 1/(4b)`.

    Args:
        time: time u in symbols.
        roll_off: roll-off b, in (0, 1].

    Shape:
        time (*) -> (*)

    Raises:
        ValueError: if the roll-off is out of range.

    Example:
        >>> root_raised_cosine(torch.tensor([0.0, 0.5, 3.0]), 0.5).round(decimals=3)
        tensor([1.1370, 0.5790, 0.0030])
    """
    if not 0 < roll_off <= 1:
        raise ValueError(f"roll_off is {roll_off}; it must be in (0, 1]")
    b, u = roll_off, time
    # within this distance of either limit the quotient loses more digits than the limit differs from it
    near = 1e-3 if u.dtype == torch.float32 else 1e-6
    at_zero, at_edge = u.abs() < near, (u.abs() - 1 / (4 * b)).abs() < near
    safe = torch.where(at_zero | at_edge, 0.123, u)
    pulse = (torch.sin(math.pi * safe * (1 - b)) + 4 * b * safe * torch.cos(math.pi * safe * (1 + b))) / (
        math.pi * safe * (1 - (4 * b * safe) ** 2)
    )
    angle = math.pi / (4 * b)
    edge = b / math.sqrt(2) * ((1 + 2 / math.pi) * math.sin(angle) + (1 - 2 / math.pi) * math.cos(angle))
    return torch.where(at_zero, 1 - b + 4 * b / math.pi, torch.where(at_edge, edge, pulse))


def _gaussian_pulse(time: Tensor) -> Tensor:
    """Return the frequency pulse of GMSK, a rectangle on (0, 1) after a Gaussian filter."""
    scale = math.sqrt(2 / math.log(2)) * math.pi * _GAUSSIAN
    return (torch.erf(scale * time) - torch.erf(scale * (time - 1))) / 2


def baseband(
    modulation: Tensor,
    samples_per_symbol: Tensor,
    num_samples: int,
    roll_off: float = 0.35,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return baseband signals of random symbols, each of mean power 1 over its samples.

    Linear modulations: symbols :math:`a_k` of the constellation on root-raised-cosine pulses,
    :math:`s(t) = \sum_k a_k\, g(t - k)` over five symbols on either side. GMSK (bandwidth-time product 0.3) and 2-FSK
    (modulation index 1, continuous phase) have a phase that is the sum of frequency pulses. Begin of the first symbol
    and first phase are random.

    Source: the list of modulations and the pulse are those of the data of arXiv 2506.11048. Differs from it: the
    pulses are evaluated at the sampling times, so that the number of samples for a symbol can be any real number.

    Args:
        modulation: number of the modulation of each signal, in the order QPSK, BPSK, 8-PSK, 8-QAM, 16-QAM, GMSK,
            2-FSK, int64 (E,).
        samples_per_symbol: number of samples of a symbol, at least 1, (E,).
        num_samples: number of samples N.
        roll_off: roll-off of the linear modulations, in (0, 1].
        generator: generator of symbols, begins and phases; None for torch's global one.

    Returns:
        Signals, complex64 (E, N).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> signal = baseband(torch.tensor([0, 6]), torch.tensor([8.0, 8.0]), 64)
        >>> signal.shape, signal.abs().square().mean(1).round(decimals=3).tolist()
        (torch.Size([2, 64]), [1.0, 1.0])
    """
    if modulation.dim() != 1 or samples_per_symbol.shape != modulation.shape:
        raise ValueError(
            f"modulation is {tuple(modulation.shape)} and samples_per_symbol {tuple(samples_per_symbol.shape)}; both "
            "must be (E,)"
        )
    if num_samples < 1 or (len(modulation) and float(samples_per_symbol.min()) < 1):
        raise ValueError(
            f"num_samples is {num_samples} and samples_per_symbol begins at {float(samples_per_symbol.min()):g}; each "
            "must be at least 1, for a signal is not wider than the sampled band"
        )
    count = len(modulation)
    if not count:
        return torch.zeros(0, num_samples, dtype=torch.complex64)
    sizes = torch.tensor([len(_CONSTELLATIONS[name]) for name in MODULATIONS])[modulation]
    table = torch.zeros(len(MODULATIONS), int(sizes.max()), dtype=torch.complex64)
    for number, name in enumerate(MODULATIONS):
        points = torch.tensor(_CONSTELLATIONS[name], dtype=torch.complex64)[: table.shape[1]]
        table[number, : len(points)] = points
    length = math.ceil(num_samples / float(samples_per_symbol.min())) + 2 * _SPAN + 3
    drawn = (torch.rand(count, length, generator=generator) * sizes[:, None]).long()
    symbols = table[modulation[:, None], drawn.minimum(sizes[:, None] - 1)]  # (E, K); the product may round up
    begin = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    phase = torch.rand(count, 1, generator=generator) * (2 * math.pi)
    steps = torch.arange(num_samples, dtype=torch.float64)
    time = steps / samples_per_symbol.double()[:, None] + begin  # (E, N), in symbols; symbol k stands at k
    here = time.floor().long()
    offset = (time - here).float()  # in [0, 1)
    linear = modulation < MODULATIONS.index("GMSK")
    signal = torch.empty(count, num_samples, dtype=torch.complex64)
    for chosen, kind in ((linear, "linear"), (~linear, "phase")):
        a, k, u = symbols[chosen], here[chosen], offset[chosen]
        if kind == "linear":
            total = torch.zeros_like(u, dtype=torch.complex64)
            for j in range(-_SPAN, _SPAN + 2):
                total += a.gather(1, k + (_SPAN + j)) * root_raised_cosine(u - j, roll_off)
            signal[chosen] = total
            continue
        gmsk = (modulation[chosen] == MODULATIONS.index("GMSK"))[:, None]
        frequency = a.real.gather(1, k + _SPAN) * ~gmsk  # a rectangle of one symbol
        for j in range(-2, 3):
            frequency = frequency + gmsk * a.real.gather(1, k + (_SPAN + j)) * _gaussian_pulse(u - j)
        index = torch.where(gmsk, 0.5, 1.0) * math.pi / samples_per_symbol[chosen, None]
        angle = (index * frequency).double().cumsum(1).float()
        signal[chosen] = torch.polar(torch.ones_like(angle), angle)
    power = (signal.real.square() + signal.imag.square()).mean(1, keepdim=True)
    return signal * torch.polar(power.clamp(min=1e-12).rsqrt(), phase)
