r"""Tropical polynomial of a partially ordered set by sums and maxima of two, nested as the order is built up.

With :math:`p_P \ge 0` for every order P:

* P and Q side by side: :math:`p_P + p_Q`;
* all of Q below one point m: :math:`\mathrm{ReLU}(x_m + p_Q)`;
* all of Q below all of P: :math:`\max(p_P, \Sigma P + p_Q)`;
* else, for any point e with the points :math:`{\uparrow} e` above and :math:`{\downarrow} e` below it, itself
  included: :math:`\max(p_{P \setminus \downarrow e}, \Sigma {\uparrow} e + p_{P \setminus \uparrow e})`.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphseq.ops.posets.order import Poset


@dataclass(frozen=True)
class Plan:
    """One step of the nested form.

    Args:
        parts: orders side by side, whose values are added; empty for none.
        points: points whose values are added to ``parts`` and, with one point, cut off at 0.
        other: order whose value is the other side of a maximum; None for ReLU of the sum of points and parts, or, where
            there are no points, for the sum of the parts.

    Example:
        >>> plan_of(Poset.parse("a<b"))
        Plan(parts=(Plan(parts=(), points=(0,), other=None),), points=(1,), other=None)
    """

    parts: "tuple[Plan, ...]" = ()
    points: tuple[int, ...] = ()
    other: "Plan | None" = None


@functools.lru_cache(maxsize=256)
def plan_of(poset: Poset) -> Plan:
    """Return the nested form of an order.

    Args:
        poset: the order.

    Example:
        >>> len(plan_of(Poset(3)).parts)
        3
    """
    return _plan(poset, frozenset(range(poset.size)))


def _plan(poset: Poset, points: frozenset[int]) -> Plan:
    apart = _components(poset, points)
    if len(apart) > 1:
        return Plan(tuple(_plan(poset, part) for part in apart))
    upper = _top(poset, points)
    below = points - upper
    lower = (_plan(poset, below),) if below else ()
    if len(upper) == 1:
        return Plan(lower, tuple(upper))
    if below:
        return Plan(lower, tuple(sorted(upper)), _plan(poset, upper))
    up = {e: frozenset(i for i in points if i == e or poset.less(e, i)) for e in points}
    down = {e: frozenset(i for i in points if i == e or poset.less(i, e)) for e in points}
    e = max(points, key=lambda point: (len(up[point]) + len(down[point]), len(down[point]), point))
    return Plan((_plan(poset, points - up[e]),), tuple(sorted(up[e])), _plan(poset, points - down[e]))


def _components(poset: Poset, points: frozenset[int]) -> list[frozenset[int]]:
    """Parts between whose points there is no relation."""
    left, found = set(points), []
    while left:
        part, reached = set(), {min(left)}
        while reached:
            part |= reached
            reached = {i for i in left - part if any(poset.less(i, j) or poset.less(j, i) for j in reached)}
        found.append(frozenset(part))
        left -= part
    return found


def _top(poset: Poset, points: Collection[int]) -> frozenset[int]:
    """Smallest set of points above all others."""
    top: set[int] = set()
    grown = {point for point in points if not any(poset.less(point, other) for other in points)}
    while grown != top:
        top = grown
        grown = top | {i for i in points if not all(i in top or poset.less(i, j) for j in top)}
    return frozenset(top)


def evaluate(plan: Plan, values: Sequence[Tensor]) -> Tensor:
    """Return the value of a nested form, entry by entry.

    Args:
        plan: nested form.
        values: value of each point.

    Example:
        >>> evaluate(plan_of(Poset.parse("a<b")), [torch.tensor(3.0), torch.tensor(-1.0)])
        tensor(2.)
    """
    terms = [evaluate(part, values) for part in plan.parts]
    terms += [values[point] for point in plan.points]
    total = functools.reduce(torch.add, terms)
    if plan.other is not None:
        smaller = evaluate(plan.other, values)
        # equal: the smaller upper set, as ReLU does at 0; nan: `total` has it, since all points are in it
        return torch.where(total <= smaller, smaller, total)
    return total.relu() if plan.points else total
