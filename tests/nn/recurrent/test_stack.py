import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from graphseq.nn import ClassicalLSTM, ForgetBias, MaskedRNN, RecurrentStack
from tests.reference import sequences as reference

CELLS = ["lstm", "gru", "rnn"]


@pytest.mark.parametrize("cell", CELLS)
def test_equals_the_loop(cell):
    layer = RecurrentStack(3, 4, num_layers=2, cell=cell).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    y, _ = layer(x)
    for row in range(2):
        steps = x[row].tolist()
        for number in range(2):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [getattr(layer.layers, f"{name}_l{number}").tolist() for name in names]
            steps = reference.recurrent(cell, weights, steps)
        assert torch.allclose(y[row], torch.tensor(steps, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(cell, bidirectional):
    """Outputs, state and gradients of a padded batch are those of its sequences alone."""
    layer = RecurrentStack(3, 4, num_layers=2, cell=cell, bidirectional=bidirectional).double()
    lengths = torch.tensor([6, 2, 4])
    x = torch.full((3, 6, 3), 1e3, dtype=torch.float64)  # what stands in the padding must not matter
    for row, size in enumerate(lengths.tolist()):
        x[row, :size] = torch.randn(size, 3, dtype=torch.float64)
    alone = [layer(x[row : row + 1, :size]) for row, size in enumerate(lengths.tolist())]
    y, state = layer(x, None, lengths)
    quiet = layer.outputs(x, lengths)
    for row, size in enumerate(lengths.tolist()):
        own_y, own_state = alone[row]
        for given in (y, quiet):
            assert torch.allclose(given[row, :size], own_y[0], atol=1e-12)
            assert (given[row, size:] == 0).all()
        pairs = zip(state, own_state, strict=True) if cell == "lstm" else [(state, own_state)]
        for many, one in pairs:
            assert torch.allclose(many[:, row], one[:, 0], atol=1e-12)
    parameters = list(layer.parameters())
    together = torch.autograd.grad(quiet.square().sum(), parameters)
    separate = torch.autograd.grad(sum(own.square().sum() for own, _ in alone), parameters)
    assert all(torch.allclose(left, right, atol=1e-9) for left, right in zip(together, separate, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_state_carries_on(cell):
    layer = RecurrentStack(3, 4, cell=cell).double()
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    whole, _ = layer(x)
    first, state = layer(x[:, :4])
    second, _ = layer(x[:, 4:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-12)
    packed, _ = layer(x[:, 4:], state, torch.tensor([5, 3]))
    assert torch.allclose(packed[0], second[0], atol=1e-12)


def test_is_torchs_layer():
    torch.manual_seed(1)
    layer = RecurrentStack(3, 4, cell="gru", dropout=0.5)
    torch.manual_seed(1)
    own = torch.nn.GRU(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    assert torch.equal(layer(x)[0], own(x)[0])
    packed = pack_padded_sequence(x, torch.tensor([5, 2]), batch_first=True)
    assert torch.equal(layer(x, None, torch.tensor([5, 2]))[1], own(packed)[1])
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x)[0], layer(x)[0])
    layer.reset_parameters()
    assert not torch.equal(again(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input_size is 0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"cell": "elman"}, "cell is 'elman'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentStack(**{"input_size": 2, "hidden_size": 2, **options})
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        RecurrentStack(2, 2)(torch.ones(1, 2, 3))


@pytest.mark.parametrize("make", [RecurrentStack, MaskedRNN, ClassicalLSTM])
def test_inputs_and_lengths_that_no_recurrence_takes(make):
    layer, x = make(3, 5), torch.randn(2, 4, 3)
    for lengths in (torch.tensor([5, 3]), torch.tensor([3]), torch.tensor([2.0, 3.0]), torch.tensor([-1, 3]), [4, 3]):
        for call in (layer.outputs, lambda x, lengths: layer(x, None, lengths)):
            with pytest.raises(ValueError, match="lengths"):
                call(x, lengths)
    with pytest.raises(ValueError, match=r"\(2, 0, 3\)"):
        layer(x[:, :0])
    with pytest.raises(ValueError, match="int64"):
        layer(x.long())
    with pytest.raises(ValueError, match="state is a Tensor"):
        layer(x, torch.zeros(1, 2, 5))
    assert layer(x[:0], None, torch.zeros(0, dtype=torch.int64))[0].shape == (0, 4, 5)


def test_a_class_in_place_of_an_initialisation():
    """``ForgetBias(layer)`` would only build an object, and write nothing."""
    for make in (RecurrentStack, ClassicalLSTM):
        for given, said in ((ForgetBias, "class ForgetBias"), ("orthogonal", "'orthogonal'")):
            with pytest.raises(TypeError, match=said):
                make(3, 5, initialization=given)
