"""Mixture of denoisers: each sequence of a batch is corrupted by one of several, drawn for it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from graphseq.core.batches import IGNORED, PrefixBatch, SequenceBatch, TokenBatch, check_lengths, step_mask
from graphseq.core.errors import DataError
from graphseq.data.denoising.spans import corrupt_spans, span_counts, span_mask

__all__ = ["MixtureOfDenoisers", "PrefixDenoiser", "SpanDenoiser", "ul2_denoisers"]

Mode = Literal["R", "S", "X"]
MODES: tuple[Mode, ...] = ("R", "S", "X")


@dataclass(frozen=True)
class SpanDenoiser:
    r"""Takes spans of a mean length out of a sequence, and has them written.

    Source: arXiv 2205.05131, section 3.1.1.

    Args:
        mean_span: mean length :math:`\mu` of a span, at least 1.
        rate: share r of the tokens that is taken out, in (0, 1).
        mode: token in front of the input: ``R`` for regular, ``X`` for extreme corruption, ``S`` for sequential.
        weight: weight in a mixture, above 0.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> SpanDenoiser(mean_span=3, rate=0.15).mode
        'R'
    """

    mean_span: float
    rate: float
    mode: Mode = "R"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not self.mean_span >= 1:
            raise ValueError(f"mean_span is {self.mean_span}; it must be at least 1")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate}; it must be a share in (0, 1)")
        _check_mode(self.mode, self.weight)


@dataclass(frozen=True)
class PrefixDenoiser:
    """Takes the end of a sequence out, from a place that is drawn uniformly, and has it written.

    Source: arXiv 2205.05131, section 3.1.1, the S-denoiser. Differs from it: the place is uniform in the last part, as
    in the released code of prefix language models.

    Args:
        max_share: largest share of the tokens that is taken out, in (0, 1); the mean share is half of it.
        mode: token in front of the input.
        weight: weight in a mixture, above 0.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> PrefixDenoiser().mode
        'S'
    """

    max_share: float = 0.5
    mode: Mode = "S"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not 0 < self.max_share < 1:
            raise ValueError(f"max_share is {self.max_share}; it must be a share in (0, 1)")
        _check_mode(self.mode, self.weight)


Denoiser = SpanDenoiser | PrefixDenoiser


def ul2_denoisers(groups: tuple[float, float, float] = (0.4, 0.2, 0.4)) -> list[Denoiser]:
    """Return the seven denoisers of UL2.

    Source: arXiv 2205.05131, table 1 and section 3.1.2. Differs from it: weights are those of public task files.

    Args:
        groups: weights of the regular, sequential and extreme denoisers, each at least 0 and shared equally in its
            group; 0 leaves the group out. ``(2, 1, 4)`` gives all seven the same weight.

    Raises:
        ValueError: if there are not three weights, or one is negative or not finite.

    Example:
        >>> len(ul2_denoisers()), round(sum(denoiser.weight for denoiser in ul2_denoisers()), 6)
        (7, 1.0)
    """
    if len(groups) != 3 or not all(0 <= weight < float("inf") for weight in groups):
        raise ValueError(f"groups is {groups}; give three finite weights of at least 0: regular, sequential, extreme")
    regular, sequential, extreme = groups
    found: list[Denoiser] = []
    if regular:
        found += [SpanDenoiser(3, 0.15, "R", regular / 2), SpanDenoiser(8, 0.15, "R", regular / 2)]
    if sequential:
        found += [PrefixDenoiser(weight=sequential)]
    if extreme:
        spans = ((3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5))
        found += [SpanDenoiser(mean_span, rate, "X", extreme / 4) for mean_span, rate in spans]
    return found


class MixtureOfDenoisers:
    r"""Corrupts a batch of token sequences, each by a denoiser that is drawn for it with its weight.

    .. math:: \text{input} = [\text{mode}]\; x_1 \ldots [s_0] \ldots [s_1] \ldots, \qquad
        \text{target} = [s_0]\; \text{span}_0\; [s_1]\; \text{span}_1 \ldots [s_n]

    Token numbers from ``vocab_size`` on are its own: the modes R, S and X, the separator, then the sentinels. The
    number of tokens that are taken out and of spans is exact, and all sequences are corrupted at once, on the device of
    the tokens, without a synchronisation. Random numbers come from a generator of its own that is made of ``seed`` and
    the number of a batch, so that they depend neither on other random numbers nor on processes that load data. It is
    also the ``collate_fn`` of any ``DataLoader`` whose data set yields token numbers (length,).

    Source: arXiv 2205.05131, section 3.1. Differs from it: see :func:`span_mask` for the lengths of spans; the end of a
    target is written by the network (:class:`graphseq.models.TransformerEncoderDecoder`), it is no token here.

    Args:
        vocab_size: number of tokens of the text.
        denoisers: denoisers of the mixture; None for :func:`ul2_denoisers`.
        layout: ``pairs`` for an encoder and a decoder; ``joined`` for one text of input, separator and target, of which
            a decoder with a prefix writes the target.
        num_sentinels: number of sentinels, at least 2; one more than there are spans is needed.
        seed: seed of the random numbers.

    Shape:
        ids int64 (B, T), lengths (B,), each at least 2, or a list of B tensors int64 (length,) -> ``pairs``:
        ``SequenceBatch`` with x (B, T + 1) and y (B, T + 1), -100 after the last; ``joined``: ``PrefixBatch`` with ids
        (B, 2 T + 3)

    Raises:
        ValueError: if an argument is outside its range.
        TypeError: if a denoiser is of another class.
        DataError: in a call, if there may be more spans than sentinels, a sequence has less than two tokens, or tokens
            are not those of the text.

    Example:
        >>> mixture = MixtureOfDenoisers(60, [SpanDenoiser(3, 0.5, "X")])
        >>> batch = mixture(TokenBatch(torch.arange(16).view(2, 8), torch.tensor([8, 8])), number=0)
        >>> batch.lengths.tolist(), mixture.modes["X"] == int(batch.x[0, 0])
        ([6, 6], True)
    """

    def __init__(
        self,
        vocab_size: int,
        denoisers: Sequence[Denoiser] | None = None,
        *,
        layout: Literal["pairs", "joined"] = "pairs",
        num_sentinels: int = 100,
        seed: int = 0,
    ) -> None:
        if vocab_size < 1:
            raise ValueError(f"vocab_size is {vocab_size}; give a whole number of at least 1")
        if layout not in ("pairs", "joined"):
            raise ValueError(f"layout is {layout!r}; it must be 'pairs' or 'joined'")
        if num_sentinels < 2:
            raise ValueError(f"num_sentinels is {num_sentinels}; it must be at least 2")
        self.denoisers: list[Denoiser] = ul2_denoisers() if denoisers is None else list(denoisers)
        if not self.denoisers:
            raise ValueError("denoisers is empty; give at least one")
        for denoiser in self.denoisers:
            if not isinstance(denoiser, Denoiser):
                raise TypeError(f"denoisers holds {denoiser!r}; give SpanDenoiser or PrefixDenoiser")
        self.vocab_size, self.layout, self.num_sentinels, self.seed = vocab_size, layout, num_sentinels, seed
        self.modes = {mode: vocab_size + place for place, mode in enumerate(MODES)}
        self.separator = vocab_size + len(MODES)
        self.first_sentinel = self.separator + 1
        self.epoch = 0
        self._checked = 0

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(vocab_size={self.vocab_size}, {len(self.denoisers)} denoisers, "
            f"layout={self.layout!r}, num_sentinels={self.num_sentinels}, seed={self.seed})"
        )

    def set_epoch(self, epoch: int) -> None:
        """Corrupt batches that come without a number in another way; call it before each epoch.

        Args:
            epoch: number of the epoch, at least 0.

        Raises:
            ValueError: if ``epoch`` is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; give the number of the epoch, at least 0")
        self.epoch = epoch

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the text, modes, separator and sentinels."""
        return self.first_sentinel + self.num_sentinels

    def most_spans(self, length: int) -> int:
        """Return the largest number of spans that a denoiser takes out of a sequence.

        Args:
            length: number of tokens, at least 2.
        """
        rates, spans, _ = self._tables(torch.device("cpu"))
        return int(span_counts(torch.full_like(rates, length, dtype=torch.int64), rates, spans)[1].max())

    def check_length(self, length: int) -> None:
        """Check that there are sentinels enough for sequences up to a length.

        Args:
            length: largest number of tokens.

        Raises:
            DataError: if there are not.
        """
        if length <= self._checked:
            return
        needed = self.most_spans(length) + 1
        if needed > self.num_sentinels:
            raise DataError(
                f"num_sentinels is {self.num_sentinels}; sequences of {length} tokens need {needed}: raise "
                "num_sentinels, shorten the sequences, or take longer spans"
            )
        self._checked = length

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return rate, mean span and, for those that take out the end, largest share, else 0, of each denoiser."""
        rows = [
            (denoiser.rate, float(denoiser.mean_span), 0.0)
            if isinstance(denoiser, SpanDenoiser)
            else (0.5, torch.inf, denoiser.max_share)
            for denoiser in self.denoisers
        ]
        rates, spans, shares = torch.tensor(rows, dtype=torch.float64).to(device, non_blocking=True).unbind(1)
        return rates, spans, shares

    def generator(self, number: int, device: torch.device) -> Generator:
        """Return the generator of one batch.

        Args:
            number: number of the batch, at least 0.
            device: device of the tokens.
        """
        # multipliers of two primes keep neighbouring seeds and batches apart
        return torch.Generator(device).manual_seed((self.seed * 1_000_003 + number * 2_147_483_647) % 2**63)

    def draw(self, rows: int, number: int, device: torch.device | None = None) -> Tensor:
        """Return the denoiser of each sequence of a batch, int64 (B,).

        Args:
            rows: number of sequences B.
            number: number of the batch, at least 0.
            device: device of the tokens; None for the processor.
        """
        device = torch.device("cpu") if device is None else device
        return self._choice(rows, self.generator(number, device), device)

    def _choice(self, rows: int, generator: Generator, device: torch.device) -> Tensor:
        weights = torch.tensor([denoiser.weight for denoiser in self.denoisers], dtype=torch.float64)
        borders = (weights / weights.sum()).cumsum(0)[:-1].to(device, non_blocking=True)
        return torch.bucketize(torch.rand(rows, dtype=torch.float64, generator=generator, device=device), borders)

    def __call__(self, batch: TokenBatch | Sequence[Tensor], number: int | None = None) -> SequenceBatch | PrefixBatch:
        """Return the corrupted batch.

        Args:
            batch: token sequences, padded, or a list of int64 (length,) tensors as a ``DataLoader`` collects them.
            number: number of the batch, at least 0, from which the random numbers follow. None, as for the
                ``collate_fn`` of a ``DataLoader``, to take it from the tokens and the epoch (:meth:`set_epoch`), so
                that it depends on no process.

        Raises:
            DataError: if there may be more spans than sentinels, a sequence has less than two tokens, or tokens are
                not those of the text.
        """
        if not isinstance(batch, TokenBatch):
            batch = _padded(batch)
        ids, lengths = batch.ids, batch.lengths
        _check_tokens(ids, lengths, self.vocab_size)
        if number is None:
            number = _content(ids, lengths, self.epoch)
        elif number < 0:
            raise ValueError(f"number is {number}; give the number of the batch, at least 0")
        rows, steps = ids.shape
        self.check_length(max(steps, 2))
        generator = self.generator(number, ids.device)
        chosen = self._choice(rows, generator, ids.device)
        noise, spans = self._counts(chosen, lengths, generator)
        mask = span_mask(lengths, noise, spans, steps, generator)
        found = corrupt_spans(ids, lengths, mask, self.first_sentinel)
        modes = torch.tensor([self.modes[denoiser.mode] for denoiser in self.denoisers]).to(ids)[chosen]
        inputs = torch.cat([modes[:, None], found.inputs], 1)
        input_lengths = found.input_lengths + 1
        if self.layout == "pairs":
            known = step_mask(found.target_lengths, steps + 1)
            return SequenceBatch(inputs, input_lengths, found.targets.masked_fill(~known, IGNORED))
        return self._joined(inputs, input_lengths, found.targets, found.target_lengths)

    def _counts(self, chosen: Tensor, lengths: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return how many tokens each sequence loses, and in how many spans."""
        rates, means, shares = (table[chosen] for table in self._tables(lengths.device))
        noise, spans = span_counts(lengths, rates, means)
        # the end of a sequence is one span: 1 to max_share L tokens
        most = torch.minimum((shares * lengths).long().clamp(min=1), lengths - 1)
        share = torch.rand(len(lengths), dtype=torch.float64, generator=generator, device=lengths.device)
        ends = torch.minimum((share * most).long() + 1, most)
        is_end = shares > 0
        return torch.where(is_end, ends, noise), torch.where(is_end, 1, spans)

    def _joined(self, inputs: Tensor, input_lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> PrefixBatch:
        """Return input, separator and target of each sequence one after the other."""
        rows, width = len(inputs), inputs.shape[1] + 1 + targets.shape[1]
        # places beyond the end of a target are written first and lie beyond the sequence
        ids = inputs.new_zeros(rows, width + 1)
        ids[:, : inputs.shape[1]] = inputs
        prefix = input_lengths + 1
        ids.scatter_(1, input_lengths[:, None], self.separator)
        place = torch.arange(targets.shape[1], device=targets.device)
        known = place < target_lengths[:, None]
        ids.scatter_(1, torch.where(known, prefix[:, None] + place, width), targets)
        return PrefixBatch(ids[:, :width], prefix + target_lengths, prefix)


def _padded(sequences: object) -> TokenBatch:
    """Return a list of sequences as one batch."""
    if not isinstance(sequences, list | tuple) or not all(
        isinstance(row, Tensor) and row.dim() == 1 for row in sequences
    ):
        given = tuple(sequences.shape) if isinstance(sequences, Tensor) else f"a {type(sequences).__name__}"
        raise DataError(f"the batch is {given}; give a TokenBatch, or a list of int64 tensors (length,)")
    lengths = torch.tensor([len(row) for row in sequences], dtype=torch.int64)
    if not len(lengths):
        raise DataError("the batch is empty; give at least one sequence")
    return TokenBatch(torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths)


def _check_tokens(ids: Tensor, lengths: Tensor, vocab_size: int) -> None:
    """Refuse what is no batch of tokens of the text; values are read on the CPU only, to avoid synchronisation."""
    if ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise DataError(f"ids is {ids.dtype} {tuple(ids.shape)}; token numbers must be integers (B, T)")
    if lengths.device.type != "cpu" or not ids.numel():
        return
    if int(lengths.min()) < 2:
        raise DataError(
            f"a sequence has {int(lengths.min())} tokens; at least 2 are needed, one to keep and one to take out"
        )
    check_lengths(lengths, len(ids), ids.shape[1])
    low, high = (int(end) for end in ids.aminmax())
    if low < 0 or high >= vocab_size:  # perhaps padding alone
        low, high = (int(end) for end in ids[step_mask(lengths, ids.shape[1])].aminmax())
    if low < 0 or high >= vocab_size:
        raise DataError(
            f"token numbers are from {low} to {high}; with vocab_size={vocab_size} those of the text are in "
            f"0..{vocab_size - 1}, and the numbers from there on are modes, separator and sentinels"
        )


def _content(ids: Tensor, lengths: Tensor, epoch: int) -> int:
    """Return a number that tells batches and epochs apart."""
    told = ids.cpu().numpy().tobytes() + lengths.cpu().numpy().tobytes() + epoch.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(told, digest_size=4).digest(), "little")


def _check_mode(mode: str, weight: float) -> None:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
    if not 0 < weight < float("inf"):
        raise ValueError(f"weight is {weight}; it must be a finite number above 0")
