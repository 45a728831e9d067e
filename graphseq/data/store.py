"""Stores: data sets on one device that return batches by index; the protocol, and the store of plain tensors."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["SingleStore", "Store", "TensorStore"]

ROW_BLOCK_BYTES = 2 * 2**20
"""Bytes of rows gathered at once on the host: a block stays in the cache. Fastest of 1, 2, 4 and 8 MB for images."""

BLOCK_BYTES = 4 * 2**20
"""Bytes of graphs gathered at once on the host: the index arithmetic of a block costs little from 4 MB on."""

DEVICE_BLOCK_BYTES = 32 * 2**20
"""The same on an accelerator, where each operation has a price to start."""


class Store(Protocol):
    """Protocol of a data set on one device that returns batches by index.

    ``batches`` gathers blocks of whole batches and yields views of them: use ``clone()`` before writing in place.

    Example:
        >>> store: Store = TensorStore(torch.arange(4))
        >>> len(store)
        4
    """

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batches(self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None) -> Iterator[Any]:
        """Yield the samples ``index`` in batches of the given sizes; blocks are moved to ``device`` if given."""
        ...

    def take(self, index: Tensor) -> Any:
        """Return the samples ``index`` as one batch."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        ...


Index = Tensor | np.ndarray | Sequence[int] | slice
"""What names samples of a store: positions, a slice, or a mask with one entry a sample."""


def positions(index: Index, count: int) -> Tensor:
    """Return positions of samples from indices, a slice or a mask.

    Args:
        index: selected samples, as a tensor, array or sequence of integers (M,), a slice, or a mask of ``count``
            booleans.
        count: number of samples.

    Returns:
        Positions, int64 (M,), on the device of ``index``; their range is not checked.

    Raises:
        DataError: if ``index`` is something else, such as floating-point numbers, a single number, or a mask of another
            length.

    Example:
        >>> positions(slice(1, 3), 4), positions([True, False, True], 3)
        (tensor([1, 2]), tensor([0, 2]))
    """
    if isinstance(index, slice):
        return torch.arange(count)[index] if (index.step or 1) > 0 else torch.tensor(range(count)[index])
    if isinstance(index, Tensor):
        given = index
    else:
        listed = np.asarray(index)
        if listed.dtype == object or listed.dtype.kind in "USV":
            raise DataError(f"index is a {type(index).__name__} of {listed.dtype}; give integers or booleans")
        given = torch.from_numpy(np.ascontiguousarray(listed)).reshape(listed.shape)
        if not given.numel():
            given = given.long()
    if given.dim() != 1:
        raise DataError(f"index is of shape {tuple(given.shape)}; it must have one dimension, positions or a mask")
    if given.dtype == torch.bool:
        if len(given) != count:
            raise DataError(f"index is a mask of {len(given)} entries for {count} samples; one for each is needed")
        return given.nonzero().flatten()
    if given.dtype == torch.uint8 or given.is_floating_point() or given.is_complex():
        raise DataError(
            f"index is {given.dtype}; positions are integers and masks are bool, so convert it by .long() or .bool()"
        )
    return given.long()


def batch_sizes(count: int, sizes: int | Sequence[int]) -> list[int]:
    """Return the sizes of the batches of ``count`` samples.

    Args:
        count: number of samples.
        sizes: size of all batches (the last may be smaller), or a list with the size of each batch.

    Raises:
        ValueError: if a size is below one or the sizes do not add up to ``count``.

    Example:
        >>> batch_sizes(7, 3)
        [3, 3, 1]
    """
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError(f"batch_size is {sizes}; it must be at least 1")
        full, rest = divmod(count, sizes)
        return [sizes] * full + ([rest] if rest else [])
    listed = list(sizes)
    if sum(listed) != count or any(size < 1 for size in listed):
        raise ValueError(f"batch sizes {listed[:8]} do not divide {count} samples: each >= 1 and their sum {count}")
    return listed


def blocks(
    index: Tensor, sizes: Sequence[int], bytes_per_sample: float, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[Tensor, list[int]]]:
    """Split an order of samples into blocks of whole batches of about a given number of bytes.

    Args:
        index: order of the samples.
        sizes: size of each batch, adding up to ``len(index)``.
        bytes_per_sample: average memory of one gathered sample in bytes.
        block_bytes: memory of a block in bytes.

    Yields:
        the part of ``index`` and the batch sizes of one block.

    Example:
        >>> [sizes for _, sizes in blocks(torch.arange(5), [2, 2, 1], 2 * 2**20)]
        [[2], [2], [1]]
    """
    limit = max(block_bytes / max(bytes_per_sample, 1e-9), 1.0)
    start, held = 0, 0
    gathered: list[int] = []
    for size in sizes:
        if gathered and held + size > limit:
            yield index[start : start + held], gathered
            start, held, gathered = start + held, 0, []
        held += size
        gathered.append(size)
    if gathered:
        yield index[start : start + held], gathered


def retain_freed_memory() -> None:
    """Let the C library keep the memory of freed blocks for the blocks that follow.

    glibc hands free memory back to the system beyond twice the largest array that was freed so far, and each page
    that is needed again costs a fault: with small data sets, more than gathering does. Freeing one array just below
    the largest that glibc counts, which is never touched and takes no memory, sets that mark. Harmless elsewhere.

    Example:
        >>> retain_freed_memory()
    """
    np.empty(31 * 2**20, dtype=np.uint8)


class TensorStore:
    """Samples as rows of tensors; a batch is a tuple (positional fields) or a dictionary (named fields) of rows.

    Args:
        fields: tensors with the same first dimension; batches are tuples in this order.
        named: tensors by name; batches are dictionaries. Give either ``fields`` or ``named``.

    Shape:
        each field (N, *) -> each batch entry (B, *)

    Raises:
        DataError: if there are no fields, both kinds are given, a field is not a tensor with rows, or the numbers of
            rows differ or are zero.

    Example:
        >>> x, y = TensorStore(torch.arange(6).view(3, 2), torch.arange(3)).take(torch.tensor([2, 0]))
        >>> y
        tensor([2, 0])
    """

    def __init__(self, *fields: Tensor, **named: Tensor) -> None:
        if bool(fields) == bool(named):
            raise DataError("TensorStore takes tensors by position or by name, at least one, and not both")
        retain_freed_memory()
        self._names = tuple(named) if named else None
        self._fields = list(named.values()) if named else list(fields)
        for place, field in zip(self._names or range(len(self._fields)), self._fields, strict=True):
            if not isinstance(field, Tensor) or not field.dim():
                what = "a tensor without dimensions" if isinstance(field, Tensor) else f"a {type(field).__name__}"
                raise DataError(f"field {place} is {what}; give tensors (N, *), such as torch.as_tensor(array)")
        rows = {len(field) for field in self._fields}
        if len(rows) != 1 or 0 in rows:
            raise DataError(f"fields have {sorted(rows)} rows; all must have the same number of rows, at least one")

    def __len__(self) -> int:
        return len(self._fields[0])

    def __repr__(self) -> str:
        names = ", ".join(self._names) if self._names else f"{len(self._fields)} fields"
        return f"TensorStore({len(self)} samples, {names}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self._fields[0].device

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        return sum(field.nbytes for field in self._fields)

    def to(self, device: torch.device | str) -> Self:
        """Return the store with its tensors on ``device``; tensors that are on it already are shared."""
        moved = [field.to(device) for field in self._fields]
        return type(self)(**dict(zip(self._names, moved, strict=True))) if self._names else type(self)(*moved)

    def batches(self, index: Index, sizes: int | Sequence[int], device: torch.device | None = None) -> Iterator[Any]:
        """Yield the rows ``index`` in batches; each block of about 2 MB is gathered once and split into views.

        Args:
            index: positions of rows from 0: a tensor, array or list of integers (M,), a slice, or a mask (N,).
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the batches; default that of the store.
        """
        index = positions(index, len(self)).to(self.device)
        listed = batch_sizes(len(index), sizes)
        block_bytes = ROW_BLOCK_BYTES if self.device.type == "cpu" else DEVICE_BLOCK_BYTES
        for rows, block_sizes in blocks(index, listed, self.nbytes / len(self), block_bytes):
            columns = [field.index_select(0, rows) for field in self._fields]
            if device is not None:
                columns = [column.to(device, non_blocking=True) for column in columns]
            for views in zip(*(column.split(block_sizes) for column in columns), strict=True):
                yield dict(zip(self._names, views, strict=True)) if self._names else views

    def take(self, index: Index) -> Any:
        """Return the rows ``index`` as one batch.

        Args:
            index: positions of rows from 0: a tensor, array or list of integers (M,), a slice, or a mask (N,).
        """
        rows = positions(index, len(self)).to(self.device)
        columns = tuple(field.index_select(0, rows) for field in self._fields)
        return dict(zip(self._names, columns, strict=True)) if self._names else columns


class SingleStore:
    """Store of one object that is the whole data set, such as one large graph; every batch is that object.

    Args:
        item: object with a method ``to(device)``, such as a PyG ``Data``.

    Example:
        >>> from torch_geometric.data import Data
        >>> store = SingleStore(Data(x=torch.ones(3, 2)))
        >>> next(store.batches(torch.tensor([0]), 1)).num_nodes
        3
    """

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"SingleStore({self.item}, {self.nbytes / 2**20:.1f} MB, {self.device})"

    def _tensors(self) -> list[Tensor]:
        values = self.item.to_dict().values() if hasattr(self.item, "to_dict") else [self.item]
        return [value for value in values if isinstance(value, Tensor)]

    @property
    def device(self) -> torch.device:
        """Device of the first tensor of the item."""
        return next((tensor.device for tensor in self._tensors()), torch.device("cpu"))

    @property
    def nbytes(self) -> int:
        """Memory of the tensors of the item in bytes."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def to(self, device: torch.device | str) -> Self:
        """Return the store with a copy of its item on ``device``; the item itself is not moved."""
        import copy

        return type(self)(copy.copy(self.item).to(device))

    def batches(self, index: Tensor, sizes: int | Sequence[int], device: torch.device | None = None) -> Iterator[Any]:
        """Yield the item once for each batch of ``index``.

        Args:
            index: zeros, one for each sample.
            sizes: size of all batches, or a list with the size of each batch.
            device: device of the item; default that of the store.
        """
        for _ in batch_sizes(len(index), sizes):
            yield self.item if device is None else self.to(device).item

    def take(self, index: Tensor) -> Any:
        """Return the item.

        Args:
            index: ignored, since there is one item.
        """
        return self.item
