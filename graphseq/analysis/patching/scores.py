"""Effects by layer and position, and how well two estimates of them agree."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["PatchingScores"]


@dataclass(frozen=True)
class PatchingScores:
    """Effect of each activation on the metric, by kind, layer and position.

    Args:
        values: effects of each site (layers, positions), by its name.
        layers: names of the layers of each site.

    Example:
        >>> one = PatchingScores({"mlp": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
        >>> two = PatchingScores({"mlp": torch.tensor([[1.0, 2.0], [3.0, 9.0]])})
        >>> round(one.pearson(two)["mlp"], 2), round(one.spearman(two)["mlp"], 2), one.topk_overlap(two, 2)["mlp"]
        (0.9, 1.0, 1.0)
    """

    values: dict[str, Tensor]
    layers: dict[str, list[str]] = field(default_factory=dict)

    def at(self, first: int, last: int) -> "PatchingScores":
        """Return the effects at some positions only, such as those from the first token that differs.

        Args:
            first: first position.
            last: position after the last one.
        """
        return PatchingScores({name: value[:, first:last] for name, value in self.values.items()}, self.layers)

    def pearson(self, other: "PatchingScores") -> dict[str, float]:
        """Return the correlation of the signed effects of all layers and positions of each site; NaN for a constant.

        Args:
            other: effects at the same sites.

        Raises:
            ValueError: if sites or shapes differ.
        """
        return {name: _correlation(ours, theirs) for name, (ours, theirs) in self._paired(other).items()}

    def spearman(self, other: "PatchingScores") -> dict[str, float]:
        """Return the correlation of the ranks of the effects of each site; equal effects share their mean rank.

        Args:
            other: effects at the same sites.

        Raises:
            ValueError: if sites or shapes differ.
        """
        pairs = self._paired(other).items()
        return {name: _correlation(_ranks(ours), _ranks(theirs)) for name, (ours, theirs) in pairs}

    def topk_overlap(self, other: "PatchingScores", k: int) -> dict[str, float]:
        """Return the share of the k largest effects of each site, by magnitude, that are also among those of the other.

        Args:
            other: effects at the same sites.
            k: number of effects, from 1 to their total number.

        Raises:
            ValueError: if sites or shapes differ, or ``k`` is out of range.
        """
        found = {}
        for name, (ours, theirs) in self._paired(other).items():
            if not 1 <= k <= len(ours):
                raise ValueError(f"k is {k}; the site {name!r} has {len(ours)} effects")
            both = torch.isin(ours.abs().topk(k).indices, theirs.abs().topk(k).indices)
            found[name] = float(both.double().mean())
        return found

    def _paired(self, other: "PatchingScores") -> dict[str, tuple[Tensor, Tensor]]:
        shapes = [{name: tuple(value.shape) for name, value in scores.values.items()} for scores in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"other has effects of {shapes[1]}, these are {shapes[0]}; compare equal sites")
        return {name: (value.flatten().double(), other.values[name].flatten().double())
                for name, value in self.values.items()}  # fmt: skip


def _correlation(x: Tensor, y: Tensor) -> float:
    if bool((x == x[0]).all()) or bool((y == y[0]).all()):  # rounding of the mean would be correlated
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x.norm() * y.norm()))


def _ranks(x: Tensor) -> Tensor:
    _, place, counts = x.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[place].double()
