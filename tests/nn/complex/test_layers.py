import copy
import math

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.nn import (
    ComplexBatchNorm,
    ComplexDropout,
    CReLU,
    SplitActivation,
    complex_kaiming_normal_,
    complex_xavier_normal_,
)
from tests.reference import spectra as reference


def test_convolution_of_torch_is_complex_arithmetic_and_turns_with_its_input():
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False, dtype=torch.complex128)
    complex_kaiming_normal_(layer.weight)
    x = torch.randn(1, 2, 5, 6, dtype=torch.complex128)
    expected = reference.convolution(x[0].numpy(), layer.weight.detach().numpy(), 2, 1)
    torch.testing.assert_close(layer(x)[0], torch.from_numpy(expected))
    turn = torch.polar(torch.tensor(1.0), torch.tensor(0.7)).to(torch.complex128)
    torch.testing.assert_close(layer(turn * x), turn * layer(x))
    linear = nn.Linear(4, 3, bias=False, dtype=torch.complex128)
    row = torch.randn(2, 4, dtype=torch.complex128)
    a, b = linear.weight.real, linear.weight.imag
    parts = (row.real @ a.T - row.imag @ b.T, row.imag @ a.T + row.real @ b.T)
    torch.testing.assert_close(linear(row), torch.complex(*parts))
    torch.testing.assert_close(linear(turn * row), turn * linear(row))


def norm_in_double(channels):
    norm = ComplexBatchNorm(channels)
    for tensors in (norm._parameters, norm._buffers):
        for name, value in tensors.items():
            wide = value.detach().to(torch.complex128 if value.is_complex() else torch.float64)
            tensors[name] = nn.Parameter(wide) if tensors is norm._parameters else wide
    return norm


def skewed(*shape, dtype=torch.complex128):
    z = torch.randn(*shape, dtype=dtype)
    return 3 * z + 0.8 * z.conj() + (2 - 1j)


def test_norm_is_whitening_by_eigenvectors():
    norm, x = norm_in_double(2), skewed(5, 2, 4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([[0.9, 0.3], [0.5, 1.2], [0.2, -0.4]]))
        norm.bias.copy_(torch.tensor([1 - 2j, 0.5j]))
    expected = reference.batch_norm(x.numpy(), norm.eps, norm.weight.detach().numpy(), norm.bias.detach().numpy())
    torch.testing.assert_close(norm(x), torch.from_numpy(expected))
    assert torch.autograd.gradcheck(norm, skewed(3, 2, 2).requires_grad_())


def test_norm_gives_power_one_and_uncorrelated_parts():
    norm = ComplexBatchNorm(3)
    y = norm(skewed(64, 3, 9, 5, dtype=torch.complex64)).movedim(1, 0).flatten(1)
    parts = torch.stack([y.real, y.imag], 1)  # (C, 2, B Y X)
    torch.testing.assert_close(parts.mean(2), torch.zeros(3, 2), atol=1e-5, rtol=0)
    covariance = parts @ parts.mT / parts.shape[2]
    torch.testing.assert_close(covariance, (torch.eye(2) / 2).expand(3, 2, 2), atol=1e-4, rtol=0)


def test_norm_in_evaluation_uses_running_statistics():
    norm, x = ComplexBatchNorm(2, momentum=1.0), skewed(50, 2, 3, dtype=torch.complex64)
    trained = norm(x)
    norm.eval()
    torch.testing.assert_close(norm(x), trained, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm(x[:1]), trained[:1], atol=1e-5, rtol=1e-5)  # of one sample, too
    other = ComplexBatchNorm(2)
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other.eval()(x), copy.deepcopy(norm)(x))


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_norm_of_a_distribution_on_a_line_is_finite(size):
    line = (torch.randn(40, 1) * (size * (1 + 2j))).requires_grad_()
    y = ComplexBatchNorm(1)(line)
    y.abs().square().sum().backward()
    assert torch.view_as_real(line.grad).isfinite().all()
    assert 0.4 < y.abs().square().mean().item() < 0.6  # the other direction has no variance to be scaled


def test_split_activations():
    x = torch.randn(3, 5, dtype=torch.complex64, requires_grad=True)
    y = CReLU()(x)
    assert torch.equal(y, torch.complex(x.real.relu(), x.imag.relu()))
    y.abs().sum().backward()
    sigmoid = SplitActivation(make(nn.Sigmoid))(x)
    assert torch.equal(sigmoid, torch.complex(x.real.sigmoid(), x.imag.sigmoid()))
    assert x.grad is not None


def test_dropout_keeps_phases_and_the_mean():
    layer, x = ComplexDropout(0.25), torch.randn(4000, dtype=torch.complex64)
    y = layer(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    assert 0.72 < float(kept.float().mean()) < 0.78
    assert layer.eval()(x) is x


def test_initialisation_has_the_power_of_the_rule_and_no_preferred_phase():
    weight = torch.zeros(64, 48, 3, 3, dtype=torch.complex64)
    fans = {"fan_in": 48 * 9, "fan_out": 64 * 9}
    for mode, fan in fans.items():
        drawn = complex_kaiming_normal_(weight, mode, generator=torch.Generator().manual_seed(1))
        assert float(drawn.abs().square().mean()) * fan / 2 == pytest.approx(1, abs=0.03)
        assert float(drawn.square().mean().abs()) * fan < 0.05  # E w^2 = 0: circular
    drawn = complex_xavier_normal_(weight)
    assert float(drawn.abs().square().mean()) * sum(fans.values()) / 2 == pytest.approx(1, abs=0.03)
    # modulus by Rayleigh's distribution: the mean modulus is sqrt(pi) / 2 of the root of the power
    assert float(drawn.abs().mean() / drawn.abs().square().mean().sqrt()) == pytest.approx(
        math.sqrt(math.pi) / 2, abs=0.01
    )


@pytest.mark.parametrize("layer", [CReLU(), ComplexDropout(), ComplexBatchNorm(3)])
def test_real_input_is_refused(layer):
    with pytest.raises(TypeError, match=f"{type(layer).__name__}.*float32"):
        layer(torch.zeros(2, 3))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="p is 1"):
        ComplexDropout(1.0)
    with pytest.raises(ValueError, match="num_features is 0"):
        ComplexBatchNorm(0)
    with pytest.raises(ValueError, match="eps is 0"):
        ComplexBatchNorm(2, eps=0)
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        ComplexBatchNorm(3)(torch.zeros(4, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"\(1, 3\).*one value"):
        ComplexBatchNorm(3)(torch.zeros(1, 3, dtype=torch.complex64))
    with pytest.raises(TypeError, match="weight is torch.float32"):
        complex_xavier_normal_(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"weight is \(2,\)"):
        complex_kaiming_normal_(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="'fan'"):
        complex_kaiming_normal_(torch.zeros(2, 2, dtype=torch.complex64), "fan")


@pytest.mark.parametrize("cast", [lambda m: m.double(), lambda m: m.to(torch.complex128)], ids=["double", "complex128"])
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_norm_in_double_precision(cast):
    norm, x = ComplexBatchNorm(3), torch.randn(8, 3, dtype=torch.complex128)
    expected = norm(x)
    norm.reset_parameters()
    torch.testing.assert_close(cast(norm)(x), expected)
    assert norm.weight.dtype == norm.running_covariance.dtype == torch.float64


def test_conjugated_views_and_empty_batches():
    norm, x = ComplexBatchNorm(3), torch.randn(8, 3, dtype=torch.complex64)
    torch.testing.assert_close(norm(x.conj()), norm(x.conj().resolve_conj()))
    torch.testing.assert_close(CReLU()(x.conj()), CReLU()(x.conj().resolve_conj()))
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        norm(x[:0])
    assert norm.running_mean.isfinite().all()
