"""The compiled layer of few units is that of torch, values and gradients, for padded and packed sequences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from graphseq.ops import recurrent_layers
from graphseq.ops.gru import sequence

pytest.importorskip("numba")


@pytest.fixture
def calls(monkeypatch):
    """Counts layers that take the compiled loop."""
    made = []
    layer = sequence.gru_layer
    monkeypatch.setattr(sequence, "gru_layer", lambda *given: (made.append(1), layer(*given))[1])
    return made


def both(lengths, units=3, layers=2, batch=4, steps=6, dtype=torch.float64):
    """Outputs, last state and all gradients, of torch and of ours."""
    torch.manual_seed(0)
    network = nn.GRU(5, units, layers, batch_first=True).to(dtype)
    weights = list(network.parameters())
    x = torch.randn(batch, steps, 5, dtype=dtype, requires_grad=True)
    h = torch.randn(layers, batch, units, dtype=dtype, requires_grad=True)
    packed = None if lengths is None else pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
    if packed is None:
        runs = network(x, h), recurrent_layers("gru", x, weights, (h,))
    else:
        y, last = network(packed, h)
        runs = (y.data, last), recurrent_layers("gru", packed.data, weights, (h,), packed.batch_sizes)
    found = []
    for y, last in runs:
        last = last[0] if isinstance(last, tuple) else last
        loss = (y.sin() * torch.arange(1, 1 + y.numel(), dtype=dtype).view_as(y)).sum() + last.pow(2).sum()
        found.append([y, last, *torch.autograd.grad(loss, [x, h, *weights], retain_graph=True)])
    return found


@pytest.mark.parametrize("units", [1, 3, sequence.WIDEST, sequence.WIDEST + 1])
@pytest.mark.parametrize("lengths", [None, [6, 6, 6, 6], [6, 4, 4, 1], [3, 1, 1, 1]])
def test_values_and_gradients_are_those_of_torch(lengths, units, calls):
    for theirs, ours in zip(*both(lengths, units), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert len(calls) == (2 if units <= sequence.WIDEST else 0)


def test_float32_and_one_sequence():
    """The polynomial of the exponential is exact to 1e-7; sums over steps and rows add it up."""
    for theirs, ours in zip(*both(None, 4, batch=1, dtype=torch.float32), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_differences():
    torch.manual_seed(1)
    weights = [each.detach().double().requires_grad_() for each in nn.GRU(2, 3).parameters()]
    x, h = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in [(3, 4, 2), (1, 3, 3)])

    def outputs(x, h, *weights):
        y, last = recurrent_layers("gru", x, weights, (h,))
        return y, last[0]

    assert torch.autograd.gradcheck(outputs, (x, h, *weights))


def test_dropout_lies_between_layers_alone():
    network = nn.GRU(5, 3, 3, batch_first=True)
    weights, x = list(network.parameters()), torch.randn(2, 4, 5)
    plain = recurrent_layers("gru", x, weights)[0]
    assert torch.equal(recurrent_layers("gru", x, weights, dropout=0.5)[0], plain)
    first = recurrent_layers("gru", x, weights[:4])[0]
    assert torch.equal(recurrent_layers("gru", x, weights[:4], dropout=0.5, training=True)[0], first)
    torch.manual_seed(0)
    found = recurrent_layers("gru", x, weights, dropout=0.5, training=True)[0]
    torch.manual_seed(0)
    step = x
    for number in range(3):
        if number:  # drawn in the layout (T, D, B)
            step = nn.functional.dropout(step.permute(1, 2, 0), 0.5).permute(2, 0, 1)
        step = recurrent_layers("gru", step, weights[4 * number : 4 * number + 4])[0]
    torch.testing.assert_close(found, step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_sequence_and_is_passed_on(value):
    network, x = nn.GRU(5, 3, batch_first=True), torch.randn(3, 4, 5)
    x[1, 2, 0] = value
    y, _ = recurrent_layers("gru", x, list(network.parameters()))
    torch.testing.assert_close(y, network(x)[0], equal_nan=True)
    assert y[[0, 2]].isfinite().all()


def test_a_second_derivative_is_refused():
    weights = list(nn.GRU(5, 3, batch_first=True).parameters())
    y, _ = recurrent_layers("gru", torch.randn(3, 4, 5), weights)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(y.sum(), weights, create_graph=True)
