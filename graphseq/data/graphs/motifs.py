"""Synthetic graphs with a motif that determines the class and a motif that is spuriously correlated with it."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Generator, Tensor
from torch.nn import functional

from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule
from graphseq.data.graphs.store import GraphStore

__all__ = ["MotifDataModule", "motif_graphs"]

# the house, and the complete bipartite graph: both have five nodes of degrees 3, 3, 2, 2, 2, so that degrees do not
# distinguish them
_HOUSE = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 0), (4, 1))
_BIPARTITE = ((0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4))
_CLIQUE = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_PATH = ((0, 1), (1, 2), (2, 3))
_CAUSAL_NODES, _SPURIOUS_NODES = 5, 4


def _preferential_tree(count: int, nodes: int, generator: Generator) -> Tensor:
    """Return the earlier node to which each node after the first is joined, (G, nodes - 1), for all graphs at once."""
    ends = torch.zeros(count, 2 * (nodes - 1), dtype=torch.int64)  # both ends of each edge, in the order they came
    for node in range(1, nodes):
        at = 2 * (node - 1)
        if node > 1:  # an end of an edge drawn evenly is a node drawn by its degree
            drawn = torch.randint(at, (count, 1), generator=generator)
            ends[:, at] = ends.gather(1, drawn)[:, 0]
        ends[:, at + 1] = node
    return ends[:, ::2]


def _choose(first: tuple[tuple[int, int], ...], second: tuple[tuple[int, int], ...], which: Tensor) -> Tensor:
    """Return the edges of the first or second motif for each graph, (G, edges, 2), padded with -1."""
    longest = max(len(first), len(second))
    table = torch.full((2, longest, 2), -1)
    for row, edges in enumerate((first, second)):
        table[row, : len(edges)] = torch.tensor(edges)
    return table[which]


def motif_graphs(
    label: Tensor,
    spurious: Tensor,
    *,
    min_nodes: int = 8,
    max_nodes: int = 13,
    max_degree: int = 7,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    r"""Return graphs of three parts: a random tree, the motif of the class and a spurious motif.

    The tree has between ``min_nodes`` and ``max_nodes`` nodes, each joined to an earlier one with probability
    proportional to its degree. A house (class 1) or the complete bipartite graph of two and three nodes (class 0)
    is joined to it by one edge between random nodes, and a clique of four nodes (``spurious`` 1) or a path of four
    nodes (``spurious`` 0) by another one.

    Source: arXiv 2201.12872 (the idea, with other motifs); arXiv cond-mat/9910332 (the tree).

    Args:
        label: class of each graph, 0 or 1, int64 (G,).
        spurious: spurious motif of each graph, 1 for the clique and 0 for the path, int64 (G,).
        min_nodes: smallest number of nodes of the tree, at least 1.
        max_nodes: largest number of nodes of the tree, at least ``min_nodes``.
        max_degree: largest degree of the one-hot node features, which have ``max_degree + 1`` columns; larger degrees
            share the last column.
        generator: random number generator; None for torch's own.

    Returns:
        ``x`` (N, max_degree + 1), ``edge_index`` (2, E) counted from the first node of each graph, both directions,
        and the offsets of the graphs in them, ``ptr`` and ``edge_ptr`` (G + 1,).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> graphs = motif_graphs(torch.tensor([1, 0]), torch.tensor([1, 1]), min_nodes=3, max_nodes=3)
        >>> graphs["ptr"].tolist(), graphs["edge_ptr"].tolist()
        ([0, 12, 24], [0, 32, 64])
    """
    if not 1 <= min_nodes <= max_nodes:
        raise ValueError(f"the tree has from {min_nodes} to {max_nodes} nodes; 1 <= min_nodes <= max_nodes is needed")
    if max_degree < 1:
        raise ValueError(f"max_degree is {max_degree}; it must be at least 1")
    for name, value in (("label", label), ("spurious", spurious)):
        if value.shape != label.shape[:1] or value.dtype != torch.int64 or bool(((value != 0) & (value != 1)).any()):
            raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)}; it must be 0 or 1, int64, one a graph")
    if generator is None:
        generator = torch.default_generator
    count = len(label)

    def draw(below: int | Tensor) -> Tensor:
        return (torch.rand(count, generator=generator) * below).long()

    tree_nodes = min_nodes + draw(max_nodes - min_nodes + 1)
    earlier = _preferential_tree(count, max_nodes, generator)
    later = torch.arange(1, max_nodes).expand_as(earlier)
    tree = torch.stack([earlier, later], dim=2)
    tree = torch.where((later < tree_nodes[:, None])[:, :, None], tree, -1)
    parts = [tree]
    start = tree_nodes
    for edges, nodes in (
        (_choose(_BIPARTITE, _HOUSE, label), _CAUSAL_NODES),
        (_choose(_PATH, _CLIQUE, spurious), _SPURIOUS_NODES),
    ):
        parts.append(torch.where(edges >= 0, edges + start[:, None, None], -1))
        parts.append(torch.stack([draw(tree_nodes), start + draw(nodes)], dim=1)[:, None])
        start = start + nodes
    table = torch.cat(parts, dim=1)
    table = torch.cat([table, table.flip(2)], dim=1)
    there = table[:, :, 0] >= 0
    edge_index = table[there].T.contiguous()
    ptr = functional.pad(start.cumsum(0), (1, 0))
    edge_ptr = functional.pad(there.sum(1).cumsum(0), (1, 0))
    source = edge_index[0] + ptr[:-1].repeat_interleave(edge_ptr.diff())
    degree = torch.bincount(source, minlength=int(ptr[-1])).clamp(max=max_degree)
    x = functional.one_hot(degree, max_degree + 1).float()
    return {"x": x, "edge_index": edge_index, "ptr": ptr, "edge_ptr": edge_ptr}


class MotifDataModule(GraphSetDataModule):
    r"""Graphs whose class is a motif, with another motif correlated with it in training and not in the test.

    The spurious motif is the clique with probability :math:`\mu` in class 1 and :math:`1 - \mu` in class 0: at
    :math:`\mu = 0.5` it is independent of the class, below it is correlated negatively. Classes are balanced. Splits,
    and parts of training, with the same bias are one environment.

    Source: arXiv 2312.12475, experiments on synthetic graphs. Differs from it: motifs, base graphs and sizes, for
    which the paper gives no details.

    Args:
        num_train: number of training graphs.
        num_val: number of validation graphs; 0 for none.
        num_test: number of test graphs; 0 for none.
        train_bias: bias :math:`\mu` of training graphs, in [0, 1]; several values make training environments of equal
            size.
        val_bias: bias :math:`\mu` of validation graphs, in [0, 1].
        test_bias: bias :math:`\mu` of test graphs, in [0, 1].
        min_nodes: smallest number of nodes of the tree, at least 1.
        max_nodes: largest number of nodes of the tree, at least ``min_nodes``.
        max_degree: largest degree of the one-hot node features; larger degrees share the last column.
        batch_size: number of training graphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with ``x`` (N, max_degree + 1), ``edge_index``, ``y``, ``spurious`` (1 for the clique), ``env``
        and ``idx``.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> data = MotifDataModule(num_train=20, num_val=4, num_test=4, train_bias=[0.9, 0.7])
        >>> data.num_features, data.num_outputs, data.graphs.field("env").unique().tolist()
        (8, 2, [0, 1, 2, 3])
    """

    def __init__(
        self,
        *,
        num_train: int = 500,
        num_val: int = 100,
        num_test: int = 400,
        train_bias: float | list[float] = 0.9,
        val_bias: float = 0.5,
        test_bias: float = 0.1,
        min_nodes: int = 8,
        max_nodes: int = 13,
        max_degree: int = 7,
        batch_size: int = 64,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        self.train_bias = list(train_bias) if isinstance(train_bias, Sequence) else [float(train_bias)]
        biases = [*self.train_bias, val_bias, test_bias]
        if not self.train_bias or any(not 0 <= bias <= 1 for bias in biases):
            raise ValueError(f"biases are {biases}; they must be in [0, 1], with at least one for training")
        if num_train < 2 * len(self.train_bias) or num_val < 0 or num_test < 0:
            raise ValueError(
                f"{num_train}, {num_val} and {num_test} graphs were asked for; training needs two for each bias"
            )
        empty = torch.zeros(0, dtype=torch.int64)
        if not 1 <= min_nodes <= max_nodes or max_degree < 1:  # a wrong size fails here, not later
            motif_graphs(empty, empty, min_nodes=min_nodes, max_nodes=max_nodes, max_degree=max_degree)
        self.num_train = num_train
        self.num_val = num_val
        self.num_test = num_test
        self.val_bias = val_bias
        self.test_bias = test_bias
        self.min_nodes = min_nodes
        self.max_nodes = max_nodes
        self.max_degree = max_degree

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs, training first, and their split."""
        generator = torch.Generator().manual_seed(self.seed)
        each = [len(part) for part in torch.arange(self.num_train).tensor_split(len(self.train_bias))]
        sizes = torch.tensor([*each, self.num_val, self.num_test])
        biases = [*self.train_bias, float(self.val_bias), float(self.test_bias)]
        known = list(dict.fromkeys(biases))
        env = torch.tensor([known.index(bias) for bias in biases]).repeat_interleave(sizes)
        bias = torch.tensor(biases).repeat_interleave(sizes)
        # equal numbers of both classes in each part
        label = torch.cat([torch.randperm(int(size), generator=generator) % 2 for size in sizes])
        agrees = torch.rand(len(label), generator=generator) < bias
        spurious = torch.where(agrees, label, 1 - label)
        graphs = motif_graphs(
            label,
            spurious,
            min_nodes=self.min_nodes,
            max_nodes=self.max_nodes,
            max_degree=self.max_degree,
            generator=generator,
        )
        fields = [
            {"path": [name], "value": value, "dim": dim, "group": group, "increment": increment}
            for name, value, dim, group, increment in (
                ("x", graphs["x"], 0, 1, None),
                ("edge_index", graphs["edge_index"], 1, 2, "nodes"),
                ("y", label, 0, 0, None),
                ("spurious", spurious, 0, 0, None),
                ("env", env, 0, 0, None),
            )
        ]
        slices = [torch.arange(len(label) + 1), graphs["ptr"], graphs["edge_ptr"]]
        store = GraphStore.from_dict({"fields": fields, "slices": slices, "listed_num_nodes": False})
        train, val, test = torch.arange(len(label)).split([self.num_train, self.num_val, self.num_test])
        return store, {"train": train, "val": val, "test": test}
