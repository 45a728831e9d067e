"""Padding of rows that are spans of one long tensor, with one gather for a block of batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.store import BLOCK_BYTES, DEVICE_BLOCK_BYTES, batch_sizes, blocks

INDEX_BYTES = 8
"""Bytes of the position from which each cell is gathered."""


class Spans:
    """Start and length of each row in a long tensor, on the device and on the CPU.

    The lengths are also kept on the CPU, so that the width of a batch is known without device synchronisation.

    Args:
        starts: position of the first step of each row, int64 (N,).
        lengths: number of steps of each row, int64 (N,), each at least 1.
        total: number of steps of the long tensor.

    Raises:
        DataError: if there are no rows, a row has no steps, or a row extends beyond the tensor.

    Example:
        >>> spans = Spans(torch.tensor([0, 3]), torch.tensor([3, 1]), total=4)
        >>> [width for *_, width in spans.blocks(torch.tensor([1, 0]), [1, 1], 8)]
        [[1, 3]]
    """

    def __init__(self, starts: Tensor, lengths: Tensor, total: int) -> None:
        for name, value in (("starts", starts), ("lengths", lengths)):
            if value.dtype != torch.int64 or value.dim() != 1:
                raise DataError(f"{name} is {value.dtype} {tuple(value.shape)}; it must be int64 of shape (N,)")
        if len(starts) != len(lengths) or not len(starts):
            raise DataError(f"there are {len(starts)} starts and {len(lengths)} lengths; give one each, at least one")
        self.starts, self.lengths = starts, lengths
        self._host = lengths.cpu().numpy()
        if self._host.min() < 1:
            row = int(self._host.argmin())
            raise DataError(f"lengths[{row}] is {self._host[row]}; every row needs at least one step: leave it out")
        ends = (starts + lengths).cpu()
        if int(starts.min()) < 0 or int(ends.max()) > total:
            row = int(ends.argmax()) if int(ends.max()) > total else int(starts.argmin())
            raise DataError(f"row {row} lies at {int(starts[row])}..{int(ends[row])}; there are {total} steps")

    def __len__(self) -> int:
        return len(self._host)

    @property
    def mean_length(self) -> float:
        """Mean number of steps of a row."""
        return float(self._host.mean())

    @property
    def nbytes(self) -> int:
        """Memory of starts and lengths in bytes."""
        return self.starts.nbytes + self.lengths.nbytes

    def host_lengths(self) -> Tensor:
        """Return the lengths on the CPU, int64 (N,)."""
        return torch.from_numpy(self._host)

    def to(self, device: torch.device | str, total: int) -> "Spans":
        """Return the spans with their tensors on ``device``.

        Args:
            device: target device.
            total: number of steps of the long tensor.
        """
        return Spans(self.starts.to(device), self.lengths.to(device), total)

    def blocks(
        self, index: Tensor, sizes: int | Sequence[int], bytes_per_step: float
    ) -> Iterator[tuple[Tensor, list[int], list[int]]]:
        """Split a sequence of rows into blocks of whole batches.

        Args:
            index: numbers of the rows, int64 (M,).
            sizes: size of all batches, or a list with the size of each batch.
            bytes_per_step: memory of one gathered step in bytes.

        Yields:
            the rows of a block on the CPU, its batch sizes, and the width of each batch, the length of its longest row.
        """
        host = index.cpu()
        limit = BLOCK_BYTES if self.starts.device.type == "cpu" else DEVICE_BLOCK_BYTES
        per_row = self.mean_length * (bytes_per_step + INDEX_BYTES)
        for rows, block_sizes in blocks(host, batch_sizes(len(host), sizes), per_row, limit):
            yield rows, block_sizes, self.widths(rows, block_sizes)

    def widths(self, rows: Tensor, sizes: Sequence[int]) -> list[int]:
        """Return the width of each batch of a block: the length of its longest row.

        Args:
            rows: numbers of the rows of the block, int64 (R,), on the CPU.
            sizes: size of each batch.
        """
        begin = np.cumsum([0, *sizes[:-1]])
        return np.maximum.reduceat(self._host[rows.numpy()], begin).tolist()

    def gather_index(self, rows: Tensor, sizes: Sequence[int], widths: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return the position of the step of each cell of a block, row by row, and which cells are padding.

        Args:
            rows: numbers of the rows of the block, int64 (R,), on the CPU.
            sizes: size of each batch.
            widths: width of each batch.

        Returns:
            positions, int64 (C,), 0 for padding, and whether a cell is padding, bool (C,), or None without padding.
        """
        device = self.starts.device
        shortest = int(self._host[rows.numpy()].min())
        local = rows.to(device, non_blocking=True)
        starts = self.starts[local]
        if min(widths) == max(widths):
            steps = torch.arange(widths[0], device=device)
            source = starts[:, None] + steps  # (R, T)
            if shortest == widths[0]:
                return source.flatten(), None
            outside = steps >= self.lengths[local][:, None]
            return source.masked_fill(outside, 0).flatten(), outside.flatten()
        row_widths = torch.tensor(widths).repeat_interleave(torch.tensor(sizes))
        total = int(row_widths.sum())
        row_widths = row_widths.to(device, non_blocking=True)
        row = torch.arange(len(local), device=device).repeat_interleave(row_widths, output_size=total)
        steps = torch.arange(total, device=device) - (row_widths.cumsum(0) - row_widths)[row]
        outside = steps >= self.lengths[local][row]
        return (starts[row] + steps).masked_fill(outside, 0), outside


def cut(flat: Tensor, sizes: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """Return the batches of a block as views.

    Args:
        flat: concatenated cells of all batches, (C, *).
        sizes: size of each batch.
        widths: width of each batch.

    Example:
        >>> [tuple(batch.shape) for batch in cut(torch.zeros(7), [2, 1], [2, 3])]
        [(2, 2), (1, 3)]
    """
    cells = [size * width for size, width in zip(sizes, widths, strict=True)]
    parts = zip(flat.split(cells), sizes, widths, strict=True)
    return [part.view(size, width, *flat.shape[1:]) for part, size, width in parts]
