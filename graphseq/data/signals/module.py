"""Spectra of generated wideband signals with the mask of their occupied bins."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions, StoreDataModule
from graphseq.data.signals.emitters import (
    draw_emitters,
    emitter_signals,
    normalized_spectrum,
    occupied_bins,
    received,
)
from graphseq.data.store import TensorStore

__all__ = ["WidebandDataModule"]

_CHUNK_SAMPLES = 2**21  # complex samples of emitters that are made at once, 16 MB


class WidebandDataModule(StoreDataModule):
    """Spectra of wideband recordings of several emitters, and the bins that the emitters occupy.

    Recordings are drawn by :func:`draw_emitters`, :func:`emitter_signals` and :func:`received`, all independently, so
    that no emitter is in two splits. The ratios of signal to noise take turns, so that each has as many recordings as
    every other, to within one, in each split.

    Source: the data of arXiv 2506.11048, section on synthetic data, whose numbers are the defaults but for the numbers
    of recordings (5,000 for each ratio) and of bins (16,384). Differs from it: recordings are made here, in place of a
    program in MATLAB; no fading; see :func:`graphseq.data.baseband` for the symbol rates.

    Args:
        num_train: number of training recordings.
        num_val: number of validation recordings.
        num_test: number of test recordings.
        num_bins: number N of samples of a recording, and of bins of its spectrum.
        snr: ratios of the weakest emitter to the noise of the whole band, in decibels.
        num_emitters: smallest and largest number of emitters, at least 1.
        bandwidths: possible bandwidths of emitters in Hz; below ``sample_rate / num_bins`` one is less than a bin.
        gap: least distance between two emitters in Hz.
        power_range: range of the powers of emitters in decibels.
        sample_rate: number of samples a second, which is the width of the band in Hz.
        roll_off: roll-off of linear modulations, in (0, 1].
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the recordings.

    Yields:
        dictionaries with ``x``, spectra complex64 (B, N) of largest modulus 1, lowest frequency first; ``y``, masks
        float32 (B, N); and ``snr``, decibels (B,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = WidebandDataModule(num_train=20, num_val=5, num_test=5, num_bins=256, batch_size=4)
        >>> batch = next(data.batches("train"))
        >>> batch["x"].dtype, batch["y"].shape, data.num_outputs
        (torch.complex64, torch.Size([4, 256]), 256)
    """

    def __init__(
        self,
        *,
        num_train: int = 4000,
        num_val: int = 500,
        num_test: int = 1000,
        num_bins: int = 1024,
        snr: Sequence[float] = (-20, -18, -16, -14, -12, -10, -8, -6, -4, -2, 0, 2, 4, 6, 8, 10),
        num_emitters: tuple[int, int] = (1, 10),
        bandwidths: Sequence[float] = (1e5, 2e5, 5e5, 1e6, 2e6),
        gap: float = 1e5,
        power_range: float = 20.0,
        sample_rate: float = 2e7,
        roll_off: float = 0.35,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        counts = {"num_train": num_train, "num_val": num_val, "num_test": num_test, "num_bins": num_bins}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if isinstance(snr, int | float) or not len(snr) or not all(abs(level) < 200 for level in snr):
            raise ValueError(f"snr is {snr}; give a list of at least one number of decibels")
        if not 0 < roll_off <= 1:
            raise ValueError(f"roll_off is {roll_off}; it must be in (0, 1]")
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.num_bins, self.snr, self.roll_off = num_bins, [float(level) for level in snr], roll_off
        self.num_emitters, self.bandwidths = (num_emitters[0], num_emitters[1]), list(bandwidths)
        self.gap, self.power_range, self.sample_rate = gap, power_range, sample_rate
        self._drawn(0, Generator())  # refuses emitters that do not fit

    @property
    def num_outputs(self) -> int:
        """Number of bins."""
        return self.num_bins

    def _drawn(self, count: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return spectra, masks and ratios of recordings; the ratios take turns."""
        snr = torch.tensor(self.snr)[torch.arange(count) % len(self.snr)]
        emitters = draw_emitters(
            count,
            num_emitters=self.num_emitters,
            bandwidths=self.bandwidths,
            gap=self.gap,
            power_range=self.power_range,
            sample_rate=self.sample_rate,
            generator=generator,
        )
        signals = emitter_signals(emitters, self.num_bins, self.roll_off, generator)
        spectra = normalized_spectrum(received(signals, snr, generator)) if count else signals.sum(1)
        return spectra, occupied_bins(emitters, self.num_bins).float(), snr

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return the recordings drawn with the seed, and their splits."""
        generator = Generator().manual_seed(self.seed)
        most = max(1, _CHUNK_SAMPLES // (self.num_bins * self.num_emitters[1]))
        chunk = max(1, most // len(self.snr)) * len(self.snr)  # whole turns of the ratios
        parts, splits, first = [], {}, 0
        for split, count in self.counts.items():
            parts += [self._drawn(min(chunk, count - begin), generator) for begin in range(0, count, chunk)]
            splits[split] = torch.arange(first, first + count)
            first += count
        spectra, masks, snr = (torch.cat(column) for column in zip(*parts, strict=True))
        return TensorStore(x=spectra, y=masks, snr=snr), splits
