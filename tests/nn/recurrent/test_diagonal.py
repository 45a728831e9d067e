import copy

import pytest
import torch

from graphseq.models import RecurrentLanguageModel, SequenceClassifier, SequenceTagger, generate_tokens
from graphseq.nn import LinearRNN, ParaGRU, ParaLSTM
from tests.reference import recurrences as reference

PARA = {"gru": ParaGRU, "lstm": ParaLSTM}
LAYERS = {**PARA, "linear": LinearRNN, "signed": lambda *sizes, **more: LinearRNN(*sizes, negative=True, **more)}
DOUBLE = {"dtype": torch.float64}

pytestmark = pytest.mark.usefixtures("way")


def parts_of(state):
    return state if isinstance(state, tuple) else (state,)


def affine(layer, number, x):
    return x @ layer.get_parameter(f"weight_ih_l{number}").T + layer.get_parameter(f"bias_ih_l{number}")


@pytest.mark.parametrize("cell", PARA)
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_equals_the_loop_over_numbers(cell, mode):
    layer = PARA[cell](3, 4, num_layers=2, mode=mode, max_recurrent=0.3).double()
    x = torch.randn(2, 5, 3, **DOUBLE)
    y, state = layer(x)
    zeros = [0.0] * 4
    for row in range(2):
        steps = x[row]
        for number in range(2):
            weight = layer.get_parameter(f"weight_hh_l{number}").clamp(-0.3, 0.3).tolist()
            start = zeros if cell == "gru" else [zeros, zeros]
            gates = affine(layer, number, steps).tolist()
            found = torch.tensor(reference.states(cell, gates, weight, start), **DOUBLE)
            steps = found if cell == "gru" else found[:, 1]
            ends = [found[-1]] if cell == "gru" else [found[-1, 1], found[-1, 0]]
            for part, end in zip(parts_of(state), ends, strict=True):
                assert torch.allclose(part[number, row], end, rtol=0, atol=1e-12)
        assert torch.allclose(y[row], steps, rtol=0, atol=1e-12)
    assert [report is not None for report in layer.reports] == [mode == "parallel"] * 2


@pytest.mark.parametrize("negative", [False, True])
def test_linear_layer_equals_the_loop_over_numbers(negative):
    layer = LinearRNN(3, 2, negative=negative).double()
    x = torch.randn(1, 6, 3, **DOUBLE)
    gates = affine(layer, 0, x[0]).view(6, 3, 2)
    for d in range(2):
        a = (gates[:, 0, d].tanh() if negative else gates[:, 0, d].sigmoid()).tolist()
        b = (gates[:, 1, d].sigmoid() * gates[:, 2, d]).tolist()
        expected = torch.tensor(reference.linear(a, b, 0.0), **DOUBLE)
        assert torch.allclose(layer(x)[0][0, :, d], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_padding_changes_nothing(kind):
    """Outputs, state and gradients of a padded batch are those of its sequences alone, whatever the padding holds."""
    layer = LAYERS[kind](3, 4, num_layers=2).double()
    lengths = torch.tensor([6, 2, 4])
    x = torch.full((3, 6, 3), torch.nan, **DOUBLE)
    for row, size in enumerate(lengths.tolist()):
        x[row, :size] = torch.randn(size, 3, **DOUBLE)
    before = x.clone()
    y, state = layer(x, None, lengths)
    assert torch.equal(x.nan_to_num(9.0), before.nan_to_num(9.0))
    assert torch.equal(layer.outputs(x, lengths), y)
    alone = [layer(x[row : row + 1, :size]) for row, size in enumerate(lengths.tolist())]
    for row, size in enumerate(lengths.tolist()):
        own_y, own_state = alone[row]
        assert torch.allclose(y[row, :size], own_y[0], atol=1e-12)
        assert (y[row, size:] == 0).all()
        for many, one in zip(parts_of(state), parts_of(own_state), strict=True):
            assert torch.allclose(many[:, row], one[:, 0], atol=1e-12)
    parameters = list(layer.parameters())
    together = torch.autograd.grad(y.square().sum() + parts_of(state)[-1].sum(), parameters)
    separate = sum(own_y.square().sum() + parts_of(own_state)[-1].sum() for own_y, own_state in alone)
    for one, other in zip(together, torch.autograd.grad(separate, parameters), strict=True):
        assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_state_carries_on_step_by_step(kind):
    layer = LAYERS[kind](3, 4, num_layers=2).double()
    x = torch.randn(2, 9, 3, **DOUBLE)
    whole, end = layer(x)
    found, state = [], None
    for cut in (slice(0, 4), *(slice(t, t + 1) for t in range(4, 9))):
        y, state = layer(x[:, cut], state)
        found.append(y)
    assert torch.allclose(torch.cat(found, 1), whole, rtol=0, atol=1e-12)
    assert all(torch.allclose(a, b) for a, b in zip(parts_of(state), parts_of(end), strict=True))
    _, middle = layer(x[:, :4])
    padded, _ = layer(x[:, 4:], middle, torch.tensor([5, 3]))
    assert torch.allclose(padded[0], whole[0, 4:], rtol=0, atol=1e-12)
    assert torch.allclose(padded[1, :3], whole[1, 4:7], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_do_not_depend_on_later_inputs_nor_on_other_channels(kind):
    layer = LAYERS[kind](3, 4).double()
    x = torch.randn(1, 8, 3, **DOUBLE)
    moved = x.clone()
    moved[0, 5] += 1
    y, z = layer(x)[0], layer(moved)[0]
    assert torch.allclose(y[0, :5], z[0, :5], rtol=0, atol=1e-14)
    assert (y[0, 5:] != z[0, 5:]).all()
    start = torch.zeros(1, 1, 4, **DOUBLE)
    other = start.clone()
    other[0, 0, 2] = 1
    given = [(one, torch.zeros_like(one)) if kind == "lstm" else one for one in (start, other)]
    changed = (layer(x, given[0])[0] - layer(x, given[1])[0]).abs().amax((0, 1)) > 0
    assert changed.tolist() == [False, False, True, False]


@pytest.mark.parametrize("cell", PARA)
def test_modes_give_the_same_numbers_in_training(cell):
    torch.manual_seed(0)
    one = PARA[cell](3, 8, num_layers=2, mode="parallel")
    other = PARA[cell](3, 8, num_layers=2, mode="sequential")
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, 100, 3)
    losses = []
    for layer in (one, other):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = layer(x)[0].square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-5)


def test_limit_of_recurrent_weights():
    layer = ParaGRU(3, 4, max_recurrent=0.2)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.linspace(-0.5, 0.5, 12).view(3, 4))
    layer(torch.randn(2, 5, 3))[0].sum().backward()
    beyond = layer.weight_hh_l0.abs() > 0.2
    assert (layer.weight_hh_l0.grad[beyond] == 0).all()
    assert (layer.weight_hh_l0.grad[~beyond] != 0).all()
    free = ParaGRU(3, 4, max_recurrent=None)
    assert torch.equal(free.recurrent_weight(0), free.weight_hh_l0)


def test_a_solution_that_does_not_converge_is_told_and_replaced():
    layer = ParaGRU(3, 4, max_recurrent=None, mode="parallel", max_iterations=1).double()
    exact = copy.deepcopy(layer)
    exact.mode = "sequential"
    x = 3 * torch.randn(2, 50, 3, **DOUBLE)
    with pytest.warns(UserWarning, match="after 1 iterations"):
        y, _ = layer(x)
    assert layer.reports[0].fell_back
    assert torch.allclose(y, exact(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_copies_and_states(kind):
    layer = LAYERS[kind](3, 4, num_layers=2, dropout=0.9)
    x = torch.randn(2, 5, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0]), "dropout between layers"
    layer.eval()
    other = LAYERS[kind](3, 4, num_layers=2, dropout=0.9).eval()
    assert not torch.equal(other(x)[0], layer(x)[0])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x)[0], layer(x)[0])
    assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])
    layer.reset_parameters()
    assert not torch.equal(other(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_autocast_leaves_the_precision_of_states(kind):
    layer = LAYERS[kind](3, 4)
    x = torch.randn(2, 50, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(x)
    assert y.dtype == torch.float32
    assert torch.allclose(y, layer(x)[0], atol=0.05)


@pytest.mark.parametrize("kind", LAYERS)
def test_networks_take_the_layer(kind):
    ids, lengths = torch.randint(7, (3, 9)), torch.tensor([9, 1, 4])
    for model, shape in ((SequenceClassifier, (3, 2)), (SequenceTagger, (3, 9, 2))):
        network = model(2, vocab_size=7, hidden_channels=5, recurrent=LAYERS[kind](5, 6))
        assert network(ids, lengths).shape == shape
    writer = RecurrentLanguageModel(7, 5, recurrent=LAYERS[kind](5, 6, num_layers=2)).eval()
    assert generate_tokens(writer, ids[:1], 4, temperature=0.0).shape == (1, 4)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_refused_sizes(kind, options, message):
    with pytest.raises(ValueError, match=message):
        LAYERS[kind](**{"input_size": 3, "hidden_size": 4, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_recurrent": 0.0}, "max_recurrent is 0.0"),
        ({"mode": "newton"}, "mode is 'newton'"),
        ({"max_iterations": 0}, "max_iterations is 0"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        ParaLSTM(3, 4, **options)


@pytest.mark.parametrize("kind", LAYERS)
def test_refused_inputs(kind):
    layer = LAYERS[kind](3, 4, num_layers=2)
    x = torch.zeros(2, 5, 3)
    _, state = layer(x)
    three = (torch.zeros(2, 3, 4),) * 2 if kind == "lstm" else torch.zeros(2, 3, 4)
    shallow = tuple(part[:1] for part in state) if kind == "lstm" else state[:1]
    for given, message in (
        ((torch.zeros(2, 5, 4),), r"\(2, 5, 4\)"),
        ((torch.zeros(2, 0, 3),), r"\(2, 0, 3\)"),
        ((x, None, torch.tensor([5, 0])), "from 0 to 5.*1..5"),
        ((x, None, torch.tensor([6, 1])), "from 1 to 6"),
        ((x, None, torch.tensor([5])), r"\(1,\)"),
        ((x, three), r"\(2, 3, 4\).* 2 rows"),
        ((x, shallow), r"\(1, 2, 4\).*\(2, 2, 4\)"),
        ((x, "state" if kind != "lstm" else ("h", "c")), "str"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*given)
