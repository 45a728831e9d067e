"""Base class of data modules with padded batches: transforms, device residency, batches of similar length."""

import dataclasses
from typing import Any, Protocol, Unpack, cast

import torch
from torch import Tensor

from graphseq.core.batches import SequenceBatch, TokenBatch
from graphseq.data.base import DataOptions, Stage, StoreDataModule
from graphseq.data.loader import BatchLoader
from graphseq.data.sequences.loader import BucketLoader

__all__ = ["PaddedDataModule"]


class _WithLengths(Protocol):
    @property
    def lengths(self) -> Tensor: ...


class PaddedDataModule(StoreDataModule):
    """Base class of the data modules whose batches are padded: ``TokenBatch`` or ``SequenceBatch``.

    Args:
        pool_batches: number of batches within which training samples are sorted by length, at least 1, see
            :class:`BucketLoader`; None for a fully random order.
        options: further arguments of :class:`StoreDataModule`; transforms are applied to the inputs ``x``.

    Raises:
        ValueError: if ``pool_batches`` is below 1.

    Example:
        >>> from graphseq.data import SequenceStore
        >>> class Ramps(PaddedDataModule):
        ...     def read(self):
        ...         store = SequenceStore.from_sequences([[0.1] * (1 + n % 5) for n in range(20)], y=[0, 1] * 10)
        ...         return store, {"train": torch.arange(16), "val": torch.arange(16, 18), "test": torch.arange(18, 20)}
        >>> next(Ramps(pool_batches=2, batch_size=4).batches()).x.dim()
        3
    """

    def __init__(self, *, pool_batches: int | None = None, **options: Unpack[DataOptions]) -> None:
        super().__init__(**options)
        if pool_batches is not None and pool_batches < 1:
            raise ValueError(f"pool_batches is {pool_batches}; it must be at least 1, or None")
        self.pool_batches = pool_batches

    def loader(self, stage: Stage) -> BatchLoader:
        """Return the loader of one stage; training batches are of similar length if ``pool_batches`` is given.

        Args:
            stage: name of the split; ``train`` is shuffled, the others keep their order.
        """
        plain = super().loader(stage)
        if self.pool_batches is None or not plain.shuffle:
            return plain
        return BucketLoader(
            plain.store,
            plain.batch_size,
            lengths=cast(_WithLengths, plain.store).lengths,
            pool_batches=self.pool_batches,
            index=plain.index,
            drop_last=plain.drop_last,
            seed=plain.seed,
            rank=plain.rank,
            world_size=plain.world_size,
            device=plain.device,
        )

    def transformed(self, batch: Any, stage: Stage) -> Any:
        """Apply the transform of a stage to the inputs of a batch.

        Args:
            batch: one batch on the device.
            stage: name of the split.
        """
        transform = self.train_transform if stage == "train" else self.eval_transform
        if transform is None:
            return batch
        name = "ids" if isinstance(batch, TokenBatch) else "x"
        return dataclasses.replace(batch, **{name: transform(getattr(batch, name))})

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return batches that are on the device already unchanged, since the loader moves whole blocks."""
        if isinstance(batch, TokenBatch | SequenceBatch) and batch.lengths.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
