"""Splits of a data set as disjoint index tensors that cover it, determined by a seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.errors import DataError

__all__ = [
    "check_fractions",
    "group_split",
    "k_fold_split",
    "ordered_split",
    "pooled_split",
    "random_split",
    "size_split",
]

Split = dict[str, Tensor]


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Return fractions of train, validation and test after a check.

    Args:
        fractions: fractions of train, validation and test samples: three numbers in [0, 1] that sum to 1, the first
            above 0.

    Raises:
        ValueError: if they are not such numbers.

    Example:
        >>> check_fractions([0.8, 0.1, 0.1])
        (0.8, 0.1, 0.1)
    """
    try:
        values = tuple(float(fraction) for fraction in fractions)
    except (TypeError, ValueError):
        raise ValueError(
            f"split fractions are {fractions!r}; give three numbers in [0, 1] for train, val, test that sum to 1"
        ) from None
    if len(values) != 3 or any(not 0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-6:
        raise ValueError(
            f"split fractions are {list(values)}; give three numbers in [0, 1] for train, val, test that sum to 1"
        )
    if values[0] == 0:
        raise ValueError(f"split fractions are {list(values)}; the training fraction must be positive")
    return values


def split_bounds(total: int, fractions: Sequence[float]) -> tuple[int, int]:
    r"""Return where training ends and where validation ends among n = ``total`` samples in order.

    .. math::
        n_\mathrm{train} = [f_\mathrm{train}\, n], \qquad
        n_\mathrm{val} = \Big[\frac{f_\mathrm{val}}{f_\mathrm{val} + f_\mathrm{test}} (n - n_\mathrm{train})\Big]

    where [·] rounds to the nearest integer, halves to the even one, and the rest is the test split. So the sizes sum to
    n, each is less than one sample from its fraction of n, and a fraction of 0 gets no sample.

    Args:
        total: number of samples n.
        fractions: fractions of train, validation and test samples, summing to 1.

    Raises:
        ValueError: if the fractions are not valid.
        DataError: if a fraction above 0 gets no sample.
    """
    train, val, test = check_fractions(fractions)
    first = _nearest(train * total) if val + test else total
    second = first + (_nearest(val / (val + test) * (total - first)) if val else 0)
    for name, fraction, size in (("train", train, first), ("val", val, second - first), ("test", test, total - second)):
        if fraction > 0 and size == 0:
            raise DataError(
                f"{total} samples leave the {name} split empty at fractions {list(fractions)}; give other "
                "fractions, or more samples"
            )
    return first, second


def _nearest(value: float) -> int:
    # rounded to six decimals, so that a half is one on every processor
    return round(round(value, 6))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ordered_split(order: Tensor, fractions: Sequence[float]) -> Split:
    """Split samples in the given order into train, validation and test.

    Training gets the number of samples nearest to its fraction, validation the number nearest to its share of the rest
    (halves are rounded to the even number), and test the remainder. A fraction of 0 gets no sample.

    Args:
        order: samples, int64 (M,).
        fractions: fractions of train, validation and test samples, summing to 1.

    Raises:
        ValueError: if the fractions are not valid.
        DataError: if a fraction above 0 gets no sample.

    Example:
        >>> ordered_split(torch.arange(5), [0.6, 0.2, 0.2])["val"]
        tensor([3])
    """
    train, val, test = order.tensor_split(split_bounds(len(order), fractions))
    return {"train": train, "val": val, "test": test}


def with_val(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Return splits with ``val`` in place of ``valid``, the name that OGB gives to validation.

    Args:
        splits: anything by the name of its split.

    Raises:
        DataError: if both names occur.

    Example:
        >>> with_val({"train": 0, "valid": 1, "test": 2})
        {'train': 0, 'val': 1, 'test': 2}
    """
    if "val" in splits and "valid" in splits:
        raise DataError("splits have both val and valid, which are one split; give one of them")
    return {"val" if name == "valid" else name: part for name, part in splits.items()}


def random_split(total: int, fractions: Sequence[float], seed: int, labels: Tensor | None = None) -> Split:
    """Split at random; stratified by class if labels are given.

    Args:
        total: number of samples.
        fractions: fractions of train, validation and test samples, summing to 1; sizes follow the rounding rule of
            :func:`ordered_split`.
        seed: seed of the random split.
        labels: class of each sample, int64 (N,), for a stratified split.

    Raises:
        ValueError: if the fractions are not valid.
        DataError: if a fraction above 0 gets no sample, or a class has too few samples for a stratified split.

    Example:
        >>> sorted(torch.cat(list(random_split(10, [0.8, 0.1, 0.1], seed=0).values())).tolist()) == list(range(10))
        True
    """
    if labels is not None and len(labels) != total:
        raise ValueError(f"labels has {len(labels)} entries for {total} samples; give one for each sample")
    if labels is None:
        return ordered_split(torch.randperm(total, generator=_generator(seed)), fractions)
    from sklearn.model_selection import StratifiedShuffleSplit  # takes a second, which not every split needs

    first, second = split_bounds(total, fractions)
    num_val, num_test = second - first, total - second
    everything = np.arange(total)
    classes = labels.cpu().numpy()
    rest, test = everything, everything[:0]
    try:
        if num_test:
            rest, test = next(StratifiedShuffleSplit(1, test_size=num_test, random_state=seed).split(classes, classes))
        train, val = rest, rest[:0]
        if num_val:
            cut = StratifiedShuffleSplit(1, test_size=num_val, random_state=seed)
            train, val = (rest[part] for part in next(cut.split(rest, classes[rest])))
    except ValueError as error:
        raise DataError(f"no stratified split of {total} samples at fractions {list(fractions)}: {error}") from error
    return {name: torch.as_tensor(part) for name, part in (("train", train), ("val", val), ("test", test))}


def k_fold_split(
    labels: Tensor, num_folds: int, fold: int, seed: int, val_fraction: float = 0.1, *, val_is_test: bool = False
) -> Split:
    """Stratified k-fold cross-validation: fold ``fold`` is the test split, the validation split is taken from the rest.

    The validation split is stratified. Training gets the number of samples outside the tested fold that is nearest to
    its fraction (halves go to the even number), but at least one, and leaves at least one for validation.

    Args:
        labels: class of each sample, int64 (N,).
        num_folds: number of folds k, at least 2.
        fold: index of the fold to test, 0 to k - 1.
        seed: seed of the folds, which are the same for every ``fold``, and of the validation split.
        val_fraction: fraction of the samples outside the tested fold for the validation split, in [0, 1); 0 for none.
        val_is_test: whether the tested fold is also the validation split and all other folds are training, the protocol
            of arXiv 1810.00826; its results are optimistic, for comparison with published tables only.

    Raises:
        ValueError: if ``fold``, ``num_folds`` or ``val_fraction`` is out of range.
        DataError: if a class has fewer members than folds, or only one sample is left for training and validation.

    Example:
        >>> labels = torch.tensor([0, 1] * 10)
        >>> {name: len(part) for name, part in k_fold_split(labels, 5, 0, seed=0, val_fraction=0.25).items()}
        {'train': 12, 'val': 4, 'test': 4}
    """
    if num_folds < 2 or not 0 <= fold < num_folds:
        raise ValueError(f"fold is {fold} of {num_folds}; give num_folds >= 2 and fold in 0..num_folds-1")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; it must be in [0, 1)")
    from sklearn.model_selection import StratifiedKFold

    _, classes = np.unique(labels.cpu().numpy(), return_inverse=True)
    smallest = int(np.bincount(classes).min(initial=len(classes)))
    if smallest < num_folds:
        raise DataError(f"the smallest class has {smallest} samples, too few for {num_folds} folds")
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    rest, test = (torch.as_tensor(part) for part in list(folds.split(classes, classes))[fold])
    if val_is_test:
        return {"train": rest, "val": test, "test": test}
    if val_fraction == 0:
        return {"train": rest, "val": rest[:0], "test": test}
    if len(rest) < 2:
        raise DataError(f"fold {fold} of {num_folds} leaves {len(rest)} sample; val_fraction needs two, or give 0")
    num_val = min(max(len(rest) - _nearest((1 - val_fraction) * len(rest)), 1), len(rest) - 1)
    train, val = _stratified_cut(classes[rest.numpy()], num_val, seed + fold)
    return {"train": rest[train], "val": rest[val], "test": test}


def _stratified_cut(classes: np.ndarray, num_val: int, seed: int) -> tuple[Tensor, Tensor]:
    """Take ``num_val`` samples, stratified by class; if they are fewer than the classes, from the largest classes."""
    sizes = np.bincount(classes)
    if sizes[sizes > 0].min() > 1 and np.count_nonzero(sizes) <= min(num_val, len(classes) - num_val):
        from sklearn.model_selection import StratifiedShuffleSplit

        cut = StratifiedShuffleSplit(1, test_size=num_val, random_state=seed)
        train, val = next(cut.split(classes, classes))
        return torch.as_tensor(train), torch.as_tensor(val)
    # largest remainders of the shares of classes; ties go to the first class
    shares = sizes * num_val / len(classes)
    counts = np.floor(shares + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(shares - counts, 9), kind="stable")
    counts[order[: num_val - counts.sum()]] += 1
    shuffled = torch.randperm(len(classes), generator=_generator(seed)).numpy()
    val = np.concatenate([shuffled[classes[shuffled] == label][:count] for label, count in enumerate(counts)])
    return torch.as_tensor(np.setdiff1d(shuffled, val)), torch.as_tensor(val)


def size_split(sizes: Tensor, fractions: Sequence[float], seed: int, *, shifted_val: bool = False) -> Split:
    """Split by size: train on small samples and test on the largest.

    Args:
        sizes: size of each sample, such as the number of nodes of each graph, (N,).
        fractions: fractions of train, validation and test samples, summing to 1; sizes follow the rounding rule of
            :func:`ordered_split`.
        seed: seed of the random split of small samples into train and validation, and of the order of equal sizes.
        shifted_val: whether validation samples are larger than those of training; otherwise both are drawn from the
            same sizes.

    Raises:
        ValueError: if the fractions are not valid.
        DataError: if a fraction above 0 gets no sample.

    Example:
        >>> size_split(torch.arange(10), [0.6, 0.2, 0.2], seed=0)["test"].tolist()
        [8, 9]
        >>> size_split(torch.arange(10), [0.6, 0.2, 0.2], seed=0, shifted_val=True)["val"].tolist()
        [6, 7]
    """
    first, second = split_bounds(len(sizes), fractions)
    shuffled = torch.randperm(len(sizes), generator=_generator(seed))
    ascending = shuffled[sizes[shuffled].argsort(stable=True)]
    if shifted_val:
        return ordered_split(ascending, fractions)
    small = ascending[:second]
    small = small[torch.randperm(len(small), generator=_generator(seed + 1))]
    return {"train": small[:first], "val": small[first:], "test": ascending[second:]}


def pooled_split(split: Split, seed: int, fraction: float = 0.1) -> Split:
    """Join training and validation samples, and draw a small validation split from both.

    This is the control of methods that learn from validation samples: it has the same samples, and trains on nearly all
    of them. The new validation split has the distribution of the joined samples, not of the test split.

    Args:
        split: indices of the samples of ``train``, ``val`` and ``test``.
        seed: seed of the random choice of validation samples.
        fraction: fraction of the joined samples for the new validation split, in [0, 1), rounded to the nearest number
            of samples and at least one; 0 for none.

    Raises:
        ValueError: if the fraction is out of range.
        DataError: if a validation sample is also a test sample, or no training samples would be left.

    Example:
        >>> parts = {"train": torch.arange(6), "val": torch.arange(6, 10), "test": torch.arange(10, 12)}
        >>> {name: len(part) for name, part in pooled_split(parts, seed=0).items()}
        {'train': 9, 'val': 1, 'test': 2}
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; it must be in [0, 1)")
    if bool(torch.isin(split["val"], split["test"]).any()):
        raise DataError(
            "validation samples are test samples too, and would be trained on; pool with a split that keeps them apart"
        )
    joined = torch.cat([split["train"], split["val"]])
    joined = joined[torch.randperm(len(joined), generator=_generator(seed))]
    held = max(1, round(fraction * len(joined))) if fraction else 0
    if held >= len(joined):
        raise DataError(f"{len(joined)} samples of training and validation leave nothing to train on")
    return {**split, "train": joined[held:], "val": joined[:held]}


def group_split(groups: Sequence[object], fractions: Sequence[float]) -> Split:
    """Split by group without dividing groups: the largest go to train, then to validation, the rest to test.

    The rule of the scaffold split of MoleculeNet, as DeepChem and OGB apply it: groups in order of falling size, and
    among equals the one that appears last first, go to train until it is full, then to validation until that is full.

    Source: arXiv 1703.00564. The order among equals decides most of validation and test, where every sample is its own
    group, and tables are often sorted by class: scores compare with published ones under the same order only.

    Args:
        groups: group of each sample, such as the scaffold of a molecule.
        fractions: fractions of train, validation and test samples, summing to 1. Train and validation together hold
            at most their fractions; a fraction of 0 gets no sample.

    Raises:
        ValueError: if the fractions are not valid.
        DataError: if a fraction above 0 gets no group.

    Example:
        >>> {name: part.tolist() for name, part in group_split("aabacd", [0.5, 0.25, 0.25]).items()}
        {'train': [0, 1, 3], 'val': [5], 'test': [2, 4]}
    """
    train_fraction, val_fraction, test_fraction = check_fractions(fractions)
    members: dict[object, list[int]] = {}
    for sample, group in enumerate(groups):
        members.setdefault(group, []).append(sample)
    # rounded, so that 0.6 + 0.3 equals 0.9
    train_limit = round(train_fraction * len(groups), 6)
    val_limit = round((train_fraction + val_fraction) * len(groups), 6) if test_fraction else len(groups)
    if not val_fraction:
        train_limit = val_limit
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for samples in sorted(members.values(), key=lambda held: (len(held), held[0]), reverse=True):
        if len(parts["train"]) + len(samples) <= train_limit:
            parts["train"] += samples
        elif len(parts["train"]) + len(parts["val"]) + len(samples) <= val_limit:
            parts["val"] += samples
        else:
            parts["test"] += samples
    empty = [name for name, fraction in zip(parts, fractions, strict=True) if fraction > 0 and not parts[name]]
    if empty:
        raise DataError(
            f"{len(members)} groups leave the {', '.join(empty)} split empty at fractions {list(fractions)}"
        )
    return {name: torch.tensor(sorted(samples), dtype=torch.int64) for name, samples in parts.items()}
