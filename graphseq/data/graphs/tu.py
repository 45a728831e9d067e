"""TU data sets: graph classification and regression benchmarks in their text form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.separate import separate
from torch_geometric.datasets import TUDataset
from torch_geometric.io import read_tu_data
from torch_geometric.utils import degree, one_hot

from graphseq.core.errors import DataError
from graphseq.data.cache import cached, checksum, raw_files
from graphseq.data.graphs.environments import check_num_environments, size_environments
from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule, SplitRule, split_graphs
from graphseq.data.graphs.store import GraphStore
from graphseq.data.splits import check_fractions

__all__ = ["TUDataModule"]

_OPTIONAL = ("graph_labels", "graph_attributes", "node_labels", "node_attributes", "edge_labels", "edge_attributes")


class TUDataModule(GraphSetDataModule):
    """TU data set by its name in PyG: MUTAG, PROTEINS, NCI1, ENZYMES, IMDB-BINARY and about 120 more.

    Source: arXiv 2007.08663. Graphs equal those of ``torch_geometric.datasets.TUDataset``: self-loops and double
    edges removed, labels one-hot. Raw files come from the mirror's ``TUDataset/<name>/raw``, else are downloaded.

    Args:
        name: name of the data set.
        split: rule of the split: ``stratified``, ``random``, ``k_fold`` (stratified cross-validation), ``size`` (train
            on small graphs, test on the largest) or ``size_middle`` (as ``size``, and validate on sizes between the
            two).
        fractions: fractions of train, validation and test graphs, summing to 1; for ``k_fold`` the share of the
            training folds for the validation split is ``fractions[1] / (fractions[0] + fractions[1])``.
        fold: number of the test fold of ``k_fold``, from 0.
        num_folds: number of folds of ``k_fold``.
        val_is_test: whether the test fold of ``k_fold`` is also the validation split, as in arXiv 1810.00826; its
            results are optimistic, for comparison with published tables only.
        num_environments: number of training environments, quantiles of size which graphs carry as ``env``, see
            :func:`size_environments`; None for no environments.
        use_node_attr: whether ``x`` has continuous node attributes before the node labels.
        use_edge_attr: whether ``edge_attr`` has continuous edge attributes before the edge labels.
        node_features: kind of node features: ``auto`` (those of the data set, or one-hot degrees if it has none),
            ``degree`` or ``constant``.
        max_degree: largest degree of one-hot degrees; larger degrees share the last column.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known one.
        batch_size: number of training graphs of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with ``x``, ``edge_index``, ``y``, ``edge_attr`` if the data set has it, ``env`` if
        ``num_environments`` is given, and ``idx``.

    Raises:
        ValueError: if an option of the split is out of range or unknown.
        DataError: if raw files are missing, corrupt, or do not have the known checksums.

    Example:
        >>> TUDataModule("MUTAG", split="k_fold", fold=3).fold
        3
    """

    def __init__(
        self,
        name: str,
        *,
        split: SplitRule = "stratified",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        fold: int = 0,
        num_folds: int = 10,
        val_is_test: bool = False,
        num_environments: int | None = None,
        use_node_attr: bool = False,
        use_edge_attr: bool = False,
        node_features: Literal["auto", "degree", "constant"] = "auto",
        max_degree: int = 200,
        verify_checksums: bool = True,
        batch_size: int = 128,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        if split not in get_args(SplitRule):
            raise ValueError(f"split is {split!r}; it must be one of {', '.join(get_args(SplitRule))}")
        if split == "k_fold" and not 0 <= fold < num_folds:
            raise ValueError(f"fold is {fold} of {num_folds}; it must be in 0..num_folds-1")
        if node_features not in ("auto", "degree", "constant"):
            raise ValueError(f"node_features is {node_features!r}; it must be 'auto', 'degree' or 'constant'")
        if max_degree < 1:
            raise ValueError(f"max_degree is {max_degree}; it must be at least 1")
        self.name = name
        self.split: SplitRule = split
        self.fractions = check_fractions(fractions)
        self.fold = fold
        self.num_folds = num_folds
        self.val_is_test = val_is_test
        self.num_environments = check_num_environments(num_environments)
        self.use_node_attr = use_node_attr
        self.use_edge_attr = use_edge_attr
        self.node_features = node_features
        self.max_degree = max_degree
        self.verify_checksums = verify_checksums

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the packed graphs, from the cache if they are there, and their split."""
        files = raw_files(
            f"TUDataset/{self.name}/raw",
            [f"{self.name}_A.txt", f"{self.name}_graph_indicator.txt"],
            optional=[f"{self.name}_{part}.txt" for part in _OPTIONAL],
            address=f"{TUDataset.url}/{self.name}.zip",
            checksums=_CHECKSUMS if self.verify_checksums else None,
        )
        options = (self.use_node_attr, self.use_edge_attr, self.node_features, self.max_degree)
        key = ["tu-1", self.name, *options, *(checksum(path) for path in files.values())]
        state = cached(f"tu-{self.name}", key, lambda: self._pack(str(next(iter(files.values())).parent)).to_dict())
        store = GraphStore.from_dict(state)
        split = split_graphs(
            store, self.split, self.fractions, self.seed, self.fold, self.num_folds, val_is_test=self.val_is_test
        )
        if self.num_environments is not None:
            store = store.with_field("env", size_environments(store.num_nodes, split["train"], self.num_environments))
        return store, split

    def _pack(self, folder: str) -> GraphStore:
        try:
            for path in sorted(Path(folder).glob(f"{self.name}_*.txt")):
                if not path.read_bytes().endswith(b"\n"):  # PyG's reader leaves out what follows the last line break
                    raise ValueError(f"the last line of {path.name} is not closed by a line break, and would be lost")
            data, slices, sizes = read_tu_data(folder, self.name)
            graphs = _separate(data, slices)
        except (ValueError, IndexError, RuntimeError, KeyError) as error:
            raise DataError(
                f"the raw files of {self.name} in {folder} do not fit together: {error}. They are truncated or of "
                "different versions; delete the folder to fetch them again"
            ) from error
        for graph in graphs:
            if "x" in graph and not self.use_node_attr:
                graph.x = graph.x[:, sizes["num_node_attributes"] :]
            if "edge_attr" in graph and not self.use_edge_attr:
                graph.edge_attr = graph.edge_attr[:, sizes["num_edge_attributes"] :]
            if "edge_attr" in graph and graph.edge_attr.size(1) == 0:
                del graph.edge_attr
            if self.node_features == "constant":
                graph.x = torch.ones(graph.num_nodes, 1)
            elif self.node_features == "degree" or "x" not in graph or graph.x.size(1) == 0:
                graph.x = degree(graph.edge_index[1], graph.num_nodes, dtype=torch.int64).clamp(max=self.max_degree)
        if graphs[0].x.dtype == torch.int64:
            largest = max(int(graph.x.max()) for graph in graphs if graph.num_nodes)
            for graph in graphs:
                graph.x = one_hot(graph.x, largest + 1)
        return GraphStore.from_dataset(graphs)


def _separate(data: Data, slices: dict[str, Tensor]) -> list[Data]:
    num_graphs = max(len(offsets) for offsets in slices.values()) - 1
    for name, offsets in slices.items():
        # the reader does not count trailing graphs without edges
        missing = num_graphs + 1 - len(offsets)
        if missing:
            if name not in ("edge_index", "edge_attr"):
                raise ValueError(f"{name} is given for {len(offsets) - 1} of {num_graphs} graphs")
            slices[name] = torch.cat([offsets, offsets[-1:].expand(missing)])
    for name, offsets in slices.items():
        value: Any = data[name]
        entries = value.size(1) if name == "edge_index" else len(value) if isinstance(value, Tensor) else None
        if entries is not None and int(offsets[-1]) != entries:
            raise ValueError(f"{name} has {entries} entries where {int(offsets[-1])} are needed")
    return [separate(Data, data, position, slices, decrement=False) for position in range(num_graphs)]


# SHA-256 of raw files that were checked against the published statistics
_CHECKSUMS = {
    "ENZYMES_A.txt": "5553c84f8f562f3e199dfd27192174f485e85c44c1357661098668937a739cbf",
    "ENZYMES_graph_indicator.txt": "95ba0fa47eba6f02e6b754a215dc66d5b49de3f45f57a128514301a8d7ed5f46",
    "ENZYMES_graph_labels.txt": "04743e08967e61e65cdacbb90f8df6ee53742b3d2e7b84675b85ebac70506856",
    "ENZYMES_node_attributes.txt": "305a8fc3b12f79fb844ef3374d6a3c8ceeb4887dd4f86bbfe37932c4c5434e7b",
    "ENZYMES_node_labels.txt": "8263eb9b64efa231a5886343483ccfc0342f2407014763a8f738fd51c32ce770",
    "IMDB-BINARY_A.txt": "23c8964bab82f81469271186d721131714a265d0ca8c44ae048118da1d0c4092",
    "IMDB-BINARY_graph_indicator.txt": "415cc3ba25b8c647dcf34d3de034f675ee070616f3b803be939cb26773489f26",
    "IMDB-BINARY_graph_labels.txt": "63a44411fd6342b9c4429828c16e144a2a11ef5244e25bb60f0ffa8b3ee2ffce",
    "IMDB-MULTI_A.txt": "fb538b23758d78df199272301e57dc74ad5754d6c3d79d5ed0a343193ddf4ec6",
    "IMDB-MULTI_graph_indicator.txt": "0274532a0e47dad9cdd21c08995c2265e43040a2c2a3b36c62fdb790994571d3",
    "IMDB-MULTI_graph_labels.txt": "613c2357b6b996f6f04b91697a99da87774820f9d08bf22813992f4c7afda855",
    "MUTAG_A.txt": "d9656ca7493f3445d737c711710bb36fd432dddd1c0ea32e1d4713c86ebd28e2",
    "MUTAG_edge_labels.txt": "4669ce755075ff86c3240709345745886400908fa637a49310459b9c267b3e56",
    "MUTAG_graph_indicator.txt": "7d520a4d6c7961c0cdeabe076d8fe27e795b6d373485c9a2b744987e560a2056",
    "MUTAG_graph_labels.txt": "a1518ea39ba3426bd42f57396b9c4baffe68e9adc718caeeab0119c6591a5f2c",
    "MUTAG_node_labels.txt": "678f429965490e84dd27713017538c995fc05d1621beac910848b600015ee863",
    "NCI1_A.txt": "2c028eda59a5fe96e2265a63d9ac236901bd9a7dc658498be13cd704a703076d",
    "NCI1_graph_indicator.txt": "ffe5acfa754b057d5ce0dc725c5aadb631628161886cc040d38c719635257dc5",
    "NCI1_graph_labels.txt": "fae44681e70113f496256ae87eaac33b7836e3a97fe8e023933b84fde6a5c8a2",
    "NCI1_node_labels.txt": "dc0a22b6cbff0c939de00373e823977ba32b358f560e4288d7602f7b51407ee2",
    "PROTEINS_A.txt": "4c4b33e272fc95cac6d27ed6d5d12b9a852c8610e91fff59f8f0dbdd5a20df67",
    "PROTEINS_graph_indicator.txt": "8d4ff1e852a5c28561e9bffb44cf9490bc552b13a3b6156dd12dc7f44e9afc4a",
    "PROTEINS_graph_labels.txt": "c0ef9810c440775252872318d0c8adc385588e14bc4c47a2c34aa96ee3c7cdcd",
    "PROTEINS_node_attributes.txt": "54eef829abb37e458a5fbf3a3c581e48e5810e220463c2cd951856b9ceb08f07",
    "PROTEINS_node_labels.txt": "f758e8ad3d6e3c026b50833d75f6f90735b94eb3345e4243707f495ca8afea8d",
    "PTC_MR_A.txt": "f79523ff94dfbef539e5602a8ac1931a50a2800f33fa1d30e5e31725289b5202",
    "PTC_MR_edge_labels.txt": "acee2f93b52175a329009dc837bea9db7c2a121c2ef0b1587b38bbe6fc9b8177",
    "PTC_MR_graph_indicator.txt": "d52754f3cbc54e29324f884b4c17200c16e06db0c499afae300b4fa1bb6d794b",
    "PTC_MR_graph_labels.txt": "64210accbe4c6c027535b1294e0da652b1f539667f7a2d4bf5121dcd8b00a224",
    "PTC_MR_node_labels.txt": "cc50d1e1c5f4c98b2100cf50c5ddd88ff28b419a9180d531046b75ce22983235",
}
