"""Labels of any kind, such as names, as class numbers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__: list[str] = []


def is_name(label: Any) -> bool:
    """Return whether a label is text, also as a scalar of numpy.

    Args:
        label: any value.

    Example:
        >>> is_name(np.str_("a")), is_name(1)
        (True, False)
    """
    return isinstance(label, str)


def plain_label(label: Any) -> Any:
    """Return a scalar of numpy, or an array without dimensions, as the number or text that it holds.

    Args:
        label: any value, which is returned as it is if it is neither.

    Example:
        >>> plain_label(np.int64(3)), plain_label([1, 2])
        (3, [1, 2])
    """
    if isinstance(label, np.generic) or (isinstance(label, np.ndarray) and not label.ndim):
        return label.item()
    return label


def numbered_labels(labels: Sequence[Any], what: str, names: Sequence[str] = ()) -> tuple[Tensor, list[str]]:
    """Number labels of text from 0 in sorted order, or as in training.

    Args:
        labels: label of each sample, all of them text.
        what: noun phrase for the samples in error messages, such as ``"graph"``.
        names: names of the classes of training, in their order; other labels are numbered -1. Empty for the labels
            themselves.

    Returns:
        Class number of each label, int64 (N,), and the names of the classes.

    Raises:
        DataError: if a label is empty or no text.

    Example:
        >>> numbered_labels(["toxic", "inert", "toxic"], "graph")
        (tensor([1, 0, 1]), ['inert', 'toxic'])
    """
    plain = [plain_label(label) for label in labels]
    for position, label in enumerate(plain):
        if not is_name(label) or not label.strip():
            raise DataError(
                f"the label of {what} {position} is {label!r}, and others are text; every {what} needs a name of its "
                "class, or all need a number"
            )
    classes = list(names) or sorted(set(plain))
    number = {name: position for position, name in enumerate(classes)}
    return torch.tensor([number.get(label, -1) for label in plain]), [str(name) for name in classes]


def check_class_names(trained: Sequence[str], here: Sequence[str]) -> None:
    """Refuse data whose classes have other names, and so other numbers, than those of a checkpoint.

    Args:
        trained: names of the classes in the checkpoint; empty if they had none.
        here: names of the classes of the data.

    Raises:
        DataError: if they differ.

    Example:
        >>> check_class_names(["a", "b"], ["a", "b"])
    """
    if list(trained) != list(here):
        raise DataError(
            f"the checkpoint was trained with class_names {list(trained)}, these data have {list(here)}; use data with "
            "the same classes"
        )


def any_names(labels: Iterable[Any]) -> bool:
    """Return whether some labels are text.

    Args:
        labels: label of each sample.

    Example:
        >>> any_names([1, 2]), any_names(np.array(["a", "b"]))
        (False, True)
    """
    return any(is_name(plain_label(label)) for label in labels)
