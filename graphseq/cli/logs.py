"""Curves read from the CSV files that Lightning's logger writes: finding them, and their sparse rows."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphseq.bench.directions import lower_is_better

__all__ = [
    "Curve",
    "Point",
    "Run",
    "RunError",
    "best_point",
    "find_log",
    "find_logs",
    "read_run",
    "run_names",
]

STAGES = ("train", "val", "test")
_LOG = "metrics.csv"


class RunError(ValueError):
    """A run that cannot be read: its folder or its log is missing, or the log is empty.

    Example:
        >>> raise RunError("runs/gin has no metrics.csv")
        Traceback (most recent call last):
        graphseq.cli.logs.RunError: runs/gin has no metrics.csv
    """


@dataclass(frozen=True)
class Point:
    """One logged value.

    Args:
        value: the logged value; nan or infinite where the run diverged.
        step: number of optimiser steps done by then; None if it was not logged.
        epoch: number of the epoch, from 0; None if it was not logged.

    Example:
        >>> Point(0.5, step=9, epoch=0).value
        0.5
    """

    value: float
    step: int | None
    epoch: int | None


@dataclass(frozen=True)
class Curve:
    """All values of one column.

    Args:
        stage: ``train``, ``val``, ``test``, or empty for a column such as a learning rate.
        metric: name of the metric without its stage, such as ``acc``.
        points: the values in the order in which they were logged.

    Example:
        >>> Curve("val", "acc", (Point(0.5, 9, 0),)).name
        'val/acc'
    """

    stage: str
    metric: str
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The column's name: ``<stage>/<metric>``."""
        return f"{self.stage}/{self.metric}" if self.stage else self.metric


@dataclass(frozen=True)
class Run:
    """One run's log.

    Args:
        log: CSV file of the run's logger.
        curves: curves of all columns that have at least one value.

    Example:
        >>> Run(Path("runs/gin/version_0/metrics.csv"), ()).folder.name
        'version_0'
    """

    log: Path
    curves: tuple[Curve, ...]

    @property
    def folder(self) -> Path:
        """The folder of the log."""
        return self.log.parent


def best_point(curve: Curve) -> Point | None:
    """Return the best point of a curve, the lowest or highest by its metric; None if no value is finite.

    Args:
        curve: any curve.

    Example:
        >>> best_point(Curve("val", "acc", (Point(0.5, 9, 0), Point(0.7, 19, 1), Point(0.6, 29, 2)))).epoch
        1
    """
    finite = [point for point in curve.points if math.isfinite(point.value)]
    if not finite:
        return None
    return (min if lower_is_better(curve.metric) else max)(finite, key=lambda point: point.value)


def _version(folder: Path) -> int:
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdigit() else -1


def _logs_below(folder: Path) -> list[Path]:
    """Logs at most three folders down, as ``<save_dir>/<name>/version_<n>/`` are; hidden folders are left out."""
    patterns = (_LOG, f"*/{_LOG}", f"*/*/{_LOG}", f"*/*/*/{_LOG}")
    logs = {log for pattern in patterns for log in folder.glob(pattern)}
    return sorted(log for log in logs if not any(part.startswith(".") for part in log.relative_to(folder).parts))


def _runs_below(folder: Path) -> list[str]:
    """Names of the runs in a folder, one name for all versions of a run."""
    names = [log.parent.parent if _version(log.parent) >= 0 else log.parent for log in _logs_below(folder)]
    return list(dict.fromkeys(str(name) for name in names))


def _hint(folder: Path) -> str:
    for place in (folder, Path("runs"), Path("lightning_logs")):
        if place.is_dir() and (runs := _runs_below(place)):
            shown = ", ".join(runs[:8]) + (f" and {len(runs) - 8} more" if len(runs) > 8 else "")
            return f"there is {shown}"
    return "no run was found in runs/ or lightning_logs/ either; a run writes its log when CSVLogger is its logger"


def find_log(path: Path) -> Path:
    """Return the CSV file that a run's path means.

    Args:
        path: CSV file, its folder, or a folder of versions, of which the newest with a log is taken.

    Raises:
        RunError: if there is no log; the message names the searched folders and the runs found.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for version in ("version_9", "version_10"):
        ...     (folder / version).mkdir()
        ...     _ = (folder / version / "metrics.csv").write_text("epoch,step,val/loss")
        >>> find_log(folder).parent.name
        'version_10'
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise RunError(f"there is no {path}; {_hint(path.parent)}")
    if (path / _LOG).is_file():
        return path / _LOG
    versions = [folder for folder in path.glob("version_*") if (folder / _LOG).is_file()]
    if versions:
        return max(versions, key=_version) / _LOG
    below = _logs_below(path)
    if len(below) == 1:
        return below[0]
    looked = f"{path} has neither {_LOG} nor version_*/{_LOG}"
    if below:
        raise RunError(f"{looked}; name one or more of its runs, or draw all with --all: {_hint(path)}")
    raise RunError(f"{looked}; {_hint(path)}")


def find_logs(path: Path) -> list[Path]:
    """Return the CSV files of all runs and versions in a folder, at most three folders down, by name and version.

    Args:
        path: CSV file, the folder of a run, or a folder of runs such as ``runs``.

    Raises:
        RunError: if there is no log.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for version in ("gin/version_10", "gin/version_9"):
        ...     (folder / version).mkdir(parents=True)
        ...     _ = (folder / version / "metrics.csv").write_text("epoch,step,val/loss")
        >>> [log.parent.name for log in find_logs(folder)]
        ['version_9', 'version_10']
    """
    logs = _logs_below(path) if path.is_dir() else []
    return sorted(logs, key=lambda log: (log.parent.parent, _version(log.parent), log)) or [find_log(path)]


def _number(text: str | None, where: str) -> float | None:
    if not text:
        return None  # rows are sparse, and the last one may be cut short while a run goes on
    try:
        return float(text)
    except ValueError:
        raise RunError(f"{where} holds {text!r}, which is not a number") from None


def _split(column: str, columns: Sequence[str]) -> tuple[str, str] | None:
    """Stage and metric of a column; for a value logged per step and per epoch, the column of the epoch is used."""
    if column.endswith("_step") and f"{column.removesuffix('_step')}_epoch" in columns:
        return None
    stage, slash, metric = column.partition("/")
    if not slash or stage not in STAGES:
        stage, metric = "", column
    for suffix in ("_epoch", "_step") if stage else ():
        plain = metric.removesuffix(suffix)
        if f"{stage}/{plain}" not in columns:
            metric = plain
    return stage, metric


def read_run(path: Path) -> Run:
    r"""Read the log of a run.

    Args:
        path: CSV file, its folder, or a folder of versions, see :func:`find_log`.

    Raises:
        RunError: if there is no log, or it holds no values or a cell that is not a number.

    Example:
        >>> import tempfile
        >>> log = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> _ = log.write_text("epoch,step,train/loss,val/acc\n0,9,1.5,\n0,9,,0.5\n")
        >>> [curve.name for curve in read_run(log).curves]
        ['train/loss', 'val/acc']
    """
    log = find_log(path)
    points: dict[str, list[Point]] = {}
    with open(log, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = [name for name in reader.fieldnames or () if name not in ("epoch", "step")]
        for row in reader:
            values = {}
            for name in ("epoch", "step", *columns):
                value = _number(row.get(name), f"line {reader.line_num} of {log}, column {name},")
                if value is not None:
                    values[name] = value
            epoch, step = values.pop("epoch", None), values.pop("step", None)
            for name, value in values.items():
                point = Point(value, None if step is None else int(step), None if epoch is None else int(epoch))
                points.setdefault(name, []).append(point)
    if not points:
        raise RunError(f"{log} holds no values: the run ended, or was read, before anything was logged")
    curves = []
    for name in columns:
        split = _split(name, columns)
        if split and name in points:
            curves.append(Curve(*split, tuple(points[name])))
    return Run(log, tuple(curves))


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return short distinct names of runs: the folder above ``version_<n>``, more of the path where needed.

    Args:
        runs: runs to name.

    Example:
        >>> logs = ("runs/gin/version_0/metrics.csv", "runs/mlp/version_0/metrics.csv")
        >>> run_names([Run(Path(log), ()) for log in logs])
        ['gin', 'mlp']
    """
    choices = []
    for run in runs:
        *above, folder = run.folder.resolve().parts
        versioned = _version(run.folder) >= 0 and above
        short = above[-1:] if versioned else [folder]
        longer = [[*above[-depth:], folder] for depth in range(1, len(above) + 1)]
        choices.append(["/".join(parts) for parts in [short, *longer]])
    level = [0] * len(runs)
    while True:
        names = [choice[min(depth, len(choice) - 1)] for choice, depth in zip(choices, level, strict=True)]
        alike = [index for index, name in enumerate(names) if names.count(name) > 1]
        if all(level[index] >= len(choices[index]) for index in alike):
            return names
        for index in alike:
            level[index] += 1
