"""Images with noise of a level that is known, to be cleaned by networks that are told the level."""

import math
from typing import Any, Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions, Stage, StoreDataModule
from graphseq.data.images.module import ImageDataModule, ImageSetName
from graphseq.data.store import TensorStore
from graphseq.data.transforms import ToFloat

__all__ = ["NoisyImagesDataModule"]


class NoisyImagesDataModule(StoreDataModule):
    r"""Images with normal noise, the level of the noise as a condition, and the clean images as targets.

    .. math:: x = y + \gamma \sigma \epsilon, \qquad \gamma \sim U[0, 1], \quad \epsilon \sim N(0, I)

    The best estimate of y is near x where the level :math:`\gamma` is near 0, and near the mean image where it is
    large, so that one network for all levels has to know it. Levels and noise of training are drawn anew for each
    batch, those of validation and test once, with the seed. The splits of the images are those of
    :class:`ImageDataModule`.

    Source: the task is one of this library.

    Args:
        name: name of the set of images.
        noise: standard deviation :math:`\sigma` of the noise at level 1, for images in [0, 1], above 0.
        val_fraction: share of the training images for the validation split, in [0, 1).
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of levels and noise.
            Transforms are applied to the noisy images.

    Yields:
        noisy images float32 (B, C, Y, X), levels (B, 1) in [0, 1], and clean images in [0, 1] as rows (B, C Y X).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, see :class:`ImageDataModule`.

    Example:
        >>> data = NoisyImagesDataModule("digits", batch_size=4)
        >>> [tuple(entry.shape) for entry in next(data.batches("train"))], data.num_outputs
        ([(4, 1, 8, 8), (4, 1), (4, 64)], 64)
    """

    def __init__(
        self,
        name: ImageSetName = "digits",
        *,
        noise: float = 1.0,
        val_fraction: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        if not (0 < noise < math.inf):
            raise ValueError(f"noise is {noise}; give a standard deviation above 0")
        self.images = ImageDataModule(name, seed=self.seed, val_fraction=val_fraction)
        self.name, self.noise = name, noise
        self._to_float = ToFloat()

    @property
    def num_features(self) -> int:
        """Number of channels of an image."""
        return self.images.num_features

    @property
    def input_size(self) -> int:
        """Number of values of an image."""
        return self.images.input_size

    @property
    def num_outputs(self) -> int:
        """Number of values of a target: those of an image."""
        return self.images.input_size

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return images, levels and noise, and the splits of the images."""
        images, _ = self.images.store.take(torch.arange(len(self.images.store)))
        generator = Generator().manual_seed(self.seed)
        levels = torch.rand(len(images), 1, generator=generator)
        return TensorStore(images, levels, torch.randn(images.shape, generator=generator)), self.images.splits

    def transformed(self, batch: Any, stage: Stage) -> Any:
        """Return noisy images, levels and clean images; in training with new levels and noise.

        Args:
            batch: images, levels and noise on the device.
            stage: name of the split.
        """
        images, levels, noise = batch
        clean = self._to_float(images)
        if stage == "train":
            levels, noise = torch.rand_like(levels), torch.randn_like(noise)
        noisy = clean + levels[:, :, None, None] * self.noise * noise
        return super().transformed((noisy, levels, clean.flatten(1)), stage)
