"""Your own table: a CSV file of numbers with one target column."""

import csv as csv_format
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError
from graphseq.data.base import StoreDataModule
from graphseq.data.splits import check_fractions, random_split
from graphseq.data.store import TensorStore

__all__ = ["TabularDataModule"]

TargetKind = Literal["auto", "classification", "regression"]


class TabularDataModule(StoreDataModule):
    """A CSV table with a header: columns of numbers as features, one column as the class or number to predict.

    Features are standardised by mean and standard deviation of the training split (:attr:`mean`, :attr:`std`); a
    column that is constant there becomes zero. Targets of a regression stay as they are. The numbers fitted are kept
    in checkpoints: a network tested on another table sees it in the units that it was trained with.

    Args:
        csv: path of the table, UTF-8.
        target: header of the column to predict.
        features: headers of the features, in this order; None takes every column that has a header and at least one
            number in it, but the target: name them if one is a mere row number.
        task: ``classification`` numbers the labels in sorted order (whole numbers by value, else as text);
            ``regression`` takes numbers; ``auto`` is regression if the target's cells are numbers and not all of
            them whole, as in ``3.0``, and classification otherwise. Whole numbers that count something need
            ``regression``.
        split: ``stratified`` (needs a class of each row) or ``random``; None is stratified for classification and
            random for regression.
        fractions: of train, validation and test, summing to 1.
        delimiter: character between cells.
        batch_size: see :class:`StoreDataModule`.
        eval_batch_size: see :class:`StoreDataModule`.
        seed: see :class:`StoreDataModule`.
        device_resident: see :class:`StoreDataModule`.
        drop_last: see :class:`StoreDataModule`.
        train_transform: see :class:`StoreDataModule`; gets standardised features.
        eval_transform: see :class:`StoreDataModule`; gets standardised features.

    Yields:
        features float32 (B, D), and targets (B,): int64 for classification, float32 for regression.

    Raises:
        ValueError: if an argument is not valid.
        DataError: when the data are read, if the table is missing or not rectangular, lacks a column, has a cell
            that is empty or no finite number where one is needed, or has fewer than two classes.

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
        csv: str | os.PathLike[str],
        target: str,
        *,
        features: Sequence[str] | None = None,
        task: TargetKind = "auto",
        split: Literal["stratified", "random"] | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        delimiter: str = ",",
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        seed: int = 0,
        device_resident: bool | Literal["auto"] = "auto",
        drop_last: bool = False,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
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
        if len(delimiter) != 1:
            raise ValueError(f"delimiter is {delimiter!r}; give one character, such as ',' or ';'")
        self.csv = Path(csv)
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
        """Label of each class as the table has it; empty for regression."""
        self.load()
        return list(self._class_names)

    @property
    def num_features(self) -> int:
        """Number of features."""
        return len(self.feature_names)

    @property
    def input_size(self) -> int:
        """Number of features, under the name by which the width of an MLP is linked."""
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
        table = _Table(self.csv, self.delimiter)
        self._feature_names = self.features or table.numeric_columns(but=self.target)
        self._values = np.stack([table.numbers(name) for name in self._feature_names], 1)
        target, self._class_names = table.target(self.target, self.task)
        split = self.split or ("stratified" if self._class_names else "random")
        if split == "stratified" and not self._class_names:
            raise DataError(f"the target {self.target!r} of {self.csv} is a number; a stratified split needs classes")
        try:
            splits = random_split(len(target), self.fractions, self.seed, target if split == "stratified" else None)
        except DataError as error:
            hint = "; give split='random'" + (
                ", or task='regression' if the target is a quantity" * (self.task == "auto")
            )
            raise DataError(f"{self.csv}: {error}{hint if split == 'stratified' else ''}") from error
        training = self._values[splits["train"].numpy()]
        std = training.std(0)
        # the deviation of equal numbers is seldom exactly zero
        constant = (training == training[:1]).all(0)
        self._mean, self._std = training.mean(0).tolist(), np.where(constant, 1.0, std).tolist()
        return TensorStore(self._standardized(), target), splits

    def _standardized(self) -> Tensor:
        return torch.from_numpy(((self._values - self._mean) / self._std).astype(np.float32))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the data: splits, columns, classes, fitted mean and deviation."""
        return {
            **super().state_dict(),
            "feature_names": self.feature_names,
            "class_names": self.class_names,
            "mean": self.mean,
            "std": self.std,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare a checkpoint's data with these, and standardise by its mean and standard deviation.

        Raises:
            DataError: if training would resume on another split, or the table has other features or classes.
        """
        super().load_state_dict(state_dict)
        for name, here in (("feature_names", self.feature_names), ("class_names", self.class_names)):
            if state_dict[name] != here:
                raise DataError(
                    f"the checkpoint was trained with {name} {state_dict[name]}, {self.csv} gives {here}; "
                    "use a table with the same columns and labels, and name the features"
                )
        if (state_dict["mean"], state_dict["std"]) != (self._mean, self._std):
            self._mean, self._std = list(state_dict["mean"]), list(state_dict["std"])
            _, target = self.store.to("cpu").take(torch.arange(len(self.store)))
            self._host = TensorStore(self._standardized(), target)
            self._resident = None if self._resident is None else self._host.to(self._resident.device)


class _Table:
    """Cells of a CSV file by column, as text."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path = path
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv_format.reader(file, delimiter=delimiter, strict=True)
                header = [name.strip() for name in next(reader, [])]
                rows, self._lines = [], []
                for row in reader:
                    if not row:
                        continue  # a blank line, as at the end of many files
                    if len(row) != len(header):
                        raise DataError(
                            f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}; "
                            f"every row needs one for each column, parted by {delimiter!r}"
                        )
                    rows.append(row)
                    self._lines.append(reader.line_num)
        except (OSError, UnicodeDecodeError, csv_format.Error) as error:
            raise DataError(f"csv is {str(path)!r}, which cannot be read as a table ({error})") from error
        if not rows:
            raise DataError(f"{path} has no rows below its header; give a table with a header and samples")
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise DataError(
                f"{path} has more than one column {', '.join(map(repr, repeated))}; give each its own header"
            )
        self._cells = dict(zip(header, zip(*rows, strict=True), strict=True))

    def cells(self, name: str) -> Sequence[str]:
        if name not in self._cells:
            raise DataError(f"{self.path} has no column {name!r}; its columns are {', '.join(self._cells)}")
        return self._cells[name]

    def numeric_columns(self, but: str) -> list[str]:
        self.cells(but)  # a wrong target is named first
        found = [name for name, cells in self._cells.items() if name not in ("", but) and any(map(_is_number, cells))]
        if not found:
            raise DataError(f"{self.path} has no column of numbers beside the target {but!r}")
        return found

    def numbers(self, name: str) -> np.ndarray:
        cells = self.cells(name)
        try:
            values = np.array([float(cell) for cell in cells])
        except ValueError:
            values = np.array([float(cell) if _is_number(cell) else math.nan for cell in cells])
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"{self.path}, line {self._lines[first]}, column {name!r}: {cells[first]!r} is no finite number "
                f"({len(wrong)} such cells in this column); fill them in, drop the rows, or leave it out of features"
            )
        return values

    def target(self, name: str, task: TargetKind) -> tuple[Tensor, list[str]]:
        """Targets, and the names of the classes; none of these for numbers."""
        cells = [cell.strip() for cell in self.cells(name)]
        empty = next((line for line, cell in zip(self._lines, cells, strict=True) if not cell), None)
        if empty is not None:
            raise DataError(f"{self.path}, line {empty}, column {name!r}: the target is empty; every row needs one")
        whole = all(map(_is_whole, cells))
        if task == "regression" or (task == "auto" and not whole and all(map(_is_number, cells))):
            return torch.from_numpy(self.numbers(name).astype(np.float32)), []
        labels, index = np.unique([int(cell) for cell in cells] if whole else cells, return_inverse=True)
        if len(labels) < 2:
            raise DataError(f"{self.path}, column {name!r}: all targets are {cells[0]!r}; two classes are needed")
        return torch.from_numpy(index.astype(np.int64)), [str(label) for label in labels]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    try:
        int(cell)
    except ValueError:
        return False
    return True
