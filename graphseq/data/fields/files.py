"""Data module of fields in a file of one's own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions
from graphseq.data.fields.module import FieldDataModule
from graphseq.data.splits import check_fractions, random_split

__all__ = ["FieldFileDataModule"]


class FieldFileDataModule(FieldDataModule):
    """Fields of a file of your own, split at random.

    Args:
        path: path of a file ``.npz`` of NumPy with arrays ``x`` and ``y``, or of a file ``.pt`` of torch with a
            dictionary of tensors ``x`` and ``y``: inputs (N, C, Y, X) and outputs (N, C', Y, X), or (N, Y, X) for one
            channel. NaN in outputs are unknown values, which only losses of single numbers take.
        fractions: shares of train, validation and test, summing to 1.
        options: further arguments of :class:`StoreDataModule`; ``seed`` is also the seed of the split.

    Yields:
        inputs float32 (B, C, Y, X) and outputs float32 (B, C', Y, X).

    Raises:
        ValueError: if an argument is out of range, or the file has another ending.
        DataError: when the data are read, if the file is missing or damaged, lacks an array, or arrays do not fit.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "flow.npz")
        ...     np.savez(path, x=np.zeros((10, 16, 16)), y=np.ones((10, 2, 16, 16)))
        ...     data = FieldFileDataModule(path)
        ...     data.num_features, data.num_outputs, data.split_sizes()
        (1, 2, {'train': 8, 'val': 1, 'test': 1})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(**options)
        self.path = Path(path)
        if self.path.suffix not in (".npz", ".pt"):
            raise ValueError(f"path is {str(path)!r}; give a file .npz of NumPy or .pt of torch")
        self.fractions = check_fractions(fractions)

    def fields(self) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return the fields of the file, and their splits."""
        held = _read(self.path)
        needed = ("x",) if self.predicting else ("x", "y")
        found = {name: _numbers(self.path, name, held[name]) for name in ("x", "y") if name in held}
        for name in needed:
            if name not in found:
                raise DataError(f"{self.path} has no array {name!r}, only {', '.join(sorted(held)) or 'none'}")
        for name, values in found.items():
            found[name] = values = values[:, None] if values.dim() == 3 else values
            if values.dim() != 4 or not values.is_floating_point():
                raise DataError(
                    f"{name} of {self.path} is {values.dtype} {tuple(values.shape)}; real numbers (N, C, Y, X) or "
                    "(N, Y, X) are needed"
                )
            unknown = values.isnan() if name == "y" else torch.zeros((), dtype=torch.bool)
            if not bool((values.isfinite() | unknown).all()):
                raise DataError(f"{name} of {self.path} is not finite everywhere; leave those samples out")
            if not bool((values.float().isfinite() | unknown).all()):
                raise DataError(f"{name} of {self.path} has values that do not fit into float32; rescale them")
        x, y = found["x"], found.get("y")
        if y is not None and (len(y) != len(x) or y.shape[2:] != x.shape[2:]):
            raise DataError(
                f"x of {self.path} is {tuple(x.shape)} and y {tuple(y.shape)}; both need the same samples and grid"
            )
        return x, y, random_split(len(x), self.fractions, self.seed) if self.divides(y is not None) else {}


def _numbers(path: Path, name: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} of {path} is a {type(values).__name__} that holds no numbers: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"there is no file {path}; give the path of a file .npz or .pt")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        held = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # each damage has an exception of its own
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(held, dict):
        raise DataError(f"{path} holds a {type(held).__name__}; a dictionary of tensors x and y is needed")
    return held
