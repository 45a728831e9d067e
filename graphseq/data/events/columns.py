"""Checks of the columns of a stream: ids, times, features and labels, as tensors or from a data frame."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.dates import seconds, seconds_of
from graphseq.core.errors import DataError

__all__: list[str] = []


def as_column(value: Any) -> Any:
    """Return an array of numbers as a tensor, and anything else as it is.

    Args:
        value: given column.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))  # a copy: arrays may be read-only


def integers(name: str, value: Tensor) -> Tensor:
    """Return a column of integers as int64.

    Args:
        name: name of the column for error messages.
        value: given column.

    Raises:
        DataError: if it is something else, or does not fit into int64.
    """
    if not isinstance(value, Tensor) or value.dim() != 1 or value.is_floating_point() or value.is_complex():
        remedy = "" if isinstance(value, Tensor) else ", as a tensor or an array of numpy"
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 1:
            missing = value.isnan().nonzero()
            remedy = f"; entry {int(missing[0])} is missing: fill it in or drop its row" if len(missing) else ""
            remedy += "; float64 tells whole numbers apart below 2**53 only, so convert them where they are read"
        raise DataError(f"{name} is {_kind(value)}; integers of shape (E,) are needed{remedy}")
    return _int64(name, value)


def _int64(name: str, value: Tensor) -> Tensor:
    found = value.to(torch.int64)
    if value.dtype == torch.uint64 and bool((found < 0).any()):
        at = int((found < 0).nonzero()[0])
        raise DataError(f"{name} of event {at} is {int(found[at]) + 2**64}, which does not fit into int64")
    return found


def times(t: Tensor) -> Tensor:
    """Return times as int64 or float64.

    Args:
        t: given times (E,).

    Raises:
        DataError: if they are something else, not finite, or so large that their type does not tell neighbours apart.
    """
    if not isinstance(t, Tensor) or t.dim() != 1 or t.dtype == torch.bool or t.is_complex():
        raise DataError(f"t is {_kind(t)}; integers or float64 of shape (E,) are needed")
    if not t.is_floating_point():
        return _int64("t", t)
    bad = ~torch.isfinite(t)
    if bool(bad.any()):
        raise DataError(
            f"t holds {int(bad.sum())} NaN or infinite times, the first at event {int(bad.nonzero()[0])}; "
            "drop these events or give them a time"
        )
    limit = 2 / torch.finfo(t.dtype).eps
    if len(t) and float(t.abs().max()) >= limit:
        largest = float(t.abs().max())
        step = torch.finfo(t.dtype).eps * 2 ** np.floor(np.log2(largest))
        kept = "int64, which holds whole numbers below 2**63" if t.dtype == torch.float64 else "int64 or float64"
        raise DataError(
            f"t is {t.dtype} and reaches {largest:.0f}, where neighbouring numbers are {step:g} apart: the order of "
            f"events is lost already. Read the times as {kept}; do not convert them back"
        )
    return t.to(torch.float64)


def features(msg: Tensor) -> Tensor:
    """Return features as float32.

    Args:
        msg: given features (E, D).

    Raises:
        DataError: if they are something else, or not finite.
    """
    if not isinstance(msg, Tensor) or msg.dim() != 2 or msg.is_complex():
        raise DataError(f"msg is {_kind(msg)}; features of shape (E, D) are needed, D = 1 for one number an event")
    msg = msg.to(torch.float32)
    # the sum is finite unless an entry is not, and costs no memory; only then is the place sought
    if not bool(torch.isfinite(msg.sum())):
        bad = (~torch.isfinite(msg)).nonzero()
        if len(bad):
            at = bad[0].tolist()
            raise DataError(f"msg holds {len(bad)} NaN or infinite values, the first at event {at[0]}, feature {at[1]}")
    return msg


def labels(y: Tensor) -> Tensor:
    """Return labels after a check.

    Args:
        y: given labels (E,).

    Raises:
        DataError: if they are something else, or not finite.
    """
    if not isinstance(y, Tensor) or y.dim() != 1 or y.is_complex():
        raise DataError(f"y is {_kind(y)}; labels of shape (E,) are needed, one number for each event")
    bad = (~torch.isfinite(y)).nonzero()
    if len(bad):
        raise DataError(
            f"y holds {len(bad)} NaN or infinite labels, the first at event {int(bad[0])}; drop these events or give "
            "them a label"
        )
    return y


def frame_names(name: str, column: Any) -> np.ndarray | None:
    """Return a column of a frame with text as an array of objects, or None if its first cell is no text.

    Args:
        name: name of the column for error messages.
        column: column of a frame.

    Raises:
        DataError: if a cell is empty or of another kind than the first.
    """
    values = np.asarray(column, dtype=object) if getattr(column, "dtype", None) is not None else np.asarray(column)
    if values.ndim != 1 or not len(values) or not isinstance(values[0], str):
        return None
    for row, cell in enumerate(values):
        if not isinstance(cell, str) or not cell:
            raise DataError(
                f"column {name}, row {row}: the id is {cell!r}, and the first of the column is text; every event needs "
                "an id, and all of a column are of one kind: convert them by frame.astype({...: str})"
            )
    return values


def frame_column(name: str, column: Any, *, dates: bool = False) -> Tensor:
    """Return a column of a frame as numbers; dates become seconds since 1970, in UTC if they have a time zone.

    Args:
        name: name of the column for error messages.
        column: column of a frame.
        dates: whether text may hold dates in ISO 8601.

    Raises:
        DataError: if it holds neither numbers nor dates.
    """
    values = np.asarray(column)
    if values.ndim != 1:
        raise DataError(f"the frame has more than one column {name!r}; give each its own name")
    if getattr(getattr(column, "dtype", None), "tz", None) is not None:
        values = np.asarray(column.dt.tz_convert("UTC").dt.tz_localize(None))
    if values.dtype.kind == "M":
        values = seconds(f"column {name}", values)
    elif dates and values.dtype.kind in "OU":
        found = seconds_of(f"column {name}", values.tolist()) if all(isinstance(v, str) for v in values) else None
        values = values if found is None else found
    if values.dtype.kind not in "iufb":
        stamps = [row for row, value in enumerate(values) if hasattr(value, "utcoffset")][:1]
        remedy = (
            f"row {stamps[0]} is the date {values[stamps[0]]}: convert the column by pandas.to_datetime(..., utc=True)"
            if stamps
            else "convert it by .dt.total_seconds()"
            if values.dtype.kind == "m"
            else "convert ids and numbers by frame.astype({...: 'int64'}), or ids to text by 'str'; number classes "
            "from 0 with pandas.factorize; and fill or drop missing entries"
        )
        raise DataError(f"column {name} holds {values.dtype}; numbers are needed: {remedy}")
    if values.dtype == np.uint64:
        beyond = np.flatnonzero(values > np.uint64(2**63 - 1))
        if len(beyond):
            raise DataError(f"column {name}, row {beyond[0]}: {values[beyond[0]]} does not fit into int64")
        values = values.astype(np.int64)
    return torch.from_numpy(np.array(values))  # a copy: frames hand out memory that is theirs


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"a {type(value).__name__}{f' of {value.dtype}' if isinstance(value, np.ndarray) else ', not a tensor'}"
