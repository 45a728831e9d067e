"""A shuffled epoch of Fashion-MNIST by ours and by torch's DataLoader, with and without crop and flip.

Ours: ``BatchLoader`` over a ``TensorStore``, blocks gathered by index; augmentation is ``RandomCrop(4)`` and
``RandomHorizontalFlip()`` on each whole batch, as the data module applies them. Peer: ``torch.utils.data.DataLoader``
over a map-style ``TensorDataset``, default collate, without and with two persistent workers; augmentation is padding, a
window and a mirror image of each sample, with torch's random numbers, as torchvision's transforms do it. Batches are
256 uint8 images 1 x 28 x 28 and labels on both sides, not normalised on either, which costs both the same. ``random``
are random images of that shape, for machines without the data. On a GPU ours lives there; the peer's batches are moved
there from pinned memory.

Before anything is timed, every batch of an epoch is compared: without augmentation for the same order, with
augmentation for the same offsets. An epoch includes drawing its order. The limit is a plain copy of the same bytes;
workers of the peer come on top of the one thread, and their memory is not counted.

Rule: the claim is that the median ratio is at least 20 on every row.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from graphseq.bench import AtLeast, Bytes, Call, Moved, Row, Setting, Speed, combinations, exhaust, same_batches
from graphseq.data import BatchLoader, Compose, ImageDataModule, RandomCrop, RandomHorizontalFlip, TensorStore

__all__ = ["speed"]

_BATCH_SIZE, _PADDING = 256, 4
_IMAGES = {"quick": 10_240, "default": 60_000, "full": 60_000}
_CLAIM = "a shuffled epoch takes at most a 20th of the DataLoader's time on every row"
_Labelled = tuple[Tensor, Tensor]  # images (B, C, Y, X) and labels (B,)


@dataclass
class _Subject:
    tensors: _Labelled
    loader: BatchLoader
    augment: nn.Module | None
    workers: int
    device: str


class CropFlip(TensorDataset):
    """What per-sample transforms do: pad, cut a window at random, mirror half of the images."""

    def __getitem__(self, index: int) -> _Labelled:
        images, labels = self.tensors
        top, left = torch.randint(0, 2 * _PADDING + 1, (2,)).tolist()
        return crop_flip(images[index], top, left, bool(torch.rand(1) < 0.5)), labels[index]


def crop_flip(image: Tensor, top: int, left: int, mirror: bool) -> Tensor:
    """Return the window of a padded image, mirrored or not."""
    height, width = image.shape[-2:]
    window = nn.functional.pad(image, [_PADDING] * 4)[..., top : top + height, left : left + width]
    return window.flip(-1) if mirror else window


def images(name: str, count: int) -> _Labelled:
    """Return the first images of Fashion-MNIST, or random ones, with their labels."""
    if name == "random":
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return pixels, torch.randint(0, 10, (count,), generator=generator)
    data = ImageDataModule("FashionMNIST", val_fraction=0.0)
    return data.store.take(data.splits["train"][:count])


def _prepare(case: Row, setting: Setting) -> _Subject:
    tensors = images(case["data"], _IMAGES[setting.scale])
    augment = Compose([RandomCrop(_PADDING), RandomHorizontalFlip()]) if case["augmentation"] == "crop_flip" else None
    loader = BatchLoader(TensorStore(*tensors).to(setting.device), _BATCH_SIZE, shuffle=True)
    return _Subject(tensors, loader, augment, case["workers"], setting.device)


def _ours(subject: _Subject) -> Call:
    augment = (lambda pixels: pixels) if subject.augment is None else subject.augment
    return lambda: exhaust((augment(pixels), labels) for pixels, labels in subject.loader)


def _peer(subject: _Subject) -> Call:
    dataset = (TensorDataset if subject.augment is None else CropFlip)(*subject.tensors)
    workers: dict[str, Any] = {"num_workers": subject.workers, "persistent_workers": subject.workers > 0}
    loader = DataLoader(dataset, _BATCH_SIZE, shuffle=True, pin_memory=subject.device != "cpu", **workers)
    return lambda: exhaust(loader if subject.device == "cpu" else Moved(loader, subject.device))


def same_epoch(subject: _Subject, calls: Any = None) -> Row:
    """Compare every batch of an epoch with the peer's, for the same order and the same offsets."""
    dataset, order = TensorDataset(*subject.tensors), subject.loader.order().tolist()
    peer = DataLoader(dataset, _BATCH_SIZE, sampler=order, num_workers=subject.workers)
    if subject.augment is None:
        same_batches(subject.loader, peer)
    else:
        same_batches(_seeded(subject.loader, subject.augment), _seeded(peer, _with_offsets))
    return {"images": len(dataset)}


def _seeded(batches: Iterable[Any], augment: Callable[[Tensor, torch.Generator], Tensor]) -> Iterator[Any]:
    """Yield augmented batches, the random numbers of each from a seed that is its number."""
    for number, (pixels, labels) in enumerate(batches):
        yield augment(pixels.cpu(), torch.Generator().manual_seed(number)), labels


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
    equal=same_epoch,
    limit=lambda subject: Bytes(2 * subject.loader.store.nbytes),
    memory=True,
    packages={"DataLoader": "torch"},
    rounds={"quick": 3, "default": 7, "full": 15},
    claims=[AtLeast("ours/DataLoader", 20, text=_CLAIM)],
)
