import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import ConvNet
from graphseq.nn import MaskedConv2d, MaskedLinear, mask_layers
from graphseq.tasks import Classification


def test_equals_a_linear_layer_whose_weights_are_zeroed():
    layer, plain = MaskedLinear(5, 4), nn.Linear(5, 4)
    mask = torch.rand(4, 5) < 0.5
    plain.load_state_dict({"weight": layer.weight * mask, "bias": layer.bias})
    layer.set_mask(mask)
    x, y = torch.rand(3, 5), torch.rand(3, 5)
    assert torch.equal(layer(x), plain(x))
    layer(y).square().sum().backward()
    plain(y).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad * mask)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


def test_a_full_mask_is_a_linear_layer():
    layer = MaskedLinear(5, 4)
    x = torch.rand(3, 5)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_the_mask_stands_in_the_state_and_what_exists_again_starts_from_zero():
    layer, other = MaskedLinear(3, 2), MaskedLinear(3, 2)
    layer.set_mask(torch.eye(2, 3, dtype=torch.bool))
    with torch.no_grad():
        layer.weight += 1.0  # as momentum does
    layer.set_mask(torch.ones(2, 3, dtype=torch.bool))
    assert layer.weight.count_nonzero() == 2
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.mask, layer.mask)


@pytest.mark.parametrize("mask", [torch.ones(3, 2, dtype=torch.bool), torch.ones(2, 3)])
def test_wrong_masks(mask):
    with pytest.raises(ValueError, match="mask"):
        MaskedLinear(3, 2).set_mask(mask)


def test_a_masked_convolution_equals_one_whose_weights_are_zeroed():
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "padding_mode": "reflect"}
    layer, plain = MaskedConv2d(4, 6, 3, **options).double(), nn.Conv2d(4, 6, 3, **options).double()
    mask = torch.rand(6, 2, 3, 3) < 0.5
    plain.load_state_dict({"weight": layer.weight * mask, "bias": layer.bias})
    layer.set_mask(mask)
    x = torch.rand(2, 4, 9, 9, dtype=torch.float64)
    assert torch.equal(layer(x), plain(x))
    layer(x).square().sum().backward()
    plain(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad * mask)
    assert layer.density == pytest.approx(float(mask.float().mean()))
    with pytest.raises(ValueError, match=r"\(6, 2, 3, 3\)"):
        layer.set_mask(mask[:1])


def test_layers_of_a_network_are_masked_in_place_and_recorded():
    network = ConvNet(1, 3, 4, 2)
    task = Classification(network, 3)
    before, x = dict(network.named_parameters()), torch.rand(2, 1, 8, 8)
    expected, state = network.eval()(x), torch.get_rng_state()
    found = mask_layers(network, exclude=["head"])
    assert sorted(found) == ["blocks.0.0", "blocks.1.0"]
    assert torch.equal(torch.get_rng_state(), state)
    assert type(network.head) is nn.Linear
    assert all(value is before[name] for name, value in network.named_parameters())
    assert torch.equal(network(x), expected)
    assert sorted(mask_layers(network, exclude=["blocks"])) == ["head"]
    assert list(mask_layers(network)) == ["blocks.0.0", "blocks.1.0", "head"], "those masked before, too"
    assert "Replaced" in task.hparams["model"]["class_path"]
    with pytest.raises(ValueError, match="Sequential has no linear"):
        mask_layers(make(nn.Sequential, make(nn.Linear, 2, 2)), exclude=["0"])


def test_names_that_are_left_out():
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"\['1'\]"):
        mask_layers(network, "1")
    for wrong, said in ((nn.Linear, "class Linear"), ("net", "a str")):
        with pytest.raises(TypeError, match=said):
            mask_layers(wrong)
    assert list(mask_layers(network, ["0.0"])) == ["0.1", "1"]
