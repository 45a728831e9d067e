"""Molecules from tables of SMILES: the MoleculeNet sets and CSV files of your own."""

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, cast, get_args

import numpy as np
import torch
import torch_geometric
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import MoleculeNet
from torch_geometric.utils import from_smiles
from torch_geometric.utils.smiles import e_map, x_map

from graphseq.core.errors import DataError, OptionalDependencyError
from graphseq.data.cache import cached, checksum, raw_files
from graphseq.data.graphs.environments import check_num_environments, group_environments, size_environments
from graphseq.data.graphs.module import GraphOptions, GraphSetDataModule, split_graphs
from graphseq.data.graphs.store import GraphStore
from graphseq.data.records import check_file
from graphseq.data.splits import check_fractions, group_split, random_split
from graphseq.data.tables import Column, TextTable

__all__ = ["MoleculeDataModule", "scaffold"]

MoleculeNetName = Literal[
    "esol", "freesolv", "lipo", "bbbp", "bace", "sider", "clintox", "tox21", "toxcast", "hiv", "muv", "pcba"
]
MoleculeSplitRule = Literal["scaffold", "random", "stratified", "size", "size_middle"]
_FORMAT = "molecules-2"
# cached categories, at most 119 of them, take one byte: a quarter of the size and of the time of the next start
_NARROW = {"x": torch.uint8, "edge_attr": torch.uint8, "edge_index": torch.int32}
_WIDE = dict.fromkeys(_NARROW, torch.int64)
_LISTED = 5  # unreadable rows that a message shows
T = TypeVar("T")


def _require_rdkit() -> None:
    if importlib.util.find_spec("rdkit") is None:
        raise OptionalDependencyError("rdkit", "reading SMILES", extra="molecules")


def _track(items: Sequence[T], description: str) -> Iterable[T]:
    """Show a progress bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    return track(items, description, console=console, transient=True, disable=not sys.stderr.isatty())


def scaffold(smiles: str) -> str:
    """Return the Bemis–Murcko scaffold of a molecule: its rings and the chains between them, without chirality.

    Atoms that are double-bonded to the scaffold belong to it, as in RDKit and in the scaffold splits of MoleculeNet
    (arXiv 1703.00564). A molecule without rings has the empty scaffold.

    Args:
        smiles: SMILES of the molecule.

    Returns:
        Canonical SMILES of the scaffold.

    Raises:
        OptionalDependencyError: if rdkit is not installed.
        DataError: if RDKit cannot read the molecule.

    Example:
        >>> scaffold("CC(C)Cc1ccc(cc1)C(C)C(=O)O"), scaffold("CCO")
        ('c1ccccc1', '')
    """
    _require_rdkit()
    from rdkit import Chem, rdBase
    from rdkit.Chem.Scaffolds import MurckoScaffold

    if _has_blank(smiles.strip()):
        raise DataError(
            f"the SMILES {smiles!r} has a blank inside, at which RDKit would cut it; a scaffold needs it whole"
        )
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise DataError(f"RDKit cannot read the SMILES {smiles!r}; a scaffold needs a valid molecule")
        return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)


class MoleculeDataModule(GraphSetDataModule):
    """Molecules with targets, one graph for each row of a CSV table: a MoleculeNet set, or your own file.

    Atoms are nodes with 9 categories, bonds are two directed edges with 3 categories each, as
    ``torch_geometric.utils.from_smiles`` makes them; hydrogens are counted as a feature and are no
    nodes. Integers are indices for embeddings: pass ``node_categories`` and ``edge_categories`` to the network. Targets
    are numbers, NaN for empty cells, always with a target axis, so that binary sets fit
    ``Classification(target="multilabel")``. Repeated molecules, which most published sets have, are kept.

    The parsed graphs are cached, so that only the first start takes about a millisecond for each molecule.

    Source: arXiv 1703.00564. Raw files come from the mirror's ``MoleculeNet/<name>/raw``, else are downloaded from
    the addresses in PyG.

    Args:
        name: name of a MoleculeNet set; give either this or ``path``.
        path: path of a table with a header, plain or compressed by gzip.
        smiles_column: header of the SMILES column; default ``smiles`` in any case; only with ``path``.
        target_columns: headers of the targets, at least one; default all columns with a header but the SMILES; only
            with ``path``.
        split: rule of the split: ``scaffold`` (molecules with the same Bemis–Murcko scaffold are in one split, training
            has frequent scaffolds and the test rare ones; the same for every seed), ``random``, ``stratified`` (by one
            integer target), ``size`` (train on small molecules, test on the largest) or ``size_middle`` (as ``size``,
            and validate on sizes between the two).
        fractions: fractions of train, validation and test molecules, summing to 1.
        num_environments: number of training environments, which molecules carry as ``env``: bins of the training
            scaffolds, see :func:`group_environments`, or, if the split is by size, of the training sizes, see
            :func:`size_environments`; None for no environments.
        unreadable: rule for rows whose SMILES cannot be read: ``skip`` leaves them out with a warning, ``error``
            refuses them; see :attr:`unreadable_rows`.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known one; for sets and files that
            were checked against the published statistics, not for downloaded originals.
        batch_size: number of training molecules of one batch over all processes, at least 1.
        options: further arguments of :class:`GraphSetDataModule`.

    Yields:
        PyG ``Batch`` with ``x`` (N, 9) and ``edge_attr`` (E, 3) int64, ``edge_index``, ``y`` (G, T) float32,
        ``smiles`` (list of strings), ``env`` if ``num_environments`` is given, and ``idx``.

    Raises:
        ValueError: if an argument is out of range or unknown, or not exactly one of ``name`` and ``path`` is given.
        OptionalDependencyError: if rdkit is not installed.
        DataError: when the data are read, if the table is missing, corrupt or does not have the known checksum, lacks a
            column, or has a target that is not a number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "table.csv"
        ...     rows = ["smiles,solubility", *(f"{'C' * length}O,{-length / 2}" for length in range(1, 11))]
        ...     _ = path.write_text(chr(10).join(rows))
        ...     data = MoleculeDataModule(path=path, split="random")
        ...     data.num_features, data.num_outputs, len(data.graphs)
        (9, 1, 10)
    """

    def __init__(
        self,
        name: MoleculeNetName | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        smiles_column: str | None = None,
        target_columns: Sequence[str] | None = None,
        split: MoleculeSplitRule = "scaffold",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        num_environments: int | None = None,
        unreadable: Literal["skip", "error"] = "skip",
        verify_checksums: bool = True,
        batch_size: int = 128,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(
            batch_size,
            **options,
        )
        if (name is None) == (path is None):
            raise ValueError(f"name is {name!r} and path is {path!r}; give either a MoleculeNet set or a table")
        if name is not None and name not in get_args(MoleculeNetName):
            raise ValueError(f"name is {name!r}; it must be one of {', '.join(get_args(MoleculeNetName))}")
        if name is not None and (smiles_column is not None or target_columns is not None):
            raise ValueError(f"smiles_column and target_columns are known for {name}; give them with path only")
        if isinstance(target_columns, str) or (target_columns is not None and not target_columns):
            raise ValueError(
                f"target_columns is {target_columns!r}; give a list of headers of the table, or None for all but the "
                "SMILES"
            )
        if split not in get_args(MoleculeSplitRule):
            raise ValueError(f"split is {split!r}; it must be one of {', '.join(get_args(MoleculeSplitRule))}")
        if unreadable not in ("skip", "error"):
            raise ValueError(f"unreadable is {unreadable!r}; it must be 'skip' or 'error'")
        _require_rdkit()
        self.name = name
        self.path = None if path is None else Path(path)
        self.smiles_column = smiles_column
        self.target_columns = None if target_columns is None else list(target_columns)
        self.split: MoleculeSplitRule = split
        self.fractions = check_fractions(fractions)
        self.num_environments = check_num_environments(num_environments)
        self.unreadable = unreadable
        self.verify_checksums = verify_checksums
        self._target_names: list[str] = []
        self._unreadable_rows: list[tuple[int, str, str]] = []

    @property
    def node_categories(self) -> list[int]:
        """Number of categories of each column of ``x``, which the featurisation defines."""
        return [len(values) for values in x_map.values()]

    @property
    def edge_categories(self) -> list[int]:
        """Number of categories of each column of ``edge_attr``, which the featurisation defines."""
        return [len(values) for values in e_map.values()]

    @property
    def target_names(self) -> list[str]:
        """Headers of the target columns, in the order of ``y``."""
        self.load()
        return self._target_names

    @property
    def unreadable_rows(self) -> list[tuple[int, str, str]]:
        """Line in the table (the header is line 1), SMILES and reason of each row that was left out."""
        self.load()
        return self._unreadable_rows

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, and the names of the targets."""
        return {**super().state_dict(), "target_names": self.target_names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, which may be of a version that did not keep the names of targets."""
        super().load_state_dict({"target_names": self.target_names, **state_dict})

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the packed molecules, from the cache if they are there, and their split."""
        import rdkit

        path = self._table()
        label = self.name or path.name
        versions = (_FORMAT, torch_geometric.__version__, rdkit.__version__)
        targets = self.trained("target_names", self.target_columns)
        key = [*versions, checksum(path), self.name, self.smiles_column, targets, *(["predict"] * self.predicting)]
        state = cached(f"molecules-{self.name or path.stem}", key, lambda: self._parse(path, label))
        self._target_names = self.trained("target_names", state["target_names"])
        self._unreadable_rows = [(row, smiles, reason) for row, smiles, reason in state["unreadable"]]
        self._report_unreadable(label, state["num_rows"])
        store = GraphStore.from_dict(_with_types(state["store"], _WIDE))
        if not self.divides("y" in store.names):
            return store, {}
        split = self._split(store, key, label)
        if self.num_environments is None:
            return store, split
        if self.split in ("size", "size_middle"):
            env = size_environments(store.num_nodes, split["train"], self.num_environments)
        else:
            env = group_environments(_scaffolds_of(store, key, label), split["train"], self.num_environments)
        return store.with_field("env", env), split

    def _split(self, store: GraphStore, key: Sequence[object], label: str) -> dict[str, Tensor]:
        if self.split == "scaffold":
            return group_split(_scaffolds_of(store, key, label).tolist(), self.fractions)
        if self.split != "stratified":
            return split_graphs(store, self.split, self.fractions, self.seed, 0, 1)
        target = store.field("y")
        if target.size(1) != 1 or not bool((target == target.round()).all()):
            raise DataError(
                f"a stratified split needs one integer target without empty cells; {label} has {target.size(1)} "
                f"target(s): {', '.join(self._target_names[:3])}. Use split='scaffold' or 'random'"
            )
        return random_split(len(store), self.fractions, self.seed, target[:, 0].long())

    def _table(self) -> Path:
        """Return the path of the table, which is fetched for a named set."""
        if self.name is None:
            path = cast(Path, self.path)
            check_file(path)
            return path
        _, remote, stem, _, _ = MoleculeNet.names[self.name]
        local, folder = f"{stem}.csv", f"MoleculeNet/{self.name}/raw"
        known = {local: _CHECKSUMS[self.name]} if self.verify_checksums and self.name in _CHECKSUMS else None
        found = raw_files(folder, [], optional=[local], checksums=known)
        if local in found:
            return found[local]
        try:
            # a separate folder: some originals differ in line ends or columns from the file with the known checksum
            original = raw_files(f"MoleculeNet/{self.name}/original", [remote], address=MoleculeNet.url.format(remote))
        except DataError as error:
            raise DataError(
                f"{folder}/{local} is neither in the cache nor in the mirror (GRAPHSEQ_MIRROR); {error}"
            ) from error
        return original[remote]

    def _parse(self, path: Path, label: str) -> dict[str, Any]:
        targets_named = [] if self.predicting else self.target_columns or []
        named = [] if self.name is not None else [*filter(None, [self.smiles_column]), *targets_named]
        table = TextTable(path, [","], header="columns", names=named)
        header = table.header
        if self.name is None:
            smiles_position, target_positions = self._own_positions(path, header)
        else:
            smiles_position, target_positions = _known_positions(self.name, header)
        names = [header[position] for position in target_positions]
        wanted: list[Column] = [(position, "optional") for position in target_positions]
        try:
            columns = table.read([(smiles_position, "text"), *wanted])
        except DataError as error:
            if self.name is not None or self.target_columns is not None:
                raise
            raise DataError(
                f"{error}. The targets are all columns but the SMILES, {', '.join(names)}; name those that are numbers "
                "by target_columns"
            ) from error
        texts = [str(cell).strip() for cell in columns[smiles_position, "text"]]
        targets = torch.from_numpy(np.stack([columns[column] for column in wanted], 1)) if wanted else None  # (R, T)
        graphs: list[Data] = []
        unreadable: list[list[Any]] = []
        for number, text in enumerate(_track(texts, f"reading {label}")):
            graph, reason = _molecule(text)
            if graph is None:
                unreadable.append([int(table.lines[number]), text, reason])
                continue
            if targets is not None:
                graph.y = targets[number : number + 1]
            graphs.append(graph)
        if not graphs:
            raise DataError(
                f"none of the {len(texts)} SMILES of {label} can be read, such as {texts[0]!r} in the column "
                f"{header[smiles_position]!r}; name the right smiles_column"
            )
        store = GraphStore.from_dataset(graphs).to_dict()
        return {
            "store": _with_types(store, _NARROW),
            "target_names": names,
            "unreadable": unreadable,
            "num_rows": len(texts),
        }

    def _own_positions(self, path: Path, header: list[str]) -> tuple[int, list[int]]:
        """Return the SMILES column and the target columns of a table of your own."""
        if self.smiles_column is None:
            found = [place for place, name in enumerate(header) if name.lower() == "smiles"]
            if len(found) != 1:
                raise DataError(
                    f"{path} has {len(found)} columns smiles; its columns are {', '.join(header)}. Name the one with "
                    "the SMILES by smiles_column"
                )
            smiles = found[0]
        else:
            smiles = header.index(self.smiles_column)
        if self.predicting:
            known = self.trained("target_names", self.target_columns or [])
            return smiles, [header.index(name) for name in known] if set(known) <= set(header) else []
        if self.target_columns is not None:
            return smiles, [header.index(name) for name in self.target_columns]
        targets = [place for place, name in enumerate(header) if name and place != smiles]
        if not targets:
            raise DataError(f"{path} has no column beside the SMILES, {header[smiles]!r}; a target is needed")
        return smiles, targets

    def _report_unreadable(self, label: str, num_rows: int) -> None:
        if not self._unreadable_rows:
            return
        first = self._unreadable_rows[:_LISTED]
        shown = "; ".join(f"line {row}: {_shown(text)!r}, {why}" for row, text, why in first)
        more = f"; and {len(self._unreadable_rows) - _LISTED} more" if len(self._unreadable_rows) > _LISTED else ""
        message = f"{len(self._unreadable_rows)} of {num_rows} SMILES of {label} cannot be read ({shown}{more})"
        if self.unreadable == "error":
            raise DataError(f"{message}; correct them, or leave them out with unreadable='skip'")
        warnings.warn(f"{message}; they are left out, and unreadable_rows lists them all", stacklevel=2)


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _scaffolds_of(store: GraphStore, key: Sequence[object], label: str) -> Tensor:
    """Return the number of the scaffold of each molecule, from the cache if they are there."""
    smiles = store.field("smiles").tolist()
    kept = cached(f"scaffolds-{Path(label).stem}", key, lambda: _scaffolds(smiles, label))
    return cast(Tensor, kept["scaffold_of"])


def _scaffolds(smiles: list[str], label: str) -> dict[str, Any]:
    numbers: dict[str, int] = {}
    of = [numbers.setdefault(scaffold(text), len(numbers)) for text in _track(smiles, f"scaffolds of {label}")]
    return {"scaffold_of": torch.tensor(of)}


def _with_types(store: dict[str, Any], types: dict[str, torch.dtype]) -> dict[str, Any]:
    """Return a saved store with some fields converted to other integer types."""
    fields = []
    for field in store["fields"]:
        wanted = types.get(field["path"][0])
        fields.append(field if wanted is None else {**field, "value": field["value"].to(wanted)})
    return {**store, "fields": fields}


def _has_blank(smiles: str) -> bool:
    return any(character.isspace() for character in smiles)


def _molecule(smiles: str) -> tuple[Data | None, str]:
    """Return the graph of a molecule, or None and the reason."""
    from rdkit import rdBase

    if not smiles:
        return None, "the cell is empty"
    if _has_blank(smiles):
        return None, "there is a blank or line break inside, at which RDKit would cut it"
    try:
        with rdBase.BlockLogs():  # also takes back that from_smiles turns the log off for good
            graph = from_smiles(smiles)
    except ValueError as error:  # an atom or bond with a property outside the categories
        return None, f"there is no category for it: {error}"
    if not graph.num_nodes:
        return None, "RDKit refuses it"
    return graph, ""


def _known_positions(name: str, header: list[str]) -> tuple[int, list[int]]:
    """Return the SMILES column and the target columns of a MoleculeNet set as in PyG."""
    _, _, _, smiles, target = MoleculeNet.names[name]
    everything = list(range(len(header)))
    try:
        if isinstance(target, int):
            return everything[smiles], [everything[target]]
        if target.stop > len(header):
            raise IndexError(f"column {target.stop - 1}")
        return everything[smiles], everything[target]
    except IndexError as error:
        raise DataError(
            f"the table of {name} has {len(header)} columns ({', '.join(header[:8])} ...), too few: {error}"
        ) from error


# SHA-256 of the tables that were checked against the published statistics
_CHECKSUMS = {
    "bace": "f3fb9ce90bada3e2bd6148b0df13f8f8145a357bf87df0dd5b391ede974fc737",
    "bbbp": "34c10e0f0b15dbc178c3ce4ad9774decc6a202776a31763f5a899309c97497ee",
    "esol": "8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189",
    "freesolv": "ab5895d914ee87cb563bd7b9611e869527bba45bec6b014d34dc495a0f9dcb72",
    "hiv": "b72f0cf00cd1f45ae5c415f21aef10e69187e30dd24029ddb345fbca35b0d798",
    "sider": "71efc6ac4ca82d6545bc512509863281be0f17234afd7adaf71a71899988302e",
    "tox21": "7d7e7facd853a63e79ddce4e9c3fcb7a0d83a1c300b603031c0f2c64fbe77761",
}
