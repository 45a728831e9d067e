"""Handwritten digits as pixel graphs without any download: clean training graphs, shifted test graphs."""

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.utils import grid

from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule
from graphseq.data.graphs.store import GraphStore
from graphseq.data.splits import check_fractions, random_split

__all__ = ["DigitGraphsDataModule", "pixel_graphs", "shift_images"]

Shift = Literal["none", "noise", "intensity", "size"]


def pixel_graphs(images: Tensor, labels: Tensor, threshold: float = 0.1) -> list[Data]:
    """Return each image as the graph of its bright pixels.

    Nodes are the pixels brighter than ``threshold``, with their intensity as the only feature; edges join neighbours
    on the 8-connected grid, with the step from source to target as features. The place of a pixel is in ``pos`` and not
    in ``x``: a network that does not use the edges cannot recognise the digit.

    Args:
        images: intensities in [0, 1], (N, Y, X).
        labels: class of each image, int64 (N,).
        threshold: intensity above which a pixel is a node, in [0, 1); the brightest pixel is
            always a node.

    Returns:
        Graphs with ``x`` (N, 1), ``edge_index``, ``edge_attr`` (E, 2: rows down, columns right, each -1, 0 or 1),
        ``pos`` (N, 2: row and column scaled to [0, 1]) and ``y``.

    Example:
        >>> pixel_graphs(torch.ones(1, 2, 2), torch.tensor([7]))[0].edge_index.shape
        torch.Size([2, 12])
    """
    height, width = images.shape[1:]
    edge_index, _ = grid(height, width)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]  # the grid comes with self-loops
    pixel = torch.stack([torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)], 1)
    step = (pixel[edge_index[1]] - pixel[edge_index[0]]).float()
    position = pixel / torch.tensor([height - 1, width - 1]).clamp(min=1)
    graphs = []
    for image, label in zip(images.flatten(1), labels, strict=True):
        kept = image > threshold
        kept[image.argmax()] = True
        number = kept.cumsum(0) - 1
        inside = kept[edge_index[0]] & kept[edge_index[1]]
        graphs.append(
            Data(
                x=image[kept].unsqueeze(1),
                edge_index=number[edge_index[:, inside]],
                edge_attr=step[inside],
                pos=position[kept],
                y=label.view(1),
            )
        )
    return graphs


def shift_images(images: Tensor, shift: Shift, strength: float, generator: torch.Generator) -> Tensor:
    """Return images under a distribution shift.

    Args:
        images: intensities in [0, 1], (N, Y, X).
        shift: kind of shift: ``noise`` adds Gaussian noise of standard deviation ``strength`` and clips to [0, 1];
            ``intensity`` multiplies by ``1 - strength``; ``size`` enlarges each side by the factor ``1 + strength``
            (bilinear), so that graphs have more nodes; ``none`` changes nothing.
        strength: strength of the shift, at least 0, and below 1 for ``intensity``.
        generator: random number generator of the noise.

    Raises:
        ValueError: if the shift is unknown or the strength out of range.

    Example:
        >>> shift_images(torch.ones(1, 8, 8), "size", 1.0, torch.Generator()).shape
        torch.Size([1, 16, 16])
    """
    if shift not in ("none", "noise", "intensity", "size"):
        raise ValueError(f"shift is {shift!r}; it must be 'none', 'noise', 'intensity' or 'size'")
    if strength < 0 or (shift == "intensity" and strength >= 1):
        raise ValueError(f"strength of the {shift} shift is {strength}; it must be >= 0, and below 1 for 'intensity'")
    if shift == "noise":
        return (images + strength * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    if shift == "intensity":
        return images * (1 - strength)
    if shift == "size":
        side = [round(length * (1 + strength)) for length in images.shape[1:]]
        return functional.interpolate(images.unsqueeze(1), side, mode="bilinear").squeeze(1)
    return images


class DigitGraphsDataModule(GraphSetDataModule):
    """1,797 handwritten digits as graphs of about 31 bright pixels, without network and files.

    The images are scikit-learn's ``load_digits`` (8 x 8, 10 classes). Training and validation graphs are clean by
    default; test graphs are made of shifted images, see :func:`shift_images`. :attr:`clean_test` holds the positions of
    the clean versions of the test graphs. Graphs with equal strength of the shift are one environment.

    Args:
        shift: kind of shift of the test images: ``noise``, ``intensity``, ``size`` or ``none``, see
            :func:`shift_images`.
        strength: strength of the shift of test images, see :func:`shift_images`.
        train_strength: strength of the shift of training images; several values make training environments of equal
            size.
        val_strength: strength of the shift of validation images.
        threshold: intensity above which a pixel is a node, in [0, 1).
        fractions: fractions of train, validation and test images, summing to 1; the split is stratified.
        batch_size: number of training graphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with ``x`` (N, 1), ``edge_index``, ``edge_attr`` (E, 2), ``pos`` (N, 2), ``y``, ``env`` and
        ``idx``.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = DigitGraphsDataModule(batch_size=64)
        >>> data.num_features, data.num_outputs
        (1, 10)
    """

    def __init__(
        self,
        *,
        shift: Shift = "noise",
        strength: float = 0.1,
        train_strength: float | list[float] = 0.0,
        val_strength: float = 0.0,
        threshold: float = 0.1,
        fractions: Sequence[float] = (0.7, 0.1, 0.2),
        batch_size: int = 64,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold}; it must be in [0, 1)")
        self.train_strength = list(train_strength) if isinstance(train_strength, Sequence) else [float(train_strength)]
        if not self.train_strength:
            raise ValueError("train_strength is an empty list; give a strength, or one for each training environment")
        for each in (strength, val_strength, *self.train_strength):  # a wrong shift fails here, not later
            shift_images(torch.zeros(1, 2, 2), shift, each, torch.Generator())
        self.shift: Shift = shift
        self.strength = strength
        self.val_strength = val_strength
        self.threshold = threshold
        self.fractions = check_fractions(fractions)
        self._clean_test = torch.empty(0, dtype=torch.int64)

    @property
    def clean_test(self) -> Tensor:
        """Positions in the store of the clean versions of the test graphs."""
        self.load()
        return self._clean_test

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs of all images, with clean test graphs, then the shifted test graphs, and their split."""
        from sklearn.datasets import load_digits  # here, since a start without digits is a second faster

        source = load_digits()
        images = torch.as_tensor(source.images, dtype=torch.float32) / 16
        labels = torch.as_tensor(source.target)
        split = random_split(len(images), self.fractions, self.seed, labels)
        self._clean_test = split["test"]
        generator = torch.Generator().manual_seed(self.seed)
        shifted = shift_images(images[self._clean_test], self.shift, self.strength, generator)
        graphs = pixel_graphs(images, labels, self.threshold)
        graphs += pixel_graphs(shifted, labels[self._clean_test], self.threshold)
        split["test"] = torch.arange(len(images), len(graphs))
        strengths = [*self.train_strength, self.val_strength, self.strength, 0.0]
        known = list(dict.fromkeys(0.0 if self.shift == "none" else float(each) for each in strengths))
        env = torch.full((len(graphs),), known.index(0.0))
        parts = split["train"].tensor_split(len(self.train_strength))
        for part, each in zip([*parts, split["val"]], strengths[:-2], strict=True):
            if self.shift == "none" or not each:
                continue
            env[part] = known.index(each)
            moved = shift_images(images[part], self.shift, each, generator)
            for place, graph in zip(part.tolist(), pixel_graphs(moved, labels[part], self.threshold), strict=True):
                graphs[place] = graph
        env[split["test"]] = known.index(0.0 if self.shift == "none" else float(self.strength))
        return GraphStore.from_dataset(graphs).with_field("env", env), split
