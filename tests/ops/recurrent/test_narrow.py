"""Compiled layers of few units are those of torch, values and gradients, for padded and packed sequences."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from graphseq.ops import recurrent, recurrent_layers
from graphseq.ops.recurrent import gru

pytest.importorskip("numba")


@pytest.fixture
def calls(monkeypatch):
    """Counts layers that take the compiled loop."""
    made = []
    for mode, layer in recurrent._COMPILED.items():
        monkeypatch.setitem(recurrent._COMPILED, mode, lambda *given, layer=layer: (made.append(1), layer(*given))[1])
    return made


NETWORKS = {
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": functools.partial(nn.RNN, nonlinearity="relu"),
}
MODES = list(NETWORKS)


def both(mode, lengths, units=3, layers=2, batch=4, steps=6, dtype=torch.float64):
    """Outputs, last state and all gradients, of torch and of ours."""
    torch.manual_seed(0)
    network = NETWORKS[mode](5, units, layers, batch_first=True).to(dtype)
    weights = list(network.parameters())
    x = torch.randn(batch, steps, 5, dtype=dtype, requires_grad=True)
    h = torch.randn(layers, batch, units, dtype=dtype, requires_grad=True)
    packed = None if lengths is None else pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
    if packed is None:
        runs = network(x, h), recurrent_layers(mode, x, weights, (h,))
    else:
        y, last = network(packed, h)
        runs = (y.data, last), recurrent_layers(mode, packed.data, weights, (h,), packed.batch_sizes)
    found = []
    for y, last in runs:
        last = last[0] if isinstance(last, tuple) else last
        loss = (y.sin() * torch.arange(1, 1 + y.numel(), dtype=dtype).view_as(y)).sum() + last.pow(2).sum()
        found.append([y, last, *torch.autograd.grad(loss, [x, h, *weights], retain_graph=True)])
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("units", [1, 3, gru.WIDEST, gru.WIDEST + 1])
@pytest.mark.parametrize("lengths", [None, [6, 6, 6, 6], [6, 4, 4, 1], [3, 1, 1, 1]])
def test_values_and_gradients_are_those_of_torch(mode, lengths, units, calls):
    for theirs, ours in zip(*both(mode, lengths, units), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert len(calls) == (2 if units <= gru.WIDEST else 0)


@pytest.mark.parametrize("mode", MODES)
def test_float32_and_one_sequence(mode):
    """The polynomial of the exponential is exact to 1e-7; sums over steps and rows add it up."""
    for theirs, ours in zip(*both(mode, None, 4, batch=1, dtype=torch.float32), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_differences(mode):
    torch.manual_seed(1)
    weights = [each.detach().double().requires_grad_() for each in NETWORKS[mode](2, 3).parameters()]
    x, h = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in [(3, 4, 2), (1, 3, 3)])

    def outputs(x, h, *weights):
        y, last = recurrent_layers(mode, x, weights, (h,))
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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_sequence_and_is_passed_on(mode, value):
    network, x = NETWORKS[mode](5, 3, batch_first=True), torch.randn(3, 4, 5)
    x[1, 2, 0] = value
    y, _ = recurrent_layers(mode, x, list(network.parameters()))
    torch.testing.assert_close(y, network(x)[0], equal_nan=True)
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_a_second_derivative_is_refused(mode):
    weights = list(NETWORKS[mode](5, 3, batch_first=True).parameters())
    y, _ = recurrent_layers(mode, torch.randn(3, 4, 5), weights)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(y.sum(), weights, create_graph=True)
