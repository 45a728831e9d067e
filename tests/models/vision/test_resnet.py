"""Residual networks: sizes that are known, blocks against plain operations, and norms that keep images apart."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from graphseq.models import ResNetClassifier, ResNetEncoder
from graphseq.nn import ResidualBlock, ResidualStage


def test_number_of_weights_of_resnet_50():
    with torch.device("meta"):
        stages = ResNetEncoder(3, 64, (3, 4, 6), "bottleneck", "large")
        network = ResNetClassifier(stages, 1000, 3, "bottleneck")
    assert (stages.out_channels, network.encoded_channels) == (1024, 2048)
    assert sum(weight.numel() for weight in network.parameters()) == 25_557_032


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_block_is_a_sum_with_its_shortcut(kind):
    torch.manual_seed(0)
    block = ResidualBlock(3, 4, stride=2, kind=kind).double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    h = x
    layers = [layer for layer in block.body if isinstance(layer, nn.Conv2d)]
    for number, layer in enumerate(layers):
        h = functional.conv2d(h, layer.weight, stride=layer.stride, padding=layer.kernel_size[0] // 2)
        h = h / (1 + 1e-5) ** 0.5  # batch norm with its first statistics
        h = h.clamp(min=0) if number < len(layers) - 1 else h
    short = functional.conv2d(x, block.shortcut[0].weight, stride=2) / (1 + 1e-5) ** 0.5
    expected = (h + short).clamp(min=0)
    assert torch.allclose(block(x), expected)
    found, wanted = (torch.autograd.grad(y.square().sum(), x)[0] for y in (block(x), expected))
    assert torch.allclose(found, wanted)
    assert len(ResidualBlock(8, 8).shortcut) == 0


@pytest.mark.parametrize(("stem", "side"), [("small", 8), ("strided", 4), ("large", 2)])
def test_stems_and_stages_set_the_resolution(stem, side):
    encoder = ResNetEncoder(1, 4, (1, 1, 1), stem=stem).eval()
    x = torch.randn(2, 1, 32, 32)
    assert encoder(x).shape == (2, 16, side, side)
    assert torch.equal(encoder.encode(x), encoder(x).flatten(2).mean(2))


def test_group_norm_keeps_images_apart_and_batch_norm_in_training_does_not():
    x = torch.randn(3, 3, 8, 8)
    other = torch.cat([x[:1], torch.randn(2, 3, 8, 8)])
    apart, joined = ResNetEncoder(3, 8, (1, 1), norm="group"), ResNetEncoder(3, 8, (1, 1))
    assert torch.allclose(apart.encode(x)[0], apart.encode(other)[0], atol=1e-6)
    assert not torch.allclose(joined.encode(x)[0], joined.encode(other)[0], atol=1e-3)
    joined.eval()
    assert torch.allclose(joined.encode(x)[0], joined.encode(other)[0], atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="kind is 'wide'"):
        ResidualBlock(3, 4, kind="wide")
    with pytest.raises(ValueError, match="norm is 'layer'"):
        ResidualBlock(3, 4, norm="layer")
    with pytest.raises(ValueError, match=r"'group' and there are 12 channels"):
        ResidualBlock(8, 12, norm="group")
    with pytest.raises(ValueError, match="stride is 0"):
        ResidualBlock(3, 4, stride=0)
    with pytest.raises(ValueError, match="num_blocks is 0"):
        ResidualStage(3, 4, num_blocks=0)
    with pytest.raises(ValueError, match="num_blocks is empty"):
        ResNetEncoder(3, num_blocks=())
    with pytest.raises(ValueError, match="stem is 'tall'"):
        ResNetEncoder(3, stem="tall")
    with pytest.raises(ValueError, match=r"shape \(2, 1, 8, 8\), where \(B, 3"):
        ResNetEncoder(3)(torch.ones(2, 1, 8, 8))
    with pytest.raises(TypeError, match="images are torch.uint8"):
        ResNetEncoder(3)(torch.ones(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match="Identity without out_channels"):
        ResNetClassifier(nn.Identity(), 10)
    with pytest.raises(ValueError, match="out_channels is 0"):
        ResNetClassifier(ResNetEncoder(3), 0)
    with pytest.raises(ValueError, match="dropout is 1"):
        ResNetClassifier(ResNetEncoder(3), 2, dropout=1.0)
