"""A shuffled epoch of Fashion-MNIST by ours and by torch's DataLoader, with and without crop and flip.

Ours: ``BatchLoader`` over a ``TensorStore``, blocks gathered by index; augmentation is ``RandomCrop(4)`` and
``RandomHorizontalFlip()`` on each whole batch, as the data module applies them. Peer: ``torch.utils.data.DataLoader``
over a map-style ``TensorDataset``, default collate, without and with two workers (persistent); augmentation is padding,
a window and a mirror image of each sample, with torch's random numbers, as torchvision's transforms do it. Batches of
256 uint8 images 1 x 28 x 28 and their labels on both sides, without normalisation on either: its cost is the same once
the batch exists. ``random`` are random images of the same shape, for machines without the data. On a GPU ours lives
there, and the peer's batches are moved there from pinned memory.

Before anything is timed, every batch of an epoch is compared: without augmentation for the same order, with
augmentation for the same offsets. An epoch includes drawing its order. The limit is a plain copy of the same bytes;
workers of the peer come on top of the one thread, and their memory is not counted.

Rule: the claim is that the median ratio is at least 20 on every row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from graphseq.bench import AtLeast, Bytes, Call, OutputsDiffer, Row, Setting, SkipCell, Speed, combinations, exhaust
from graphseq.core import OptionalDependencyError
from graphseq.data import BatchLoader, Compose, ImageDataModule, RandomCrop, RandomHorizontalFlip, TensorStore

__all__ = ["speed"]

_BATCH_SIZE, _PADDING = 256, 4
_IMAGES = {"quick": 10_240, "default": 60_000, "full": 60_000}


@dataclass
class _Subject:
    dataset: TensorDataset
    loader: BatchLoader
    augment: nn.Module | None
    workers: int
    device: str


class CropFlip(Dataset[tuple[Tensor, Tensor]]):
    """What per-sample transforms do: pad, cut a window at random, mirror half of the images."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        top, left = torch.randint(0, 2 * _PADDING + 1, (2,)).tolist()
        return crop_flip(self.images[index], top, left, bool(torch.rand(1) < 0.5)), self.labels[index]


def crop_flip(image: Tensor, top: int, left: int, mirror: bool) -> Tensor:
    """Return the window of a padded image, mirrored or not."""
    height, width = image.shape[-2:]
    window = nn.functional.pad(image, [_PADDING] * 4)[..., top : top + height, left : left + width]
    return window.flip(-1) if mirror else window


def images(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images of Fashion-MNIST, or random ones, with their labels."""
    if name == "random":
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return pixels, torch.randint(0, 10, (count,), generator=generator)
    data = ImageDataModule("FashionMNIST", val_fraction=0.0)
    try:
        found: tuple[Tensor, Tensor] = data.store.take(data.splits["train"][:count])
    except OptionalDependencyError as error:
        raise SkipCell(str(error)) from error
    return found


def _prepare(case: Row, setting: Setting) -> _Subject:
    tensors = images(case["data"], _IMAGES[setting.scale])
    augment = Compose([RandomCrop(_PADDING), RandomHorizontalFlip()]) if case["augmentation"] == "crop_flip" else None
    loader = BatchLoader(TensorStore(*tensors).to(setting.device), _BATCH_SIZE, shuffle=True)
    return _Subject(TensorDataset(*tensors), loader, augment, case["workers"], setting.device)


def _ours(subject: _Subject) -> Call:
    def batches() -> Iterator[Any]:
        for pixels, labels in subject.loader:
            yield pixels if subject.augment is None else subject.augment(pixels), labels

    return lambda: exhaust(batches())


def _peer(subject: _Subject) -> Call:
    dataset = subject.dataset if subject.augment is None else CropFlip(*subject.dataset.tensors)
    there = subject.device != "cpu"
    options: dict[str, Any] = {"num_workers": subject.workers, "persistent_workers": subject.workers > 0}
    loader = DataLoader(dataset, _BATCH_SIZE, shuffle=True, pin_memory=there, **options)
    if not there:
        return lambda: exhaust(loader)
    return lambda: exhaust([part.to(subject.device, non_blocking=True) for part in batch] for batch in loader)


def same_batches(subject: _Subject, calls: Any = None) -> Row:
    """Compare every batch of an epoch with the peer's, for the same order and the same offsets."""
    order = subject.loader.order().tolist()
    peer = DataLoader(subject.dataset, _BATCH_SIZE, sampler=order, num_workers=subject.workers)
    for position, ((pixels, labels), (expected, targets)) in enumerate(zip(subject.loader, peer, strict=True)):
        pixels, labels = pixels.cpu(), labels.cpu()
        if subject.augment is not None:
            pixels = subject.augment(pixels, torch.Generator().manual_seed(position))
            expected = _with_offsets(expected, torch.Generator().manual_seed(position))
        if not (pixels.dtype == expected.dtype and torch.equal(pixels, expected) and torch.equal(labels, targets)):
            raise OutputsDiffer(f"batch {position} of ours is not that of the DataLoader")
    return {"images": len(subject.dataset)}


def _with_offsets(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and flip sample by sample, with the random numbers that the batched transforms draw."""
    tops, lefts = torch.randint(0, 2 * _PADDING + 1, (2, len(pixels)), generator=generator).tolist()
    mirrors = (torch.rand(len(pixels), generator=generator) < 0.5).tolist()
    return torch.stack([crop_flip(*sample) for sample in zip(pixels, tops, lefts, mirrors, strict=True)])


speed = Speed(
    name="speed.image_loader",
    protocol=__doc__,
    cases=combinations(data=["FashionMNIST", "random"], augmentation=["none", "crop_flip"], workers=[0, 2]),
    prepare=_prepare,
    contenders={"ours": _ours, "DataLoader": _peer},
    equal=same_batches,
    limit=lambda subject: Bytes(2 * subject.loader.store.nbytes),
    memory=True,
    packages={"DataLoader": "torch"},
    rounds={"quick": 3, "default": 7, "full": 15},
    claims=[
        AtLeast(
            "ours/DataLoader", 20, text="a shuffled epoch takes at most a 20th of the DataLoader's time on every row"
        )
    ],
)
