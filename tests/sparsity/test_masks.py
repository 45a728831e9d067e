import math

import pytest
import torch

from graphseq.sparsity import group_labels, group_mask, group_units, layer_densities, random_mask
from tests.reference import sparse


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pair_counts(mask, out, into, groups):
    pairs = (out[:, None] * groups + into[None, :])[mask]
    return torch.bincount(pairs, minlength=groups**2).view(groups, groups)


def test_groupings_have_one_size_and_the_two_regular_ones_are_orthogonal():
    index, interleaved = group_labels(24, 4), group_labels(24, 4, "interleaved")
    shuffled = group_labels(24, 4, "random", generator())
    for labels in (index, interleaved, shuffled):
        assert torch.bincount(labels).tolist() == [6] * 4
    assert not torch.equal(shuffled, index)
    meet = torch.bincount(index * 4 + interleaved, minlength=16)
    assert set(meet.tolist()) <= {6 // 4, math.ceil(6 / 4)}
    units = group_units(shuffled, 4)
    assert torch.equal(shuffled[units], torch.arange(4)[:, None].expand(4, 6))


@pytest.mark.parametrize("grouping", ["index", "interleaved", "random"])
def test_columns_have_the_exact_density_and_serve_whole_groups(grouping):
    out, into = group_labels(24, 4, grouping, generator(1)), group_labels(40, 4, grouping, generator(2))
    mask = group_mask(out, into, 1.0, 0.3, "column", generator())
    counts = pair_counts(mask, out, into, 4)
    expected = torch.full((4, 4), 6 * 3)  # 6 outputs that read 3 of the 10 inputs
    expected.fill_diagonal_(60)
    assert torch.equal(counts, expected)
    assert float(mask.float().mean()) == pytest.approx(1 / 4 + 3 / 4 * 0.3)
    for group in range(4):
        assert (mask[out == group] == mask[out == group][0]).all()
    assert not torch.equal(mask, group_mask(out, into, 1.0, 0.3, "column", generator(5)))


def test_edges_have_the_density_within_three_standard_deviations():
    labels = group_labels(128, 8)
    mask = group_mask(labels, labels, 1.0, 0.15, "edge", generator())
    counts = pair_counts(mask, labels, labels, 8)
    assert (counts.diagonal() == 16 * 16).all()
    between = int(counts.sum() - counts.diagonal().sum())
    places = 128 * 128 * 7 // 8
    assert abs(between - 0.15 * places) < 3 * math.sqrt(places * 0.15 * 0.85)


def test_blocks_are_whole_groups():
    labels = group_labels(40, 5, "interleaved")
    counts = pair_counts(group_mask(labels, labels, 1.0, 0.5, "block", generator()), labels, labels, 5)
    assert set(counts.flatten().tolist()) == {0, 64}
    assert (counts.diagonal() == 64).all()
    assert ((counts > 0).sum(1) == 3).all()


def test_random_masks_have_an_exact_number_of_weights():
    assert random_mask(30, 40, 0.25, generator()).sum() == 300


def test_densities_of_layers():
    shapes = [(300, 784), (100, 300), (10, 100)]
    found = layer_densities(shapes, 0.1, "er")
    assert found == pytest.approx(sparse.densities(shapes, 0.1))
    assert found[2] == 1.0  # it would have more than all weights
    assert layer_densities(shapes, 0.1, "uniform") == [0.1] * 3
    assert layer_densities(shapes, 1.0) == [1.0] * 3
    first, second = layer_densities([(64, 32, 3, 3), (640, 320)], 0.1, "erk")
    assert first / second == pytest.approx((64 + 32 + 6) / (64 * 32 * 9) * (640 * 320) / 960)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: group_labels(10, 3), "groups is 3"),
        (lambda: group_labels(10, 0), "groups is 0"),
        (lambda: group_labels(10, 2, "other"), "grouping is 'other'"),
        (lambda: group_mask(*[group_labels(8, 2)] * 2, p_inter=1.5), "p_inter is 1.5"),
        (lambda: group_mask(*[group_labels(8, 2)] * 2, p_intra=-0.1), "p_intra is -0.1"),
        (lambda: group_mask(*[group_labels(8, 2)] * 2, p_intra=0.0, p_inter=0.0), "8 of 8 units without inputs"),
        (lambda: group_mask(*[group_labels(8, 2)] * 2, p_intra=0.5, granularity="block"), "p_intra is 0.5"),
        (lambda: group_mask(*[group_labels(8, 2)] * 2, granularity="row"), "granularity is 'row'"),
        (lambda: group_units(torch.tensor([0, 0, 1]), 2), r"\[2, 1\]"),
        (lambda: random_mask(100, 10, 0.05), "density=0.05"),
        (lambda: random_mask(4, 4, 1.2), "density is 1.2"),
        (lambda: layer_densities([(4, 4)], 0.0), "density is 0.0"),
        (lambda: layer_densities([], 0.5), "shapes"),
        (lambda: layer_densities([(4, 4)], 0.5, "other"), "allocation"),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
