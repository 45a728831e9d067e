import copy
import math

import pytest
import torch
from torch_geometric.nn.models.tgn import TimeEncoder as PyGTimeEncoder

from graphseq.core import MISSING
from graphseq.nn import TimeEncoder
from graphseq.ops.time_encoding import cosines, cosines_and_sines, gradients

pytestmark = pytest.mark.usefixtures("way")


def test_equals_the_formula_one_by_one():
    encoder = TimeEncoder(5, init="uniform").double()
    dt = torch.tensor([[0, 1], [86400, 2_678_400]])
    encoded = encoder(dt)
    assert encoded.shape == (2, 2, 5)
    for row in range(2):
        for column in range(2):
            for i in range(5):
                expected = math.cos(dt[row, column].item() * encoder.weight[i].item() + encoder.bias[i].item())
                assert encoded[row, column, i].item() == pytest.approx(expected, abs=1e-9)


def test_geometric_frequencies():
    encoder = TimeEncoder(10)
    expected = torch.tensor([10.0**-i for i in range(10)])
    torch.testing.assert_close(encoder.weight.detach(), expected, rtol=1e-6, atol=0)
    assert not encoder.bias.any()
    assert TimeEncoder(1).weight.tolist() == [1.0]


def test_uniform_is_the_start_of_a_linear_layer():
    """Same interval as PyG's encoder, a new ``Linear(1, dim)``: filled to the ends and not beyond."""
    ours, theirs = TimeEncoder(20_000, init="uniform"), PyGTimeEncoder(20_000)
    for mine, other in ((ours.weight, theirs.lin.weight), (ours.bias, theirs.lin.bias)):
        assert mine.abs().max() <= 1
        assert other.abs().max() <= 1
        assert mine.max() > 0.999
        assert mine.min() < -0.999
        assert abs(mine.std().item() - other.std().item()) < 0.02


def test_equals_pyg_for_the_same_frequencies():
    ours, theirs = TimeEncoder(6, init="uniform").double(), PyGTimeEncoder(6).double()
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.weight.unsqueeze(-1))
        theirs.lin.bias.copy_(ours.bias)
    dt = torch.rand(7, dtype=torch.float64) * 100
    torch.testing.assert_close(ours(dt), theirs(dt), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float32])
def test_times_of_any_type_give_the_type_of_the_weights(dtype):
    encoder = TimeEncoder(4)
    encoded = encoder(torch.tensor([3, 2**24 - 1]).to(dtype))
    assert encoded.dtype == torch.float32
    assert torch.equal(encoded, encoder(torch.tensor([3, 2**24 - 1])))


@pytest.mark.parametrize("trainable", [True, False])
def test_trainable(trainable):
    encoder = TimeEncoder(4, trainable=trainable)
    assert encoder(torch.tensor([1.0])).requires_grad is trainable
    assert set(encoder.state_dict()) == {"weight", "bias"}


def test_gradients():
    encoder = TimeEncoder(3, init="uniform").double()
    dt = torch.rand(4, dtype=torch.float64) * 5
    assert torch.autograd.gradcheck(
        lambda w, b: torch.func.functional_call(encoder, {"weight": w, "bias": b}, (dt,)),
        (encoder.weight, encoder.bias),
    )
    arriving = torch.randn(4, 3, dtype=torch.float64)
    expected = torch.autograd.grad(encoder(dt), [encoder.weight, encoder.bias], arriving)
    with torch.no_grad():
        cosine, sine = cosines_and_sines(dt, encoder.weight, encoder.bias)
        ours = gradients(arriving.clone(), sine, dt)
    torch.testing.assert_close(cosine, encoder(dt), rtol=0, atol=1e-12)
    assert torch.equal(cosines(dt, encoder.weight, encoder.bias), cosine)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("init", ["geometric", "uniform"])
def test_seconds_of_years_keep_their_angle_in_single_precision(way, init):
    """Compiled loops count phases in float64; products in float32 lose a tenth of a turn, twice over."""
    encoder, dt = TimeEncoder(50, init=init), torch.arange(0, 10**8, 1_234_567)
    exact = torch.cos(dt.double()[:, None] * encoder.weight.double() + encoder.bias.double())
    cosine, sine = cosines_and_sines(dt, encoder.weight.detach(), encoder.bias.detach())
    error = (cosine - exact).abs().max()
    assert error < (3e-7 if way == "compiled" else 8)
    torch.testing.assert_close(cosine.square() + sine.square(), torch.ones_like(cosine), rtol=0, atol=1e-6)


def test_reset_copy_and_state():
    encoder = TimeEncoder(4)
    before = copy.deepcopy(encoder)
    with torch.no_grad():
        encoder.weight.add_(1)
        encoder.bias.add_(1)
    encoder.reset_parameters()
    assert torch.equal(encoder.weight, before.weight)
    assert torch.equal(encoder.bias, before.bias)
    other = TimeEncoder(4, init="uniform")
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(torch.tensor([9])), encoder(torch.tensor([9])))
    assert encoder._record is not MISSING
    assert encoder._record["init_args"] == {"dim": 4}


def test_wrong_arguments():
    with pytest.raises(ValueError, match="number of cosines"):
        TimeEncoder(0)
    with pytest.raises(ValueError, match="'geometric' or 'uniform'"):
        TimeEncoder(3, init="linear")
