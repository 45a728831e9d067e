import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from graphseq.core import make
from graphseq.nn import Bidirectional, ClassicalLSTM, JordanRNN, LayerStack, RecurrentStack
from tests.reference import recurrent_cells as reference

LENGTHS = torch.tensor([3, 6, 1, 6, 4])
FORMS = list(itertools.product([True, False], [True, False]))
NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


def inputs(width=3):
    x = torch.full((5, 6, width), 1e3, dtype=torch.float64)
    for row, size in enumerate(LENGTHS.tolist()):
        x[row, :size] = torch.randn(size, width, dtype=torch.float64)
    return x


def lstm(forget_gate, peepholes):
    layer = ClassicalLSTM(3, 4, forget_gate, peepholes).double()
    if peepholes:
        nn.init.normal_(layer.peephole)
    return layer


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize(("forget_gate", "peepholes"), FORMS)
def test_lstm_equals_the_loop_over_numbers(forget_gate, peepholes):
    layer, x = lstm(forget_gate, peepholes), inputs()
    weights = [getattr(layer, name).tolist() for name in NAMES]
    y, (h, c) = layer(x, None, LENGTHS)
    seen = layer.peephole.tolist() if peepholes else None
    for row, size in enumerate(LENGTHS.tolist()):
        out, last_h, last_c = reference.classical_lstm(weights, seen, x[row, :size].tolist(), forget_gate)
        assert torch.allclose(y[row, :size], torch.tensor(out).double(), atol=1e-12)
        assert (y[row, size:] == 0).all()
        assert h[0, row].tolist() == pytest.approx(last_h, abs=1e-12)
        assert c[0, row].tolist() == pytest.approx(last_c, abs=1e-12)
    assert torch.allclose(layer.outputs(x, LENGTHS), y, atol=1e-12)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_lstm_with_torchs_weights_is_torchs(ragged, peepholes):
    """Peepholes begin at 0, where they change nothing; values, state and gradients over 50 steps."""
    twin = nn.LSTM(3, 4, batch_first=True).double()
    layer = ClassicalLSTM(3, 4, peepholes=peepholes).double()
    layer.load_state_dict(twin.state_dict(), strict=not peepholes)
    x = torch.randn(5, 50, 3, dtype=torch.float64)
    lengths = torch.tensor([50, 7, 1, 30, 50]) if ragged else None
    state = tuple(torch.randn(1, 5, 4, dtype=torch.float64) for _ in range(2))
    y, after = layer(x, state, lengths)
    if ragged:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        z, other = twin(packed, state)
        z = pad_packed_sequence(z, batch_first=True)[0]
    else:
        z, other = twin(x, state)
    for ours, theirs in ((y, z), *zip(after, other, strict=True)):
        assert torch.allclose(ours, theirs, atol=1e-10)
    loss = torch.randn_like(y)
    ours = torch.autograd.grad((y * loss).sum(), [getattr(layer, name) for name in NAMES])
    theirs = torch.autograd.grad((z * loss).sum(), [getattr(twin, name) for name in NAMES])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("cell", "twin"), [("rnn", nn.RNN), ("rnn_relu", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_stacks_are_torchs(cell, twin):
    layer = RecurrentStack(3, 4, cell=cell).double()
    options = {"nonlinearity": "relu"} if cell == "rnn_relu" else {}
    other = twin(3, 4, batch_first=True, **options).double()
    other.load_state_dict(layer.layers.state_dict())
    x = inputs()
    for ours, theirs in zip(parts_of(layer(x)[0]), parts_of(other(x)[0]), strict=True):
        assert torch.equal(ours, theirs)


def test_without_forget_gate_nothing_leaves_the_state():
    """With its input gate shut the cell keeps its state for ever, and so does the gradient."""
    layer = lstm(False, False)
    with torch.no_grad():
        layer.bias_ih_l0[:4] = -1e4
    state = tuple(torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    _, (_, c) = layer(torch.randn(2, 30, 3, dtype=torch.float64), state)
    assert torch.equal(c, state[1])
    (gradient,) = torch.autograd.grad(c.sum(), state[1])
    assert (gradient == 1).all()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_jordan_equals_the_loop_over_numbers(decay):
    layer, x = JordanRNN(3, 5, 2, decay).double(), inputs()
    pairs = [(part.weight.tolist(), part.bias.tolist()) for part in (layer.input, layer.output)]
    y, state = layer(x, None, LENGTHS)
    targets = torch.randn(5, 6, 2, dtype=torch.float64)
    forced = layer.forward_with_target(x, targets)
    for row, size in enumerate(LENGTHS.tolist()):
        steps = x[row, :size].tolist()
        out, last = reference.jordan(pairs[0], layer.recurrent.weight.tolist(), pairs[1], steps, decay)
        assert torch.allclose(y[row, :size], torch.tensor(out).double(), atol=1e-12)
        assert state[0, row].tolist() == pytest.approx(last, abs=1e-12)
        out, _ = reference.jordan(pairs[0], layer.recurrent.weight.tolist(), pairs[1], steps, decay, targets[row])
        assert torch.allclose(forced[row, :size], torch.tensor(out).double(), atol=1e-12)
    own, _ = layer(x)
    assert torch.allclose(layer.forward_with_target(x, own), own, atol=1e-12)


LAYERS = {
    "lstm 1997": lambda: lstm(False, False),
    "lstm 2002": lambda: lstm(True, True),
    "jordan": lambda: JordanRNN(3, 5, 4, 0.3).double(),
    "elman": lambda: RecurrentStack(3, 4, cell="rnn").double(),
    "relu": lambda: RecurrentStack(3, 4, cell="rnn_relu").double(),
    "gru": lambda: RecurrentStack(3, 4, cell="gru").double(),
    "stack": lambda: LayerStack([lstm(True, True), JordanRNN(4, 5, 4).double()]),
    "both ways": lambda: Bidirectional(lstm(True, True), JordanRNN(3, 5, 2).double()),
    "stack both ways": lambda: LayerStack([Bidirectional(*map(lstm, (True, False), (True, True))),
                                           RecurrentStack(8, 4).double()]),
}  # fmt: skip
CAUSAL = [name for name in LAYERS if "both" not in name]


@pytest.mark.parametrize("name", LAYERS)
def test_a_padded_batch_is_its_sequences(name):
    layer, x = LAYERS[name](), inputs()
    y, _ = layer(x, None, LENGTHS)
    for row, size in enumerate(LENGTHS.tolist()):
        assert torch.allclose(y[row, :size], layer(x[row : row + 1, :size])[0][0], atol=1e-12)
        assert (y[row, size:] == 0).all()
    assert torch.allclose(layer.outputs(x, LENGTHS), y, atol=1e-12)
    assert y.shape[2] == layer.output_size


@pytest.mark.parametrize("name", CAUSAL)
def test_in_pieces_with_the_state_carried(name):
    layer, x = LAYERS[name](), torch.randn(2, 60, 3, dtype=torch.float64)
    whole, last = layer(x)
    state, pieces = None, []
    for piece in x.split(20, 1):
        y, state = layer(piece, state)
        pieces.append(y)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-12)
    again = layer(x[:, :5], last, torch.tensor([5, 2]))[0]
    assert torch.allclose(again[1, :2], layer(x[1:, :2], one_row(last))[0][0], atol=1e-12)


def one_row(state):
    if isinstance(state, torch.Tensor):
        return state[:, 1:]
    return type(state)(one_row(part) for part in state)


@pytest.mark.parametrize("name", LAYERS)
def test_only_both_ways_look_ahead(name):
    layer, x = LAYERS[name](), torch.randn(1, 8, 3, dtype=torch.float64)
    other = x.clone()
    other[0, 5] += 1
    same = (layer(x)[0] == layer(other)[0])[0].all(1)
    assert same[:5].all() == (name in CAUSAL)
    assert not same[5]


@pytest.mark.parametrize("name", ["lstm 1997", "lstm 2002", "jordan"])
def test_gradients(name):
    layer, x = LAYERS[name](), torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    names = [key for key, _ in layer.named_parameters()]

    def run(x, *weights):
        return torch.func.functional_call(
            layer, dict(zip(names, weights, strict=True)), (x, None, torch.tensor([3, 2]))
        )[0]

    assert torch.autograd.gradcheck(run, [x, *layer.parameters()])


def test_the_second_direction_is_the_first_of_the_reversed_sequence():
    layer = Bidirectional(lstm(True, False), lstm(True, False))
    twin = nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    weights = {name: getattr(layer.ahead, name) for name in NAMES}
    weights |= {f"{name}_reverse": getattr(layer.back, name) for name in NAMES}
    twin.load_state_dict(weights)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    assert torch.allclose(layer(x)[0], twin(x)[0], atol=1e-12)
    swapped = Bidirectional(layer.back, layer.ahead)
    y = swapped(x.flip(1))[0].flip(1)
    assert torch.allclose(torch.cat([y[..., 4:], y[..., :4]], 2), layer(x)[0], atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_and_new_weights(name):
    layer, x = LAYERS[name](), torch.randn(2, 3, 3, dtype=torch.float64)
    other = copy.deepcopy(layer)
    before = layer(x)[0]
    assert torch.equal(other(x)[0], before)
    layer.reset_parameters()
    assert not torch.equal(layer(x)[0], before)


@pytest.mark.parametrize("name", LAYERS)
def test_bad_inputs(name):
    layer, x = LAYERS[name](), inputs()
    for lengths, message in (
        (torch.tensor([3, 0, 1, 2, 2]), "lengths range from 0 to 3; each must be in 1..6"),
        (torch.tensor([3, 7, 1, 2, 2]), "lengths range from 1 to 7"),
        (torch.tensor([3, 1]), r"lengths is torch.int64 \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(x, None, lengths)
    with pytest.raises(ValueError, match=r"\(5, 6, 2\)"):
        layer(x[..., :2])
    _, state = layer(x[:2])
    with pytest.raises(ValueError, match="state holds .* 5 rows"):
        layer(x, state)


def test_refused():
    with pytest.raises(ValueError, match="hidden_size is 0"):
        ClassicalLSTM(3, 0)
    with pytest.raises(ValueError, match="output_size is 0"):
        JordanRNN(3, 4, 0)
    with pytest.raises(ValueError, match="decay is 1"):
        JordanRNN(3, 4, 2, 1.0)
    with pytest.raises(ValueError, match="target is"):
        JordanRNN(3, 4, 2).forward_with_target(torch.zeros(1, 5, 3), torch.zeros(1, 5, 3))
    with pytest.raises(ValueError, match="layers is empty"):
        LayerStack([])
    with pytest.raises(ValueError, match="dropout is 1"):
        LayerStack([RecurrentStack(3, 4)], 1.0)
    with pytest.raises(ValueError, match=r"layers\[1\] has input_size 5"):
        LayerStack([RecurrentStack(3, 4), RecurrentStack(5, 4)])
    with pytest.raises(ValueError, match="state has 1 entries"):
        LayerStack([RecurrentStack(3, 4), RecurrentStack(4, 4)])(torch.zeros(1, 2, 3), [None])
    with pytest.raises(TypeError, match="Linear has no output_size"):
        Bidirectional(nn.Linear(3, 4), nn.Linear(3, 4))
    with pytest.raises(ValueError, match="cell is 'jordan'"):
        RecurrentStack(3, 4, cell="jordan")


def test_parts_that_are_mistaken():
    x = torch.randn(2, 4, 3)
    for activation, said in (("relu", "'relu'"), (nn.ReLU, "ReLU")):
        with pytest.raises(TypeError, match=f"activation is {said}"):
            JordanRNN(3, 4, 2, activation=activation)
    kept = JordanRNN(3, 4, 2, activation=make(nn.PReLU, init=0.25))
    kept.reset_parameters()
    assert float(kept.activation.weight.detach()) == 0.25
    for state in (torch.zeros(1, 1, 2), torch.zeros(1, 2, 1)):  # both would be broadcast
        with pytest.raises(ValueError, match="state"):
            kept.forward_with_target(x, torch.zeros(2, 4, 2), state)
        with pytest.raises(ValueError, match="state"):
            kept(x, state)
    with pytest.raises(ValueError, match="input_size 3 and back 4"):
        Bidirectional(RecurrentStack(3, 5), RecurrentStack(4, 5))
    with pytest.raises(TypeError, match="class RecurrentStack"):
        LayerStack([RecurrentStack])
    pair = Bidirectional(RecurrentStack(3, 5), RecurrentStack(3, 5))
    for call in (pair.outputs, lambda x, lengths: pair(x, None, lengths)):
        with pytest.raises(ValueError, match="lengths range from 2 to 6"):
            call(x, torch.tensor([2, 6]))
