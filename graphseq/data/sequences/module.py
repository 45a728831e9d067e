"""Data modules of labelled sequences: arrays, ``.ts`` files, CSV tables, and Japanese Vowels."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from graphseq.core.batches import IGNORED
from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions
from graphseq.data.cache import raw_files
from graphseq.data.labels import any_names, numbered_labels
from graphseq.data.sequences.base import PaddedDataModule
from graphseq.data.sequences.files import LabelledSequences, read_sequence_csv, read_ts
from graphseq.data.sequences.store import SequenceStore
from graphseq.data.splits import check_fractions, random_split

__all__ = [
    "JapaneseVowelsDataModule",
    "SequenceCSVDataModule",
    "SequenceDataModule",
    "TSDataModule",
]

Split = dict[str, Tensor]


class SequenceDataModule(PaddedDataModule):
    """Data module of your own labelled sequences: packed, standardised and split.

    Features are standardised by mean and standard deviation over all steps of the training split (:attr:`mean`,
    :attr:`std`); a feature that is constant there becomes zero. Checkpoints hold the fitted mean and deviation.

    Memory: 4 bytes for each feature of each step, without padding; see :class:`SequenceStore`.

    Args:
        sequences: arrays or tensors (T_i, D), or (T_i,) for one feature; or a function without arguments that
            returns a :class:`SequenceStore` or such a list (a config can name one).
        labels: class number of each sequence, integers (N,), or its name, text; or regression targets, floating point
            (N,) or (N, K); None for no labels.
        step_labels: class number of each step, arrays (T_i,), -100 for steps without a label; None for no labels of
            steps.
        standardize: whether to standardise features by the training split.
        fractions: shares of train, validation and test, summing to 1.
        stratify: whether each split has the same share of each class, if labels are class numbers.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, T, D), lengths, and ``y`` or ``step_y`` if there are labels.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if there are no labels, or they do not match the sequences.

    Example:
        >>> waves = [[0.1 * n] * (2 + n % 3) for n in range(20)]
        >>> data = SequenceDataModule(waves, [0, 1] * 10, batch_size=4)
        >>> data.num_features, data.num_outputs, next(data.batches()).x.shape[0]
        (1, 2, 4)
    """

    def __init__(
        self,
        sequences: Sequence[Any] | Callable[[], SequenceStore],
        labels: Sequence[Any] | None = None,
        *,
        step_labels: Sequence[Any] | None = None,
        standardize: bool = True,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        stratify: bool = True,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(pool_batches=pool_batches, **options)
        self.sequences = sequences
        self.labels = labels
        self.step_labels = step_labels
        self.standardize = standardize
        self.fractions = check_fractions(fractions)
        self.stratify = stratify
        self._raw: SequenceStore | None = None
        self._class_names: list[str] = []
        self._mean: list[float] = []
        self._std: list[float] = []

    def read_sequences(self) -> tuple[SequenceStore, Split | None]:
        """Return the sequences with their labels, and the splits if these are fixed; for subclasses to override."""
        given = self.sequences() if callable(self.sequences) else self.sequences
        if isinstance(given, SequenceStore):
            return given, None
        y: Any = self.labels
        if y is not None and any_names(y):
            y, self._class_names = numbered_labels(y, "sequence", self.trained("class_names", ()))
        return SequenceStore.from_sequences(given, y=y, step_y=self.step_labels), None

    def read(self) -> tuple[SequenceStore, Split]:
        """Return the standardised sequences and their split."""
        raw, splits = self.read_sequences()
        if self.predicting:
            return self._read_for_prediction(raw, splits)
        if raw.y is None and raw.step_y is None:
            raise DataError(f"{type(self).__name__} has neither labels nor step_labels; give one of them")
        if not raw.x.is_floating_point():
            raise DataError(f"sequences hold {raw.x.dtype}; features must be real numbers: convert them, such as by "
                            "astype('float32'). StringDataModule reads text")  # fmt: skip
        self._raw = raw
        if splits is None:
            splits = self._split(raw)
        self._check_classes(raw, splits)
        if self.standardize:
            self._mean, self._std = _moments(raw, splits["train"])
        else:
            self._mean, self._std = [0.0] * raw.x.shape[1], [1.0] * raw.x.shape[1]
        return self._standardized(raw), splits

    def _read_for_prediction(self, raw: SequenceStore, splits: Split | None) -> tuple[SequenceStore, Split]:
        """Return the sequences in the units of training, split as in training where the label of each is known."""
        if not self.trained("mean"):
            raise DataError(
                f"the checkpoint was trained on other data than a {type(self).__name__}, so it does not say how "
                "features are scaled"
            )
        self._raw = raw
        self._class_names = list(self.trained("class_names"))
        self._mean, self._std = list(self.trained("mean")), list(self.trained("std"))
        if len(self._mean) != raw.x.shape[1]:
            raise DataError(f"the checkpoint was trained with {len(self._mean)} features, these have {raw.x.shape[1]}")
        known = raw.step_y is not None or (
            raw.y is not None and (raw.y.is_floating_point() or bool((raw.y >= 0).all()))
        )
        if not self.divides(known):
            return self._standardized(raw), {}
        return self._standardized(raw), self._split(raw) if splits is None else splits

    def _split(self, raw: SequenceStore) -> Split:
        classes = raw.y if self.stratify and raw.y is not None and not raw.y.is_floating_point() else None
        if classes is not None and classes.dim() != 1:
            classes = None
        return random_split(len(raw), self.fractions, self.seed, classes)

    def _check_classes(self, raw: SequenceStore, splits: Split) -> None:
        for name, target in (("labels", raw.y), ("step_labels", raw.step_y)):
            if target is None:
                continue
            if target.is_floating_point():
                bad = (~torch.isfinite(target)).flatten(1).any(1).nonzero() if target.dim() > 1 else (
                    ~torch.isfinite(target)).nonzero()  # fmt: skip
                if len(bad) and name == "labels":
                    raise DataError(f"{name}[{int(bad[0, 0])}] is not finite; every sequence needs a label")
                continue
            lowest = int(target[target != IGNORED].min()) if bool((target != IGNORED).any()) else -1
            if lowest < 0 or (name == "labels" and bool((target == IGNORED).any())):
                raise DataError(f"{name} reach down to {int(target.min())}; class numbers must be at least 0")
            if name == "labels" and target.dim() == 1 and bool((target == target[0]).all()):
                raise DataError(f"all labels are {int(target[0])}; two classes are needed")

    def _standardized(self, raw: SequenceStore) -> SequenceStore:
        dtype = torch.promote_types(raw.x.dtype, torch.float32)  # of features that float32 cannot tell apart, float64
        mean, std = (torch.tensor(values, dtype=dtype) for values in (self._mean, self._std))
        return SequenceStore(((raw.x - mean) / std).float(), raw.ptr, y=raw.y, step_y=raw.step_y)

    @property
    def num_features(self) -> int:
        """Number of features of each step."""
        self.load()
        return len(self._mean)

    @property
    def num_outputs(self) -> int:
        """Number of classes of sequences, or else of steps; for regression the number of targets."""
        self.load()
        if self._class_names:
            return len(self._class_names)
        raw = self._raw
        target = None if raw is None else raw.step_y if raw.y is None else raw.y
        if target is None:
            raise DataError(f"{type(self).__name__} has no labels")
        if target.dim() > 1 and target.shape[1] > 1:  # several targets of each, such as labels of 0 and 1
            return target.shape[1]
        return 1 if target.is_floating_point() else int(target.max()) + 1

    @property
    def class_names(self) -> list[str]:
        """Label of each class if the data name them, else empty."""
        self.load()
        return list(self._class_names)

    @property
    def mean(self) -> list[float]:
        """Mean of each feature over the steps of the training split; 0 without standardisation."""
        self.load()
        return list(self._mean)

    @property
    def std(self) -> list[float]:
        """Standard deviation of each feature over the steps of the training split; 1 where it is zero."""
        self.load()
        return list(self._std)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, classes, fitted mean and deviation."""
        fitted = {"class_names": self.class_names, "mean": self.mean, "std": self.std}
        return {**super().state_dict(), **fitted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and standardise by its mean and standard deviation.

        Raises:
            DataError: if training would resume on another split, or the data have other features or classes.
        """
        super().load_state_dict(state_dict)
        if state_dict["class_names"] != self.class_names or len(state_dict["mean"]) != self.num_features:
            raise DataError(
                f"the checkpoint was trained with {len(state_dict['mean'])} features and classes "
                f"{state_dict['class_names']}, these data have {self.num_features} and {self.class_names}"
            )
        if self._raw is not None and (state_dict["mean"], state_dict["std"]) != (self._mean, self._std):
            self._mean, self._std = list(state_dict["mean"]), list(state_dict["std"])
            self._host = self._standardized(self._raw)
            self._resident = None if self._resident is None else self._host.to(self._resident.device)

    def take_labelled(self, parts: dict[str, LabelledSequences], val_fraction: float) -> tuple[SequenceStore, Split]:
        """Concatenate the sequences of files, and take a validation split from the training file.

        Args:
            parts: sequences of each split; ``train`` is required, ``val`` and ``test`` are optional.
            val_fraction: share of the training file for the validation split, if ``val`` has no file.

        Raises:
            DataError: if the files have different numbers of features or different classes.
        """
        first = parts["train"]
        for name, part in parts.items():
            if part.x.shape[1] != first.x.shape[1] or part.class_names != first.class_names:
                raise DataError(
                    f"the {name} file has {part.x.shape[1]} features and classes {part.class_names}, the train file "
                    f"{first.x.shape[1]} and {first.class_names}; they must be equal"
                )
        self._class_names = first.class_names
        counts = [len(part.labels) for part in parts.values()]
        ends = np.cumsum([0, *counts])
        splits = {name: torch.arange(ends[n], ends[n + 1]) for n, name in enumerate(parts)}
        y = torch.cat([part.y for part in parts.values()])
        if "val" not in splits:
            inner = random_split(counts[0], [1 - val_fraction, val_fraction, 0.0], self.seed, first.y)
            splits |= {"train": inner["train"], "val": inner["val"]}
        splits.setdefault("test", torch.arange(0))
        steps = [part.ptr.diff() for part in parts.values()]
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cat(steps)]).cumsum(0)
        return SequenceStore(torch.cat([part.x for part in parts.values()]), ptr, y=y), splits


def _moments(raw: SequenceStore, index: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each feature over the steps of the sequences ``index``."""
    inside = torch.zeros(len(raw), dtype=torch.bool)
    inside[index] = True
    steps = raw.x[inside.repeat_interleave(raw.lengths)].double()
    std = steps.std(0, correction=0)
    # rounding gives constant features a deviation slightly above zero
    constant = (steps == steps[:1]).all(0)
    return steps.mean(0).tolist(), torch.where(constant, 1.0, std).tolist()


def _check_val_fraction(val_fraction: float) -> None:
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; it must be in [0, 1)")


class TSDataModule(SequenceDataModule):
    """Labelled sequences from ``.ts`` files, as the UEA and UCR archives publish them; see :func:`read_ts`.

    Args:
        path: path of the training file, plain or ``.gz``.
        test_path: path of the test file; None for no test split.
        val_path: path of the validation file; None takes the split from the training file.
        val_fraction: share of the training sequences for the validation split if ``val_path`` is None, in [0, 1), drawn
            with the same share of each class.
        standardize: whether to standardise features by the training split.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, T, D), lengths and y (B,).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if a file is missing or malformed, see :func:`read_ts`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "small_TRAIN.ts")
        ...     lines = ["@classLabel true a b", "@data", *["1,2,3:a", "4,5:b"] * 10]
        ...     _ = path.write_text(chr(10).join(lines))
        ...     data = TSDataModule(path)
        ...     data.class_names, data.split_sizes()
        (['a', 'b'], {'train': 16, 'val': 4, 'test': 0})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        test_path: str | os.PathLike[str] | None = None,
        *,
        val_path: str | os.PathLike[str] | None = None,
        val_fraction: float = 0.2,
        standardize: bool = True,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__((), standardize=standardize, pool_batches=pool_batches, **options)
        _check_val_fraction(val_fraction)
        self.files: dict[str, str | os.PathLike[str] | None] = {"train": path, "val": val_path, "test": test_path}
        self.val_fraction = val_fraction

    def paths(self) -> dict[str, Path]:
        """Return the file of each split that has one."""
        return {name: Path(path) for name, path in self.files.items() if path is not None}

    def read_sequences(self) -> tuple[SequenceStore, Split]:
        """Return the sequences of all files and their splits."""
        return self.take_labelled({name: read_ts(path) for name, path in self.paths().items()}, self.val_fraction)


class JapaneseVowelsDataModule(TSDataModule):
    """Japanese Vowels: classify 9 speakers by 12 coefficients of a spoken vowel, 7 to 29 steps long.

    270 training sequences, 30 for each speaker, of which a share is the validation split, and 370 test sequences.

    Source: UCI machine learning repository, in the form of the UEA archive.

    Args:
        val_fraction: share of the training sequences for the validation split, in [0, 1).
        verify_checksums: whether to refuse files that differ from the published ones.
        standardize: whether to standardise features by the training split.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, T, 12), lengths and y (B,).

    Raises:
        DataError: when the data are read, if a file is neither in the mirror nor in the cache.

    Example:
        >>> JapaneseVowelsDataModule(batch_size=32).batch_size
        32
    """

    def __init__(
        self,
        *,
        val_fraction: float = 0.2,
        verify_checksums: bool = True,
        standardize: bool = True,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            "JapaneseVowels_TRAIN.ts.gz",
            "JapaneseVowels_TEST.ts.gz",
            val_fraction=val_fraction,
            standardize=standardize,
            pool_batches=pool_batches,
            **options,
        )
        self.verify_checksums = verify_checksums

    def paths(self) -> dict[str, Path]:
        """Return the files in the cache."""
        names = {name: str(file) for name, file in self.files.items() if file is not None}
        found = raw_files(
            "JapaneseVowels", list(names.values()), checksums=_CHECKSUMS if self.verify_checksums else None
        )
        return {name: found[file] for name, file in names.items()}


class SequenceCSVDataModule(SequenceDataModule):
    """Labelled sequences from a CSV table with one line for each step; see :func:`read_sequence_csv`.

    Args:
        path: path of the table, UTF-8, plain or ``.gz``.
        sequence: header of the column that names the sequence of a step.
        target: header of the column with the label of the sequence.
        features: headers of the feature columns; None for all other columns.
        delimiter: character that separates cells.
        standardize: whether to standardise features by the training split.
        fractions: shares of train, validation and test, summing to 1.
        stratify: whether each split has the same share of each class.
        pool_batches: number of batches within which training samples are sorted by length, at least 1; None for a fully
            random order.
        options: further arguments of :class:`PaddedDataModule`.

    Yields:
        ``SequenceBatch`` with x float32 (B, T, D), lengths and y (B,).

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the data are read, if the table is missing or malformed, see :func:`read_sequence_csv`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "steps.csv")
        ...     rows = ["id,speed,kind", *(f"{n // 3},{n % 5},{'run' if n // 3 % 2 else 'walk'}" for n in range(60))]
        ...     _ = path.write_text(chr(10).join(rows))
        ...     SequenceCSVDataModule(path, "id", "kind").class_names
        ['run', 'walk']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sequence: str,
        target: str,
        *,
        features: Sequence[str] | None = None,
        delimiter: str = ",",
        standardize: bool = True,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        stratify: bool = True,
        pool_batches: int | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            (),
            standardize=standardize,
            fractions=fractions,
            stratify=stratify,
            pool_batches=pool_batches,
            **options,
        )
        self.path = Path(path)
        self.sequence = sequence
        self.target = target
        self.features = None if features is None else list(features)
        self.delimiter = delimiter

    def read_sequences(self) -> tuple[SequenceStore, None]:
        """Return the sequences of the table."""
        found = read_sequence_csv(
            self.path, self.sequence, self.target, features=self.features, delimiter=self.delimiter,
            class_names=self.trained("class_names"),
        )  # fmt: skip
        self._class_names = found.class_names
        return SequenceStore(found.x, found.ptr, y=found.y if found.labels else None), None


_CHECKSUMS = {
    "JapaneseVowels_TEST.ts.gz": "b2defceea4a3b652e3807872472d2d333d9246c05fc0cc7bbbe9494d52c70366",
    "JapaneseVowels_TRAIN.ts.gz": "db1a95abb817aaa4d3ab941ffc48107d1a4dbca63cf30c739b3a72de7c4e7091",
}
