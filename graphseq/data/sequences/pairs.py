"""Store of input sequences with an output sequence each, both of different lengths."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from graphseq.core.batches import IGNORED, SequenceBatch
from graphseq.core.errors import DataError
from graphseq.data.sequences.padding import Spans, cut
from graphseq.data.sequences.store import SequenceStore

__all__ = ["SequencePairStore"]


class SequencePairStore(SequenceStore):
    """Concatenated input sequences, and for each an output sequence of symbols of another length.

    Memory: the steps of all sequences without padding, and 32 bytes for each pair. A batch is as wide as its longest
    input, its targets as wide as its longest output. Targets may have any integer type and are int64 in batches.

    Args:
        x: concatenated steps of all inputs: features, floating point (M, D), or token numbers, any integer type (M,).
        ptr: position of the first step of each input, and M at the end, int64 (N + 1,).
        target: concatenated symbols of all outputs, any integer type (K,), each at least 0.
        target_ptr: position of the first symbol of each output, and K at the end, int64 (N + 1,).

    Shape:
        x (M, D) -> batch.x (B, T, D), padded by 0; target (K,) -> batch.y (B, L), padded by -100

    Raises:
        DataError: if shapes or types do not match, or a sequence is empty.

    Example:
        >>> store = SequencePairStore(
        ...     torch.arange(4.0).view(4, 1), torch.tensor([0, 3, 4]), torch.tensor([2, 0, 0]), torch.tensor([0, 2, 3])
        ... )
        >>> store.take(torch.tensor([1, 0])).y.tolist()
        [[0, -100], [2, 0]]
    """

    def __init__(self, x: Tensor, ptr: Tensor, target: Tensor, target_ptr: Tensor) -> None:
        super().__init__(x, ptr)
        if target.is_floating_point() or target.dtype == torch.bool or target.dim() != 1:
            raise DataError(f"target is {target.dtype} {tuple(target.shape)}; symbols must be integers (K,)")
        if target_ptr.shape != ptr.shape or int(target_ptr[-1]) != len(target) or int(target_ptr[0]) != 0:
            raise DataError(
                f"target_ptr is {tuple(target_ptr.shape)}; it must be ({len(ptr)},), as ptr, from 0 to {len(target)}"
            )
        if int(target.min()) < 0:
            raise DataError(f"target reaches down to {int(target.min())}; symbols must be at least 0")
        self.target, self.target_ptr = target, target_ptr
        self._outputs = Spans(target_ptr[:-1], target_ptr.diff(), len(target))

    def __repr__(self) -> str:
        counts = f"{len(self)} pairs, {len(self.x)} steps, {len(self.target)} symbols"
        return f"SequencePairStore({counts}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def nbytes(self) -> int:
        """Memory of steps, symbols, starts and lengths in bytes."""
        return super().nbytes + self.target.nbytes + self.target_ptr.nbytes + self._outputs.lengths.nbytes

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        moved = super().to(device)
        moved.target, moved.target_ptr = self.target.to(device), self.target_ptr.to(device)
        moved._outputs = self._outputs.to(device, len(self.target))
        return moved

    def batches(
        self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None
    ) -> Iterator[SequenceBatch]:
        """Yield pairs in batches; each block of about 4 MB is gathered once and split into views.

        Args:
            index: numbers of the pairs, int64 (M,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.
        """
        per_step = self.x[:1].nbytes + 8 * self._outputs.mean_length / self._spans.mean_length
        for rows, block_sizes, widths in self._spans.blocks(index, sizes, per_step):
            x = gathered(self.x, self._spans, rows, block_sizes, widths, 0)
            target_widths = self._outputs.widths(rows, block_sizes)
            y = gathered(self.target, self._outputs, rows, block_sizes, target_widths, IGNORED)
            lengths = self._spans.lengths[rows.to(self.device)]
            if device is not None:
                x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
                lengths = lengths.to(device, non_blocking=True)
            parts = (cut(x, block_sizes, widths), lengths.split(block_sizes), cut(y, block_sizes, target_widths))
            yield from map(SequenceBatch, *parts)


def gathered(
    values: Tensor, spans: Spans, rows: Tensor, sizes: Sequence[int], widths: Sequence[int], pad: float
) -> Tensor:
    """Return the cells of a block of batches, row by row; integers become int64.

    Args:
        values: the long tensor that rows are spans of.
        spans: start and length of each row.
        rows: numbers of the rows of the block, int64 (R,), on the CPU.
        sizes: size of each batch.
        widths: width of each batch.
        pad: value of padding.
    """
    source, outside = spans.gather_index(rows, sizes, widths)
    cells = values.index_select(0, source)
    cells = cells if cells.is_floating_point() else cells.long()
    if outside is not None:
        cells.masked_fill_(outside.view(-1, *[1] * (cells.dim() - 1)), pad)
    return cells
