"""Data modules of many graphs: your own list of ``Data``, and the base class of the named data sets."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import degree

from graphseq.core.errors import DataError
from graphseq.data.base import Stage, StoreDataModule
from graphseq.data.graphs.fields import check_source, describe, listed
from graphseq.data.graphs.store import GraphStore
from graphseq.data.graphs.transforms import (
    GraphTransform,
    check_batch_transform,
    check_pre_transform,
    check_transformed,
    pre_transformed,
)
from graphseq.data.labels import check_class_names, numbered_labels, plain_label
from graphseq.data.shots import few_shots
from graphseq.data.splits import check_fractions, k_fold_split, pooled_split, random_split, size_split, with_val
from graphseq.data.store import positions

__all__ = ["GraphDataModule", "GraphSetDataModule"]


class GraphOptions(TypedDict, total=False):
    """Arguments that data modules pass on to :class:`GraphSetDataModule`, for ``**options: Unpack[GraphOptions]``.

    Args:
        eval_batch_size: number of graphs of one validation, test or prediction batch; default ``batch_size``.
        seed: seed of the splits, of generated data and of the order of training batches; default 0.
        device_resident: whether the store moves to the training device: ``true``, ``false``, or ``auto``, which moves
            it if it takes less than a quarter of the free memory; default ``auto``.
        drop_last: whether training leaves out a last batch smaller than ``batch_size``; default false.
        train_transform: module applied on the device to the inputs of each training batch.
        eval_transform: module applied on the device to the inputs of each validation, test and prediction batch.
        pool_validation: whether validation graphs are also training graphs, as a control of methods that learn from the
            validation split; default false.
        pre_transform: callable from one graph to one graph, such as any transform of PyG, applied to each graph once,
            before packing.
        num_shots: number of labelled training graphs, drawn with ``seed`` from the training split; default all.
        shots_per_class: number of labelled training graphs of each class, drawn with ``seed``; default all.

    Example:
        >>> options: GraphOptions = {"seed": 1}
    """

    eval_batch_size: int | None
    seed: int
    device_resident: bool | Literal["auto"]
    drop_last: bool
    train_transform: nn.Module | None
    eval_transform: nn.Module | None
    pool_validation: bool
    pre_transform: GraphTransform | None
    num_shots: int | None
    shots_per_class: int | None


class GraphSetDataModule(StoreDataModule):
    """Base class of the data modules whose samples are graphs, with the sizes of the network from the packed store.

    A subclass defines :meth:`read`, which returns a :class:`GraphStore` and the splits.

    Args:
        batch_size: number of training graphs of one batch over all processes, at least 1.
        pool_validation: whether validation graphs are also training graphs, as a control of methods that learn from the
            validation split. A tenth of both, drawn with ``seed``, becomes the validation split, see
            :func:`pooled_split`.
        eval_batch_size: number of graphs of one validation, test or prediction batch; default ``batch_size``.
        seed: seed of the splits, of generated data and of the order of training batches.
        device_resident: whether the store moves to the training device, see :class:`StoreDataModule`.
        drop_last: whether training leaves out a last batch smaller than ``batch_size``.
        train_transform: callable applied on the device to each training batch as a whole. Transforms of PyG that would
            mix the graphs of a batch, such as ``VirtualNode`` or ``Center``, are refused; the result of any other
            callable is checked at the first batch: ``batch`` and ``ptr`` must be valid and no edge may join two graphs.
        eval_transform: callable applied on the device to each validation, test and prediction batch as a whole.
        pre_transform: callable from one graph to one graph, such as any transform of PyG, applied to each graph once,
            before packing; random ones are seeded with ``seed``. If the data set is cached, so is the result.
        num_shots: number of labelled training graphs in total, drawn with ``seed`` from the training split, see
            :func:`few_shots`; None for all. Graphs without a known label are not drawn.
        shots_per_class: number of labelled training graphs of each class, drawn with ``seed`` from the training split,
            if each graph has one label; None for all.

    Yields:
        PyG ``Batch``.

    Raises:
        ValueError: if an argument is out of range, a transform of PyG is not meant for batches, or both numbers of
            shots are given.
        DataError: when the data are read, if ``pool_validation`` is set and validation graphs are also test graphs, or
            there are too few labelled graphs for the shots, or none of a class.

    Example:
        >>> data = GraphDataModule([Data(x=torch.ones(2, 3), y=torch.tensor([i % 2])) for i in range(20)])
        >>> data.num_features, data.num_outputs
        (3, 2)
    """

    def __init__(
        self,
        batch_size: int = 128,
        *,
        pool_validation: bool = False,
        eval_batch_size: int | None = None,
        seed: int = 0,
        device_resident: bool | Literal["auto"] = "auto",
        drop_last: bool = False,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        pre_transform: GraphTransform | None = None,
        num_shots: int | None = None,
        shots_per_class: int | None = None,
    ) -> None:
        super().__init__(
            batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
            device_resident=device_resident,
            drop_last=drop_last,
            train_transform=train_transform,
            eval_transform=eval_transform,
        )
        self.pool_validation = pool_validation
        self.pre_transform = check_pre_transform(pre_transform)
        if num_shots is not None and shots_per_class is not None:
            raise ValueError(f"num_shots is {num_shots} and shots_per_class is {shots_per_class}; give one of them")
        for name, number in (("num_shots", num_shots), ("shots_per_class", shots_per_class)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError(f"{name} is {number!r}; it must be an integer of at least 1")
        self.num_shots, self.shots_per_class = num_shots, shots_per_class
        self._class_names: list[str] = []
        self._checked: set[str] = set()
        for name, transform in (("train_transform", train_transform), ("eval_transform", eval_transform)):
            if transform is not None and check_batch_transform(name, transform):
                self._checked.add(name)

    @property
    def graphs(self) -> GraphStore:
        """The packed graphs."""
        store = self.store
        if not isinstance(store, GraphStore):
            raise DataError(f"{type(self).__name__}.read() gave a {type(store).__name__}; a GraphStore is needed")
        return store

    @property
    def num_features(self) -> int:
        """Width of the node features."""
        return _width(self.graphs.field("x"))

    @property
    def num_edge_features(self) -> int:
        """Width of the edge features; 0 if there are none."""
        return _width(self.graphs.field("edge_attr"))

    @property
    def num_outputs(self) -> int:
        """Number of classes if each graph or node has one integer or bool label, else number of its targets."""
        target = self._target()
        each = self._targets_of_one(target)
        return each if target.is_floating_point() or each > 1 else max(int(target.max()) + 1, _least_classes(target))

    @property
    def class_names(self) -> list[str]:
        """Name of each class if labels are text, else empty."""
        self.load()
        return list(self._class_names)

    def _target(self) -> Tensor:
        """Return the joined targets, after a check of their kind."""
        target = self.graphs.field("y")
        if isinstance(target, Tensor):
            return target
        if "y" not in self.graphs.names:
            raise DataError(f"graphs of {type(self).__name__} have no target y")
        given = self.graphs[0].y
        raise DataError(
            f"y of graph 0 is {describe(given)}{f' ({given!r})' if isinstance(given, str) else ''}; targets must be "
            "tensors or numbers. Number the classes from 0, such as by sorted(set(labels)).index(label) (which "
            "GraphDataModule does with names of classes), or rename y"
        )

    def _targets_of_one(self, target: Tensor) -> int:
        """Return the number of targets of a graph, or of a node if there is one row for each node."""
        if target.dim() > 1:
            return int(target.size(-1))
        rows = self.graphs.offsets("y").diff()
        of_nodes = torch.equal(rows, self.graphs.num_nodes)
        equal = bool((rows == rows[0]).all())
        # K numbers of each graph, which PyG joins to (G K,). If all graphs have K nodes, they are labels of nodes
        if equal and not (of_nodes and not target.is_floating_point()):
            return int(rows[0])
        if not of_nodes:
            position = int((rows != rows[0]).nonzero()[0])
            raise DataError(
                f"y of graph {position} has {int(rows[position])} entries, of graph 0 {int(rows[0])}; give as many "
                "targets to all graphs, NaN where one is not known, or one to each node"
            )
        return 1

    @property
    def degree_histogram(self) -> list[int]:
        """Number of nodes of the training graphs with in-degree 0, 1, 2, ..., for the scalers of PNA."""
        graphs = self.graphs
        training = graphs.take(self.splits["train"])
        counts = degree(training.edge_index[1], int(training.ptr[-1]), dtype=torch.int64)
        return torch.bincount(counts).tolist()

    @property
    def class_weights(self) -> list[float]:
        """Weights that balance the classes in training.

        If each graph has one integer label: the inverse of the share of each class among the training graphs, divided
        by the number of classes, which has mean 1 over the graphs; 0 for a class without graphs. For labels 0, 1 and
        NaN: the weight of the positive class, the number of zeros over the number of ones; 1 if there are none of
        either.
        """
        target = self._target()
        each, number = self._targets_of_one(target), self.num_outputs
        known = self.graphs.take(self.splits["train"]).y
        if each == 1 and not target.is_floating_point():
            counts = torch.bincount(known.flatten().long(), minlength=number).double()
            weights = known.numel() / ((counts > 0).sum() * counts)
            return torch.where(counts > 0, weights, 0.0).tolist()
        known = known.reshape(-1, each).double()
        ones, zeros = (known == 1).sum(0).double(), (known == 0).sum(0).double()
        if bool((~torch.isnan(known) & (known != 0) & (known != 1)).any()):
            raise DataError("targets are numbers, not labels of 0, 1 or NaN; only labels can be balanced")
        return torch.where((ones > 0) & (zeros > 0), zeros / ones.clamp(min=1), 1.0).tolist()

    def apply_transform(self, transform: Any, batch: Any, stage: Stage) -> Any:
        """Return a transformed batch; the first result of a transform that is not known to be safe is checked.

        Args:
            transform: transform of the stage.
            batch: one batch on the device.
            stage: name of the split.

        Raises:
            DataError: if ``batch`` and ``ptr`` of the returned batch are not valid, or an edge joins two graphs.
        """
        made = super().apply_transform(transform, batch, stage)
        name = "train_transform" if stage == "train" else "eval_transform"
        if name not in self._checked:
            check_transformed(name, transform, made, batch.num_graphs)
            self._checked.add(name)
        return made

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

    def load(self) -> None:
        """Read the data unless they are read already, transform graphs one by one, pool splits, and check labels."""
        if self._host is not None:
            return
        super().load()
        try:
            if self.pre_transform is not None:
                name = None if isinstance(self, GraphDataModule) else type(self).__name__
                self._host = pre_transformed(self.graphs, self.pre_transform, self.seed, name)
            if self.pool_validation and not self.predicting:
                self._splits = pooled_split(self._splits, self.seed)
            self._draw_shots()
            self._check_labels()
        except BaseException:
            self._host, self._splits = None, {}  # so that another call does not take what was read as it is
            raise

    def _draw_shots(self) -> None:
        if self.predicting or (self.num_shots is None and self.shots_per_class is None):
            return
        target = self._target()
        if target.dim() == 1:  # K numbers of each graph, joined to (G K,), else one label of each graph
            if len(target) % len(self.graphs) or torch.equal(self.graphs.offsets("y").diff(), self.graphs.num_nodes):
                raise DataError("shots are of graphs, and each node has a label; give targets of graphs")
            target = target.reshape(len(self.graphs), -1)
        shots = {"num_shots": self.num_shots, "shots_per_class": self.shots_per_class}
        self._splits["train"] = few_shots(self._splits["train"], target, self.seed, **shots)

    def _check_labels(self) -> None:
        if "y" not in self.graphs.names or self.predicting:
            return
        target = self._target()
        if target.is_floating_point() or target.dim() != 1 or len(target) != len(self.graphs):
            return
        if int(target.min()) < 0:
            position = int((target < 0).nonzero()[0])
            raise DataError(
                f"labels reach down to {int(target.min())}, the first below 0 is that of graph {position}; classes "
                "must be numbered from 0"
            )
        classes = target[self.splits["train"].to(target.device)].unique()
        if len(classes) < 2:
            raise DataError(
                f"all {len(self.splits['train'])} training graphs have label {classes.tolist()}; classification needs "
                "at least two classes. Use a stratified or random split, or check the labels"
            )


def with_class_numbers(dataset: Sequence[Data], trained: Sequence[str] = ()) -> tuple[list[Data], list[str]]:
    """Return graphs whose labels ``y`` are tensors or numbers, and the names of the classes if labels are text.

    Args:
        dataset: graphs, which are not changed.
        trained: names of the classes of training, in their order, of which other labels are numbered -1; empty to take
            the names of the data set.

    Raises:
        DataError: if some labels are text and others are not.

    Example:
        >>> graphs, names = with_class_numbers([Data(y="b"), Data(y="a")])
        >>> [graph.y for graph in graphs], names
        ([tensor([1]), tensor([0])], ['a', 'b'])
    """
    graphs = listed(dataset)
    given = [plain_label(graph.get("y")) if isinstance(graph, Data) else None for graph in graphs]
    if all(label is None or isinstance(label, Tensor) for label in given):
        return graphs, list(trained)
    names = list(trained)
    if any(isinstance(label, str) for label in given):
        numbers, names = numbered_labels(given, "graph", trained)
        given = list(numbers.split(1))
    labels = [torch.as_tensor(label) if isinstance(label, np.ndarray) else label for label in given]
    changed = [copy.copy(graph) for graph in graphs]
    for graph, label in zip(changed, labels, strict=True):
        if label is not None:
            graph.y = label
    return changed, names


def _least_classes(target: Tensor) -> int:
    return 2 if target.dtype == torch.bool else 1


def _width(value: Tensor | None) -> int:
    if value is None:
        return 0
    return 1 if value.dim() == 1 else int(value.size(-1))


SplitRule = Literal["random", "stratified", "k_fold", "size", "size_middle"]


def split_graphs(
    store: GraphStore,
    rule: SplitRule,
    fractions: Sequence[float],
    seed: int,
    fold: int,
    num_folds: int,
    *,
    val_is_test: bool = False,
) -> dict[str, Tensor]:
    """Split graphs by one of the rules that data modules offer.

    Args:
        store: store of the graphs; ``y`` holds their classes for ``stratified`` and ``k_fold``.
        rule: rule of the split: ``random``, ``stratified``, ``k_fold`` (stratified cross-validation), ``size`` (train
            on small graphs, validate on graphs of the same sizes, test on the largest) or ``size_middle`` (validate on
            sizes between those of training and test, for methods that learn from a shifted validation split).
        fractions: fractions of train, validation and test graphs, summing to 1; for ``k_fold`` the second over the sum
            of the first two is the share of the training folds for the validation split.
        seed: seed of the split.
        fold: number of the test fold of ``k_fold``, from 0.
        num_folds: number of folds of ``k_fold``.
        val_is_test: whether the test fold of ``k_fold`` is also the validation split, as in arXiv 1810.00826.

    Raises:
        ValueError: if the rule is unknown.
        DataError: if the rule needs classes and the graphs have none.

    Example:
        >>> store = GraphStore.from_dataset([Data(x=torch.ones(n, 1)) for n in range(1, 11)])
        >>> split_graphs(store, "size", [0.6, 0.2, 0.2], 0, 0, 10)["test"].tolist()
        [8, 9]
    """
    if rule == "random":
        return random_split(len(store), fractions, seed)
    if rule in ("size", "size_middle"):
        return size_split(store.num_nodes, fractions, seed, shifted_val=rule == "size_middle")
    if rule not in ("stratified", "k_fold"):
        raise ValueError(f"split is {rule!r}; it must be 'random', 'stratified', 'k_fold', 'size' or 'size_middle'")
    labels = store.field("y")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.numel() != len(store):
        raise DataError(f"a {rule} split needs one integer class a graph in y; use split='random' or 'size'")
    if rule == "stratified":
        return random_split(len(store), fractions, seed, labels.flatten())
    share = fractions[1] / (fractions[0] + fractions[1])
    return k_fold_split(labels.flatten(), num_folds, fold, seed, share, val_is_test=val_is_test)


class GraphDataModule(GraphSetDataModule):
    """Data module of your own graphs: a list of PyG ``Data`` or any PyG data set, packed and split.

    Args:
        dataset: graphs of one class with the same fields, or a function without arguments that returns them
            (a config can name one: ``dataset: my_package.my_graphs``; its return annotation must be
            ``Sequence[Data]`` or ``list[Data]``). ``y`` may also be an array or a number of numpy, or the name of the
            class as text: classes are then numbered in sorted order, see :attr:`class_names`.
        split: rule of the split: ``random``, ``stratified``, ``k_fold``, ``size`` or ``size_middle``, see
            :func:`split_graphs`; or a dictionary ``{"train": [...], "val": [...], "test": [...]}`` of positions, or of
            masks with one entry for each graph; ``valid``, as OGB calls it, is ``val``.
        fractions: fractions of train, validation and test graphs, summing to 1.
        fold: number of the test fold of ``k_fold``, from 0.
        num_folds: number of folds of ``k_fold``.
        batch_size: number of training graphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with the fields of the graphs, ``batch``, ``ptr`` and ``idx``, the positions in the data set
        (unless the graphs have a field ``idx`` of their own; see :func:`graphseq.core.sample_positions`).

    Raises:
        ValueError: if the fractions or the split are not valid.
        TypeError: if ``dataset`` is something else, such as one graph.
        DataError: when the data are read, if the graphs cannot be packed, see :meth:`GraphStore.from_dataset`.

    Example:
        >>> graphs = [Data(x=torch.ones(2, 3), y=torch.tensor([i % 2])) for i in range(20)]
        >>> len(GraphDataModule(graphs, batch_size=4).train_dataloader())
        4
    """

    def __init__(
        self,
        dataset: Sequence[Data] | Callable[[], Sequence[Data]],
        *,
        split: SplitRule | dict[str, list[int]] = "random",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        fold: int = 0,
        num_folds: int = 10,
        batch_size: int = 128,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        check_source(dataset)
        if not isinstance(split, dict) and split not in get_args(SplitRule):
            raise ValueError(f"split is {split!r}; it must be one of {get_args(SplitRule)}, or a dictionary")
        if split == "k_fold" and (num_folds < 2 or not 0 <= fold < num_folds):
            raise ValueError(f"fold is {fold} of {num_folds}; give num_folds >= 2 and fold in 0..num_folds-1")
        self.dataset = dataset
        self.split = split
        self.fractions = check_fractions(fractions)
        self.fold = fold
        self.num_folds = num_folds

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the packed graphs and their split."""
        given = self.dataset() if callable(self.dataset) else self.dataset
        graphs, self._class_names = with_class_numbers(given, self.trained("class_names", ()))
        store = GraphStore.from_dataset(graphs)
        if not self.divides("y" in store.names):
            return store, {}
        if not isinstance(self.split, dict):
            return store, split_graphs(store, self.split, self.fractions, self.seed, self.fold, self.num_folds)
        return store, listed_split(self.split, len(store))


def listed_split(split: dict[str, Any], count: int) -> dict[str, Tensor]:
    """Return a given split as index tensors after a check that they are disjoint.

    Args:
        split: positions of samples, or a mask of ``count`` booleans, for each of ``train``, ``val`` (or ``valid``) and
            ``test``.
        count: number of samples.

    Raises:
        DataError: if a sample is in two splits, or an entry is neither positions nor a mask.

    Example:
        >>> listed_split({"train": [0, 1], "val": [False, False, True], "test": []}, 3)["val"]
        tensor([2])
    """
    tensors = {name: positions(index, count) for name, index in with_val(split).items()}
    together = torch.cat(list(tensors.values()))
    if len(together.unique()) != len(together):
        raise DataError("a sample stands in more than one split, or twice in one; splits must be disjoint")
    return tensors
