"""Data modules of published graphs whose nodes are the samples: the citation graphs and Actor."""

import warnings
import zipfile
from pathlib import Path
from typing import Literal, Unpack, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import Actor, Planetoid
from torch_geometric.io import read_planetoid_data
from torch_geometric.io.planetoid import read_file
from torch_geometric.utils import coalesce

from graphseq.core.errors import DataError
from graphseq.data.cache import raw_files
from graphseq.data.nodes.module import STAGES, NodeDataModule, NodeOptions
from graphseq.data.tables import TextTable

__all__ = ["ActorDataModule", "PlanetoidDataModule"]


class PlanetoidDataModule(NodeDataModule):
    """Citation graph: documents with word counts and a topic, linked by citations in both directions.

    Source: arXiv 1603.08861. The graph equals that of ``torch_geometric.datasets.Planetoid``. Raw files come from the
    mirror's ``Planetoid/<name>/raw``, else are downloaded. They are pickles, which can run code when they are opened,
    so their checksums are compared before.

    Args:
        name: name of the graph: ``Cora`` (2,708 nodes, 7 classes), ``CiteSeer`` (3,327, 6) or ``PubMed`` (19,717, 3).
        split: rule of the split: ``public`` (20 training nodes of each class, 500 validation and 1,000 test nodes),
            ``full`` (the same validation and test nodes, all others are training) or ``random``.
        num_train_per_class: number of training nodes of each class for ``random``.
        num_val: number of validation nodes for ``random``.
        num_test: number of test nodes for ``random``.
        normalize_features: whether to divide each row of ``x`` by its sum.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known one. Unchecked files can run
            any code when they are opened, so use only trusted ones.
        options: further arguments of :class:`NodeDataModule`.

    Yields:
        PyG ``Data`` with ``train_mask``, ``val_mask`` and ``test_mask``, bool (N,).

    Raises:
        ValueError: if the name or an option of the split is unknown or out of range.
        DataError: when the graph is read, if raw files are missing, corrupt, or do not have the known checksums.

    Example:
        >>> PlanetoidDataModule("Cora", split="random").num_train_per_class
        20
    """

    def __init__(
        self,
        name: Literal["Cora", "CiteSeer", "PubMed"],
        *,
        split: Literal["public", "full", "random"] = "public",
        num_train_per_class: int = 20,
        num_val: int = 500,
        num_test: int = 1000,
        normalize_features: bool = True,
        verify_checksums: bool = True,
        **options: Unpack[NodeOptions],
    ) -> None:
        if name not in ("Cora", "CiteSeer", "PubMed"):
            raise ValueError(f"name is {name!r}; it must be 'Cora', 'CiteSeer' or 'PubMed'")
        if split not in ("public", "full", "random"):
            raise ValueError(f"split is {split!r}; it must be 'public', 'full' or 'random'")
        super().__init__(
            self.read_graph,
            split=split,
            num_train_per_class=num_train_per_class,
            num_val=num_val,
            num_test=num_test,
            normalize_features=normalize_features,
            **options,
        )
        self.name = name
        self.verify_checksums = verify_checksums

    def read_graph(self) -> Data:
        """Return the graph with the public masks, from the raw files."""
        name = cast(str, self.name)
        prefix = f"ind.{name.lower()}"
        parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
        names = [f"{prefix}.{part}" for part in parts]
        if not self.verify_checksums:
            warnings.warn(
                f"the raw files of {self.name} are opened unverified although they are pickles, which can run any "
                "code; pass verify_checksums=True unless you trust their origin",
                stacklevel=2,
            )
        files = raw_files(
            f"Planetoid/{self.name}/raw",
            names,
            address=lambda file: f"{Planetoid.url}/{file}",
            checksums=_CHECKSUMS if self.verify_checksums else None,
        )
        folder = files[names[0]].parent
        try:
            with warnings.catch_warnings():  # the reader filters warnings for good
                warnings.simplefilter("ignore")
                graph = read_planetoid_data(str(folder), name)
                num_test = len(read_file(str(folder), name, "tx"))
            if int(graph.test_mask.sum()) != num_test:  # the reader takes a list that was cut off as it is
                raise ValueError(f"{prefix}.test.index lists {int(graph.test_mask.sum())} of {num_test} test nodes")
            return graph
        except Exception as error:  # damaged pickles raise whatever the bytes happen to mean
            raise DataError(
                f"the raw files of {self.name} in {folder} cannot be read ({type(error).__name__}: {error}); they are "
                "truncated or of different versions. Delete the folder to fetch them again"
            ) from error


class ActorDataModule(NodeDataModule):
    """Graph of actors: edges are joint appearances on pages of Wikipedia, classes are kinds of words on a page.

    Neighbours rarely share a class (heterophily), so networks that average neighbours perform poorly. Edges are
    directed as published, 30,019 of them, 7,600 nodes, 932 binary features, 5 classes, with ten public splits of 48,
    32 and 20 percent.

    Source: arXiv 2002.05287. The graph equals that of ``torch_geometric.datasets.Actor``. Raw files come from the
    mirror's ``Actor/raw``, else are downloaded.

    Args:
        split_index: number of the public split, 0 to 9.
        normalize_features: whether to divide each row of ``x`` by its sum.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known one.
        options: further arguments of :class:`NodeDataModule`; ``seed`` is that of random transforms only.

    Yields:
        PyG ``Data`` with ``train_mask``, ``val_mask`` and ``test_mask``, bool (N,).

    Raises:
        ValueError: if ``split_index`` is not in 0..9.
        DataError: when the graph is read, if raw files are missing, corrupt, or do not have the known checksums.

    Example:
        >>> ActorDataModule(split_index=3).split_index
        3
    """

    def __init__(
        self,
        split_index: int = 0,
        *,
        normalize_features: bool = False,
        verify_checksums: bool = True,
        **options: Unpack[NodeOptions],
    ) -> None:
        if split_index not in range(10):
            raise ValueError(f"split_index is {split_index}; there are the public splits 0 to 9")
        super().__init__(
            self.read_graph,
            split_index=split_index,
            normalize_features=normalize_features,
            **options,
        )
        self.verify_checksums = verify_checksums

    def read_graph(self) -> Data:
        """Return the graph with the masks of all ten splits, bool (N, 10), from the raw files."""
        nodes, edges = "out1_node_feature_label.txt", "out1_graph_edges.txt"
        masks = [f"film_split_0.6_0.2_{number}.npz" for number in range(10)]
        files = raw_files(
            "Actor/raw",
            [nodes, edges, *masks],
            address=lambda file: f"{Actor.url}/{'splits' if file in masks else 'new_data/film'}/{file}",
            checksums=_CHECKSUMS if self.verify_checksums else None,
        )
        try:
            x, y = _actor_nodes(files[nodes])
            table = TextTable(files[edges], ["\t"], header="columns")
            ends = table.read([(0, "integer"), (1, "integer")])
            pairs = torch.from_numpy(np.stack([*ends.values()], 1))  # (E, 2)
            if len(table.header) != 2 or int(pairs.min()) < 0 or int(pairs.max()) >= len(x):
                raise ValueError(f"{edges} must hold two numbers in 0..{len(x) - 1} a line")
            graph = Data(x=x, edge_index=coalesce(pairs.t().contiguous(), num_nodes=len(x)), y=y)
            splits = [_arrays(files[file]) for file in masks]
            for name in (f"{stage}_mask" for stage in STAGES):
                graph[name] = torch.stack([torch.from_numpy(arrays[name]).bool() for arrays in splits], dim=1)
        except (ValueError, KeyError, IndexError, RuntimeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"the raw files of Actor in {files[nodes].parent} cannot be read: {error}. They are truncated or of "
                "different versions; delete the folder to fetch them again"
            ) from error
        return graph


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def _actor_nodes(path: Path) -> tuple[Tensor, Tensor]:
    """Return features and classes from lines of node, comma-separated features, class, in any order of the nodes."""
    table = TextTable(path, ["\t"], header="columns")
    if table.width != 3:
        raise ValueError(f"{path.name} has {table.width} columns; node, features and label are needed")
    read = table.read([(0, "integer"), (1, "text"), (2, "integer")])
    nodes, labels = torch.from_numpy(read[0, "integer"]), torch.from_numpy(read[2, "integer"])
    features = [str(cell) for cell in read[1, "text"]]
    if not torch.equal(nodes.sort().values, torch.arange(len(nodes))):
        raise ValueError(f"{path.name} must number its {len(nodes)} nodes from 0 without gaps")
    counts = torch.tensor([cell.count(",") + 1 for cell in features])
    columns = torch.from_numpy(np.array(",".join(features).split(","), dtype=np.int64))
    if int(columns.min()) < 0:
        raise ValueError(f"{path.name} holds feature {int(columns.min())}; features are numbered from 0")
    x = torch.zeros(len(nodes), int(columns.max()) + 1)
    x[nodes.repeat_interleave(counts), columns] = 1.0
    y = torch.empty_like(labels)
    y[nodes] = labels
    return x, y


# SHA-256 of raw files that were checked against the published statistics (PubMed: of the source repository)
_CHECKSUMS = {
    "film_split_0.6_0.2_0.npz": "4505a41d4e90abd94d1ec22571ce528b09ad7cf20d87f764aebd4177590767f5",
    "film_split_0.6_0.2_1.npz": "1871b0d24e3977c41e378fd24acc8025b63f86b77739be77a5b558d1287f207d",
    "film_split_0.6_0.2_2.npz": "d26680e911ef3ecc9fc2a26d90c9d35028c63aadd7a5aea774649d1496c282cb",
    "film_split_0.6_0.2_3.npz": "6755ad5f6a0be8594b344af3d2261eed935b83b73c4d70136e1a7beea7f78cb0",
    "film_split_0.6_0.2_4.npz": "328fdca62b25074f21f2922518e042f24b3b8a1fc378f9dfb2cae36439aed902",
    "film_split_0.6_0.2_5.npz": "5b3161a8dc8de4b2e651ebd56d68e768d1377044895b325566117fe26ab81cb7",
    "film_split_0.6_0.2_6.npz": "e251b38abd4d7931b5e9ae5aba99dcdf87f0be283bdf6e65421274a1c9ef1df6",
    "film_split_0.6_0.2_7.npz": "12164ef9f5620a2f12a387f4f2b8636859d42201101d6d32829ade62d5a98326",
    "film_split_0.6_0.2_8.npz": "405cd1f7f631f678119f8bf2405809e86614d532985beb59566fcf95abd35b3f",
    "film_split_0.6_0.2_9.npz": "505691c5d41bb37b20d085415dcdde2e8e68b5bc4e1feb2c0e361308002012bb",
    "ind.citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "ind.citeseer.ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
    "ind.citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "ind.citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
    "ind.citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "ind.citeseer.ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
    "ind.citeseer.x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
    "ind.citeseer.y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
    "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
    "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "ind.cora.x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
    "ind.cora.y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "ind.pubmed.allx": "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e",
    "ind.pubmed.ally": "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e",
    "ind.pubmed.graph": "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9",
    "ind.pubmed.test.index": "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5",
    "ind.pubmed.tx": "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d",
    "ind.pubmed.ty": "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd",
    "ind.pubmed.x": "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33",
    "ind.pubmed.y": "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3",
    "out1_graph_edges.txt": "997cdce67ea9c29257d3ffe796328391931901cf823830affa453178b60e2c3e",
    "out1_node_feature_label.txt": "1d5cdd094f8b91e770f6decfca85b35cf42f75d1efb51055fd6af16e11820ff8",
}
