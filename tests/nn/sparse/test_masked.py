import pytest
import torch
from torch import nn

from graphseq.nn import MaskedLinear


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
