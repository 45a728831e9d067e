"""Denoising at one level of noise, of images and of numbers whose best estimate is known."""

import math
from typing import Any, Unpack

import torch
from torch import Generator, Tensor

from graphseq.data.base import DataOptions, Stage, StoreDataModule
from graphseq.data.images.module import ImageSetName
from graphseq.data.images.noisy import NoisyImagesDataModule
from graphseq.data.store import TensorStore

__all__ = ["DenoisingImagesDataModule", "LaplaceDenoisingDataModule"]


class DenoisingImagesDataModule(NoisyImagesDataModule):
    r"""Images with normal noise of one level, and the clean images as targets.

    .. math:: y = x + \sigma \epsilon, \qquad \epsilon \sim N(0, I)

    Noise of training is drawn anew for each batch, that of validation and test once, with the seed: both are those of
    :class:`NoisyImagesDataModule`, whose levels vary.

    Source: the task of arXiv 2310.14344, section 5.

    Args:
        name: name of the set of images.
        noise: standard deviation :math:`\sigma` of the noise, for images in [0, 1], above 0.
        val_fraction: share of the training images for the validation split, in [0, 1).
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the noise. Transforms are
            applied to the noisy images.

    Yields:
        noisy images float32 (B, C, Y, X), and clean images in [0, 1] of the same shape.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, see :class:`ImageDataModule`.

    Example:
        >>> data = DenoisingImagesDataModule("digits", batch_size=4)
        >>> [tuple(entry.shape) for entry in next(data.batches("train"))]
        [(4, 1, 8, 8), (4, 1, 8, 8)]
    """

    def __init__(
        self,
        name: ImageSetName = "digits",
        *,
        noise: float = 0.1,
        val_fraction: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(name, noise=noise, val_fraction=val_fraction, **options)

    @property
    def num_outputs(self) -> int:
        """Number of channels of a target."""
        return self.num_features

    def transformed(self, batch: Any, stage: Stage) -> Any:
        """Return noisy and clean images; in training with new noise.

        Args:
            batch: images, levels, which are not used, and noise, on the device.
            stage: name of the split.
        """
        images, _, noise = batch
        clean = self._to_float(images)
        noisy = clean + self.noise * (torch.randn_like(noise) if stage == "train" else noise)
        return StoreDataModule.transformed(self, (noisy, clean), stage)


class LaplaceDenoisingDataModule(StoreDataModule):
    r"""Numbers from a Laplace distribution with normal noise: denoising whose best estimates are known in closed form.

    .. math:: p(x) = \frac{1}{2 b} e^{-|x| / b}, \qquad y = x + \sigma \epsilon, \quad \epsilon \sim N(0, 1)

    The mode of the posterior is the soft threshold :math:`\operatorname{sign}(y) \max(|y| - \sigma^2 / b, 0)`, the
    proximal operator of :math:`-\sigma^2 \log p(x) = \sigma^2 |x| / b` but for a constant; :meth:`mode` returns it.
    Numbers and noise of training are drawn anew for each batch, those of validation and test once, with the seed. The
    values of a sample are independent.

    Source: arXiv 2310.14344, section 5.1.

    Args:
        scale: scale b of the distribution, above 0.
        noise: standard deviation :math:`\sigma` of the noise, above 0.
        dim: number D of values of a sample, at least 1.
        num_train: number of samples of an epoch, at least 1.
        num_val: number of validation samples, at least 0.
        num_test: number of test samples, at least 0.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of numbers and noise.

    Yields:
        noisy numbers float32 (B, D), and clean ones (B, D).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = LaplaceDenoisingDataModule(batch_size=4)
        >>> [tuple(entry.shape) for entry in next(data.batches("train"))]
        [(4, 1), (4, 1)]
        >>> data.mode(torch.tensor([-3.0, 0.5, 2.0])).tolist()
        [-2.0, 0.0, 1.0]
    """

    def __init__(
        self,
        scale: float = 1.0,
        noise: float = 1.0,
        *,
        dim: int = 1,
        num_train: int = 50_000,
        num_val: int = 5000,
        num_test: int = 5000,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        for name, value in (("scale", scale), ("noise", noise)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be above 0 and finite")
        sizes = {"dim": dim, "num_train": num_train, "num_val": num_val, "num_test": num_test}
        for name, size in sizes.items():
            least = 1 if name in ("dim", "num_train") else 0
            if size < least:
                raise ValueError(f"{name} is {size}; it must be at least {least}")
        self.scale, self.noise, self.dim = scale, noise, dim
        self.sizes = {"train": num_train, "val": num_val, "test": num_test}

    @property
    def num_features(self) -> int:
        """Number of values of a sample."""
        return self.dim

    @property
    def input_size(self) -> int:
        """Number of values of a sample, under the name that is linked to the width of an MLP."""
        return self.dim

    @property
    def num_outputs(self) -> int:
        """Number of values of a target: those of a sample."""
        return self.dim

    def mode(self, y: Tensor) -> Tensor:
        """Return the mode of the posterior, the soft threshold.

        Args:
            y: noisy numbers of any shape.
        """
        return y.sign() * (y.abs() - self.noise**2 / self.scale).clamp(min=0)

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return numbers and noise drawn with the seed, and their splits."""
        generator = Generator().manual_seed(self.seed)
        total = sum(self.sizes.values())
        clean = self._laplace(torch.rand(total, self.dim, generator=generator))
        noise = torch.randn(total, self.dim, generator=generator)
        splits = dict(zip(self.sizes, torch.arange(total).split(list(self.sizes.values())), strict=True))
        return TensorStore(clean, noise), splits

    def _laplace(self, uniform: Tensor) -> Tensor:
        centred = uniform - 0.5
        tail = (1 - 2 * centred.abs()).clamp(min=torch.finfo(uniform.dtype).tiny)  # uniform numbers can be 0
        return -self.scale * centred.sign() * tail.log()

    def transformed(self, batch: Any, stage: Stage) -> Any:
        """Return noisy and clean numbers, in training new ones.

        Args:
            batch: numbers and noise on the device.
            stage: name of the split.
        """
        clean, noise = batch
        if stage == "train":
            clean, noise = self._laplace(torch.rand_like(clean)), torch.randn_like(noise)
        return super().transformed((clean + self.noise * noise, clean), stage)
