import itertools
import math

import pytest
import torch

from graphseq.ops import Poset, poset_classes, tropical_polynomial

# number in the published table -> number of upper sets and of linear extensions
COUNTS = {
    0: (9, 6), 1: (16, 24), 2: (12, 12), 3: (6, 2), 4: (10, 8), 5: (10, 8), 6: (9, 6), 7: (6, 2),
    8: (8, 4), 9: (9, 6), 10: (7, 3), 11: (7, 4), 12: (8, 5), 13: (5, 1), 14: (6, 2), 15: (7, 3),
}  # fmt: skip
ALL = [Poset.of(number) for number in COUNTS]


def upper_sets(poset):
    """Subsets, as sets of points, that hold with a point all points above it."""
    chosen = (set(points) for count in range(poset.size + 1)
              for points in itertools.combinations(range(poset.size), count))  # fmt: skip
    return [points for points in chosen if all(j in points for i, j in poset.relations if i in points)]


def by_hand(values, poset):
    """Values and, for each entry, the upper sets of the largest sum."""
    best, winners = [], []
    for entry in zip(*(value.flatten().tolist() for value in values), strict=True):
        sums = [(sum(entry[i] for i in points), points) for points in upper_sets(poset)]
        best.append(max(total for total, _ in sums))
        winners.append([points for total, points in sums if total > best[-1] - 1e-9])
    return torch.tensor(best, dtype=torch.float64), winners


@pytest.mark.parametrize("number", COUNTS)
def test_upper_sets_and_linear_extensions(number):
    poset = Poset.of(number)
    filters, extensions = COUNTS[number]
    assert len(poset.filters()) == filters
    assert [{i for i in range(4) if chosen[i]} for chosen in poset.filters()].count(set()) == 1
    assert sorted(sorted(i for i in range(4) if chosen[i]) for chosen in poset.filters()) == sorted(
        map(sorted, upper_sets(poset))
    )
    orders = itertools.permutations(range(4))
    assert sum(all(order.index(i) < order.index(j) for i, j in poset.relations) for order in orders) == extensions
    assert poset.linear_extensions() == extensions


def test_sixteen_orders_and_219_labelled_ones():
    classes = poset_classes(4)
    assert len(classes) == 16
    assert {poset.canonical() for poset in ALL} == set(classes)
    labelled = {poset.relabelled(labels) for poset in classes for labels in itertools.permutations(range(4))}
    assert len(labelled) == len({poset.filters() for poset in labelled}) == 219
    assert {poset.dual().canonical() for poset in classes} == set(classes)


def test_volume_of_the_order_polytope():
    x = torch.rand(100_000, 4, generator=torch.Generator().manual_seed(0))
    for poset in ALL:
        inside = torch.ones(len(x), dtype=torch.bool)
        for i, j in poset.covers():
            inside &= x[:, i] <= x[:, j]
        assert abs(float(inside.float().mean()) - poset.linear_extensions() / 24) < 0.01


@pytest.mark.parametrize("ties", ["one", "split"])
@pytest.mark.parametrize("whole", [False, True])
def test_polynomial_and_its_gradient(ties, whole):
    """Against all upper sets; whole numbers have ties: one of the largest takes the gradient, or all share it."""
    for number, poset in enumerate(ALL):
        generator = torch.Generator().manual_seed(number)
        values = [torch.randn(24, dtype=torch.float64, generator=generator) for _ in range(4)]
        values = [(value * 1.5).round() if whole else value for value in values]
        leaves = [value.clone().requires_grad_() for value in values]
        found = tropical_polynomial(leaves, poset, ties)
        expected, winners = by_hand(values, poset)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-12)
        gradients = torch.stack(torch.autograd.grad(found.sum(), leaves), 1)
        for gradient, largest in zip(gradients.tolist(), winners, strict=True):
            if ties == "one":
                assert {i for i in range(4) if gradient[i] == 1} in largest
                assert set(gradient) <= {0.0, 1.0}
            else:
                shares = [sum(i in points for points in largest) / len(largest) for i in range(4)]
                assert gradient == pytest.approx(shares)


def test_all_orders_of_five_points():
    values = [torch.randn(50, dtype=torch.float64) for _ in range(5)]
    for poset in poset_classes(5):
        torch.testing.assert_close(tropical_polynomial(values, poset), tropical_polynomial(values, poset, "split"))


def test_limiting_cases():
    values = list(torch.randn(4, 200, dtype=torch.float64))
    antichain = tropical_polynomial(values, Poset.of("antichain"))
    torch.testing.assert_close(antichain, torch.stack(values).relu().sum(0))
    for poset in ALL:
        positive, negative = [value.abs() for value in values], [-value.abs() for value in values]
        torch.testing.assert_close(tropical_polynomial(positive, poset), torch.stack(positive).sum(0))
        assert not tropical_polynomial(negative, poset).any()
        zeros = [torch.zeros(1, requires_grad=True) for _ in range(4)]  # all upper sets tie: the empty one comes first
        assert not any(gradient.any() for gradient in torch.autograd.grad(tropical_polynomial(zeros, poset), zeros))
        twice = tropical_polynomial([2 * value for value in values], poset)
        torch.testing.assert_close(twice, 2 * tropical_polynomial(values, poset))
        for dropped in poset.covers():  # fewer relations, more upper sets
            freer = Poset(4, tuple(pair for pair in poset.covers() if pair != dropped))
            assert bool((tropical_polynomial(values, freer) >= tropical_polynomial(values, poset) - 1e-12).all())


def test_nan_and_second_derivative():
    for poset, point in itertools.product(ALL, range(4)):
        values = list(torch.randn(4, 3))
        values[point][1] = math.nan
        assert tropical_polynomial(values, poset).isnan().tolist() == [False, True, False]
    leaves = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    for name in ("N", "diamond", "chain"):
        assert torch.autograd.gradcheck(lambda *x, name=name: tropical_polynomial(x, Poset.of(name)), leaves)
        assert torch.autograd.gradgradcheck(lambda *x, name=name: tropical_polynomial(x, Poset.of(name)) ** 2, leaves)


def test_sums_of_orders():
    lower, upper = Poset.parse("a<b"), Poset.parse("a<c b<c")
    x, y = list(torch.randn(2, 100, dtype=torch.float64)), list(torch.randn(3, 100, dtype=torch.float64))
    p, q = tropical_polynomial(y, upper), tropical_polynomial(x, lower)
    torch.testing.assert_close(tropical_polynomial([*x, *y], lower.disjoint_union(upper)), q + p)
    stacked = tropical_polynomial([*x, *y], lower.ordinal_sum(upper))
    torch.testing.assert_close(stacked, torch.maximum(p, sum(y) + q))
    parts = [Poset(1), lower, Poset(2)]
    assert upper.lexicographic_sum(parts) == Poset.parse("b<c a<d a<e b<d b<e c<d c<e")


def test_n_alone_is_not_made_of_the_two_sums():
    made = {1: {Poset(1)}}
    for size in (2, 3, 4):
        pairs = ((one, other) for first in range(1, size) for one in made[first] for other in made[size - first])
        made[size] = {joined.canonical() for one, other in pairs
                      for joined in (one.disjoint_union(other), one.ordinal_sum(other))}  # fmt: skip
    assert set(poset_classes(4)) - made[4] == {Poset.of("N").canonical()}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Poset(0), "size is 0"),
        (lambda: Poset(2, ((0, 2),)), r"\(0, 2\)"),
        (lambda: Poset(3, ((0, 1), (1, 2), (2, 0))), "cycle"),
        (lambda: Poset.parse("a<B"), "'a<B'"),
        (lambda: Poset.parse("a<d", 3), r"\(0, 3\)"),
        (lambda: Poset.of("M"), "poset is 'M'"),
        (lambda: Poset.of(16), "poset is 16"),
        (lambda: Poset(3).relabelled([0, 1, 1]), r"labels are \[0, 1, 1\]"),
        (lambda: Poset(2).lexicographic_sum([Poset(1)]), "parts are 1"),
        (lambda: Poset(8).canonical(), "size is 8"),
        (lambda: poset_classes(6), "size is 6"),
        (lambda: tropical_polynomial([torch.zeros(1)] * 3, Poset(4)), "values are 3"),
        (lambda: tropical_polynomial([torch.zeros(1)] * 4, Poset(4), "none"), "ties is 'none'"),
        (lambda: tropical_polynomial([torch.zeros(2), torch.zeros(1)], Poset(2)), r"shapes \[\(2,\), \(1,\)\]"),
    ],
)
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("wrong", [2.0, None])
def test_order_that_is_neither_name_nor_number(wrong):
    with pytest.raises(TypeError, match=f"poset is {wrong}.*whole number in 0..15"):
        Poset.of(wrong)


@pytest.mark.parametrize("ties", ["one", "split"])
def test_sums_keep_their_precision_under_autocast(ties):
    values, poset = list(torch.randn(4, 100)), Poset.of("N")
    expected = tropical_polynomial(values, poset, ties)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tropical_polynomial(values, poset, ties), expected)
    assert tropical_polynomial([value.to("meta") for value in values], poset, ties).shape == (100,)
