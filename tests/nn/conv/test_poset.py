import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import graphseq
from graphseq.core import make
from graphseq.models import ConvNet
from graphseq.nn import MixedPool2d, PosetConv2d, PosetGraphPool, PosetPool2d
from graphseq.ops import Poset
from graphseq.tasks import Classification
from tests.reliability.runs import trainer


def by_hand(x, poset, kernel, stride, shape):
    """Window by window, upper set by upper set; pixels beyond the image are 0."""
    images, channels, height, width = x.shape
    y = torch.zeros(images, channels, *shape, dtype=x.dtype)
    for n, c, row, column in itertools.product(*map(range, y.shape)):
        pixels = [(row * stride[0] + i, column * stride[1] + j) for i in range(kernel[0]) for j in range(kernel[1])]
        values = [x[n, c, i, j] if i < height and j < width else x.new_zeros(()) for i, j in pixels]
        sums = [x.new_zeros(())]
        for chosen in itertools.product((False, True), repeat=len(values)):
            if any(chosen) and all(chosen[j] or not chosen[i] for i, j in poset.relations):
                sums.append(sum(value for value, taken in zip(values, chosen, strict=True) if taken))
        y[n, c, row, column] = torch.stack(sums).max()
    return y


@pytest.mark.parametrize(
    ("layer", "stride", "size", "shape"),
    [
        (PosetPool2d("N"), (2, 2), (4, 4), (2, 2)),
        (PosetPool2d("claw"), (2, 2), (3, 5), (2, 3)),
        (PosetPool2d("a<b b<c b<d", stride=(1, 2), ties="split"), (1, 2), (3, 4), (2, 2)),
        (PosetPool2d("a<c b<d", (1, 4), 3), (3, 3), (4, 6), (2, 2)),
        (PosetConv2d("diamond"), (1, 1), (3, 4), (3, 4)),
    ],
)
def test_windows(layer, stride, size, shape):
    torch.manual_seed(0)
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    expected = by_hand(x, layer.poset, layer.kernel_size, stride, shape)
    assert y.shape == (2, 2, *shape)
    torch.testing.assert_close(y, expected)
    incoming = torch.randn_like(y)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, incoming)[0] for out in (y, expected)))
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)


def test_published_example_of_an_odd_image():
    """N over an image of ones: windows at the edge hold two ones or one."""
    y = PosetPool2d("N")(torch.ones(1, 1, 5, 5))
    assert y[0, 0].tolist() == [[4, 4, 2], [4, 4, 2], [2, 2, 1]]
    with pytest.raises(ValueError, match="5 x 6 are not covered"):
        PosetPool2d("N", padding="none")(torch.ones(1, 1, 5, 6))


@pytest.mark.parametrize("number", range(16))
def test_after_a_relu_every_order_is_four_times_the_average(number):
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    y, expected = PosetPool2d(number)(x.relu()), 4 * functional.avg_pool2d(x.relu(), 2)
    torch.testing.assert_close(y, expected)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (y, expected)]
    torch.testing.assert_close(*gradients)


def test_chain_after_a_relu_is_the_sum_to_the_last_bit():
    """Which the control of effect.poset rests on."""
    x = torch.randn(2, 3, 6, 8).relu()
    total = nn.AvgPool2d(2, divisor_override=1)(x)
    assert torch.equal(PosetPool2d("chain")(x), total)
    assert torch.equal(PosetPool2d("antichain")(x), total)


def test_is_a_convolution_with_all_upper_sets_and_their_maximum():
    layer, x = PosetConv2d("N"), torch.randn(2, 3, 5, 6)
    padded = functional.pad(x, (0, 1, 0, 1)).flatten(0, 1)[:, None]  # (B C, 1, Y + 1, X + 1)
    expected = functional.conv2d(padded, layer.kernels()).amax(1).view(2, 3, 5, 6)
    torch.testing.assert_close(layer(x), expected)


def test_groups_of_nodes():
    layer = PosetGraphPool("N")
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    groups = torch.tensor([[0, 1, 2, 3], [6, 4, -1, 5], [2, -1, -1, -1]])
    images = torch.zeros(3, 3, 2, 2, dtype=torch.float64)
    for g, place in itertools.product(range(3), range(4)):
        if groups[g, place] >= 0:
            images[g, :, place // 2, place % 2] = x[groups[g, place]]
    found, expected = layer(x, groups), PosetPool2d("N")(images)[:, :, 0, 0]
    torch.testing.assert_close(found, expected)
    incoming = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, incoming)[0] for out in (found, expected)))
    x = x.detach()
    x[0] = float("nan")  # what stands in the place of nobody
    assert not layer(x, groups)[2].isnan().any()
    assert layer(x[:0], torch.full((2, 4), -1)).tolist() == [[0.0] * 3] * 2  # no nodes


def test_mixed_pooling_learns_its_share():
    layer = MixedPool2d(share=0.25).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    largest, mean = functional.max_pool2d(x, 2), functional.avg_pool2d(x, 2)
    torch.testing.assert_close(layer(x), 0.25 * largest + 0.75 * mean)
    (gradient,) = torch.autograd.grad(layer(x).sum(), layer.weight)
    torch.testing.assert_close(gradient, 0.25 * 0.75 * (largest - mean).sum())
    with torch.no_grad():
        layer.weight.fill_(9.0)
    layer.reset_parameters()
    torch.testing.assert_close(layer.weight.sigmoid().item(), 0.25)


def test_network_with_pooling_is_rebuilt_from_its_checkpoint(tmp_path):
    """Each block has a pooling of its own; an order that is no name is plain data as well."""
    order = Poset.parse("a<b c<d")
    model = ConvNet(1, 3, 4, 2, pooling=[make(nn.ReLU), PosetPool2d(order, ties="split"), MixedPool2d(1)])
    assert model.blocks[0][4] is not model.blocks[1][4]
    run = trainer(max_epochs=1)
    batches = DataLoader(TensorDataset(torch.randn(8, 1, 7, 9), torch.randint(3, (8,))), 4)
    run.fit(Classification(model, 3), batches)
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = graphseq.load(tmp_path / "a.ckpt").model
    x = torch.randn(2, 1, 7, 9)
    assert torch.equal(loaded.eval()(x), model.eval()(x))
    assert loaded.blocks[0][3].poset == order
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    weights = model.blocks[1][4].weight
    with torch.no_grad():
        weights.fill_(3.0)
    model.reset_parameters()
    assert not weights.any()


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: PosetPool2d("a<b"), ValueError, "poset has 2 points, a window of 2 x 2"),
        (lambda: PosetPool2d("N", 0), ValueError, "kernel_size is 0"),
        (lambda: PosetPool2d("N", (2, 2), (1, 0)), ValueError, r"stride is \(1, 0\)"),
        (lambda: PosetPool2d("N", padding="same"), ValueError, "padding is 'same'"),
        (lambda: PosetPool2d("N", ties="all"), ValueError, "ties is 'all'"),
        (lambda: PosetPool2d()(torch.zeros(3, 4, 4)), ValueError, r"\(3, 4, 4\)"),
        (lambda: PosetPool2d()(torch.zeros(1, 3, 4, 4).byte()), TypeError, "uint8"),
        (lambda: PosetGraphPool(ties="all"), ValueError, "ties is 'all'"),
        (lambda: PosetGraphPool()(torch.zeros(3), torch.zeros(1, 4).long()), ValueError, r"\(3,\)"),
        (lambda: PosetGraphPool()(torch.zeros(3, 2), torch.zeros(1, 3).long()), ValueError, r"int64 \(G, 4\)"),
        (lambda: PosetGraphPool()(torch.zeros(3, 2), torch.tensor([[0, 1, 2, 3]])), ValueError, "0 to 3 for 3 nodes"),
        (lambda: PosetGraphPool()(torch.zeros(3, 2), torch.tensor([[0, 1, 2, -2]])), ValueError, "-2 to 2"),
        (lambda: PosetGraphPool()(torch.zeros(3, 2).byte(), torch.zeros(1, 4).long()), TypeError, "uint8"),
        (lambda: PosetPool2d("N", 2.0), ValueError, "kernel_size is 2.0"),
        (lambda: MixedPool2d()(torch.zeros(3, 4, 4)), ValueError, r"\(3, 4, 4\)"),
        (lambda: MixedPool2d()(torch.zeros(1, 3, 4, 4).byte()), TypeError, "uint8"),
        (lambda: MixedPool2d(share=1.0), ValueError, "share is 1.0"),
        (lambda: MixedPool2d(stride=0), ValueError, "stride is 0"),
        (lambda: ConvNet(1, 3, pooling=[]), ValueError, "pooling is empty"),
    ],
)
def test_refused(build, kind, message):
    with pytest.raises(kind, match=message):
        build()
