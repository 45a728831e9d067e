"""Layout of the graphs of a block of batches, and the copies that follow from it, in numpy where that is faster."""

import numpy as np
import torch
from torch import Tensor

__all__: list[str] = []


class BlockLayout:
    """Positions of the graphs of several batches in one block, computed on the CPU from offsets.

    Fields with the same number of entries in every graph form a group, such as all fields with one row a node. The
    arrays ``begin``, ``counts``, ``starts`` and ``before`` have one row for each group and one column for each
    graph: its first entry in the store, its number of entries, its first entry in the block, and the number of entries
    of earlier graphs in its batch. ``parts`` holds the number of entries of each batch, ``number`` the position of each
    graph in its batch.

    Args:
        graphs: positions of the graphs in the store, int64 (B,).
        sizes: number of graphs of each batch, each at least 1, adding up to B.
        offsets: first entry of each graph in the store and, last, the number of entries, int64 (groups, G + 1).

    Example:
        >>> layout = BlockLayout(np.array([2, 0, 1]), [2, 1], np.array([[0, 4, 6, 9]]))
        >>> layout.counts.tolist(), layout.before.tolist(), layout.parts
        ([[3, 4, 2]], [[0, 3, 0]], [[7, 2]])
    """

    def __init__(self, graphs: np.ndarray, sizes: list[int], offsets: np.ndarray) -> None:
        self.graphs, self.sizes = graphs, sizes
        self._last = np.cumsum(sizes, dtype=np.int64)
        self._first = self._last - sizes
        self.number = np.arange(len(graphs)) - np.repeat(self._first, sizes)
        self.begin = offsets.take(graphs, axis=1)
        self.counts = offsets.take(graphs + 1, axis=1) - self.begin
        ends = self.counts.cumsum(axis=1)
        self.starts = ends - self.counts
        self.before = self._since_batch(self.starts, axis=1)
        self._totals = ends[:, self._last - 1] - self.starts[:, self._first]
        self.parts: list[list[int]] = self._totals.tolist()

    def _since_batch(self, starts: np.ndarray, axis: int) -> np.ndarray:
        return starts - starts.take(self._first, axis).repeat(self.sizes, axis)

    def sum_before(self, steps: np.ndarray) -> np.ndarray:
        """Return for each graph the sum over earlier graphs in its batch.

        Args:
            steps: value of each graph, (B, *).
        """
        return self._since_batch(steps.cumsum(axis=0) - steps, axis=0)

    def pointers(self) -> np.ndarray:
        """Return for each group the concatenated offsets of all batches, size + 1 entries for each batch."""
        return np.insert(self.before, self._last, self._totals, axis=1)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Split values of graphs by batch.

        Args:
            values: values with one row for each graph, (B, *).
        """
        return np.split(values, self._last[:-1])


def spread(values: np.ndarray, counts: np.ndarray, device: torch.device) -> Tensor:
    """Repeat the value of each graph for each of its entries.

    Args:
        values: value of each graph, (B, *).
        counts: number of entries of each graph, (B,).
        device: device of the entries; transfers to it are asynchronous.

    Example:
        >>> spread(np.array([7, 8]), np.array([2, 1]), torch.device("cpu"))
        tensor([7, 7, 8])
    """
    if device.type == "cpu":  # a quarter of the time that torch takes
        return torch.from_numpy(np.repeat(values, counts, axis=0))
    each, times = (torch.from_numpy(array).to(device, non_blocking=True) for array in (values, counts))
    return each.repeat_interleave(times, dim=0, output_size=int(counts.sum()))


def add_in_place(target: Tensor, other: Tensor) -> None:
    """Add a tensor to another one in place.

    Args:
        target: tensor that is changed.
        other: tensor whose shape broadcasts to that of ``target``.

    Example:
        >>> rows = torch.tensor([4, 5])
        >>> add_in_place(rows, torch.tensor([1]))
        >>> rows
        tensor([5, 6])
    """
    if target.device.type == "cpu" and target.dtype == other.dtype == torch.int64:  # less than half of torch's time
        np.add(target.numpy(), other.numpy(), out=target.numpy())
    else:
        target += other


def add_to_entries(target: Tensor, dim: int, values: np.ndarray, counts: np.ndarray) -> None:
    """Add the value of each graph to each of its entries.

    Args:
        target: entries of all graphs along dimension ``dim``, which are changed in place.
        dim: dimension in which graphs are joined.
        values: value of each graph, (B, *), broadcast over the other dimensions.
        counts: number of entries of each graph, (B,).

    Example:
        >>> edges = torch.zeros(2, 3, dtype=torch.int64)
        >>> add_to_entries(edges, 1, np.array([0, 5]), np.array([1, 2]))
        >>> edges.tolist()
        [[0, 5, 5], [0, 5, 5]]
    """
    add_in_place(target, _along(spread(values, counts, target.device), target.dim(), dim))


def _along(each: Tensor, rank: int, dim: int) -> Tensor:
    """Reshape increments (M, *) so that they broadcast over a gathered field with M entries along ``dim``."""
    if each.dim() == 1:
        return each.view([-1 if axis == dim else 1 for axis in range(rank)])
    padded = each.reshape(len(each), *[1] * (rank - each.dim() + 1), *each.shape[1:])
    return padded.squeeze(dim + 1).movedim(0, dim)
