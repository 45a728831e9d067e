"""Contrastive losses against loops over pairs, with their gradients, and their limiting cases."""

import pytest
import torch

from graphseq.ops import info_nce_loss, nt_xent_loss, spectral_contrastive_loss, supervised_contrastive_loss
from tests.reference import contrastive as reference


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


CASES = {
    # class 7 has one sample: it is a negative of all others and no anchor
    "supervised": (supervised_contrastive_loss, [draw(6, 3)], [torch.tensor([4, 0, 4, 7, 4, 0]), 0.3]),
    "views": (nt_xent_loss, [draw(4, 3), draw(4, 3, seed=1)], [0.5]),
    "spectral": (spectral_contrastive_loss, [draw(4, 3), draw(4, 3, seed=1)], []),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_loops(name):
    loss, vectors, rest = CASES[name]
    found, expected = loss(*vectors, *rest), getattr(reference, loss.__name__)(*vectors, *rest)
    assert torch.allclose(found, expected, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(found, vectors), torch.autograd.grad(expected, vectors), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_views_may_change_places_and_vectors_their_length():
    first, second = draw(4, 3), draw(4, 3, seed=1)
    assert torch.allclose(nt_xent_loss(first, second), nt_xent_loss(second, 5 * first))
    assert torch.allclose(spectral_contrastive_loss(first, second), spectral_contrastive_loss(second, first))
    assert not torch.allclose(nt_xent_loss(first, second, 0.5), info_nce_loss(first, second, 0.5))


@pytest.mark.parametrize("count", [1, 4])
def test_no_positive_pair_is_no_loss_and_no_gradient(count):
    z = draw(count, 3)
    loss = supervised_contrastive_loss(z, torch.arange(count))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss == 0
    assert not bool(gradient.any())


def test_single_pair_has_no_negatives():
    first, second = draw(1, 3), draw(1, 3, seed=1)
    assert nt_xent_loss(first, second) == 0
    assert torch.allclose(spectral_contrastive_loss(first, second), -2 * (first * second).sum())


def test_autocast_keeps_the_similarities_wide():
    z = draw(6, 3).detach().float()
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = supervised_contrastive_loss(z, labels, 0.05), spectral_contrastive_loss(z, z)
    assert torch.equal(found[0], supervised_contrastive_loss(z, labels, 0.05))
    assert torch.equal(found[1], spectral_contrastive_loss(z, z))


def test_refusals():
    with pytest.raises(ValueError, match="temperature is 0"):
        supervised_contrastive_loss(draw(2, 3), torch.tensor([0, 0]), 0.0)
    with pytest.raises(ValueError, match=r"labels \(3,\)"):
        supervised_contrastive_loss(draw(2, 3), torch.tensor([0, 0, 0]))
    with pytest.raises(ValueError, match=r"second \(3, 3\)"):
        nt_xent_loss(draw(2, 3), draw(3, 3))
    with pytest.raises(ValueError, match=r"first is \(2,\)"):
        spectral_contrastive_loss(draw(2), draw(2))


def test_no_samples_are_no_loss():
    nothing = torch.zeros(0, 3, requires_grad=True)
    for loss in (nt_xent_loss, spectral_contrastive_loss):
        assert loss(nothing, nothing) == 0
