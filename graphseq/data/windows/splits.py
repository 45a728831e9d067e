"""Splits of windows by the time of what they predict."""

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["window_split"]


def window_split(
    steps: int,
    window: int,
    horizon: int,
    *,
    val: int | float = 0.1,
    test: int | float = 0.2,
    fold: int = 0,
    num_folds: int = 1,
    stride: int = 1,
    eval_stride: int = 1,
) -> tuple[dict[str, Tensor], int]:
    """Split windows by the steps that they predict: training, then validation, then test, none of them shared.

    With ``num_folds`` above 1 the test steps are divided into that many consecutive parts of equal length, the last of
    which takes the remainder. Fold k is tested on part k, validated on the steps before it, and trained on all steps
    before those (evaluation by rolling origin). A window that predicts steps of two parts is in neither.

    Args:
        steps: number of steps of the series.
        window: number of steps that a network reads, at least 1.
        horizon: number of steps to predict, at least 1.
        val: validation steps, as a share (float in [0, 1)) or a number of steps (int); 0 for no validation.
        test: test steps, in the same way.
        fold: number of the fold, in 0..num_folds-1.
        num_folds: number of folds, at least 1.
        stride: distance between the starts of two training windows, at least 1.
        eval_stride: the same for validation and test; ``horizon`` predicts each step once.

    Returns:
        starts of the windows of ``train``, ``val`` and ``test``, int64, and the number of steps of the training span.

    Raises:
        ValueError: if an argument is out of range.
        DataError: if the steps of a split hold no window.

    Example:
        >>> splits, span = window_split(20, window=3, horizon=2, val=4, test=5)
        >>> {name: starts.tolist() for name, starts in splits.items()}, span
        ({'train': [0, 1, 2, 3, 4, 5, 6], 'val': [8, 9, 10], 'test': [12, 13, 14, 15]}, 11)
    """
    for name, number in (("window", window), ("horizon", horizon), ("stride", stride), ("eval_stride", eval_stride)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is {number!r}; it must be an integer of at least 1")
    if num_folds < 1 or not 0 <= fold < num_folds:
        raise ValueError(f"fold is {fold} of num_folds {num_folds}; it must be in 0..num_folds-1")
    num_val, num_test = (_steps(name, share, steps) for name, share in (("val", val), ("test", test)))
    part = num_test // num_folds
    begin_test = steps - num_test + fold * part
    end = steps if fold == num_folds - 1 else begin_test + part
    begin_val = begin_test - num_val
    splits = {
        "train": torch.arange(0, begin_val - window - horizon + 1, stride)
        if begin_val >= window + horizon
        else _none(),
        "val": _starts(begin_val, begin_test, window, horizon, eval_stride),
        "test": _starts(begin_test, end, window, horizon, eval_stride),
    }
    wanted = {"train": max(begin_val, 0), "val": num_val, "test": end - begin_test}
    for name, starts in splits.items():
        if not len(starts) and (name == "train" or {"val": num_val, "test": num_test}[name]):
            raise DataError(
                f"the {name} split has {wanted[name]} of {steps} steps, too few for a window of {window} and a horizon "
                f"of {horizon}; give longer series, a smaller window or horizon, or other sizes of val and test"
            )
    return splits, begin_val


def _steps(name: str, share: int | float, steps: int) -> int:
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or (isinstance(share, float) and not 0 <= share < 1) or share < 0:
        raise ValueError(f"{name} is {share!r}; give a share in [0, 1) as float, or a number of steps as int")
    return round(share * steps) if isinstance(share, float) else share


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


def _starts(begin: int, end: int, window: int, horizon: int, stride: int) -> Tensor:
    """Windows whose predicted steps lie within ``begin..end-1``; the last is always among them."""
    first, last = begin - window, end - window - horizon
    if first < 0 or last < first:
        return _none()
    # counted from the end, so that the most recent steps are always predicted
    return torch.arange(last, first - 1, -stride).flip(0)
