"""Store of labelled sequences of different lengths, concatenated; each batch is padded to its longest sequence."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from graphseq.core.batches import IGNORED, SequenceBatch
from graphseq.core.errors import DataError
from graphseq.data.sequences.padding import Spans, cut
from graphseq.data.store import retain_freed_memory

__all__ = ["SequenceStore"]


class SequenceStore:
    """Concatenated sequences of different lengths, with a target for each sequence or for each step.

    Memory: the steps of all sequences without any padding, their targets, and 16 bytes for each sequence. A batch is
    as wide as its longest sequence; :class:`BucketLoader` groups sequences of similar length. Token numbers may have
    any integer type and are int64 in batches.

    Args:
        x: concatenated steps of all sequences: features, floating point (M, D), or token numbers, any integer type
            (M,).
        ptr: position of the first step of each sequence, and M at the end, int64 (N + 1,).
        y: target of each sequence, (N, *).
        step_y: target of each step, (M, *); -100 (integers) or NaN (floating point) for steps without a target.

    Shape:
        x (M, D) -> batch.x (B, T, D); x (M,) -> batch.x (B, T)

    Raises:
        DataError: if shapes or types do not match, a sequence has no steps, or a feature is not a finite number.

    Example:
        >>> store = SequenceStore(torch.arange(4.0).view(4, 1), torch.tensor([0, 3, 4]), y=torch.tensor([1, 0]))
        >>> store.take(torch.tensor([1, 0])).x.squeeze(-1).tolist()
        [[3.0, 0.0, 0.0], [0.0, 1.0, 2.0]]
    """

    def __init__(self, x: Tensor, ptr: Tensor, *, y: Tensor | None = None, step_y: Tensor | None = None) -> None:
        if x.is_floating_point() and x.dim() != 2:
            raise DataError(f"x is {tuple(x.shape)}; features must be (M, D), token numbers integers (M,)")
        if not x.is_floating_point() and (x.dim() != 1 or x.is_complex() or x.dtype == torch.bool):
            raise DataError(f"x is {x.dtype} {tuple(x.shape)}; token numbers must be integers (M,), features (M, D)")
        if ptr.dtype != torch.int64 or ptr.dim() != 1 or len(ptr) < 2 or int(ptr[0]) != 0 or int(ptr[-1]) != len(x):
            raise DataError(f"ptr is {ptr.dtype} {tuple(ptr.shape)}; it must be int64 (N + 1,) from 0 to {len(x)}")
        self._spans = Spans(ptr[:-1], ptr.diff(), len(x))
        for name, value, rows in (("y", y, len(ptr) - 1), ("step_y", step_y, len(x))):
            if value is not None and len(value) != rows:
                raise DataError(f"{name} has {len(value)} rows; {rows} are needed, one for each target")
        if x.is_floating_point():
            _check_finite(x, ptr)
        elif len(x) and int(x.min()) < 0:
            raise DataError(f"x reaches down to {int(x.min())}; token numbers must be at least 0")
        self.x, self.ptr, self.y, self.step_y = x, ptr, y, step_y
        retain_freed_memory()

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Any], *, y: Any | None = None, step_y: Sequence[Any] | None = None
    ) -> Self:
        """Pack a list of sequences.

        Args:
            sequences: arrays or tensors (T_i, D), or (T_i,), where floating-point numbers are a single feature and
                integers are token numbers. Features in float64 become float32, unless one would lose its differences,
                as times in seconds do: :class:`SequenceDataModule` scales them first.
            y: target of each sequence, (N, *).
            step_y: arrays or tensors (T_i, *) with the target of each step.

        Raises:
            DataError: if there are no sequences, one is empty, or the numbers of features or of targets differ.

        Example:
            >>> store = SequenceStore.from_sequences([[0.5, 0.1], [0.2]], y=[0, 1])
            >>> store.take(torch.tensor([0])).x.shape
            torch.Size([1, 2, 1])
        """
        if not len(sequences):
            raise DataError("sequences is empty; give at least one")
        rows = [_as_steps(sequence, number) for number, sequence in enumerate(sequences)]
        kinds = {(row.shape[1:], row.is_floating_point()) for row in rows}
        if len(kinds) > 1:
            other = next(n for n, row in enumerate(rows) if row.shape[1:] != rows[0].shape[1:] or
                         row.is_floating_point() != rows[0].is_floating_point())  # fmt: skip
            raise DataError(
                f"sequences[{other}] has steps {tuple(rows[other].shape[1:])} {rows[other].dtype}, sequences[0] "
                f"{tuple(rows[0].shape[1:])} {rows[0].dtype}; all sequences must have the same features"
            )
        lengths = [len(row) for row in rows]
        targets = None
        if step_y is not None:
            columns = [torch.as_tensor(np.asarray(target)) for target in step_y]
            wrong = next((n for n, (t, size) in enumerate(zip(columns, lengths, strict=False)) if len(t) != size), None)
            if len(columns) != len(rows) or wrong is not None:
                given = f"step_y[{wrong}] has {len(columns[wrong])} targets" if wrong is not None else (
                    f"step_y has {len(columns)} entries")  # fmt: skip
                raise DataError(f"{given}; give one target for each step of each of the {len(rows)} sequences")
            targets = torch.cat(columns)
        ptr = torch.tensor([0, *lengths]).cumsum(0)
        return cls(
            narrowed(torch.cat(rows)), ptr, y=None if y is None else torch.as_tensor(np.asarray(y)), step_y=targets
        )

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        return f"SequenceStore({len(self)} sequences, {len(self.x)} steps, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the steps."""
        return self.x.device

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each sequence, on the CPU, int64 (N,)."""
        return self._spans.host_lengths()

    @property
    def nbytes(self) -> int:
        """Memory of steps, targets, starts and lengths in bytes."""
        held = (self.x, self.ptr, self.y, self.step_y)
        return sum(tensor.nbytes for tensor in held if tensor is not None) + self._spans.lengths.nbytes

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        moved = object.__new__(type(self))
        moved.x, moved.ptr = self.x.to(device), self.ptr.to(device)
        moved.y = None if self.y is None else self.y.to(device)
        moved.step_y = None if self.step_y is None else self.step_y.to(device)
        moved._spans = self._spans.to(device, len(self.x))
        return moved

    def batches(
        self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None
    ) -> Iterator[SequenceBatch]:
        """Yield sequences in batches; each block of about 4 MB is gathered once and split into views.

        Args:
            index: numbers of the sequences, int64 (M,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.
        """
        per_step = self.x[:1].nbytes + (0 if self.step_y is None else self.step_y[:1].nbytes)
        for rows, block_sizes, widths in self._spans.blocks(index, sizes, per_step):
            source, outside = self._spans.gather_index(rows, block_sizes, widths)
            local = rows.to(self.device)
            cells = _gather(self.x, source, outside, 0)
            x, lengths = cells if cells.is_floating_point() else cells.long(), self._spans.lengths[local]
            y = None if self.y is None else self.y.index_select(0, local)
            step_y = None
            if self.step_y is not None:
                targets = self.step_y if self.step_y.is_floating_point() else self.step_y.long()
                step_y = _gather(targets, source, outside, torch.nan if targets.is_floating_point() else IGNORED)
            if device is not None:
                x, lengths = x.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
                y = None if y is None else y.to(device, non_blocking=True)
                step_y = None if step_y is None else step_y.to(device, non_blocking=True)
            nothing = [None] * len(block_sizes)
            parts = (
                cut(x, block_sizes, widths),
                lengths.split(block_sizes),
                nothing if y is None else y.split(block_sizes),
                nothing if step_y is None else cut(step_y, block_sizes, widths),
            )
            yield from map(SequenceBatch, *parts)

    def take(self, index: Tensor) -> SequenceBatch:
        """Return sequences as one batch.

        Args:
            index: numbers of the sequences, int64 (M,).
        """
        return next(self.batches(index, len(index)))


def _gather(values: Tensor, source: Tensor, outside: Tensor | None, pad: float) -> Tensor:
    out = values.index_select(0, source)
    if outside is not None:
        out.masked_fill_(outside.view(-1, *[1] * (out.dim() - 1)), pad)
    return out


def _as_steps(sequence: Any, number: int) -> Tensor:
    try:
        row = sequence if isinstance(sequence, Tensor) else torch.as_tensor(np.asarray(sequence))
    except (TypeError, ValueError) as error:
        raise DataError(f"sequences[{number}] is no array of numbers: {error}") from error
    if not row.dim():
        raise DataError(f"sequences[{number}] is one number; give an array (T, D) or (T,) for each sequence")
    if not len(row):
        raise DataError(f"sequences[{number}] has no step; leave it out")
    return row[:, None] if row.is_floating_point() and row.dim() == 1 else row


def narrowed(x: Tensor) -> Tensor:
    """Return features in float32; in float64 where rounding would exceed a thousandth of a feature's deviation.

    Args:
        x: features of all steps (M, D), or token numbers, which stay as they are.

    Example:
        >>> seconds = 1.7e9 + torch.arange(5.0, dtype=torch.float64)[:, None]
        >>> narrowed(seconds).dtype, narrowed(seconds - 1.7e9).dtype
        (torch.float64, torch.float32)
    """
    if x.dtype != torch.float64:
        return x
    rounded = x.float()
    varies = (x != x[:1]).any(0)
    coarse = varies & ((rounded.double() - x).abs().amax(0) > 1e-3 * x.std(0, correction=0))
    return x if bool(coarse.any()) and bool(rounded.isfinite().all()) else rounded


def _check_finite(x: Tensor, ptr: Tensor) -> None:
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        step, column = bad[0].tolist()
        number = int(torch.searchsorted(ptr, step, right=True)) - 1
        raise DataError(
            f"sequence {number}, step {step - int(ptr[number])}, feature {column} is {float(x[step, column])}; "
            f"features must be finite ({len(bad)} are not): fill them in or leave the sequence out"
        )
