"""Data module of one graph whose nodes are the samples, and base class of the named ones."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures
from torch_geometric.utils import degree, index_to_mask

from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.data.base import Stage, StoreDataModule
from graphseq.data.graphs.transforms import GraphTransform, check_pre_transform, pre_transformed_graph
from graphseq.data.labels import any_names, check_class_names, numbered_labels
from graphseq.data.loader import BatchLoader
from graphseq.data.splits import check_fractions, random_split
from graphseq.data.store import SingleStore

__all__ = ["NodeDataModule"]

NodeSplitRule = Literal["public", "full", "random", "stratified"]
STAGES: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
"""Stages that have a mask."""


class NodeOptions(TypedDict, total=False):
    """Arguments that data modules pass on to :class:`NodeDataModule`, for ``**options: Unpack[NodeOptions]``.

    Args:
        seed: seed of the ``random`` and ``stratified`` splits; default 0.
        device_resident: whether the store moves to the training device: ``true``, ``false``, or ``auto``, which moves
            it if it takes less than a quarter of the free memory; default ``auto``.
        train_transform: module applied on the device to the inputs of each training batch.
        eval_transform: module applied on the device to the inputs of each validation, test and prediction batch.
        pre_transform: callable from one graph to one graph, such as any transform of PyG, applied once when the graph
            is read, before the masks of the split are made.

    Example:
        >>> options: NodeOptions = {"seed": 1}
    """

    seed: int
    device_resident: bool | Literal["auto"]
    train_transform: nn.Module | None
    eval_transform: nn.Module | None
    pre_transform: GraphTransform | None


class NodeDataModule(StoreDataModule):
    """Data module of one graph, trained on as a whole, with masks of training, validation and test nodes.

    The graph is the only batch of each epoch, so there is no batch size; nodes of all splits exchange messages
    (transductive learning). One graph cannot be divided among processes: use ``devices=1``.

    Args:
        graph: PyG ``Data`` with ``x`` (N, D), ``edge_index`` and ``y``: classes (N,), -1 if unknown, names of classes
            as text (N,), or numbers; or a function without arguments that returns one (a config can name it if it is
            annotated ``-> Data``). It is not changed.
        split: rule of the split: ``public`` (the masks of the graph, ``val_mask`` or ``valid_mask`` for validation),
            ``full`` (its validation and test masks, all other nodes are training), ``random``
            (``num_train_per_class`` training nodes of each class, then ``num_val`` validation and ``num_test`` test
            nodes) or ``stratified`` (``fractions`` of each class).
        split_index: number of the public split, from 0, if masks are (N, S).
        fractions: fractions of train, validation and test nodes for ``stratified``, summing to 1.
        num_train_per_class: number of training nodes of each class for ``random``; all nodes of a smaller class.
        num_val: number of validation nodes for ``random``.
        num_test: number of test nodes for ``random``.
        normalize_features: whether to divide each row of ``x`` by its sum.
        seed: seed of the ``random`` and ``stratified`` splits, and of random transforms in ``pre_transform``.
        device_resident: whether the store moves to the training device, see :class:`StoreDataModule`.
        train_transform: callable applied on the device to the graph in each training step; it must not write into it.
        eval_transform: callable applied on the device to the graph in validation, test and prediction; it must not
            write into it.
        pre_transform: callable from one graph to one graph, such as any transform of PyG, applied once to a copy of the
            graph when it is read, before the masks of the split are made.

    Yields:
        PyG ``Data`` with ``train_mask``, ``val_mask`` and ``test_mask``, bool (N,).

    Raises:
        ValueError: if an option of the split is out of range or unknown.
        TypeError: if ``graph`` is something else.
        DataError: when the graph is read, if a required field is missing or invalid, or masks overlap.
        UnsupportedStrategyError: if the run has several processes.

    Example:
        >>> x, y = torch.eye(20), torch.tensor([0, 1] * 10)
        >>> graph = Data(x=x, edge_index=torch.tensor([[0, 1], [1, 2]]), y=y)
        >>> data = NodeDataModule(graph, split="stratified")
        >>> data.num_nodes, data.num_outputs, int(data.graph.train_mask.sum())
        (20, 2, 12)
    """

    def __init__(
        self,
        graph: Data | Callable[[], Data],
        *,
        split: NodeSplitRule = "public",
        split_index: int = 0,
        fractions: Sequence[float] = (0.6, 0.2, 0.2),
        num_train_per_class: int = 20,
        num_val: int = 500,
        num_test: int = 1000,
        normalize_features: bool = False,
        seed: int = 0,
        device_resident: bool | Literal["auto"] = "auto",
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        pre_transform: GraphTransform | None = None,
    ) -> None:
        super().__init__(
            1,
            seed=seed,
            device_resident=device_resident,
            train_transform=train_transform,
            eval_transform=eval_transform,
        )
        self.pre_transform = check_pre_transform(pre_transform)
        if split not in get_args(NodeSplitRule):
            raise ValueError(f"split is {split!r}; it must be one of {', '.join(get_args(NodeSplitRule))}")
        for name, value, least in (
            ("split_index", split_index, 0),
            ("num_train_per_class", num_train_per_class, 1),
            ("num_val", num_val, 0),
            ("num_test", num_test, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if not isinstance(graph, Data) and not callable(graph):
            raise TypeError(
                f"graph is a {type(graph).__name__}; give one torch_geometric Data, such as dataset[0], or a function "
                "without arguments that returns one"
            )
        self._source = graph
        self._class_names: list[str] = []
        self.split: NodeSplitRule = split
        self.split_index = split_index
        self.fractions = check_fractions(fractions)
        self.num_train_per_class = num_train_per_class
        self.num_val = num_val
        self.num_test = num_test
        self.normalize_features = normalize_features

    @property
    def graph(self) -> Data:
        """The graph with the masks of the split, on the training device once a trainer has set the module up."""
        return cast(SingleStore, self.store).item

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(cast(Tensor, self.graph.x))

    @property
    def num_features(self) -> int:
        """Width of the node features."""
        return cast(Tensor, self.graph.x).size(1)

    @property
    def num_edge_features(self) -> int:
        """Width of the edge features; 0 if there are none."""
        return self.graph.num_edge_features

    @property
    def num_outputs(self) -> int:
        """Number of classes if each node has one integer label, else number of targets of each node."""
        target = cast(Tensor, self.graph.y)
        if target.dim() > 1:
            return target.size(1)
        return 1 if target.is_floating_point() else int(target.max()) + 1

    @property
    def class_names(self) -> list[str]:
        """Name of each class if labels are text, else empty."""
        self.load()
        return list(self._class_names)

    @property
    def degree_histogram(self) -> list[int]:
        """Number of nodes with in-degree 0, 1, 2, ..., for the scalers of PNA."""
        counts = degree(cast(Tensor, self.graph.edge_index)[1], self.num_nodes, dtype=torch.int64)
        return torch.bincount(counts).tolist()

    def read(self) -> tuple[SingleStore, dict[str, Tensor]]:
        """Return the graph with the masks of its split; the one sample of each stage is the graph."""
        graph = self._source if isinstance(self._source, Data) else self._source()  # Data can be called, too
        if not isinstance(graph, Data):
            raise DataError(f"the graph is a {type(graph).__name__}; torch_geometric Data is needed")
        graph = copy.copy(graph)
        given = graph.get("y")
        if isinstance(given, list | tuple | np.ndarray) and any_names(given):
            graph.y, self._class_names = numbered_labels(list(given), "node", self.trained("class_names", ()))
        elif isinstance(given, np.ndarray):
            graph.y = torch.from_numpy(given)
        elif isinstance(given, list | tuple) and given and all(isinstance(label, int | float) for label in given):
            graph.y = torch.tensor(given)
        if self.pre_transform is not None:
            name = None if type(self) is NodeDataModule else type(self).__name__
            graph = pre_transformed_graph(graph, self.pre_transform, self.seed, name)
        labelled = graph.get("y") is not None
        _check_graph(graph, labelled or not self.predicting)
        self._class_names = list(self.trained("class_names", self._class_names))
        masks: dict[str, Tensor] = {}
        if self.divides(labelled):
            masks = self._masks(graph)
            _check_masks(masks, cast(Tensor, graph.y))
        for stage, mask in masks.items():
            graph[f"{stage}_mask"] = mask
        if self.normalize_features:
            graph.x = cast(Tensor, graph.x).float()
            graph = NormalizeFeatures()(graph)
        # a stage without nodes has no samples, so that its loop is not run
        splits = {stage: torch.zeros(int(mask.any()), dtype=torch.int64) for stage, mask in masks.items()}
        return SingleStore(graph), splits

    def _masks(self, graph: Data) -> dict[str, Tensor]:
        labels = cast(Tensor, graph.y)
        if self.split in ("public", "full"):
            masks: dict[str, Tensor] = {stage: _public_mask(graph, stage, self.split_index) for stage in STAGES}
            if self.split == "full":
                masks["train"] = ~(masks["val"] | masks["test"])
                if not labels.is_floating_point():
                    masks["train"] &= labels >= 0
            return masks
        if labels.is_floating_point() or labels.dim() != 1:
            raise DataError(f"a {self.split} split needs one integer class a node in y; give masks and split='public'")
        labelled = (labels >= 0).nonzero().flatten()
        if self.split == "stratified":
            parts = random_split(len(labelled), self.fractions, self.seed, labels[labelled])
            return {stage: index_to_mask(labelled[part], len(labels)) for stage, part in parts.items()}
        generator = torch.Generator().manual_seed(self.seed)
        shuffled = labelled[torch.randperm(len(labelled), generator=generator)]
        by_class = shuffled[labels[shuffled].argsort(stable=True)]
        counts = labels[labelled].bincount()
        rank = torch.arange(len(by_class)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        train = index_to_mask(by_class[rank < self.num_train_per_class], len(labels))
        others = shuffled[~train[shuffled]]
        if len(others) < self.num_val + self.num_test:
            raise DataError(
                f"{len(labelled)} labelled nodes, of which {int(train.sum())} train, leave {len(others)} for "
                f"num_val={self.num_val} and num_test={self.num_test}; ask for fewer, or use split='stratified'"
            )
        val, test = others[: self.num_val], others[self.num_val : self.num_val + self.num_test]
        return {"train": train, "val": index_to_mask(val, len(labels)), "test": index_to_mask(test, len(labels))}

    def loader(self, stage: Stage) -> BatchLoader:
        """Return the loader of one stage, which yields the graph once.

        Args:
            stage: name of the split.

        Raises:
            UnsupportedStrategyError: if the run has several processes.
        """
        if self.trainer is not None and self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"one graph cannot be divided among {self.trainer.world_size} processes; use devices=1"
            )
        return super().loader(stage)

    def split_sizes(self) -> dict[str, int]:
        """Return the number of nodes of each split."""
        masks = {name: self.graph.get(f"{name}_mask") for name in STAGES}
        return {name: 0 if mask is None else int(mask.sum()) for name, mask in masks.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, and the names of classes if labels are text."""
        names = self.class_names
        return {**super().state_dict(), **({"class_names": names} if names else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint.

        Raises:
            DataError: if training would resume on another split, or classes have other names.
        """
        super().load_state_dict(state_dict)
        if not self.predicting:  # else they are those of the checkpoint
            check_class_names(state_dict.get("class_names", []), self.class_names)

    def fingerprint(self) -> str:
        """Return a digest of the masks and labels, by which a checkpoint recognises the data."""
        digest = hashlib.sha256(str(self.num_nodes).encode())
        for name in (name for name in ("train_mask", "val_mask", "test_mask", "y") if name in self.graph):
            digest.update(self.graph[name].cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _public_mask(graph: Data, stage: str, split_index: int) -> Tensor:
    name = f"{stage}_mask"
    mask = graph.get(name)
    if mask is None and stage == "val":
        mask = graph.get("valid_mask")
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(mask)
    if mask is None:
        raise DataError(f"the graph has no {name}; give all three masks, or use split='random' or 'stratified'")
    if not isinstance(mask, Tensor):
        raise DataError(f"{name} is a {type(mask).__name__}; it must be a bool tensor ({graph.num_nodes},)")
    if mask.dim() == 2:
        if split_index >= mask.size(1):
            raise DataError(f"split_index is {split_index}, {name} holds {mask.size(1)} splits")
        mask = mask[:, split_index]
    elif split_index:
        raise DataError(f"split_index is {split_index}, but {name} holds one split")
    if mask.shape != (graph.num_nodes,) or mask.dtype not in (torch.bool, torch.uint8):
        raise DataError(f"{name} is {mask.dtype} {tuple(mask.shape)}; it must be bool ({graph.num_nodes},); "
                        "torch_geometric.utils.index_to_mask converts positions")  # fmt: skip
    return mask.bool()


def _check_graph(graph: Data, labelled: bool) -> None:
    x, edge_index, y = graph.get("x"), graph.get("edge_index"), graph.get("y")
    if not isinstance(x, Tensor) or x.dim() != 2 or x.layout != torch.strided or not len(x):
        raise DataError(f"x is {_kind(x)}; dense node features (N, D) are needed")
    for name, rows in (("x", "node"), ("edge_attr", "edge"), ("edge_weight", "edge")):
        value = graph.get(name)
        if not isinstance(value, Tensor) or not value.dim():
            continue
        bad = (~torch.isfinite(value)).nonzero()
        if len(bad):
            raise DataError(f"{name} holds {len(bad)} NaN or infinite values, the first at {rows} {int(bad[0, 0])}")
    if not isinstance(edge_index, Tensor) or edge_index.dtype != torch.int64 or edge_index.shape[:-1] != (2,):
        raise DataError(f"edge_index is {_kind(edge_index)}; it must be int64 of shape (2, E)")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < len(x):
        raise DataError(
            f"edge_index ranges from {int(edge_index.min())} to {int(edge_index.max())}; with {len(x)} nodes "
            f"indices must be in 0..{len(x) - 1}"
        )
    for name in ("edge_attr", "edge_weight"):
        value = graph.get(name)
        if isinstance(value, Tensor) and (not value.dim() or len(value) != edge_index.size(1)):
            raise DataError(f"{name} is {_kind(value)}; one row for each of the {edge_index.size(1)} edges is needed")
    if isinstance(y, Tensor) and y.is_floating_point() and bool(y.isinf().any()):
        raise DataError(f"y of node {int(y.isinf().nonzero()[0, 0])} is infinite; give NaN if it is not known")
    if isinstance(y, Tensor) and y.dim() == 2 and y.size(1) == 1 and not y.is_floating_point():
        graph.y = y = y.squeeze(1)
    if labelled and (not isinstance(y, Tensor) or y.dim() not in (1, 2) or len(y) != len(x)):
        raise DataError(f"y is {_kind(y)}; one target for each of the {len(x)} nodes is needed")


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _check_masks(masks: dict[str, Tensor], labels: Tensor) -> None:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = masks[first] & masks[second]
        if both.any():
            raise DataError(
                f"{int(both.sum())} nodes are in {first}_mask and {second}_mask, the first is node "
                f"{int(both.nonzero()[0])}; splits must be disjoint"
            )
    if not masks["train"].any():
        raise DataError("no node trains; check train_mask")
    if labels.is_floating_point() or labels.dim() != 1:
        return
    used = masks["train"] | masks["val"] | masks["test"]
    if int(labels[used].min()) < 0:
        node = int((used & (labels < 0)).nonzero()[0])
        raise DataError(f"node {node} is in a split and has label {int(labels[node])}; classes are numbered from 0")
    if len(labels[masks["train"]].unique()) < 2:
        raise DataError("all training nodes have one label; classification needs at least two classes")
