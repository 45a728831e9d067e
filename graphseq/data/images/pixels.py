"""Images read pixel by pixel, as sequences."""

from typing import Any, Unpack

import torch
from torch import Generator, Tensor

from graphseq.core.batches import SequenceBatch
from graphseq.data.base import DataOptions, Stage
from graphseq.data.images.module import Augmentation, ImageDataModule, ImageSetName

__all__ = ["PixelSequenceDataModule"]


class PixelSequenceDataModule(ImageDataModule):
    """Published images of :class:`ImageDataModule` as sequences of their pixels, row by row or in a fixed random order.

    MNIST becomes sequences of 784 steps, the digits of scikit-learn of 64. Pixels are put in sequence on the device,
    after normalisation. In a random order, the same for all images, neighbours are far apart, so that longer memories
    are needed.

    Source: arXiv 1504.00941, section 4.2. Differs from it: pixels are normalised.

    Args:
        name: name of the set.
        permutation_seed: seed of the random order of the pixels; None for row by row.
        val_fraction: share of the training images for the validation split, in [0, 1).
        augmentation: augmentation of training images, see :class:`ImageDataModule`.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known ones.
        options: further arguments of :class:`StoreDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, Y X, C), lengths (B,) and y int64 (B,).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, see :class:`ImageDataModule`.

    Example:
        >>> data = PixelSequenceDataModule("digits", batch_size=64)
        >>> batch = next(data.batches("train"))
        >>> batch.x.shape, data.num_features
        (torch.Size([64, 64, 1]), 1)
    """

    def __init__(
        self,
        name: ImageSetName,
        *,
        permutation_seed: int | None = None,
        val_fraction: float = 0.1,
        augmentation: Augmentation = "none",
        verify_checksums: bool = True,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            name, val_fraction=val_fraction, augmentation=augmentation, verify_checksums=verify_checksums, **options
        )
        self.permutation_seed = permutation_seed

    def pixel_order(self, count: int) -> Tensor:
        """Return the pixel of each step, int64 (count,).

        Args:
            count: number of pixels of an image.
        """
        if self.permutation_seed is None:
            return torch.arange(count)
        return torch.randperm(count, generator=Generator().manual_seed(self.permutation_seed))

    def transformed(self, batch: Any, stage: Stage) -> SequenceBatch:
        """Apply the transform of a stage to the images of a batch, and return their pixels as sequences.

        Args:
            batch: images and labels on the device.
            stage: name of the split.
        """
        images, labels = super().transformed(batch, stage)
        pixels = images.flatten(2).transpose(1, 2)  # (B, Y X, C)
        if self.permutation_seed is not None:
            pixels = pixels[:, self.pixel_order(pixels.shape[1]).to(pixels.device)]
        return SequenceBatch(pixels, torch.full_like(labels, pixels.shape[1]), labels)
