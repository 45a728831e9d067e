import pytest
import torch
from torch import nn

from graphseq.nn import SELU, AlphaDropout
from graphseq.ops import selu_parameters
from tests.reference import self_normalizing as reference


def test_selu_equals_the_formula():
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    for alpha, scale in ((reference.ALPHA, reference.SCALE), (0.5, 2.0)):
        expected = torch.from_numpy(reference.selu(x.numpy(), alpha, scale))
        torch.testing.assert_close(SELU(alpha, scale)(x), expected)
    assert torch.autograd.gradcheck(SELU(0.5, 2.0), x[x.abs() > 0.01].clone().requires_grad_())


def test_selu_of_another_fixed_point_keeps_it():
    mean, var = -0.1, 2.0
    x = mean + var**0.5 * torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    y = SELU(*selu_parameters(mean, var))(x)
    assert abs(float(y.mean()) - mean) < 5e-3
    assert abs(float(y.var()) - var) < 1e-2  # four standard errors of a million samples


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("mean", "var"), [(0.0, 1.0), (-0.1, 2.0), (0.5, 0.5)])
def test_dropout_keeps_mean_and_variance(p, mean, var):
    x = mean + var**0.5 * torch.randn(10**6, generator=torch.Generator().manual_seed(5))  # not the stream of the mask
    y = AlphaDropout(p, mean, var)(x)
    assert abs(float(y.mean()) - mean) < 5e-3
    assert abs(float(y.var()) / var - 1) < 1e-2


def test_dropout_equals_loops_and_gradients_pass_only_through_kept_units():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    layer = AlphaDropout(0.3, -0.1, 2.0)
    state = torch.random.get_rng_state()
    y = layer(x)
    torch.random.set_rng_state(state)
    kept = (torch.rand_like(x) >= 0.3).tolist()
    expected = reference.alpha_dropout(x.tolist(), kept, 0.3, -0.1, 2.0)
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64))
    y.sum().backward()
    assert (x.grad != 0).tolist() == kept


def test_dropout_rests_in_evaluation_and_equals_torch_in_distribution():
    x = torch.randn(200_000)
    assert torch.equal(AlphaDropout(0.4).eval()(x), x)
    assert torch.equal(AlphaDropout(0.0)(x), x)
    ours, torchs = AlphaDropout(0.2)(x).sort().values, nn.AlphaDropout(0.2)(x).sort().values
    assert float((ours - torchs).abs().mean()) < 0.02


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: AlphaDropout(1.0), "p is 1"),
        (lambda: AlphaDropout(-0.1), "p is -0.1"),
        (lambda: AlphaDropout(0.1, var=0.0), "var is 0"),
        (lambda: SELU(alpha=0.0), "alpha is 0"),
        (lambda: SELU(scale=float("nan")), "scale is nan"),
    ],
)
def test_bad_arguments(build, named):
    with pytest.raises(ValueError, match=named):
        build()
