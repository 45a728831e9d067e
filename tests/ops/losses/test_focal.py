import pytest
import torch
from torch.nn import functional

from graphseq.nn import ComplexFocalLoss, FocalLoss
from graphseq.ops import complex_focal_loss, focal_loss
from tests.reference import spectra as reference


def example():
    logits = torch.randn(4, 7, dtype=torch.complex128) * 2
    return logits, (torch.rand(4, 7) < 0.3).double()


@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 2.0), (3.0, 1.0), (1.0, 0.5)])
def test_each_entry_is_that_of_the_reference(alpha, gamma):
    logits, mask = example()
    found = complex_focal_loss(logits, mask, alpha, gamma)
    for z, m, value in zip(logits.flatten().tolist(), mask.flatten().tolist(), found.flatten().tolist(), strict=True):
        parts = [reference.focal_loss(part, m, alpha, gamma) for part in (z.real, z.imag)]
        assert value == pytest.approx(sum(parts) / 2, rel=1e-9)


def test_without_focus_it_is_the_cross_entropy_of_both_parts_and_both_count_alike():
    logits, mask = example()
    parts = [functional.binary_cross_entropy_with_logits(part, mask) for part in (logits.real, logits.imag)]
    torch.testing.assert_close(ComplexFocalLoss(gamma=0)(logits, mask), sum(parts) / 2)
    swapped = torch.complex(logits.imag, logits.real)
    torch.testing.assert_close(ComplexFocalLoss()(logits, mask), ComplexFocalLoss()(swapped, mask))
    assert ComplexFocalLoss(reduction="none")(logits, mask).shape == mask.shape
    torch.testing.assert_close(FocalLoss(reduction="sum")(logits.real, mask), focal_loss(logits.real, mask).sum())


def test_gradients():
    logits, mask = example()
    assert torch.autograd.gradcheck(lambda z: complex_focal_loss(z, mask), logits.requires_grad_())


def test_a_bin_that_is_classified_well_has_a_smaller_gradient_than_with_cross_entropy():
    slopes = {}
    for gamma in (0.0, 2.0):
        logit = torch.tensor([3.0], requires_grad=True)
        focal_loss(logit, torch.ones(1), gamma=gamma).sum().backward()
        slopes[gamma] = abs(float(logit.grad))
    assert 0 < slopes[2.0] < 0.02 * slopes[0.0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_logits_stay_finite(gamma):
    logits = torch.tensor([200.0 - 200.0j, -200.0 + 200.0j, 1e4 + 1e4j], requires_grad=True)
    loss = ComplexFocalLoss(gamma=gamma)(logits, torch.tensor([1.0, 0.0, 1.0]))
    loss.backward()
    assert loss.isfinite()
    assert torch.view_as_real(logits.grad).isfinite().all()


@pytest.mark.parametrize("value", [255, -1, float("nan")])
def test_what_is_no_mask_is_refused(value):
    """A mask of 0 and 255 gave a loss below 0."""
    with pytest.raises(ValueError, match=f"ranges from .* to {max(value, 1):g}|from nan"):
        focal_loss(torch.zeros(3), torch.tensor([0, 1, value]))
    assert focal_loss(torch.zeros(2), torch.tensor([False, True])).shape == (2,)
    assert focal_loss(torch.zeros(0), torch.zeros(0)).shape == (0,)


def test_the_other_kind_of_logits_and_wrong_arguments_are_refused():
    real, mask = torch.zeros(2, 3), torch.zeros(2, 3)
    with pytest.raises(TypeError, match="float32.*focal_loss"):
        ComplexFocalLoss()(real, mask)
    with pytest.raises(TypeError, match="complex64.*complex_focal_loss"):
        FocalLoss()(real + 0j, mask)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        FocalLoss()(real, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="gamma -1"):
        ComplexFocalLoss(gamma=-1)
    with pytest.raises(ValueError, match="'median'"):
        ComplexFocalLoss(reduction="median")
