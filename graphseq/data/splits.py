"""Splits of a data set as index tensors: made once from a seed, disjoint, covering."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
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
        fractions: three numbers in [0, 1] that sum to 1.

    Raises:
        ValueError: if they are not.

    Example:
        >>> check_fractions([0.8, 0.1, 0.1])
        (0.8, 0.1, 0.1)
    """
    values = tuple(float(fraction) for fraction in fractions)
    if len(values) != 3 or any(not 0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-6:
        raise ValueError(
            f"split fractions are {list(values)}; give three numbers in [0, 1] for train, val, test that sum to 1"
        )
    if values[0] == 0:
        raise ValueError(f"split fractions are {list(values)}; the training fraction must be positive")
    return values


def _counts(total: int, fractions: Sequence[float]) -> tuple[int, int]:
    train, val, _ = check_fractions(fractions)
    num_train, num_val = round(train * total), round(val * total)
    num_val = min(num_val, total - num_train)
    rest = total - num_train - num_val
    for name, fraction, count in (("train", train, num_train), ("val", val, num_val), ("test", fractions[2], rest)):
        if fraction > 0 and count == 0:
            raise DataError(f"{total} samples leave the {name} split empty at fractions {list(fractions)}")
    return num_train, num_val


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ordered_split(order: Tensor, fractions: Sequence[float]) -> Split:
    """Cut an order of samples into train, validation and test.

    Args:
        order: samples, int64 (M,).
        fractions: of train, validation and test, summing to 1.

    Example:
        >>> ordered_split(torch.arange(5), [0.6, 0.2, 0.2])["val"]
        tensor([3])
    """
    num_train, num_val = _counts(len(order), fractions)
    train, val, test = order.split([num_train, num_val, len(order) - num_train - num_val])
    return {"train": train, "val": val, "test": test}


def random_split(total: int, fractions: Sequence[float], seed: int, labels: Tensor | None = None) -> Split:
    """Split at random; with labels, so that every part has the same share of each class.

    Args:
        total: number of samples.
        fractions: of train, validation and test, summing to 1.
        seed: seeds the permutation.
        labels: class of each sample, int64 (N,), for a stratified split.

    Example:
        >>> sorted(torch.cat(list(random_split(10, [0.8, 0.1, 0.1], seed=0).values())).tolist()) == list(range(10))
        True
    """
    if labels is None:
        return ordered_split(torch.randperm(total, generator=_generator(seed)), fractions)
    num_train, num_val = _counts(total, fractions)
    num_test = total - num_train - num_val
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
    """Stratified k-fold cross-validation: fold ``fold`` is the test split, the validation split is cut from the rest.

    Args:
        labels: class of each sample, int64 (N,).
        num_folds: k, at least 2.
        fold: which fold is tested, 0 to k - 1.
        seed: seeds the folds (the same for all of them) and the validation cut.
        val_fraction: share of the training folds that validates, in (0, 1).
        val_is_test: the protocol of arXiv 1810.00826, where the test fold also validates and all other folds
            train; its numbers are optimistic, for comparison with published tables only.

    Raises:
        ValueError: if ``fold`` or ``num_folds`` is out of range.
        DataError: if a class has fewer members than folds.

    Example:
        >>> labels = torch.tensor([0, 1] * 10)
        >>> {name: len(part) for name, part in k_fold_split(labels, 5, 0, seed=0, val_fraction=0.25).items()}
        {'train': 12, 'val': 4, 'test': 4}
    """
    if num_folds < 2 or not 0 <= fold < num_folds:
        raise ValueError(f"fold is {fold} of {num_folds}; give num_folds >= 2 and fold in 0..num_folds-1")
    classes = labels.cpu().numpy()
    smallest = int(np.bincount(classes)[np.unique(classes)].min())
    if smallest < num_folds:
        raise DataError(f"the smallest class has {smallest} samples, too few for {num_folds} folds")
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    rest, test = list(folds.split(classes, classes))[fold]
    if val_is_test:
        return {"train": torch.as_tensor(rest), "val": torch.as_tensor(test), "test": torch.as_tensor(test)}
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; it must be in (0, 1)")
    cut = random_split(len(rest), [1 - val_fraction, val_fraction, 0.0], seed + fold, torch.as_tensor(classes[rest]))
    inner = torch.as_tensor(rest)
    return {"train": inner[cut["train"]], "val": inner[cut["val"]], "test": torch.as_tensor(test)}


def size_split(sizes: Tensor, fractions: Sequence[float], seed: int, *, shifted_val: bool = False) -> Split:
    """Train on small samples and test on the largest, a shift in size.

    Args:
        sizes: size of each sample, such as nodes of each graph, (N,).
        fractions: of train, validation and test, summing to 1.
        seed: seeds the cut of small samples into train and validation, and the order of equal sizes.
        shifted_val: whether validation samples are larger than those of training; otherwise they are drawn from the
            same sizes.

    Example:
        >>> size_split(torch.arange(10), [0.6, 0.2, 0.2], seed=0)["test"].tolist()
        [8, 9]
        >>> size_split(torch.arange(10), [0.6, 0.2, 0.2], seed=0, shifted_val=True)["val"].tolist()
        [6, 7]
    """
    num_train, num_val = _counts(len(sizes), fractions)
    shuffled = torch.randperm(len(sizes), generator=_generator(seed))
    ascending = shuffled[sizes[shuffled].argsort(stable=True)]
    if shifted_val:
        return ordered_split(ascending, fractions)
    small = ascending[: num_train + num_val]
    small = small[torch.randperm(len(small), generator=_generator(seed + 1))]
    return {"train": small[:num_train], "val": small[num_train:], "test": ascending[num_train + num_val :]}


def pooled_split(split: Split, seed: int, fraction: float = 0.1) -> Split:
    """Join training and validation samples, and draw a few of both for the choice of a model.

    The control of methods that learn from validation samples: it sees the same samples, and trains on nearly all of
    them. The few that are left out of training are distributed as the joined samples are, not as the test is.

    Args:
        split: samples by ``train``, ``val`` and ``test``.
        seed: seeds the draw.
        fraction: share of the joined samples that validates, in [0, 1); 0 for none.

    Raises:
        ValueError: if the fraction is out of range.
        DataError: if validation samples are test samples as well, or nothing would be left to train on.

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
    """Keep groups whole: the largest go to train, then to validation, the rest to test.

    The rule of the scaffold split of MoleculeNet, as DeepChem and OGB apply it: groups in order of falling size, and
    among equals the one that appears last first, go to train until it is full, then to validation until that is full.

    Source: arXiv 1703.00564. The order among equals decides most of validation and test, where every sample is its own
    group, and tables are often sorted by class: scores compare with published ones under the same order only.

    Args:
        groups: the group of each sample, such as the scaffold of a molecule.
        fractions: of train, validation and test, summing to 1.

    Example:
        >>> {name: part.tolist() for name, part in group_split("aabacd", [0.5, 0.25, 0.25]).items()}
        {'train': [0, 1, 3], 'val': [5], 'test': [2, 4]}
    """
    train_fraction, val_fraction, _ = check_fractions(fractions)
    members: dict[object, list[int]] = {}
    for sample, group in enumerate(groups):
        members.setdefault(group, []).append(sample)
    train_limit = train_fraction * len(groups)
    val_limit = (train_fraction + val_fraction) * len(groups)
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
