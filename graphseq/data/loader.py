"""Loader of batches of a store: shuffled or in order, checkpointable, sharded by rank."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.store import Store

__all__ = ["BatchLoader"]


class BatchLoader:
    """Iterable over the batches of a store, with a length, a position that can be saved, and sharding by rank.

    The order depends only on ``(seed, epoch, pass)``: epochs are set by :meth:`set_epoch`, which Lightning
    calls through ``batch_sampler.sampler``; otherwise each complete pass is counted, so that plain ``for`` loops get
    a new order each time. ``state_dict`` is ``{epoch, pass, position, length, batch_size}``; after
    :meth:`load_state_dict` the next pass starts at the saved batch and yields the rest of the interrupted one.

    With ``world_size > 1`` every rank takes its part of each *global* batch of ``batch_size`` samples, so that
    all ranks do the same number of steps and the union of their batches is the batch of one process. A last
    batch with fewer samples than ranks is joined to the one before.

    Args:
        store: store of the samples.
        batch_size: number of samples of one batch over all ranks, at least 1.
        shuffle: whether each pass has a new order.
        index: positions of the samples to use, int64 (M,); default all.
        drop_last: whether to leave out a last batch that is smaller than ``batch_size``.
        seed: seed of the order, together with epoch and pass.
        rank: number of this process, from 0 to ``world_size`` - 1.
        world_size: number of processes.
        device: device of the batches; default that of the store.

    Raises:
        ValueError: if ``batch_size``, ``rank`` or ``world_size`` is out of range.
        DataError: if there are no samples or fewer than ranks, or an index is out of range.

    Example:
        >>> from graphseq.data import TensorStore
        >>> [batch[0].tolist() for batch in BatchLoader(TensorStore(torch.arange(5)), 2, shuffle=False)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        store: Store,
        batch_size: int,
        *,
        shuffle: bool,
        index: Tensor | None = None,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}; it must be an integer of at least 1")
        if world_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of world_size {world_size}; it must be in 0..world_size-1")
        if batch_size < world_size:
            raise ValueError(
                f"batch_size {batch_size} is below world_size {world_size}: some ranks would have no sample"
            )
        self._everything = index is None
        self.index = torch.arange(len(store)) if index is None else index.cpu()
        if self.index.dim() != 1 or self.index.dtype != torch.int64:
            raise DataError(f"index is {self.index.dtype} {tuple(self.index.shape)}; it must be int64 of shape (M,)")
        if len(self.index) and not 0 <= int(self.index.min()) <= int(self.index.max()) < len(store):
            raise DataError(
                f"index has positions from {int(self.index.min())} to {int(self.index.max())}; the store has "
                f"{len(store)} samples, so they must be in 0..{len(store) - 1}"
            )
        self.store = store
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = None if device is None or device == store.device else device
        full, rest = divmod(len(self.index), batch_size)
        self._global_sizes = [batch_size] * full
        if rest and not drop_last:
            if rest < world_size and full:
                self._global_sizes[-1] += rest
            else:
                self._global_sizes.append(rest)
        if not self._global_sizes or self._global_sizes[0] < world_size:
            raise DataError(
                f"{len(self.index)} samples make no batch of {batch_size} on {world_size} processes"
                f"{' with drop_last' if drop_last else ''}; use more samples, smaller batches or fewer processes"
            )
        # Lightning announces epochs to this attribute; one called `sampler` or `dataset` would make it take the
        # loader for torch's DataLoader and rebuild it
        self.batch_sampler = SimpleNamespace(sampler=self)
        self._epoch = 0
        self._pass = 0
        self._position = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return len(self._global_sizes)

    def __repr__(self) -> str:
        return f"BatchLoader({len(self.index)} samples, batch_size={self.batch_size}, shuffle={self.shuffle})"

    @property
    def epoch(self) -> int:
        """Epoch of the current order."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Start the order of another epoch; for the current epoch the position is kept.

        Args:
            epoch: number of the epoch, from 0.
        """
        if epoch != self._epoch:
            self._epoch, self._pass, self._position, self._resume_at = epoch, 0, 0, 0

    def order(self) -> Tensor:
        """Return the order of the samples in the current pass, over all ranks."""
        if not self.shuffle:
            return self.index
        words = np.random.SeedSequence([self.seed, self._epoch, self._pass]).generate_state(2, np.uint32)
        generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
        permutation = torch.randperm(len(self.index), generator=generator)
        return permutation if self._everything else self.index[permutation]

    def _shard(self, order: Tensor, sizes: list[int]) -> tuple[Tensor, list[int]]:
        if self.world_size == 1:
            return order[: sum(sizes)], sizes
        # as torch.tensor_split: the first `size % world_size` ranks get one more sample
        size = torch.tensor(sizes)
        small, more = size // self.world_size, size % self.world_size
        mine = small + (self.rank < more).long()
        begin = size.cumsum(0) - size + self.rank * small + more.clamp(max=self.rank)
        local = torch.arange(int(mine.sum())) - (mine.cumsum(0) - mine).repeat_interleave(mine)
        return order[begin.repeat_interleave(mine) + local], mine.tolist()

    def __iter__(self) -> Iterator[Any]:
        # a generator, so that calling iter() without taking a batch changes nothing
        start, self._resume_at = self._resume_at, 0
        sizes = self._global_sizes[start:]
        index, listed = self._shard(self.order()[sum(self._global_sizes[:start]) :], sizes)
        self._position = start
        for batch in self.store.batches(index, listed, self.device):
            # counted before the batch is yielded: a checkpoint saved during its step resumes after it
            self._position += 1
            yield batch
        self._pass, self._position = self._pass + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Return the position as plain data: ``epoch``, ``pass`` and ``position`` in batches, and what it counts."""
        sizes = {"length": len(self), "batch_size": self.batch_size}
        return {"epoch": self._epoch, "pass": self._pass, "position": self._position, **sizes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue a saved pass; after a complete one the next pass starts.

        Args:
            state: position that :meth:`state_dict` returned.

        Raises:
            DataError: if it is the position of a loader of another length or batch size, or lacks a name.
        """
        missing = sorted({"epoch", "pass", "position"} - state.keys())
        if missing:
            raise DataError(
                f"the position of the loader in the checkpoint has no {', '.join(missing)}, only "
                f"{', '.join(sorted(state))}: it is that of another version. Start from the weights alone"
            )
        if state.get("length", len(self)) != len(self):
            raise DataError(
                f"the checkpoint stands in an epoch of {state['length']} batches, this loader has {len(self)}; "
                "resume with the same data, split and batch size, or start from the weights alone"
            )
        if state.get("batch_size", self.batch_size) != self.batch_size:  # epochs can have as many batches all the same
            raise DataError(
                f"the checkpoint stands in an epoch of batches of {state['batch_size']} samples, this loader has "
                f"batches of {self.batch_size}; resume with the same batch size, or start from the weights alone"
            )
        self._epoch, self._pass = state["epoch"], state["pass"]
        self._position = self._resume_at = state["position"] % len(self)
