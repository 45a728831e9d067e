"""Named streams of events: the four of JODIE, messages, trust, mail, contacts; and files of your own."""

import gzip
import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack, get_args

from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.cache import cached, checksum, raw_files
from graphseq.data.events.files import (
    EdgeFeatures,
    read_contacts,
    read_edge_list,
    read_jodie_csv,
    read_node_labels,
    read_signed_edges,
)
from graphseq.data.events.module import TemporalDataModule
from graphseq.data.events.options import EventOptions
from graphseq.data.events.own_tables import ColumnName, Ids, read_event_table, table_columns
from graphseq.data.events.table import TemporalEvents
from graphseq.data.records import check_file

__all__ = [
    "BitcoinDataModule",
    "CollegeMsgDataModule",
    "EnronDataModule",
    "EventCSVDataModule",
    "JODIEDataModule",
    "PrimarySchoolDataModule",
]

JODIEName = Literal["wikipedia", "reddit", "mooc", "lastfm"]
FileKind = Literal["jodie", "snap", "konect", "signed", "contacts", "table"]

# numbers of events, users and items, checked because the checksums of downloads are not known
_JODIE_COUNTS: dict[str, tuple[int, int, int]] = {
    "wikipedia": (157_474, 8_227, 1_000),
    "reddit": (672_447, 10_000, 984),
    "mooc": (411_749, 7_047, 97),
    "lastfm": (1_293_103, 980, 1_000),
}

# the original Wikipedia file has 500 MB; a smaller one must be the known file without features
_SMALLEST_WITH_FEATURES = 20 * 2**20


class JODIEDataModule(TemporalDataModule):
    """Interaction streams of JODIE: edits of Wikipedia, posts on Reddit, a MOOC, and music on LastFM.

    ``y`` is 1 if the state of the user changes after the event (banned, dropped out). Raw files come from the
    mirror's ``JODIE/<name>/raw``, else are downloaded from snap.stanford.edu/jodie.

    The mirror's ``wikipedia.csv`` has one column of zeros in place of the 172 features of the original; by default it
    is left out (D = 0), as are the constant features of LastFM. Results without features are not comparable with
    published ones; report them as "no edge features". ``edge_features: all`` keeps all columns, ``none`` drops the
    features of any file, so that both files give the same stream.

    Source: arXiv 1908.01207.

    Args:
        name: name of the stream.
        edge_features: event features to keep: ``all``, ``none``, or ``auto``, which keeps them unless every column is
            constant.
        verify_checksums: whether to refuse a file with other numbers of events, users and items than the published
            ones, and a damaged Wikipedia file without features.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch`` with ``y``, see :class:`TemporalDataModule`.

    Raises:
        ValueError: if an argument is out of range or unknown.
        DataError: when the stream is read, if its file is missing, corrupt or does not have the known content.

    Example:
        >>> JODIEDataModule("wikipedia", inductive_ratio=0.1).name
        'wikipedia'
    """

    def __init__(
        self,
        name: JODIEName = "wikipedia",
        *,
        edge_features: EdgeFeatures = "auto",
        verify_checksums: bool = True,
        **options: Unpack[EventOptions],
    ) -> None:
        super().__init__(self.read_events, **options)
        if name not in get_args(JODIEName):
            raise ValueError(f"name is {name!r}; it must be one of {', '.join(get_args(JODIEName))}")
        if edge_features not in get_args(EdgeFeatures):
            raise ValueError(f"edge_features is {edge_features!r}; it must be 'auto', 'all' or 'none'")
        self.name = name
        self.edge_features: EdgeFeatures = edge_features
        self.verify_checksums = verify_checksums

    def read_events(self) -> TemporalEvents:
        """Return the stream, from the cache if it is there."""
        folder, file = f"JODIE/{self.name}/raw", f"{self.name}.csv"
        path = raw_files(folder, [file], address=f"http://snap.stanford.edu/jodie/{file}")[file]
        if self.verify_checksums and path.stat().st_size < _SMALLEST_WITH_FEATURES:
            _check_content(path)
        events = _kept(
            f"jodie-{self.name}", path, [self.edge_features], lambda: read_jodie_csv(path, self.edge_features)
        )
        found = (len(events), events.num_sources, events.num_nodes - (events.num_sources or 0))
        published = _JODIE_COUNTS[str(self.name)]
        if self.verify_checksums and found != published:
            raise DataError(
                f"{path} holds {found[0]} events of {found[1]} users and {found[2]} items, {self.name} has "
                "{} events of {} users and {} items; the file is cut off or another. Delete it to fetch it again, or "
                "give verify_checksums=False".format(*published)
            )
        return events


class CollegeMsgDataModule(TemporalDataModule):
    """Private messages between students: 59,835 events of 1,899 nodes over 194 days, not bipartite, no features.

    Raw files come from the mirror's ``CollegeMsg``, else are downloaded from snap.stanford.edu/data.

    Source: Panzarasa, Opsahl and Carley (2009), SNAP's CollegeMsg.

    Args:
        verify_checksums: whether to refuse a file with another content than the known one.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch``, see :class:`TemporalDataModule`.

    Raises:
        DataError: when the stream is read, if its file is missing, corrupt or does not have the known content.

    Example:
        >>> CollegeMsgDataModule(batch_size=100).batch_size
        100
    """

    def __init__(self, *, verify_checksums: bool = True, **options: Unpack[EventOptions]) -> None:
        super().__init__(self.read_events, **options)
        self.verify_checksums = verify_checksums

    def read_events(self) -> TemporalEvents:
        """Return the stream, from the cache if it is there."""
        names, address = ["CollegeMsg.txt.gz", "CollegeMsg.txt"], "https://snap.stanford.edu/data/CollegeMsg.txt.gz"
        path = _raw_file("CollegeMsg", names, address, verify=self.verify_checksums)
        return _kept("collegemsg", path, [], lambda: read_edge_list(path))


class BitcoinDataModule(TemporalDataModule):
    """Trust network of a Bitcoin market: rated edges with the sign as event type, not bipartite.

    The rating divided by 10 is the only feature. For OTC (35,592 events, 5,881 nodes) 316 users are known to be
    fraudulent (class 0 of ``node_labels``) or trustworthy (class 1); for Alpha there are labels if the file
    ``alpha_gt.csv`` exists. Raw files come from the mirror's ``BitcoinOTC`` and ``BitcoinAlpha``, else are downloaded.

    Source: Kumar et al. (2016) and REV2 (2018), SNAP's soc-sign-bitcoin-otc and soc-sign-bitcoin-alpha.

    Args:
        name: name of the market, ``otc`` or ``alpha``.
        verify_checksums: whether to refuse a file with another content than the known one.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch`` with ``event_type``, see :class:`TemporalDataModule`.

    Raises:
        ValueError: if ``name`` is unknown.
        DataError: when the stream is read, if its file is missing, corrupt or does not have the known content.

    Example:
        >>> BitcoinDataModule("otc").name
        'otc'
    """

    def __init__(
        self,
        name: Literal["otc", "alpha"] = "otc",
        *,
        verify_checksums: bool = True,
        **options: Unpack[EventOptions],
    ) -> None:
        super().__init__(self.read_events, **options)
        if name not in ("otc", "alpha"):
            raise ValueError(f"name is {name!r}; it must be 'otc' or 'alpha'")
        self.name = name
        self.verify_checksums = verify_checksums

    def read_events(self) -> TemporalEvents:
        """Return the stream with the labels of users, from the cache if it is there."""
        folder = "BitcoinOTC" if self.name == "otc" else "BitcoinAlpha"
        file = f"soc-sign-bitcoin{self.name}.csv"
        address = f"https://snap.stanford.edu/data/{file}.gz"
        path = _raw_file(f"{folder}/raw", [file, f"{file}.gz"], address, verify=self.verify_checksums)
        events = _kept(f"bitcoin-{self.name}", path, [], lambda: read_signed_edges(path))
        truth = f"{self.name}_gt.csv"
        known = _TRUTH_ADDRESS if self.name == "otc" else None
        try:
            labels = raw_files(folder, [truth], address=known, checksums=_CHECKSUMS if self.verify_checksums else None)
        except DataError as error:
            warnings.warn(f"the users of Bitcoin {self.name} have no labels here: {error}", stacklevel=2)
        else:
            if isinstance(events.node_ids, Tensor):
                events.node_labels = read_node_labels(labels[truth], events.node_ids)
        return events


class EnronDataModule(TemporalDataModule):
    """Mail among employees of Enron: 125,235 events of 184 nodes over 3.6 years, not bipartite, no features.

    Many events share a time (5.5 on average), and 16,410 are mails to oneself. Raw files come from the mirror's
    ``Enron``, else are downloaded.

    Source: arXiv 2207.10128 (its link prediction benchmark).

    Args:
        verify_checksums: whether to refuse a file with another content than the known one.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch``, see :class:`TemporalDataModule`.

    Raises:
        DataError: when the stream is read, if its file is missing, corrupt or does not have the known content.

    Example:
        >>> EnronDataModule(split_by="count").split_by
        'count'
    """

    def __init__(self, *, verify_checksums: bool = True, **options: Unpack[EventOptions]) -> None:
        super().__init__(self.read_events, **options)
        self.verify_checksums = verify_checksums

    def read_events(self) -> TemporalEvents:
        """Return the stream, from the cache if it is there."""
        path = _raw_file("Enron", ["ml_enron.txt.gz", "ml_enron.txt"], _ENRON_ADDRESS, verify=self.verify_checksums)
        return _kept("enron", path, [], lambda: read_edge_list(path))


class PrimarySchoolDataModule(TemporalDataModule):
    """Contacts in a primary school: 125,773 events of 242 nodes over two days, in steps of 20 seconds.

    Contacts have no direction; the first of the two is the source. ``node_labels`` are ten school classes and the
    teachers. Raw files come from the mirror's ``PrimarySchool``, else are downloaded from sociopatterns.org.

    Source: Stehlé et al. (2011), SocioPatterns.

    Args:
        verify_checksums: whether to refuse a file of the mirror with another content than the known one.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch``, see :class:`TemporalDataModule`.

    Raises:
        DataError: when the stream is read, if its file is missing, corrupt or does not have the known content.

    Example:
        >>> PrimarySchoolDataModule(cut="time").cut
        'time'
    """

    def __init__(self, *, verify_checksums: bool = True, **options: Unpack[EventOptions]) -> None:
        super().__init__(self.read_events, **options)
        self.verify_checksums = verify_checksums

    def read_events(self) -> TemporalEvents:
        """Return the stream with the classes of nodes, from the cache if it is there."""
        names = ["Primary_School.csv.gz", "primaryschool.csv.gz"]
        path = _raw_file("PrimarySchool", names, _SCHOOL_ADDRESS, verify=self.verify_checksums)
        return _kept("primaryschool", path, [], lambda: read_contacts(path)[0])


class _Columns(TypedDict):
    src: ColumnName
    dst: ColumnName
    t: ColumnName
    msg: list[int | str]
    y: int | str | None
    event_type: int | str | None


class EventCSVDataModule(TemporalDataModule):
    """Stream of events from a file of your own.

    Ids may be integers or text, times numbers or dates; see :func:`read_event_table`. The ids stand in the checkpoint,
    so that a table that is evaluated later is numbered as the training table was, and
    :class:`~graphseq.models.LinkStream` takes and returns them.

    Args:
        path: path of a file with one event in each line, plain or compressed by gzip, or of a Parquet file.
        kind: format of the file: ``table``, which finds out most by itself (:func:`read_event_table`), ``jodie``
            (:func:`read_jodie_csv`), ``snap`` and ``konect`` (:func:`read_edge_list`), ``signed``
            (:func:`read_signed_edges`) or ``contacts`` (:func:`read_contacts`).
        sort: whether to sort unsorted events by time (stably) instead of refusing them.
        bipartite: whether sources and destinations are numbered separately; for ``snap``, ``konect`` and ``table``.
        header: whether the first line that is not a comment names the columns; for ``snap`` and ``konect``.
        scale: largest absolute rating, positive; for ``signed``.
        edge_features: event features to keep, see :class:`JODIEDataModule`; for ``jodie``.
        src: column of source ids, by its header or its position from 0; None to find it; for ``table``.
        dst: column of destination ids, in the same way; for ``table``.
        t: column of times, in the same way; for ``table``.
        msg: columns of event features, by their headers or positions; for ``table``.
        y: column of event labels; for ``table``.
        event_type: column of event types; for ``table``.
        ids: kind of the ids, ``integer``, ``text``, or ``auto`` to decide by the first row; for ``table``.
        options: further arguments of :class:`TemporalDataModule`.

    Yields:
        ``EventBatch``, see :class:`TemporalDataModule`.

    Raises:
        ValueError: if ``kind`` or ``ids`` is unknown, ``scale`` is not positive, or ``msg`` is text.
        DataError: when the stream is read, if the file is missing or a line does not have the form of ``kind``.

    Example:
        >>> EventCSVDataModule("calls.csv", src="caller", dst="callee", t="when").kind
        'table'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: FileKind = "table",
        *,
        sort: bool = False,
        bipartite: bool = False,
        header: bool = False,
        scale: float = 10.0,
        edge_features: EdgeFeatures = "auto",
        src: ColumnName = None,
        dst: ColumnName = None,
        t: ColumnName = None,
        msg: Sequence[int | str] = (),
        y: int | str | None = None,
        event_type: int | str | None = None,
        ids: Ids = "auto",
        **options: Unpack[EventOptions],
    ) -> None:
        super().__init__(self.read_events, **options)
        if kind not in get_args(FileKind):
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(get_args(FileKind))}")
        if not scale > 0:
            raise ValueError(f"scale is {scale}; the largest rating must be positive")
        if isinstance(msg, str):
            raise ValueError(f"msg is {msg!r}; give a list of columns, such as [{msg!r}]")
        if ids not in get_args(Ids):
            raise ValueError(f"ids is {ids!r}; it must be one of {', '.join(get_args(Ids))}")
        self.path = Path(path)
        self.kind: FileKind = kind
        self.sort = sort
        self.bipartite = bipartite
        self.header = header
        self.scale = scale
        self.edge_features: EdgeFeatures = edge_features
        self.ids: Ids = ids
        self.column_names: _Columns = {
            "src": src, "dst": dst, "t": t, "msg": list(msg), "y": y, "event_type": event_type
        }  # fmt: skip

    def read_events(self) -> TemporalEvents:
        """Return the stream, from the cache if it is there."""
        check_file(self.path)
        form = [self.kind, self.sort, self.bipartite, self.header, self.scale, self.edge_features, self.ids]
        columns = self.column_names
        if self.predicting and self.kind == "table" and columns["y"] is not None:
            known = table_columns(self.path)
            if columns["y"] not in known and not (isinstance(columns["y"], int) and columns["y"] < len(known)):
                columns = {**columns, "y": None}
        return _kept("csv", self.path, [*form, sorted(columns.items())], lambda: self._parsed(columns))

    def _parsed(self, columns: _Columns) -> TemporalEvents:
        sort, bipartite = self.sort, self.bipartite
        if self.kind == "jodie":
            return read_jodie_csv(self.path, self.edge_features, sort=sort)
        if self.kind == "signed":
            return read_signed_edges(self.path, self.scale, sort=sort)
        if self.kind == "contacts":
            return read_contacts(self.path, sort=sort)[0]
        if self.kind == "table":
            return read_event_table(self.path, **columns, bipartite=bipartite, ids=self.ids, sort=sort)
        return read_edge_list(self.path, self.kind, bipartite=bipartite, header=self.header, sort=sort)


def _kept(name: str, path: Path, options: Sequence[object], read: Callable[[], TemporalEvents]) -> TemporalEvents:
    """Return the events of a file from the cache, or read and store them."""
    key = ["events-2", *options, checksum(path)]
    return TemporalEvents.from_dict(cached(f"events-{name}", key, lambda: read().to_dict()))


def _raw_file(folder: str, names: Sequence[str], address: str, *, verify: bool) -> Path:
    """Return the first of several forms of a raw file that exists, else download it; check its unpacked content."""
    found = raw_files(folder, [], optional=names)
    name = next((name for name in names if name in found), None)
    if name is None:
        name = address.rsplit("/", 1)[-1]
        found = raw_files(folder, [name], address=address)
    if verify:
        _check_content(found[name])
    return found[name]


def _check_content(path: Path) -> None:
    expected = _CHECKSUMS.get(path.name)
    if expected is None:
        return
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; delete it to fetch it again") from error
    if actual != expected:
        raise DataError(
            f"{path} unpacks to SHA-256 {actual}, the known file to {expected}; it is cut off or another one. "
            "Delete it to fetch it again, or give verify_checksums=False"
        )


_REPOSITORIES = "https://raw.githubusercontent.com"
_ENRON_ADDRESS = (
    f"{_REPOSITORIES}/marwane-alilou/TemporalMotif-CTDG/bedcf8dc5c4dfdc0b96e78f8fcb49bb473f6d25c/Datasets/ml_enron.txt"
)
_TRUTH_ADDRESS = f"{_REPOSITORIES}/fpour/TGBase/ec3e4c8757d657fff5a8b2d20455a02a71ed993d/data/otc/otc_gt.csv"
_SCHOOL_ADDRESS = "http://www.sociopatterns.org/wp-content/uploads/2015/09/primaryschool.csv.gz"

# SHA-256 of what the files that were counted against the published statistics unpack to: compressing the same text
# twice seldom gives the same bytes
_CHECKSUMS = {
    "CollegeMsg.txt": "e00ba2415373dee52c00616065bcceaa4750e78de60d1855c76470600f10740f",
    "CollegeMsg.txt.gz": "e00ba2415373dee52c00616065bcceaa4750e78de60d1855c76470600f10740f",
    "Primary_School.csv.gz": "b0e97f2e20aad3d1c9922202f2f9e9c4079c9878992944e3746c2574d6ef86c6",
    "ml_enron.txt": "94d1c7501be851980174b74072786aad55c4f1a69403d60935451fa8e15f72f7",
    "ml_enron.txt.gz": "94d1c7501be851980174b74072786aad55c4f1a69403d60935451fa8e15f72f7",
    "otc_gt.csv": "73dab2edf3004b112cedaf75cbc4c953981798bfaa83eac3fa5bac2d59a3d040",
    "soc-sign-bitcoinotc.csv": "76bd9d8f1d3ff9a1813d9fc8e6902a0ee4d0a2f8c1003842dbc9ec79149ab60c",
    "soc-sign-bitcoinotc.csv.gz": "76bd9d8f1d3ff9a1813d9fc8e6902a0ee4d0a2f8c1003842dbc9ec79149ab60c",
    "wikipedia.csv": "5a13afe06df76e7d40713b9d023a9862dbd437117232ce9f2c1085af85362926",
}
