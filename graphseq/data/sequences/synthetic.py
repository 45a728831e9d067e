"""Synthetic sequences: waves whose frequency changes, so that a network must remember the class of a sequence."""

import math
from typing import Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions
from graphseq.data.sequences.module import SequenceDataModule, Split
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import random_split

__all__ = ["SyntheticSequencesDataModule", "switching_waves"]


def switching_waves(
    num_sequences: int,
    num_classes: int = 3,
    *,
    min_length: int = 16,
    max_length: int = 48,
    switch: float = 0.05,
    noise: float = 0.1,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Generate noisy sine waves that change their frequency at random steps.

    .. math:: x_t = \sin(\phi_0 + \sum_{s \le t} \omega_{k_s}) + \epsilon_t, \qquad
        \omega_k = \frac{\pi (k + 1)}{2 K}

    The label of a step is its frequency :math:`k_t`, the class of a sequence that of its first step. With
    probability ``switch`` a step draws its frequency anew.

    Args:
        num_sequences: number N of sequences, at least 1.
        num_classes: number K of frequencies, at least 2.
        min_length: smallest number of steps of a sequence, at least 1.
        max_length: largest number of steps of a sequence, at least ``min_length``.
        switch: probability of a new frequency at a step, in [0, 1].
        noise: standard deviation of the noise, at least 0.
        generator: source of the random numbers; None for torch's own.

    Returns:
        x float32 (M, 1), ptr int64 (N + 1,), class of each sequence int64 (N,), label of each step int64 (M,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> x, ptr, y, step_y = switching_waves(4, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(step_y[ptr[:-1]], y)
        True
    """
    least = {"num_sequences": (num_sequences, 1), "num_classes": (num_classes, 2), "min_length": (min_length, 1)}
    for name, (value, lowest) in {**least, "max_length": (max_length, min_length)}.items():
        if value < lowest:
            raise ValueError(f"{name} is {value}; it must be at least {lowest}")
    if not 0 <= switch <= 1 or noise < 0:
        raise ValueError(f"switch is {switch} and noise {noise}; switch must be in [0, 1], noise at least 0")
    shape = (num_sequences, max_length)
    lengths = torch.randint(min_length, max_length + 1, (num_sequences,), generator=generator)
    fresh = torch.rand(shape, generator=generator) < switch
    fresh[:, 0] = True
    drawn = torch.randint(num_classes, shape, generator=generator)
    latest = torch.where(fresh, torch.arange(max_length), 0).cummax(1).values  # step of the last draw
    label = drawn.gather(1, latest)
    phase = torch.rand(num_sequences, 1, generator=generator) * 2 * math.pi
    wave = torch.sin(phase + ((label + 1) * (math.pi / 2 / num_classes)).cumsum(1))
    wave = wave + noise * torch.randn(shape, generator=generator)
    inside = torch.arange(max_length) < lengths[:, None]
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths]).cumsum(0)
    return wave[inside][:, None], ptr, label[:, 0].clone(), label[inside]


class SyntheticSequencesDataModule(SequenceDataModule):
    """Sequences of :func:`switching_waves`, for classification of sequences or of steps, without any file.

    Args:
        num_sequences: number of sequences in all splits together, at least 1.
        num_classes: number of frequencies, which are the classes, at least 2.
        min_length: smallest number of steps of a sequence, at least 1.
        max_length: largest number of steps of a sequence, at least ``min_length``.
        switch: probability of a new frequency at a step, in [0, 1].
        noise: standard deviation of the noise, at least 0.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`; ``seed`` is also the seed of the sequences.

    Yields:
        ``SequenceBatch`` with x float32 (B, T, 1), lengths, y (B,) and step_y (B, T).

    Example:
        >>> data = SyntheticSequencesDataModule(num_sequences=50)
        >>> data.num_features, data.num_outputs
        (1, 3)
    """

    def __init__(
        self,
        num_sequences: int = 1000,
        num_classes: int = 3,
        *,
        min_length: int = 16,
        max_length: int = 48,
        switch: float = 0.05,
        noise: float = 0.1,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__((), pool_batches=pool_batches, **options)
        self.num_sequences = num_sequences
        self.num_classes = num_classes
        self.min_length = min_length
        self.max_length = max_length
        self.switch = switch
        self.noise = noise

    def read_sequences(self) -> tuple[SequenceStore, Split]:
        """Return the sequences drawn with the seed, and their splits."""
        x, ptr, y, step_y = switching_waves(
            self.num_sequences,
            self.num_classes,
            min_length=self.min_length,
            max_length=self.max_length,
            switch=self.switch,
            noise=self.noise,
            generator=torch.Generator().manual_seed(self.seed),
        )
        store = SequenceStore(x, ptr, y=y, step_y=step_y)
        return store, random_split(len(store), self.fractions, self.seed, None)
