import itertools

import pytest
import torch
from torch import nn

from graphseq.nn import P3DBlock

KINDS = ("A", "B", "C", "2d")


def correlate(x, weight, stride=1):
    """Zero-padded convolution of odd kernels, tap by tap; space is strided, time is not."""
    reach = [size // 2 for size in weight.shape[2:]]
    padded = nn.functional.pad(x, [side for size in reversed(reach) for side in (size, size)])
    frames, height, width = x.shape[2:]
    total = torch.zeros(())
    for t, row, column in itertools.product(*map(range, weight.shape[2:])):
        window = padded[:, :, t : t + frames, row : row + height : stride, column : column + width : stride]
        total = total + torch.einsum("oc,bctyx->botyx", weight[:, :, t, row, column], window)
    return total


def normalised(x, norm):
    mean, variance, gain, shift = (
        value[:, None, None, None] for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (variance + 1e-5).sqrt() * gain + shift


def by_hand(block, x, stride=1):
    def relu(value):
        return value.clamp(min=0)

    x1 = relu(normalised(correlate(x, block.conv1.weight, stride), block.bn1))
    spatial = relu(normalised(correlate(x1, block.conv2.weight), block.bn2))
    if block.kind == "2d":
        z = spatial
    else:
        read = x1 if block.kind == "B" else spatial
        temporal = normalised(correlate(read, block.temporal.weight), block.temporal_norm)
        z = relu(temporal if block.kind == "A" else spatial + temporal)
    shortcut = x
    if block.downsample is not None:
        shortcut = normalised(correlate(x, block.downsample[0].weight, stride), block.downsample[1])
    return relu(shortcut + normalised(correlate(z, block.conv3.weight), block.bn3))


def drawn(kind, in_channels=4, stride=1, expansion=2):
    torch.manual_seed(0)
    block = P3DBlock(in_channels, 2, kind, stride, expansion).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm3d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return block


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (3, 2)])
def test_equation(kind, channels, stride):
    block = drawn(kind, channels, stride)
    x = torch.randn(2, channels, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    y, expected = block(x), by_hand(block, x, stride)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    incoming, leaves = torch.randn_like(y), [x, *block.parameters()]
    for one, other in zip(
        torch.autograd.grad(y, leaves, incoming), torch.autograd.grad(expected, leaves, incoming), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_kinds_differ_with_the_same_weights():
    first = drawn("A")
    x = torch.randn(1, 4, 4, 3, 3, dtype=torch.float64)
    outputs = []
    for kind in "ABC":
        block = P3DBlock(4, 2, kind, expansion=2).double().eval()
        block.load_state_dict(first.state_dict())
        outputs.append(block(x))
    assert all((one - other).abs().max() > 0.1 for one, other in itertools.combinations(outputs, 2))


@pytest.mark.parametrize(
    ("kind", "spatial", "expected"), [("B", 0.0, 0.0), ("B", 1.0, 0.5), ("C", 1.0, 0.5), ("A", 1.0, 0.0)]
)
def test_temporal_part_can_take_away_from_the_spatial_one(kind, spatial, expected):
    """The sum is cut off at zero, not the temporal part before it: s = 1 and t = -0.5 give 0.5."""
    block = P3DBlock(4, 2, kind, expansion=2).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
        block.temporal.weight.zero_()
        block.bn2.bias.fill_(spatial)
        block.temporal_norm.bias.fill_(-0.5)
    assert torch.equal(block.middle(torch.rand(1, 2, 3, 4, 4)), torch.full((1, 2, 3, 4, 4), expected))


@pytest.mark.parametrize("kind", ["A", "B", "C"])
def test_is_a_block_on_images_without_its_temporal_part(kind):
    """A with the middle tap of the identity; B and C with the gain of the temporal norm at 0."""
    flat = drawn("2d")
    block = P3DBlock(4, 2, kind, expansion=2, zero_init_temporal=True).double().eval()
    block.load_state_dict(flat.state_dict(), strict=False)
    if kind == "A":
        with torch.no_grad():
            block.temporal.weight.zero_()
            block.temporal.weight[:, :, 1, 0, 0] = torch.eye(2)
            block.temporal_norm.running_var.fill_(1 - 1e-5)
    x = torch.randn(2, 4, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(block(x), flat(x))
    frames = torch.stack([flat(frame[:, :, None])[:, :, 0] for frame in x.unbind(2)], 2)
    torch.testing.assert_close(flat(x), frames)


def test_reaches_one_frame_for_each_temporal_convolution():
    blocks = nn.Sequential(drawn("A"), drawn("B"), drawn("C"), drawn("2d"))
    x = torch.randn(1, 4, 9, 3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(blocks(x)[:, :, 4].sum(), x)
    assert (gradient.abs().sum((0, 1, 3, 4)) > 0).tolist() == [False] + [True] * 7 + [False]


def test_middle_has_fewer_weights_than_a_convolution_in_space_and_time():
    block = P3DBlock(32, 8, "A")
    assert block.conv2.weight.numel() + block.temporal.weight.numel() == 12 * 8**2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: P3DBlock(4, 0), "width is 0"),
        (lambda: P3DBlock(4, 2, spatial_stride=0), "spatial_stride is 0"),
        (lambda: P3DBlock(4, 2, "D"), "kind is 'D'"),
        (lambda: P3DBlock(4, 2)(torch.zeros(2, 4, 8, 8)), r"\(2, 4, 8, 8\)"),
        (lambda: P3DBlock(4, 2)(torch.zeros(2, 3, 4, 8, 8)), r"\(B, 4, T, Y, X\)"),
    ],
)
def test_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_integers_are_refused_and_the_kind_is_shown():
    block = P3DBlock(4, 2, "B")
    with pytest.raises(TypeError, match="uint8.*x.float"):
        block(torch.zeros(2, 4, 3, 4, 4, dtype=torch.uint8))
    assert "kind=B" in repr(block)
