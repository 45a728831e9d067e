import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from graphseq.nn import MaskedRNN

CELLS = ["rnn_tanh", "rnn_relu", "gru", "lstm"]


def torchs(layer):
    """Torch's own layer with the same weights."""
    sizes = (layer.input_size, layer.hidden_size, layer.layers.num_layers)
    kinds = {"gru": nn.GRU, "lstm": nn.LSTM}
    options = {} if layer.cell in kinds else {"nonlinearity": layer.cell.removeprefix("rnn_")}
    twin = kinds.get(layer.cell, nn.RNN)(*sizes, batch_first=True, **options).double()
    twin.load_state_dict(layer.layers.state_dict())
    return twin


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ragged", [False, True])
def test_equals_torch_while_all_masks_are_true(cell, ragged):
    layer = MaskedRNN(3, 5, num_layers=2, cell=cell).double()
    twin = torchs(layer)
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    lengths = torch.tensor([2, 6, 1, 4]) if ragged else None
    y, state = layer(x, None, lengths)
    if ragged:
        z, other = twin(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        z = pad_packed_sequence(z, batch_first=True, total_length=6)[0]
        noisy = x.clone()
        noisy[0, 2:] = 1e3  # padding changes nothing
        assert torch.equal(layer(noisy, None, lengths)[0], y)
        assert torch.allclose(layer.outputs(noisy, lengths), y, atol=1e-12)
    else:
        z, other = twin(x)
    pairs = zip(state, other, strict=True) if cell == "lstm" else [(state, other)]
    assert torch.allclose(y, z, atol=1e-12)
    assert all(torch.allclose(ours, theirs, atol=1e-12) for ours, theirs in pairs)
    again, _ = layer(x, state, lengths)
    assert not torch.allclose(again, y)
    loss = torch.randn_like(y)
    ours = torch.autograd.grad((y * loss).sum(), list(layer.parameters()))
    theirs = torch.autograd.grad((z * loss).sum(), list(twin.parameters()))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_state_carries_on(cell):
    layer = MaskedRNN(3, 5, num_layers=2, cell=cell).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    layer.prune_(0.5)
    first, state = layer(x[:, :3])
    for lengths in (None, torch.tensor([4, 4])):
        second, _ = layer(x[:, 3:], state, lengths)
        assert torch.allclose(torch.cat([first, second], 1), layer(x)[0], atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("matrices", ["input_hidden", "hidden_hidden", "both"])
@pytest.mark.parametrize("scope", ["global", "layer", "matrix"])
def test_threshold_is_the_percentile_of_numpy(cell, matrices, scope):
    layer = MaskedRNN(3, 5, num_layers=2, cell=cell)
    before = {name: weight.detach().clone() for name, (weight, _) in layer.masked_weights("both").items()}
    chosen = list(layer.masked_weights(matrices))
    layer.prune_(0.7, matrices, scope)
    groups = {"global": lambda name: 0, "layer": lambda name: name[-1], "matrix": lambda name: name}[scope]
    for key in {groups(name) for name in chosen}:
        names = [name for name in chosen if groups(name) == key]
        pooled = np.concatenate([before[name].abs().numpy().ravel() for name in names])
        threshold = np.percentile(pooled, 70)
        zeros = 0
        for name in names:
            assert torch.equal(layer.masks[name], before[name].abs() >= threshold)
            zeros += int((~layer.masks[name]).sum())
        assert abs(zeros - round(0.7 * len(pooled))) <= 1
    assert all(layer.masks[name].all() for name in before if name not in chosen)
    masked = layer.masked_weights("both").values()
    assert all((weight[~mask] == 0).all() for weight, mask in masked)


def test_all_but_the_largest_weight_and_again():
    layer = MaskedRNN(3, 5, num_layers=2, cell="gru")
    largest = max(weight.abs().max() for weight, _ in layer.masked_weights("hidden_hidden").values())
    layer.prune_(0.5, "hidden_hidden")
    half = copy.deepcopy(layer.masks)
    layer.prune_(0.3, "hidden_hidden")
    assert all(torch.equal(mask, half[name]) for name, mask in layer.masks.items()), "0.3 is reached already"
    layer.prune_(0.8, "hidden_hidden")
    assert layer.sparsity("hidden_hidden") == pytest.approx(0.8, abs=0.01)
    assert all((mask <= half[name]).all() for name, mask in layer.masks.items())
    layer.prune_(1.0, "hidden_hidden")
    kept = [weight.detach()[mask] for weight, mask in layer.masked_weights("hidden_hidden").values()]
    assert [float(value.abs()) for value in kept if len(value)] == [float(largest.detach())]
    assert layer.sparsity("input_hidden") == 0


def test_random_scores_are_a_control():
    layer = MaskedRNN(3, 50, cell="gru")
    size = layer.layers.weight_hh_l0.detach().abs()
    layer.prune_(0.5, "hidden_hidden", score="random")
    kept, lost = size[layer.masks["weight_hh_l0"]], size[~layer.masks["weight_hh_l0"]]
    assert layer.sparsity("hidden_hidden") == pytest.approx(0.5, abs=0.01)
    assert float(kept.mean()) == pytest.approx(float(lost.mean()), rel=0.1)
    with pytest.raises(ValueError, match="score is 'movement'"):
        layer.prune_(0.5, score="movement")


@pytest.mark.parametrize("cell", CELLS)
def test_masked_weights_stay_zero_under_adam_with_decay(cell):
    layer = MaskedRNN(3, 5, cell=cell)
    layer.prune_(0.6)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        layer(torch.randn(2, 4, 3))[0].square().sum().backward()
        optimizer.step()
    for weight, mask in layer.masked_weights().values():
        assert (weight[~mask] == 0).all()
        assert (weight.grad[~mask] == 0).all()
        assert (weight[mask] != 0).all()


def test_masks_are_in_the_state_and_survive():
    layer = MaskedRNN(3, 5, num_layers=2, cell="lstm")
    layer.prune_(0.6)
    other = MaskedRNN(3, 5, num_layers=2, cell="lstm")
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 3)
    assert torch.equal(other(x)[0], layer(x)[0])
    assert other.sparsity() == layer.sparsity()
    assert torch.equal(copy.deepcopy(layer)(x)[0], layer(x)[0])
    layer.reset_parameters()
    assert all((weight[~mask] == 0).all() for weight, mask in layer.masked_weights().values())
    mask = torch.ones(20, 5, dtype=torch.bool)
    layer.set_masks({"weight_hh_l0": mask})
    begun = layer.layers.weight_hh_l0[~other.masks["weight_hh_l0"]]
    assert (begun == 0).all(), "a weight that exists again begins at zero"


def test_dropout_acts_between_layers_in_training():
    layer = MaskedRNN(3, 5, num_layers=2, cell="gru", dropout=0.9)
    x = torch.randn(2, 4, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaskedRNN(3, 0), "hidden_size is 0"),
        (lambda: MaskedRNN(3, 4, dropout=1.0), "dropout is 1.0"),
        (lambda: MaskedRNN(3, 4, cell="rnn"), "cell is 'rnn'"),
        (lambda: MaskedRNN(3, 4).prune_(1.1), "amount is 1.1"),
        (lambda: MaskedRNN(3, 4).prune_(-0.1), "amount is -0.1"),
        (lambda: MaskedRNN(3, 4).prune_(0.5, "i2h"), "matrices is 'i2h'"),
        (lambda: MaskedRNN(3, 4).prune_(0.5, scope="row"), "scope is 'row'"),
        (lambda: MaskedRNN(3, 4).set_masks({"bias": torch.ones(1)}), "'bias'"),
        (lambda: MaskedRNN(3, 4).set_masks({"weight_hh_l0": torch.ones(16, 4)}), "torch.float32"),
        (lambda: MaskedRNN(3, 4)(torch.zeros(2, 3)), r"\(2, 3\)"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_states_of_another_size_are_refused(cell):
    """The kernels of torch read beyond them, and write."""
    layer, x = MaskedRNN(3, 4, cell=cell), torch.randn(2, 5, 3)
    for size in (1, 8):
        state = torch.zeros(1, 2, size)
        for lengths in (None, torch.tensor([5, 2])):
            with pytest.raises(ValueError, match=rf"state holds \(1, 2, {size}\)"):
                layer(x, (state, state) if cell == "lstm" else state, lengths)
    with pytest.raises(ValueError, match="state is a Tensor" if cell == "lstm" else "state holds tuple"):
        layer(x, torch.zeros(1, 2, 4) if cell == "lstm" else (torch.zeros(1, 2, 4),) * 2)
    assert layer(x[:0], None, torch.zeros(0, dtype=torch.int64))[0].shape == (0, 5, 4)
