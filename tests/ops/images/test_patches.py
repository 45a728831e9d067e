"""Patches against loops, and the distribution of those that are chosen."""

import pytest
import torch

from graphseq.ops import choose_patches, patchify, unpatchify
from tests.reference import patches as reference


def test_patches_are_in_the_order_of_positions_and_go_back_together():
    images = torch.arange(2 * 3 * 6 * 8).view(2, 3, 6, 8)
    found = patchify(images, (3, 2))
    for image, patches in zip(images, found, strict=True):
        expected = reference.patches(image, 2, 4)
        assert all(torch.equal(one, other) for one, other in zip(patches, expected, strict=True))
    assert torch.equal(unpatchify(found, columns=4), images)


def test_every_position_is_chosen_as_often():
    draws, count, chosen = 10_000, 16, 4
    found, others = choose_patches(draws, count, chosen, "cpu", torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([found, others], 1).sort().values, torch.arange(count).expand(draws, count))
    times = found.flatten().bincount(minlength=count).double()
    expected = draws * chosen / count
    # counts of draws without replacement vary less than independent ones, by the factor 1 - chosen / count
    statistic = ((times - expected) ** 2 / (expected * (1 - chosen / count))).sum() * (count - 1) / count
    assert statistic < 37.7  # the 99.9 % quantile of 15 degrees of freedom


def test_refusals():
    with pytest.raises(ValueError, match="3 x 3 do not divide images of 8 x 9"):
        patchify(torch.ones(1, 1, 8, 9), (3, 3))
    with pytest.raises(ValueError, match=r"shape \(8, 8\)"):
        patchify(torch.ones(8, 8), (2, 2))
    with pytest.raises(ValueError, match="columns is 3"):
        unpatchify(torch.ones(1, 4, 1, 2, 2), 3)
    with pytest.raises(ValueError, match="num_chosen is 5"):
        choose_patches(2, 4, 5, "cpu")
