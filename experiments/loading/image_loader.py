"""Epochs over small images: our loader and batched augmentation beside torch's DataLoader."""

import collections
import statistics
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale, SkipCell
from graphseq.bench.timing import alternate, peak_memory, ratios
from graphseq.core import DataError, OptionalDependencyError
from graphseq.data import BatchLoader, Compose, ImageDataModule, RandomCrop, RandomHorizontalFlip, TensorStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ImageLoaderSpeed"]

_BATCH_SIZE = 256
_PADDING = 4
_BOUND = 20.0
_IMAGES = {"quick": 10_240, "default": 60_000, "full": 60_000}
_ROUNDS = {"quick": 3, "default": 7, "full": 15}


class ImageLoaderSpeed(Experiment):
    """A shuffled epoch of Fashion-MNIST by ours and by torch's DataLoader, with and without crop and flip.

    Ours: ``BatchLoader`` over a ``TensorStore`` on the host, blocks gathered by index; augmentation is
    ``RandomCrop(4)`` and ``RandomHorizontalFlip()`` on each whole batch, as the data module applies them. Peer:
    ``torch.utils.data.DataLoader`` over a map-style ``TensorDataset``, default collate, without and with two workers
    (persistent); augmentation is padding, a window and a mirror image of each sample, with torch's random numbers,
    as torchvision's transforms do it. Batches of 256 uint8 images 1 x 28 x 28 and their labels on both sides, without
    normalisation on either: its cost is the same once the batch exists. ``random`` are random images of the same
    shape, for machines without the data.

    Before anything is timed, every batch of an epoch is compared: without augmentation for the same order, with
    augmentation for the same offsets; a difference stops the experiment. An epoch includes drawing its order. Ours,
    peer and a plain copy of the same bytes alternate in one process with one thread; workers of the peer come on
    top. The ratio is the median over rounds of the peer's time to ours, beside the smallest and the largest. Peak
    memory is that of the main process beyond the data; memory of workers is not counted.

    Columns: ``copies`` is our time in plain copies of the same bytes, ``MB`` the peak memory, ``lowest`` and
    ``highest`` the range of the ratio.

    Rule: the claim is that the median ratio is at least 20 on every row.

    Args:
        num_images: images of an epoch, at least 1; None is 60,000, and 10,240 for scale ``quick``.

    Example:
        >>> ImageLoaderSpeed().cells("quick", 1)[0]
        {'data': 'FashionMNIST', 'augmentation': 'none', 'workers': 0}
    """

    name, kind = "speed.image_loader", "speed"

    def __init__(self, num_images: int | None = None) -> None:
        if num_images is not None and num_images < 1:
            raise ValueError(f"num_images is {num_images}; it must be at least 1, or None")
        self.num_images = num_images

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return every combination of data, augmentation and workers of the peer.

        Args:
            scale: does not change the list.
            seeds: does not change the list; the rounds are the repetitions.
        """
        return [
            {"data": data, "augmentation": augmentation, "workers": workers}
            for data in ("FashionMNIST", "random")
            for augmentation in ("none", "crop_flip")
            for workers in (0, 2)
        ]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Compare, then time, one combination.

        Args:
            cell: one of :meth:`cells`.
            scale: how many images and rounds.

        Raises:
            SkipCell: if Fashion-MNIST is neither in the mirror nor in the cache and cannot be downloaded.
            RuntimeError: if outputs differ.
        """
        images, labels = _data(cell["data"], self.num_images or _IMAGES[scale])
        augment = _augmentation() if cell["augmentation"] == "crop_flip" else None
        dataset = TensorDataset(images, labels) if augment is None else _CropFlip(images, labels)
        loader = BatchLoader(TensorStore(images, labels), _BATCH_SIZE, shuffle=True)
        _compare(loader, TensorDataset(images, labels), cell["workers"], augment)
        options: dict[str, Any] = {"num_workers": cell["workers"], "persistent_workers": cell["workers"] > 0}
        peer = DataLoader(dataset, _BATCH_SIZE, shuffle=True, **options)
        sources, targets = (images, labels), (torch.zeros_like(images), torch.zeros_like(labels))
        contenders: dict[str, Callable[[], object]] = {
            "ours": lambda: _exhaust(loader if augment is None else _augmented(loader, augment)),
            "peer": lambda: _exhaust(peer),
            "copy": lambda: [target.copy_(source) for source, target in zip(sources, targets, strict=True)],
        }
        times = alternate(contenders, _ROUNDS[scale])
        peaks = {name: peak_memory(contenders[name]) / 1e6 for name in ("ours", "peer")}
        milliseconds = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
        ratio = ratios(times, "ours", "peer")
        return {
            "images": len(images),
            "rounds": _ROUNDS[scale],
            "outputs": "equal",
            "peer": f"torch.utils.data.DataLoader {torch.__version__}",
            "ours_ms": milliseconds["ours"],
            "peer_ms": milliseconds["peer"],
            "copy_ms": milliseconds["copy"],
            "ratio": ratio.median,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "copies": ratios(times, "copy", "ours").median,
            "ours_peak_mb": peaks["ours"],
            "peer_peak_mb": peaks["peer"],
        }

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Hold the smallest ratio against the claim.

        Args:
            rows: the combinations that ran.
        """
        worst = min(rows, key=lambda row: row["ratio"])
        where = f"{worst['data']}, augmentation {worst['augmentation']}, {worst['workers']} workers"
        claim = (
            f"a shuffled epoch takes at most a {_BOUND:.0f}th of the DataLoader's time on every row (smallest: {where})"
        )
        table = [
            {
                "data": row["data"],
                "augmentation": row["augmentation"],
                "workers": row["workers"],
                "ours ms": row["ours_ms"],
                "peer ms": row["peer_ms"],
                "ratio": row["ratio"],
                "lowest": row["ratio_low"],
                "highest": row["ratio_high"],
                "copies": row["copies"],
                "ours MB": row["ours_peak_mb"],
                "peer MB": row["peer_peak_mb"],
            }
            for row in rows
        ]
        return Conclusion(None, [Check(claim, worst["ratio"], _BOUND, worst["ratio"] >= _BOUND)], table)

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the ratio of each row with its range, and the claim as a line.

        Args:
            record: the record.
            axes: empty Axes.
        """
        rows = [row for row in record["rows"] if "skipped" not in row][::-1]
        names = [f"{row['data']}, {row['augmentation']}, {row['workers']} workers" for row in rows]
        medians = [row["ratio"] for row in rows]
        below = [row["ratio"] - row["ratio_low"] for row in rows]
        above = [row["ratio_high"] - row["ratio"] for row in rows]
        axes.barh(names, medians, xerr=[below, above], color="tab:blue", capsize=3)
        axes.axvline(_BOUND, color="black", linestyle="--", label=f"claim: {_BOUND:.0f} times")
        axes.set_xlabel("ratio to torch's DataLoader: median and range")
        axes.legend()


class _CropFlip(Dataset[tuple[Tensor, Tensor]]):
    """What per-sample transforms do: pad, cut a window at random, mirror half of the images."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        top = int(torch.randint(0, 2 * _PADDING + 1, (1,)))
        left = int(torch.randint(0, 2 * _PADDING + 1, (1,)))
        mirror = bool(torch.rand(1) < 0.5)
        return _crop_flip(self.images[index], top, left, mirror), self.labels[index]


def _crop_flip(image: Tensor, top: int, left: int, mirror: bool) -> Tensor:
    height, width = image.shape[-2:]
    padded = nn.functional.pad(image, [_PADDING] * 4)
    window = padded[..., top : top + height, left : left + width]
    return window.flip(-1) if mirror else window


def _augmentation() -> Compose:
    return Compose([RandomCrop(_PADDING), RandomHorizontalFlip()])


def _augmented(loader: BatchLoader, augment: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader:
        yield augment(images), labels


def _exhaust(batches: Any) -> None:
    collections.deque(batches, maxlen=0)


def _data(name: str, count: int) -> tuple[Tensor, Tensor]:
    if name == "random":
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return images, torch.randint(0, 10, (count,), generator=generator)
    data = ImageDataModule("FashionMNIST", val_fraction=0.0)
    try:
        images, labels = data.store.take(data.splits["train"][:count])
    except (DataError, OptionalDependencyError) as error:
        raise SkipCell(f"Fashion-MNIST is not here: {error}") from error
    return images, labels


def _compare(loader: BatchLoader, dataset: TensorDataset, workers: int, augment: nn.Module | None) -> None:
    """Stop unless every batch of an epoch equals the peer's, for the same order and the same offsets."""
    order = loader.order()
    peer = DataLoader(dataset, _BATCH_SIZE, sampler=order.tolist(), num_workers=workers)
    for position, ((images, labels), (expected, targets)) in enumerate(zip(loader, peer, strict=True)):
        if augment is not None:
            images = augment(images, torch.Generator().manual_seed(position))
            expected = _with_offsets(expected, torch.Generator().manual_seed(position))
        if not (images.dtype == expected.dtype and torch.equal(images, expected) and torch.equal(labels, targets)):
            raise RuntimeError(f"batch {position} of ours is not that of the DataLoader: nothing is timed")


def _with_offsets(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and flip sample by sample, with the random numbers that the batched transforms draw."""
    tops, lefts = torch.randint(0, 2 * _PADDING + 1, (2, len(images)), generator=generator).tolist()
    mirrors = (torch.rand(len(images), generator=generator) < 0.5).tolist()
    return torch.stack([_crop_flip(*sample) for sample in zip(images, tops, lefts, mirrors, strict=True)])


speed = ImageLoaderSpeed()
