"""Few-shot training splits: a fixed number of labelled samples, in total or of each class."""

import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = ["few_shots"]


def few_shots(
    train: Tensor, target: Tensor, seed: int, *, num_shots: int | None = None, shots_per_class: int | None = None
) -> Tensor:
    """Draw a few labelled samples of a training split.

    Samples without a known label are never drawn. With one label for each sample every class must be drawn, and with
    the same seed a larger number contains the samples of a smaller one.

    Args:
        train: positions of the training samples.
        target: labels of all samples: classes, int64 (N,) or (N, 1); 0, 1 or NaN (N, K); or numbers or NaN (N, K).
        seed: seed of the random choice.
        num_shots: number of samples to draw in total.
        shots_per_class: number of samples to draw of each class, if each sample has one label.

    Returns:
        Positions of the drawn samples, in the order of the split.

    Raises:
        ValueError: if not exactly one number is given, or it is below 1.
        DataError: if there are too few labelled samples, a class has too few or none, or samples have several labels
            and ``shots_per_class`` is given.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> labels[few_shots(torch.arange(6), labels, seed=0, shots_per_class=2)]
        tensor([0, 0, 1, 1])
    """
    if (num_shots is None) == (shots_per_class is None):
        raise ValueError(f"num_shots is {num_shots} and shots_per_class is {shots_per_class}; give one of them")
    for name, number in (("num_shots", num_shots), ("shots_per_class", shots_per_class)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")
    rows = target.reshape(len(target), -1)[train]
    known = ~torch.isnan(rows).all(1) if rows.is_floating_point() else torch.ones(len(rows), dtype=torch.bool)
    shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled[known[shuffled]]
    classes = _classes(rows, known)
    if shots_per_class is None:
        count = num_shots or 0
        if len(shuffled) < count:
            raise DataError(
                f"num_shots is {count}, and {len(shuffled)} of {len(train)} training samples have a known label"
            )
        drawn = shuffled[:count]
        if classes is not None:
            missing = set(classes[known].unique().tolist()) - set(classes[drawn].unique().tolist())
            if missing:
                raise DataError(
                    f"class {min(missing)} has none of the {count} shots; give shots_per_class, or another seed"
                )
        return train[drawn.sort().values]
    if classes is None:
        raise DataError(
            f"shots_per_class is {shots_per_class}, and samples have {rows.shape[1]} targets or numbers; give num_shots"
        )
    label = classes[shuffled]
    order = label.argsort(stable=True)
    present, counts = label[order].unique_consecutive(return_counts=True)
    number = int(target.max()) + 1 if not target.is_floating_point() else 2
    absent = set(range(number)) - set(present.long().tolist())
    if absent:
        raise DataError(f"class {min(absent)} has no training sample to draw {shots_per_class} shots from")
    if int(counts.min()) < shots_per_class:
        least = int(counts.argmin())
        raise DataError(
            f"class {int(present[least])} has {int(counts[least])} labelled training samples, fewer than "
            f"shots_per_class={shots_per_class}"
        )
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return train[shuffled[order[rank < shots_per_class]].sort().values]


def _classes(rows: Tensor, known: Tensor) -> Tensor | None:
    """Return the class of each sample; None if samples have several labels, or numbers."""
    if rows.shape[1] != 1:
        return None
    column = rows[:, 0]
    if column.is_floating_point() and not bool(((column == 0) | (column == 1))[known].all()):
        return None
    return column
