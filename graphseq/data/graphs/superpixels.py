"""Images as graphs of superpixels: clean training graphs, test graphs with noise on the nodes."""

import hashlib
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.data.cache import cached
from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule
from graphseq.data.graphs.store import GraphStore
from graphseq.data.images.module import ImageDataModule
from graphseq.ops.graphs.ties import first_least

__all__ = ["SuperpixelDataModule", "find_superpixels"]

GreyImages = Literal["MNIST", "FashionMNIST", "USPS", "digits"]
NodeNoise = Literal["none", "noise", "color"]

_FORMAT = "superpixels-2"
_BLOCK_ELEMENTS = 2**23
"""Entries of the distances between pixels and centres held at once: 64 MB in float64."""

_SAME_DISTANCE = 1e-9
"""Squared distances of pixels that differ by less count as equal; they are computed in float64."""

_SAME_PLACE = 1e-6
"""Distances of nodes that differ by less count as equal: places are kept in float32."""


def find_superpixels(
    images: Tensor, num_superpixels: int = 75, *, compactness: float = 0.25, iterations: int = 5
) -> Tensor:
    r"""Return the superpixels of grey images: clusters of pixels that are close in position and intensity.

    K-means of pixels, from centres on a grid of at most K positions, under the distance

    .. math:: d^2 = (\Delta I)^2 + m^2\, \bigl((\Delta r)^2 + (\Delta c)^2\bigr) K / (Y X)

    Source: SLIC (Achanta et al., IEEE TPAMI 34(11), 2012). Differs from it: centres are compared with all pixels, not
    only with those in their window, and superpixels need not be connected; many images are processed at once. A pixel
    with equal distances to two centres, up to :math:`10^{-9}`, is assigned to the first, so that the result does not
    depend on the CPU.

    Args:
        images: intensities in [0, 1], (N, Y, X).
        num_superpixels: number K of superpixels, from 1 to the number of pixels; some may have no pixels.
        compactness: weight m of the distance in position, above 0; larger values give more square superpixels.
        iterations: number of iterations of k-means, at least 1.

    Returns:
        mean intensity, and mean row and column scaled to [0, 1], of each superpixel; superpixels without pixels are
        NaN and come last.

    Shape:
        images (N, Y, X) -> (N, K', 3), K' <= K

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> find_superpixels(torch.rand(2, 8, 8), 16).shape
        torch.Size([2, 16, 3])
    """
    height, width = images.shape[1:]
    if not 1 <= num_superpixels <= height * width:
        raise ValueError(f"num_superpixels is {num_superpixels}; images have {height * width} pixels, so 1 to as many")
    if not compactness > 0:
        raise ValueError(f"compactness is {compactness}; it must be above 0")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; it must be at least 1")
    rows = min(max(1, round((num_superpixels * height / width) ** 0.5)), num_superpixels, height)
    columns = min(num_superpixels // rows, width)
    near = compactness * (rows * columns / (height * width)) ** 0.5
    place = torch.stack([torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)], 1).double()
    grid = ((torch.arange(count) + 0.5) * side / count for count, side in ((rows, height), (columns, width)))
    row, column = (middle.long() for middle in grid)
    start = (row[:, None] * width + column).flatten()
    at_once = max(1, _BLOCK_ELEMENTS // (height * width * len(start)))
    parts = []
    for block in images.flatten(1).double().split(at_once):
        pixel = torch.cat([block[:, :, None], (near * place).expand(len(block), -1, -1)], dim=2)  # (N, P, 3)
        centre = pixel[:, start]
        for _ in range(iterations):
            half = centre.square().sum(2)[:, None] / 2
            half_squared = torch.baddbmm(half, pixel, centre.transpose(1, 2), alpha=-1)  # (N, P, K), less |p|^2 / 2
            owner = first_least(half_squared, _SAME_DISTANCE / 2)
            total = torch.zeros_like(centre).scatter_add_(1, owner[:, :, None].expand_as(pixel), pixel)
            count = torch.zeros_like(half[:, 0]).scatter_add_(1, owner, torch.ones_like(block))[:, :, None]
            centre = torch.where(count > 0, total / count.clamp(min=1), centre)
        scale = torch.tensor([1.0, near * max(height - 1, 1), near * max(width - 1, 1)], dtype=torch.float64)
        found = torch.where(count > 0, centre / scale, torch.nan).float()
        last = (count[:, :, 0] == 0).byte().argsort(dim=1, stable=True)
        parts.append(found.gather(1, last[:, :, None].expand_as(found)))
    return torch.cat(parts)


def _neighbors(places: Tensor, num_neighbors: int) -> tuple[Tensor, Tensor]:
    """Return edges (2, E) from the nearest nodes to each node, numbered within graphs, and their number in each graph.

    Of nodes at equal distance, up to ``_SAME_PLACE``, the first are taken.
    """
    edges, counts = [], []
    nodes = places.size(1)
    number = min(num_neighbors, nodes - 1)
    for block in places.split(max(1, _BLOCK_ELEMENTS // nodes**2)):
        # the matrix products that cdist uses for many rows would lose half of the digits
        away = torch.cdist(block.double(), block.double(), compute_mode="donot_use_mm_for_euclid_dist")
        away = away.nan_to_num_(nan=torch.inf)
        away.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        nearest = torch.empty(*away.shape[:2], number, dtype=torch.int64)
        distance = torch.empty(nearest.shape, dtype=away.dtype)
        for place in range(number):
            nearest[:, :, place] = first_least(away, _SAME_PLACE)
            one = nearest[:, :, place, None]
            distance[:, :, place] = away.gather(2, one)[:, :, 0]
            away.scatter_(2, one, torch.inf)
        there = torch.isfinite(distance)
        node = torch.arange(nodes)[:, None].expand_as(nearest)
        edges.append(torch.stack([nearest[there], node[there]]))
        counts.append(there.sum((1, 2)))
    return torch.cat(edges, dim=1), torch.cat(counts)


class SuperpixelDataModule(GraphSetDataModule):
    """Grey images as graphs of superpixels, such as MNIST-75sp; test graphs have noise on their nodes.

    A node has the mean intensity of its superpixel and its position as features; edges come from the nearest nodes. The
    test graphs are followed by their clean versions, whose positions :attr:`clean_test` holds. Superpixels are computed
    once and cached: about a minute for the 70,000 images of MNIST, whose graphs then take 0.8 GB.

    Source: arXiv 1905.02850, and arXiv 2112.03806 where it is a shift. Differs from them: superpixels are those of
    :func:`find_superpixels`, edges are the nearest nodes without weights.

    Args:
        name: name of the image set, see :class:`ImageDataModule`.
        shift: kind of noise on the intensities of test nodes: ``noise``; ``color`` for intensities in three channels
            (of all graphs), each with independent noise; or ``none``.
        strength: standard deviation of the noise, at least 0; the papers use 0.4, for ``color`` 0.6.
        num_superpixels: number of superpixels, see :func:`find_superpixels`; at most 64 for ``digits``, which have 64
            pixels.
        num_neighbors: number of edges to each node, at least 1.
        compactness: weight of the distance in position, see :func:`find_superpixels`.
        iterations: number of iterations of k-means, at least 1.
        num_train: number of training graphs, drawn with ``seed``; None for all.
        num_val: number of validation graphs; None for all.
        num_test: number of test graphs; None for all.
        val_fraction: share of the training images for the validation split, in [0, 1), see :class:`ImageDataModule`.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known ones.
        batch_size: number of training graphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with ``x`` (N, 3; 5 for ``color``: intensities, row, column), ``edge_index``, ``pos`` (N, 2),
        ``y``, ``env`` (0 clean, 1 noisy) and ``idx``.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if the images are missing or corrupt.

    Example:
        >>> data = SuperpixelDataModule("digits", num_superpixels=20, num_train=50, num_val=10, num_test=10)
        >>> data.num_features, data.num_outputs, len(data.graphs)
        (3, 10, 80)
    """

    def __init__(
        self,
        name: GreyImages = "MNIST",
        *,
        shift: NodeNoise = "noise",
        strength: float = 0.4,
        num_superpixels: int = 75,
        num_neighbors: int = 8,
        compactness: float = 0.25,
        iterations: int = 5,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        val_fraction: float = 0.1,
        verify_checksums: bool = True,
        batch_size: int = 128,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        if name not in get_args(GreyImages):
            raise ValueError(f"name is {name!r}; it must be one of {', '.join(get_args(GreyImages))}")
        if shift not in get_args(NodeNoise):
            raise ValueError(f"shift is {shift!r}; it must be 'none', 'noise' or 'color'")
        for argument, value, least in (
            ("strength", strength, 0),
            ("num_neighbors", num_neighbors, 1),
            ("num_superpixels", num_superpixels, 2),
            ("num_train", num_train, 1),
            ("num_val", num_val, 0),
            ("num_test", num_test, 0),
        ):
            if value is not None and not value >= least:
                raise ValueError(f"{argument} is {value}; it must be at least {least}")
        # wrong values fail here, not later
        find_superpixels(torch.zeros(0, 2, 2), 1, compactness=compactness, iterations=iterations)
        self.shift: NodeNoise = shift
        self.strength = strength
        self.num_superpixels = num_superpixels
        self.num_neighbors = num_neighbors
        self.compactness = compactness
        self.iterations = iterations
        self.wanted = {"train": num_train, "val": num_val, "test": num_test}
        self.images = ImageDataModule(
            name, val_fraction=val_fraction, verify_checksums=verify_checksums, seed=self.seed
        )
        self._clean_test = torch.empty(0, dtype=torch.int64)

    @property
    def num_outputs(self) -> int:
        """Number of classes."""
        return self.images.num_outputs

    @property
    def clean_test(self) -> Tensor:
        """Positions in the store of the clean versions of the test graphs."""
        self.load()
        return self._clean_test

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the clean training and validation graphs, the noisy and the clean test graphs, and the split."""
        generator = torch.Generator().manual_seed(self.seed)
        chosen = []
        for stage, wanted in self.wanted.items():
            index = self.images.splits[stage]
            chosen.append(index[torch.randperm(len(index), generator=generator)[:wanted]])
        images, labels = self.images.store.take(torch.cat(chosen))
        table = self._superpixels(images[:, 0])
        train, val, test = torch.arange(len(table)).split([len(index) for index in chosen])
        self._clean_test = len(table) + torch.arange(len(test))
        order = torch.cat([train, val, test, test])
        graphs = table[order]
        there = ~torch.isnan(graphs[:, :, 0])
        rows = graphs[there]
        nodes = functional.pad(there.sum(1).cumsum(0), (1, 0))
        channels = 3 if self.shift == "color" else 1
        intensity = rows[:, :1].repeat(1, channels)
        if self.shift != "none":
            noisy = intensity[nodes[test[0]] : nodes[test[-1] + 1]] if len(test) else intensity[:0]
            noisy += self.strength * torch.randn(noisy.shape, generator=generator)
        edge_index, counts = _neighbors(graphs[:, :, 1:], self.num_neighbors)
        env = torch.zeros(len(graphs), dtype=torch.int64)
        env[test] = int(self.shift != "none" and self.strength > 0)
        fields = [
            {"path": [name], "value": value, "dim": dim, "group": group, "increment": increment}
            for name, value, dim, group, increment in (
                ("x", torch.cat([intensity, rows[:, 1:]], dim=1), 0, 1, None),
                ("edge_index", edge_index, 1, 2, "nodes"),
                ("pos", rows[:, 1:].contiguous(), 0, 1, None),
                ("y", labels[order], 0, 0, None),
                ("env", env, 0, 0, None),
            )
        ]
        slices = [torch.arange(len(graphs) + 1), nodes, functional.pad(counts.cumsum(0), (1, 0))]
        store = GraphStore.from_dict({"fields": fields, "slices": slices, "listed_num_nodes": False})
        return store, {"train": train, "val": val, "test": test}

    def _superpixels(self, images: Tensor) -> Tensor:
        number = min(self.num_superpixels, images[0].numel())
        options = (number, self.compactness, self.iterations)
        content = hashlib.sha256(images.contiguous().numpy().data).hexdigest()

        def find() -> dict[str, Tensor]:
            parts = (block.float() / 255 for block in images.split(1024))
            found = [
                find_superpixels(part, number, compactness=self.compactness, iterations=self.iterations)
                for part in parts
            ]
            return {"superpixels": torch.cat(found)}

        key = [_FORMAT, torch.__version__, content, tuple(images.shape), *options]
        return cached(f"superpixels-{self.images.name}", key, find)["superpixels"]
