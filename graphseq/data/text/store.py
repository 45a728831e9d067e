"""Store of one long text as token numbers, whose samples are spans."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from graphseq.core.batches import TokenBatch
from graphseq.core.errors import DataError
from graphseq.data.sequences.padding import Spans, cut
from graphseq.data.store import retain_freed_memory

__all__ = ["TokenStore"]


class TokenStore:
    """Rows of tokens that are spans of one long tensor; spans may overlap, and each batch is padded to its longest row.

    Memory: the tokens in their given type (:func:`smallest_integers` takes 1 byte a token for up to 256
    tokens, 2 up to 32,768) plus 16 bytes for each span, independent of length and overlap. A batch takes 8 bytes
    for each token and is as wide as its longest row; :class:`BucketLoader` groups rows of similar length.

    Args:
        tokens: token numbers, at least 0, any integer type (M,).
        starts: position of the first token of each span, int64 (N,).
        lengths: number of tokens of each span, int64 (N,), each at least 1.
        pad: token number of padding.

    Raises:
        DataError: if tokens are not non-negative integers, or a span is empty or extends beyond the tokens.

    Example:
        >>> store = TokenStore(torch.arange(10), torch.tensor([0, 6]), torch.tensor([4, 2]))
        >>> store.take(torch.tensor([1, 0])).ids.tolist()
        [[6, 7, 0, 0], [0, 1, 2, 3]]
    """

    def __init__(self, tokens: Tensor, starts: Tensor, lengths: Tensor, *, pad: int = 0) -> None:
        _check_tokens(tokens)
        self.tokens, self.pad = tokens, pad
        self._spans = Spans(starts, lengths, len(tokens))
        retain_freed_memory()

    @classmethod
    def from_rows(cls, ids: Tensor, lengths: Tensor, *, pad: int = 0) -> Self:
        """Return a store of padded rows; the padding is kept in memory, batches are cut to their longest row.

        Args:
            ids: token numbers, any integer type (N, T).
            lengths: number of tokens of each row, int64 (N,), each in 1..T.
            pad: token number of padding in batches.

        Raises:
            DataError: if the shapes do not fit, or a length is not in 1..T.

        Example:
            >>> rows = TokenStore.from_rows(torch.tensor([[4, 2, 7], [5, 0, 0]]), torch.tensor([3, 1]))
            >>> rows.take(torch.tensor([1])).ids.tolist()
            [[5]]
        """
        if ids.dim() != 2 or len(ids) != len(lengths):
            raise DataError(f"ids is {tuple(ids.shape)} with {len(lengths)} lengths; it must be (N, T) with N lengths")
        width = ids.shape[1]
        if len(lengths) and int(lengths.max()) > width:
            raise DataError(f"lengths reach {int(lengths.max())}; the rows have {width} cells")
        return cls(ids.flatten(), torch.arange(len(ids)) * width, lengths, pad=pad)

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        return f"TokenStore({len(self.tokens)} tokens, {len(self)} spans, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the tokens."""
        return self.tokens.device

    @property
    def nbytes(self) -> int:
        """Memory of tokens, starts and lengths in bytes."""
        return self.tokens.nbytes + self._spans.nbytes

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each span, on the CPU, int64 (N,)."""
        return self._spans.host_lengths()

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        moved = object.__new__(type(self))
        moved.tokens, moved.pad = self.tokens.to(device), self.pad
        moved._spans = self._spans.to(device, len(self.tokens))
        return moved

    def batches(
        self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None
    ) -> Iterator[TokenBatch]:
        """Yield spans in batches; each block of about 4 MB is gathered once and split into views.

        Args:
            index: numbers of the spans, int64 (M,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.
        """
        for rows, block_sizes, widths in self._spans.blocks(index, sizes, 8):
            source, outside = self._spans.gather_index(rows, block_sizes, widths)
            ids = self.tokens.index_select(0, source).long()
            if outside is not None:
                ids.masked_fill_(outside, self.pad)
            lengths = self._spans.lengths[rows.to(self.device)]
            if device is not None:
                ids, lengths = ids.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
            yield from map(TokenBatch, cut(ids, block_sizes, widths), lengths.split(block_sizes))

    def take(self, index: Tensor) -> TokenBatch:
        """Return spans as one batch.

        Args:
            index: numbers of the spans, int64 (M,).
        """
        return next(self.batches(index, len(index)))


def _check_tokens(tokens: Tensor) -> None:
    if tokens.dim() != 1 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise DataError(f"tokens are {tokens.dtype} {tuple(tokens.shape)}; they must be whole numbers of shape (M,)")
    if not len(tokens):
        raise DataError("tokens are empty; at least one is needed")
    if int(tokens.min()) < 0:
        raise DataError(f"tokens reach down to {int(tokens.min())}; token numbers must be at least 0")


def smallest_integers(tokens: Tensor) -> Tensor:
    """Return token numbers in the smallest type that holds them: uint8, int16, int32 or int64.

    Args:
        tokens: token numbers, at least 0.

    Example:
        >>> smallest_integers(torch.tensor([1, 300])).dtype
        torch.int16
    """
    highest = int(tokens.max()) if len(tokens) else 0
    kinds = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return tokens.to(next(kind for kind in kinds if highest <= torch.iinfo(kind).max))


def windows(begin: int, end: int, length: int, stride: int | None = None) -> tuple[Tensor, Tensor]:
    """Return starts and lengths of the windows that predict the tokens ``begin..end-1`` from the preceding ones.

    A window has ``length`` inputs and one more token, the last target; the next window begins ``stride`` later. With
    ``stride = length`` each token but the first is the target of exactly one window, and the last window may be
    shorter.

    Args:
        begin: position of the first token.
        end: position after the last token, at least ``begin + 2``.
        length: number of inputs of a window, at least 1.
        stride: distance between the starts of two windows, in 1..length; default ``length``.

    Returns:
        starts and lengths, int64 (N,) each; lengths include the last target.

    Raises:
        ValueError: if ``length`` or ``stride`` is out of range.
        DataError: if there are fewer than two tokens.

    Example:
        >>> windows(0, 8, length=3)
        (tensor([0, 3, 6]), tensor([4, 4, 2]))
    """
    stride = length if stride is None else stride
    if length < 1 or not 1 <= stride <= length:
        raise ValueError(f"length is {length} and stride {stride}; give length >= 1 and stride in 1..length")
    if end - begin < 2:
        raise DataError(f"{end - begin} tokens hold nothing to predict; at least two are needed")
    starts = torch.arange(begin, max(end - 1 - (length - stride), begin + 1), stride)
    return starts, (end - starts).clamp(max=length + 1)
