"""Relative errors of fields: against sums over points and modes, and what they do not depend on."""

import math

import pytest
import torch

from graphseq.core import DataError, make
from graphseq.nn import RelativeH1, RelativeL2
from graphseq.tasks import Regression


def by_hand(prediction, target, bound):
    """Mean over samples of the ratio of weighted sums, mode by mode with the definition of the Fourier transform."""
    ratios = []
    rows, columns = target.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    for u, v in zip(prediction, target, strict=True):
        sums = [0.0, 0.0]
        for k in range(rows):
            for m in range(columns):
                wave = torch.exp(-2j * math.pi * (k * y / rows + m * x / columns))
                low = min(k, rows - k) ** 2 + min(m, columns - m) ** 2
                for place, field in enumerate((u - v, v)):
                    for channel in field:
                        sums[place] = sums[place] + (1 + min(low, bound**2)) * (channel * wave).sum().abs() ** 2
        ratios.append((sums[0] / sums[1]).sqrt())
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize(
    ("loss", "bound"), [(RelativeL2(), 0), (RelativeH1(0), 0), (RelativeH1(2), 2), (RelativeH1(), 20)]
)
def test_equals_the_sums(loss, bound):
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 2, 2, 4, 5, dtype=torch.float64)
    prediction.requires_grad_()
    ours, theirs = loss(prediction, target), by_hand(prediction, target, bound)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, prediction)[0] for value in (ours, theirs)))


def test_error_of_one_mode_does_not_depend_on_the_mode_or_the_grid():
    loss = RelativeH1()
    for size, k in [(16, 0), (16, 1), (16, 5), (32, 5), (64, 30)]:
        wave = torch.cos(2 * math.pi * k * torch.arange(size) / size).double().expand(1, 1, size, size)
        assert float(loss(1.3 * wave, wave)) == pytest.approx(0.3, rel=1e-12)
    assert float(RelativeH1(0)(1 + wave, wave)) == pytest.approx(float(RelativeL2()(1 + wave, wave)), rel=1e-12)


def test_a_task_takes_fields_and_a_common_factor_cancels():
    target = torch.rand(3, 1, 8, 8) + 0.1
    task = Regression(make(torch.nn.Conv2d, 1, 1, 1), 1, loss=RelativeH1())
    step = task.step((target, target))
    assert step.loss.item() == pytest.approx(float(RelativeH1()(10 * step.prediction.detach(), 10 * target)), rel=1e-5)
    assert step.prediction.shape == target.shape


def test_bad_input():
    with pytest.raises(DataError, match=r"targets \(6,\)"):
        RelativeL2()(torch.zeros(6), torch.zeros(6))
    with pytest.raises(DataError, match=r"\(2, 1, 4, 5\)"):
        RelativeH1()(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))
    with pytest.raises(ValueError, match="max_frequency is -1"):
        RelativeH1(-1)
    with pytest.raises(ValueError, match="least is 0"):
        RelativeL2(0)


def test_types_of_numbers():
    target = torch.rand(2, 1, 4, 4) + 0.5
    for loss in (RelativeL2(), RelativeH1()):
        # squares of these are infinite in half precision
        assert float(loss((3.3e4 * target).half(), (3e4 * target).half())) == pytest.approx(0.1, abs=0.01)
        wave = target.to(torch.complex64) * (1 + 1j)
        assert float(loss(1.5 * wave, wave)) == pytest.approx(0.5, rel=1e-5)
        with pytest.raises(DataError, match=r"torch.int64 \(2, 1, 4, 4\)"):
            loss(target.long(), target.long())
        with pytest.raises(DataError, match="at least one field"):
            loss(target[:0], target[:0])
