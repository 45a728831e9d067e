"""Partially ordered sets of few points: upper sets, linear extensions, sums, and all of a size."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Self

__all__ = ["Poset", "poset_classes"]

LARGEST = 9
"""Points of an order, at most: its upper sets are listed, up to 2^9."""

LARGEST_CLASSES = 5
"""Points of the orders that are listed up to isomorphism, at most."""

# numbers as in the published table of results; an order is its generating relations, and all else is derived
NUMBERED = (
    "a<d b<d c<d", "", "a<b", "a<c b<c c<d", "a<c b<c", "a<b a<c", "a<b c<d", "a<b b<c b<d",
    "a<b b<c", "a<b a<c a<d", "a<b a<c c<d", "a<c a<d b<c b<d", "a<b c<b c<d", "a<b b<c c<d", "a<b a<c b<d c<d",
    "a<c b<d c<d",
)  # fmt: skip
NAMED = {"antichain": 1, "Y": 7, "claw": 9, "butterfly": 11, "N": 12, "chain": 13, "diamond": 14}


@dataclass(frozen=True)
class Poset:
    """Partial order of the points 0..n - 1.

    Orders are equal if they have the same pairs; isomorphic ones have the same :meth:`canonical` form.

    Args:
        size: number n of points, in 1..9.
        relations: pairs (i, j) with i below j; what follows by transitivity is added.

    Raises:
        ValueError: if ``size`` or a point is out of range, or the relations have a cycle.

    Example:
        >>> Poset(3, ((0, 1), (1, 2)))
        Poset(size=3, relations=((0, 1), (0, 2), (1, 2)))
    """

    size: int
    relations: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the arguments, and close the relations under transitivity."""
        if not 1 <= self.size <= LARGEST:
            raise ValueError(f"size is {self.size}; it must be in 1..{LARGEST}")
        below: set[tuple[int, int]] = set()
        for pair in self.relations:
            if len(pair) != 2 or not all(0 <= point < self.size for point in pair):
                raise ValueError(f"relations hold {tuple(pair)}; give pairs of points in 0..{self.size - 1}")
            below.add((int(pair[0]), int(pair[1])))
        for k, i, j in itertools.product(range(self.size), repeat=3):  # k outermost: paths through points up to k
            if (i, k) in below and (k, j) in below:
                below.add((i, j))
        if any((point, point) in below for point in range(self.size)):
            raise ValueError(f"relations {tuple(self.relations)} have a cycle; an order has none")
        object.__setattr__(self, "relations", tuple(sorted(below)))

    @classmethod
    def parse(cls, text: str, size: int | None = None) -> Self:
        """Return the order with given relations between the letters a, b, c and so on.

        Args:
            text: relations such as ``a<b c<b<d``, separated by spaces or commas.
            size: number of points; None for up to the last letter.

        Raises:
            ValueError: if the text is of another form, or has a letter beyond ``size``.

        Example:
            >>> Poset.parse("a<b, c<b<d") == Poset(4, ((0, 1), (2, 1), (1, 3)))
            True
        """
        relations, last = [], 0
        for chain in filter(None, re.split(r"[\s,]+", text)):
            letters = chain.split("<")
            if not all(re.fullmatch("[a-i]", letter) for letter in letters):
                raise ValueError(f"relations are {text!r}; write them as in 'a<b c<b<d', with the letters a to i")
            points = [ord(letter) - ord("a") for letter in letters]
            last = max(last, *points)
            relations += list(itertools.pairwise(points))
        return cls(last + 1 if size is None else size, tuple(relations))

    @classmethod
    def of(cls, order: "str | int | Poset") -> "Poset":
        """Return the order that a name, a number, relations or an order stands for.

        Args:
            order: name of an order of four points (``antichain``, ``chain``, ``N``, ``diamond``, ``Y``, ``claw``,
                ``butterfly``), its number 0..15 in the published table, relations as :meth:`parse` takes them, or an
                order, which is returned.

        Raises:
            ValueError: if there is no such name or number.
            TypeError: if ``order`` is none of these.

        Example:
            >>> Poset.of("N") == Poset.of(12) == Poset.parse("a<b c<b c<d")
            True
        """
        if isinstance(order, Poset):
            return order
        if isinstance(order, str):
            if "<" in order:
                return cls.parse(order)
            if order not in NAMED:
                raise ValueError(
                    f"poset is {order!r}; give one of {', '.join(NAMED)}, a number in 0..{len(NUMBERED) - 1}, or "
                    "relations such as 'a<b c<b<d'"
                )
            order = NAMED[order]
        if not isinstance(order, Integral):
            raise TypeError(f"poset is {order!r}; give a name, a whole number in 0..{len(NUMBERED) - 1}, or a Poset")
        if not 0 <= order < len(NUMBERED):
            raise ValueError(f"poset is {order}; numbers are 0..{len(NUMBERED) - 1}")
        return cls.parse(NUMBERED[order], 4)

    def less(self, lower: int, upper: int) -> bool:
        """Return whether a point is below another one.

        Args:
            lower: first point.
            upper: second point.
        """
        return (lower, upper) in self.relations

    def covers(self) -> tuple[tuple[int, int], ...]:
        """Return the pairs with no point between them, from which the order follows."""
        return tuple(
            (i, j) for i, j in self.relations if not any(self.less(i, k) and self.less(k, j) for k in range(self.size))
        )

    def filters(self) -> tuple[tuple[int, ...], ...]:
        """Return all upper sets, each as 0 or 1 for each point, the empty one first, then by size.

        With a point an upper set has all points above it. They are the corners of the order polytope.
        """
        sets = [
            chosen
            for chosen in itertools.product((0, 1), repeat=self.size)
            if all(chosen[i] <= chosen[j] for i, j in self.relations)
        ]
        return tuple(sorted(sets, key=lambda chosen: (sum(chosen), chosen[::-1])))

    def linear_extensions(self) -> int:
        """Return the number of total orders that keep all relations: n! times the volume of the order polytope."""
        paths = {(0,) * self.size: 1}  # upper set -> ways to build it up from above, one point after the other
        for chosen in self.filters()[1:]:
            without = ((*chosen[:i], 0, *chosen[i + 1 :]) for i in range(self.size) if chosen[i])
            paths[chosen] = sum(paths.get(smaller, 0) for smaller in without)
        return paths[(1,) * self.size]

    def relabelled(self, labels: Sequence[int]) -> "Poset":
        """Return the order with other labels.

        Args:
            labels: new label of each point, a permutation of 0..n - 1.
        """
        if sorted(labels) != list(range(self.size)):
            raise ValueError(f"labels are {list(labels)}; give a permutation of 0..{self.size - 1}")
        return Poset(self.size, tuple((labels[i], labels[j]) for i, j in self.relations))

    def canonical(self) -> "Poset":
        """Return the first among all relabelled orders, the same for isomorphic ones; at most 7 points.

        Raises:
            ValueError: if there are more than 7 points.
        """
        if self.size > 7:
            raise ValueError(f"size is {self.size}; the {self.size}! labellings are too many, give at most 7 points")
        pairs = min(
            tuple(sorted((labels[i], labels[j]) for i, j in self.relations))
            for labels in itertools.permutations(range(self.size))
        )
        return Poset(self.size, pairs)

    def dual(self) -> "Poset":
        """Return the order upside down."""
        return Poset(self.size, tuple((j, i) for i, j in self.relations))

    def disjoint_union(self, other: "Poset") -> "Poset":
        """Return this order and another one side by side; the points of the other one come after those of this one.

        Args:
            other: the other order.
        """
        return Poset(2, ()).lexicographic_sum([self, other])

    def ordinal_sum(self, above: "Poset") -> "Poset":
        """Return this order with another one above it, whose points come after those of this one.

        Args:
            above: the other order.
        """
        return Poset(2, ((0, 1),)).lexicographic_sum([self, above])

    def lexicographic_sum(self, parts: Sequence["Poset"]) -> "Poset":
        """Return the order in which each point is replaced by an order; points of a part stand together.

        Args:
            parts: order in the place of each point.

        Raises:
            ValueError: if there is not one part for each point.
        """
        if len(parts) != self.size:
            raise ValueError(f"parts are {len(parts)}, for {self.size} points; give one for each")
        first = list(itertools.accumulate((part.size for part in parts), initial=0))
        inner = [(first[k] + i, first[k] + j) for k, part in enumerate(parts) for i, j in part.relations]
        outer = [
            pair for k, m in self.relations
            for pair in itertools.product(range(first[k], first[k + 1]), range(first[m], first[m + 1]))
        ]  # fmt: skip
        return Poset(first[-1], tuple(inner + outer))


def poset_classes(size: int) -> tuple[Poset, ...]:
    """Return all orders of some points up to isomorphism, in their canonical form: 1, 2, 5, 16, 63.

    Every order has labels that increase upwards, so that the relations i < j among 0..n - 1 are gone through.

    Args:
        size: number of points, in 1..5.

    Raises:
        ValueError: if ``size`` is out of range.

    Example:
        >>> [len(poset_classes(size)) for size in (1, 2, 3, 4)]
        [1, 2, 5, 16]
    """
    if not 1 <= size <= LARGEST_CLASSES:
        raise ValueError(f"size is {size}; it must be in 1..{LARGEST_CLASSES}")
    pairs = list(itertools.combinations(range(size), 2))
    chosen = itertools.chain.from_iterable(itertools.combinations(pairs, count) for count in range(len(pairs) + 1))
    closed = {Poset(size, relations) for relations in chosen}
    found = {poset.canonical() for poset in closed}
    return tuple(sorted(found, key=lambda poset: (len(poset.relations), poset.relations)))
