"""Measured rows on disk, from which an interrupted experiment continues."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from graphseq.bench.experiment import Experiment, Row
from graphseq.bench.records.closure import source_digest

__all__ = ["RowFile", "default_state_dir", "fingerprint", "plain"]


def default_state_dir() -> Path:
    """Return the folder of kept rows: ``bench`` in ``GRAPHSEQ_CACHE``, or in the platform's user cache folder.

    Example:
        >>> default_state_dir().name
        'bench'
    """
    from graphseq.data.cache import cache_folder

    return cache_folder() / "bench"


def plain(value: Any, what: str) -> Any:
    """Return a value as reading it back from JSON gives it: numbers of numpy and torch as Python's, tuples as lists.

    A fresh row and one read from disk are thereby the same.

    Args:
        value: value of a cell or row.
        what: noun phrase that names the value in the error message.

    Raises:
        TypeError: if ``value`` is not plain data.

    Example:
        >>> plain({"sizes": (1, 2)}, "the row")
        {'sizes': [1, 2]}
    """

    def scalar(item: Any) -> Any:
        if callable(getattr(item, "item", None)):
            return item.item()
        raise TypeError(f"a {type(item).__name__} is not plain data")

    try:
        return json.loads(json.dumps(value, default=scalar))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{what} cannot be written as JSON ({error}); use numbers, strings, lists and dictionaries"
        ) from error


def fingerprint(experiment: Experiment) -> str:
    """Return a digest of the code that an experiment runs: its files and their import closure, see :mod:`.closure`.

    Args:
        experiment: any experiment.

    Example:
        >>> from graphseq.bench.experiment import Conclusion
        >>> class Nothing(Experiment):
        ...     name, kind = "speed.nothing", "speed"
        ...     def cells(self, scale, seeds): return []
        ...     def run(self, cell, scale): return {}
        ...     def conclude(self, rows): return Conclusion(None)
        >>> len(fingerprint(Nothing()))
        64
    """
    files = list(experiment.files())
    for cls in type(experiment).__mro__:
        if issubclass(cls, Experiment) and not cls.__module__.startswith("graphseq.bench."):
            file = getattr(sys.modules.get(cls.__module__), "__file__", None)
            if file:  # there is none for classes typed into an interpreter
                files.append(Path(file))
    if experiment.origin:
        files.append(experiment.origin[0])
    # modules beside an experiment's file, and those of the folder that holds all families
    roots = dict.fromkeys(root for file in files for root in (file.resolve().parent, file.resolve().parents[2]))
    return source_digest(files, list(roots), f"{type(experiment).__module__}.{type(experiment).__qualname__}")


class RowFile:
    """Finished rows of one experiment, one JSON line each, appended and synced as they come.

    A row is used again only in the context in which it was measured. A line that a crash cut off is ignored.

    Args:
        path: file of rows; its folder is created.
        context: plain data that must be equal for a row to be used again, such as versions and processor.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> RowFile(path, {"scale": "quick"}).append({"seed": 0}, {"seed": 0, "accuracy": 0.9})
        >>> RowFile(path, {"scale": "quick"}).get({"seed": 0})
        {'seed': 0, 'accuracy': 0.9}
        >>> RowFile(path, {"scale": "full"}).get({"seed": 0}) is None
        True
    """

    def __init__(self, path: Path, context: Row) -> None:
        self.path = path
        self._context = hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()[:20]
        self._rows: dict[str, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        for line in path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                if entry["context"] == self._context and isinstance(entry["row"], dict):
                    self._rows[self._key(entry["cell"])] = entry["row"]
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off

    @staticmethod
    def _key(cell: Row) -> str:
        return json.dumps(cell, sort_keys=True)

    def get(self, cell: Row) -> Row | None:
        """Return the kept row of a cell, or None.

        Args:
            cell: cell of the row, plain data.
        """
        return self._rows.get(self._key(cell))

    def append(self, cell: Row, row: Row) -> None:
        """Append one row; it is on disk when this returns.

        Args:
            cell: cell of the row, plain data.
            row: measurements of the cell, plain data.
        """
        entry = json.dumps({"context": self._context, "cell": cell, "row": row}) + "\n"
        with open(self.path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    entry = "\n" + entry  # what was cut off stays a line of its own
            file.write(entry.encode())
            file.flush()
            os.fsync(file.fileno())
        self._rows[self._key(cell)] = row
