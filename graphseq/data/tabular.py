"""Data module of a CSV table of numbers with one target column."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions, StoreDataModule
from graphseq.data.records import is_number
from graphseq.data.splits import check_fractions, random_split, split_bounds
from graphseq.data.store import TensorStore
from graphseq.data.tables import Column, Kind, TextTable

__all__ = ["TabularDataModule"]

TargetKind = Literal["auto", "classification", "regression"]

_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MISSING = {"na", "n/a", "nan", "null", "none", "nil", "#n/a", "?", "-", "."}


class TabularDataModule(StoreDataModule):
    """CSV table with a header: numeric columns as features, one column as the class or number to predict.

    Features are standardised by mean and standard deviation of the training split (:attr:`mean`, :attr:`std`); a
    column that is constant there becomes zero. Targets of a regression are unchanged. Checkpoints hold the
    fitted numbers, so that a network is tested on another table in the units of its training.

    Args:
        path: path of the table, UTF-8 with a header, plain or compressed by gzip.
        target: header of the column to predict.
        features: headers of the feature columns, in this order; None for all columns with a header and at least one
            number except the target. Name the features if one of these columns is a row number.
        task: kind of target: ``classification`` numbers the labels in sorted order (integers by value, else as text);
            ``regression`` takes numbers within float32; ``auto`` is regression if the target's cells are numbers and
            not all of them are written as integers (``3.0`` is not), and classification otherwise. Integer counts need
            ``regression``.
        split: rule of the split: ``stratified`` keeps the share of each class and needs classes, ``random`` does not;
            None for ``stratified`` for classification and ``random`` for regression.
        fractions: fractions of train, validation and test samples, summing to 1; see :func:`random_split`.
        delimiter: ASCII character that separates cells.
        options: further arguments of :class:`StoreDataModule`; transforms are applied to standardised features.

    Yields:
        features float32 (B, D), and targets (B,): int64 for classification, float32 for regression.

    Raises:
        ValueError: if an argument is out of range or unknown.
        DataError: when the data are read, if the table is missing, has rows with too few or too many cells or a quote
            that is not closed, lacks or repeats a column, has a feature that is empty or not a finite number,
            or has fewer than two classes; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "flowers.csv")
        ...     rows = ["length,width,kind", *(f"{i % 7},{i % 5},{'iris' if i % 2 else 'aster'}" for i in range(40))]
        ...     _ = path.write_text(chr(10).join(rows))
        ...     data = TabularDataModule(path, "kind")
        ...     data.num_features, data.num_outputs, data.class_names
        (2, 2, ['aster', 'iris'])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: str,
        *,
        features: Sequence[str] | None = None,
        task: TargetKind = "auto",
        split: Literal["stratified", "random"] | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        delimiter: str = ",",
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            **options,
        )
        if features is not None and (isinstance(features, str) or not features or len(set(features)) != len(features)):
            raise ValueError(f"features is {features!r}; give a list of headers, at least one and each once, or None")
        if features is not None and target in features:
            raise ValueError(f"features has the target {target!r}; leave it out")
        if task not in get_args(TargetKind):
            raise ValueError(f"task is {task!r}; it must be 'auto', 'classification' or 'regression'")
        if split not in (None, "stratified", "random"):
            raise ValueError(f"split is {split!r}; it must be 'stratified', 'random' or None")
        if split == "stratified" and task == "regression":
            raise ValueError("split is 'stratified' and task 'regression', which has no classes; give split='random'")
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError(f"delimiter is {delimiter!r}; give one ASCII character, such as ',' or ';', and no quote")
        self.path = Path(path)
        self.target = target
        self.features = None if features is None else list(features)
        self.task: TargetKind = task
        self.split = split
        self.fractions = check_fractions(fractions)
        self.delimiter = delimiter
        self._values = np.empty((0, 0))
        self._feature_names: list[str] = []
        self._class_names: list[str] = []
        self._mean: list[float] = []
        self._std: list[float] = []

    @property
    def feature_names(self) -> list[str]:
        """Headers of the features, in the order of the columns of a batch."""
        self.load()
        return list(self._feature_names)

    @property
    def class_names(self) -> list[str]:
        """Label of each class, as in the table; empty for regression."""
        self.load()
        return list(self._class_names)

    @property
    def num_features(self) -> int:
        """Number of features."""
        return len(self.feature_names)

    @property
    def input_size(self) -> int:
        """Number of features, under the name that is linked to the width of an MLP."""
        return self.num_features

    @property
    def num_outputs(self) -> int:
        """Number of classes; 1 for regression."""
        return len(self.class_names) or 1

    @property
    def mean(self) -> list[float]:
        """Mean of each feature over the training split."""
        self.load()
        return list(self._mean)

    @property
    def std(self) -> list[float]:
        """Standard deviation of each feature over the training split; 1 where it is zero."""
        self.load()
        return list(self._std)

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return standardised features and targets, and their split."""
        features = self.trained("feature_names", self.features)
        if self.predicting and not self.trained("feature_names"):
            raise DataError(
                f"the checkpoint was trained on other data than a {type(self).__name__}, so it does not say how the "
                f"features of {self.path} are scaled"
            )
        needed = [*(features or []), *([] if self.predicting else [self.target])]
        table = TextTable(self.path, [self.delimiter], header="columns", names=needed)
        repeated = sorted({name for name in table.header if table.header.count(name) > 1})
        if repeated:
            raise DataError(
                f"{self.path} has more than one column {', '.join(map(repr, repeated))}; give each its own header"
            )
        place = {name: position for position, name in enumerate(table.header)}
        kind: Kind = "feature" if features is None else "real"
        named = [name for name in table.header if name not in ("", self.target)]
        wanted = named if features is None else features
        labelled = self.target in place
        target: Column = (place.get(self.target, -1), "text")
        columns = table.read([*((place[name], kind) for name in wanted), *([target] if labelled else [])])
        self._feature_names = [name for name in wanted if (place[name], kind) in columns]
        if not self._feature_names:
            raise DataError(f"{self.path} has no column of numbers beside the target {self.target!r}")
        self._values = np.stack([columns[place[name], kind] for name in self._feature_names], 1)  # (N, D)
        if self.predicting:
            self._class_names = list(self.trained("class_names"))
            self._mean, self._std = list(self.trained("mean")), list(self.trained("std"))
            scaled = self._standardized(table.lines)
            if not labelled:
                return TensorStore(scaled), {}
            known = _known_targets(columns[target], self._class_names)
            complete = bool((known >= 0).all()) if self._class_names else not bool(known.isnan().any())
            return TensorStore(scaled, known), self._split(known) if self.divides(complete) else {}
        found = _classes(table, columns[target], self.target, self.task)
        if found is None:
            numbers: Column = (place[self.target], "float32")
            again = TextTable(self.path, [self.delimiter], header="columns", names=[self.target])
            targets, self._class_names = torch.from_numpy(again.read([numbers])[numbers]), []
        else:
            targets, self._class_names = torch.from_numpy(found[0]), found[1]
        splits = self._split(targets)
        training = self._values[splits["train"].numpy()]
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = training.mean(0), training.std(0)
        beyond = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(std)))
        if len(beyond):
            raise DataError(
                f"{self.path}, column {self._feature_names[beyond[0]]!r}: values up to "
                f"{np.abs(training[:, beyond[0]]).max():g} have no standard deviation in float64; rescale the column"
            )
        # rounding gives constant features a deviation slightly above zero
        constant = (training == training[:1]).all(0)
        self._mean, self._std = mean.tolist(), np.where(constant, 1.0, std).tolist()
        return TensorStore(self._standardized(table.lines), targets), splits

    def _split(self, targets: Tensor) -> dict[str, Tensor]:
        split = self.split or ("stratified" if self._class_names else "random")
        if split == "stratified" and not self._class_names:
            raise DataError(f"the target {self.target!r} of {self.path} is a number; a stratified split needs classes")
        try:
            split_bounds(len(targets), self.fractions)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error
        try:
            return random_split(len(targets), self.fractions, self.seed, targets if split == "stratified" else None)
        except DataError as error:
            hint = "; give split='random'" + (
                ", or task='regression' if the target is a quantity" * (self.task == "auto")
            )
            raise DataError(f"{self.path}: {error}{hint if split == 'stratified' else ''}") from error

    def _standardized(self, lines: np.ndarray | None = None) -> Tensor:
        with np.errstate(over="ignore"):
            values = ((self._values - self._mean) / self._std).astype(np.float32)
        row, column = np.unravel_index(np.argmin(np.isfinite(values)), values.shape)
        if not np.isfinite(values[row, column]):
            raise DataError(
                f"{self.path}{'' if lines is None else f', line {lines[row]}'}, "
                f"column {self._feature_names[column]!r}: "
                f"{self._values[row, column]:g} standardised by mean {self._mean[column]:g} and deviation "
                f"{self._std[column]:g} does not fit into float32; correct it, or leave the column out of features"
            )
        return torch.from_numpy(values)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, columns, classes, fitted mean and deviation."""
        return {
            **super().state_dict(),
            "feature_names": self.feature_names,
            "class_names": self.class_names,
            "mean": self.mean,
            "std": self.std,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and standardise by its mean and standard deviation.

        Raises:
            DataError: if training would resume on another split, or the table has other features or classes.
        """
        super().load_state_dict(state_dict)
        for name, here in (("feature_names", self.feature_names), ("class_names", self.class_names)):
            if state_dict[name] != here:
                raise DataError(
                    f"the checkpoint was trained with {name} {state_dict[name]}, {self.path} gives {here}; "
                    "use a table with the same columns and labels, and name the features"
                )
        if (state_dict["mean"], state_dict["std"]) != (self._mean, self._std):
            self._mean, self._std = list(state_dict["mean"]), list(state_dict["std"])
            _, target = self.store.to("cpu").take(torch.arange(len(self.store)))
            self._host = TensorStore(self._standardized(), target)
            self._resident = None if self._resident is None else self._host.to(self._resident.device)


def _known_targets(column: np.ndarray, class_names: Sequence[str]) -> Tensor:
    """Return the targets of rows to predict: numbers, or the numbers of classes that training knew, -1 for others."""
    cells = [str(cell).strip() for cell in column]
    if not class_names:
        return torch.tensor([float(cell) if is_number(cell) else float("nan") for cell in cells])
    number = {name: position for position, name in enumerate(class_names)}
    return torch.tensor([number.get(_label(cell), -1) for cell in cells])


def _label(cell: str) -> str:
    return str(int(cell)) if _WHOLE.fullmatch(cell) else cell


def _classes(table: TextTable, column: np.ndarray, name: str, task: TargetKind) -> tuple[np.ndarray, list[str]] | None:
    """Return the class of each row and the label of each class; None for regression."""
    cells = [str(cell).strip() for cell in column]
    if "" in cells:
        table.fail(cells.index(""), f", column {name!r}: the target is empty; every row needs one")
    distinct = set(cells)
    whole = all(map(_WHOLE.fullmatch, distinct))
    missing = {cell for cell in distinct if cell.lower() in _MISSING}
    numbers = all(map(is_number, distinct - missing)) and distinct != missing
    if missing and numbers:
        row = next(row for row, cell in enumerate(cells) if cell in missing)
        table.fail(
            row, f", column {name!r}: the target is {cells[row]!r} where others are numbers; drop rows without one"
        )
    if task == "regression" or (task == "auto" and not whole and numbers):
        return None
    # integer labels are compared by value, of any size
    labels: list[Any] = sorted({int(cell) for cell in distinct} if whole else distinct)
    if len(labels) < 2:
        raise DataError(f"{table.path}, column {name!r}: all targets are {cells[0]!r}; two classes are needed")
    place = {label: number for number, label in enumerate(labels)}
    index = [place[int(cell) if whole else cell] for cell in cells]
    return np.array(index, dtype=np.int64), [str(label) for label in labels]
