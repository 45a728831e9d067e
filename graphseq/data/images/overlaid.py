"""Photos with a digit in a channel of its own: two subjects in one image, either of which can be asked for."""

from typing import Literal, Unpack, get_args

import torch
from torch import Generator, Tensor, nn

from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions, StoreDataModule
from graphseq.data.images.module import ImageDataModule, ImageSetName
from graphseq.data.store import TensorStore

__all__ = ["DigitsOnPhotosDataModule"]

Subject = Literal["digit", "photo"]


class DigitsOnPhotosDataModule(StoreDataModule):
    r"""Images of two subjects: the channels of a photo, and a digit of another set as the last channel.

    A network that is trained on one subject, or by views that hide one, can be asked for the other: drop the last
    channel of views by :class:`ChannelDrop`, and the digit tells nothing of which views belong together.

    Each photo gets a digit that is drawn with ``seed``, with replacement, from the same split of the set of digits, so
    that no digit of the training split stands on a photo of another. Digits smaller than the photos are centred.

    Source: MNIST-on-CIFAR-10 of arXiv 2403.11391. Differs from the paper: the digit has a channel of its own, where
    the paper blends it with the photo, so that transforms of plain images can hide it.

    Args:
        digits: name of the set of digits, see :class:`ImageDataModule`; its images have one channel and are not larger
            than the photos.
        photos: name of the set of photos.
        subject: what the labels tell: the class of the ``digit`` or that of the ``photo``.
        num_train: number of photos in the training split, drawn with ``seed``, at least 1; None for all.
        num_test: number of photos in the test split; None for all.
        val_fraction: share of the training images of both sets for the validation splits, in [0, 1).
        options: further arguments of :class:`StoreDataModule`.

    Yields:
        images uint8 (B, C + 1, Y, X) unless transforms are given, and labels int64 (B,).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if digits have colours or are larger than the photos, or fewer photos exist
            than were asked for; see also :class:`ImageDataModule`.

    Example:
        >>> data = DigitsOnPhotosDataModule("digits", "digits", batch_size=4)
        >>> images, labels = next(data.batches("train"))
        >>> images.shape, labels.shape, data.labels_of("photo").shape
        (torch.Size([4, 2, 8, 8]), torch.Size([4]), torch.Size([1797]))
    """

    def __init__(
        self,
        digits: ImageSetName = "MNIST",
        photos: ImageSetName = "CIFAR10",
        *,
        subject: Subject = "digit",
        num_train: int | None = None,
        num_test: int | None = None,
        val_fraction: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        _check_subject(subject)
        for name, number in (("num_train", num_train), ("num_test", num_test)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1, or None for all photos")
        self.digits = ImageDataModule(digits, seed=self.seed, val_fraction=val_fraction)
        self.photos = ImageDataModule(photos, seed=self.seed, val_fraction=val_fraction)
        self.subject: Subject = subject
        self.num_train, self.num_test = num_train, num_test
        self._labels: dict[Subject, Tensor] = {}

    @property
    def num_features(self) -> int:
        """Number of channels: those of a photo and one for the digit."""
        return self.photos.num_features + 1

    @property
    def num_outputs(self) -> int:
        """Number of classes of the subject that is asked for."""
        return self.digits.num_outputs if self.subject == "digit" else self.photos.num_outputs

    def labels_of(self, subject: Subject) -> Tensor:
        """Return the class of the digit, or of the photo, of each image in the store, int64 (N,).

        Args:
            subject: ``digit`` or ``photo``.
        """
        _check_subject(subject)
        self.load()
        return self._labels[subject]

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return photos with digits and the labels of the subject, and the splits of the photos."""
        photos, photo_labels = self.photos.store.take(torch.arange(len(self.photos.store)))
        digits, digit_labels = self.digits.store.take(torch.arange(len(self.digits.store)))
        digits = _centred(digits, photos.shape[2:], self.digits.name, self.photos.name)
        generator = Generator().manual_seed(self.seed)
        chosen: dict[str, Tensor] = {}
        partners: list[Tensor] = []
        limits = {"train": self.num_train, "val": None, "test": self.num_test}
        for name, limit in limits.items():
            own, there = self.photos.splits[name], self.digits.splits[name]
            if limit is not None:
                if limit > len(own):
                    raise DataError(f"num_{name} is {limit}; {self.photos.name} has {len(own)} photos for this split")
                own = own[torch.randperm(len(own), generator=generator)[:limit]].sort().values
            chosen[name] = own
            partners.append(there[torch.randint(max(1, len(there)), (len(own),), generator=generator)])
        photo, digit = torch.cat(list(chosen.values())), torch.cat(partners)
        self._labels = {"digit": digit_labels[digit], "photo": photo_labels[photo]}
        images = torch.cat([photos[photo], digits[digit]], dim=1)
        places = torch.arange(len(photo)).split([len(index) for index in chosen.values()])
        return TensorStore(images, self._labels[self.subject]), dict(zip(chosen, places, strict=True))


def _check_subject(subject: str) -> None:
    if subject not in get_args(Subject):
        raise ValueError(f"subject is {subject!r}; it must be 'digit' or 'photo'")


def _centred(digits: Tensor, size: torch.Size, name: str, photos: str) -> Tensor:
    """Return digits (N, 1, Y, X) with zeros around them, as large as the photos."""
    below, beside = (there - own for there, own in zip(size, digits.shape[2:], strict=True))
    if digits.shape[1] != 1 or below < 0 or beside < 0:
        raise DataError(
            f"{name} has images of {tuple(digits.shape[1:])}, {photos} of {tuple(size)} pixels; digits need one "
            "channel and at most the size of the photos"
        )
    return nn.functional.pad(digits, (beside // 2, beside - beside // 2, below // 2, below - below // 2))
