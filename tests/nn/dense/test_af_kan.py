"""AF-KAN and ReLU-KAN layers against loops, what a sample's output depends on, and what is refused."""

import copy
import itertools

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import AFKAN, ReLUKAN
from graphseq.nn import AFKANLayer, ReLUKANLayer
from tests.reference import af_kan as reference

REDUCTIONS = ("global_attn", "spatial_attn", "multistep")


def layer(**options):
    """A layer of 4 features and 3 outputs, all of whose parameters have been moved from where they start."""
    torch.manual_seed(0)
    made = AFKANLayer(4, 3, **{"grid": 2, "order": 1, **options}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def by_loops(made, x, reduction, **options):
    parameters = dict(made.reduction.named_parameters())
    rows = [
        reference.af_kan(row, made.low, made.high, made.combination, reduction, parameters,
                         made.norm.weight, made.norm.bias, made.linear.weight, **options)
        for row in x
    ]  # fmt: skip
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("combination", "reduction"),
    [*zip(reference.COMBINATIONS, itertools.cycle(REDUCTIONS)), ("quad1", "global_attn"), ("quad1", "spatial_attn")],
)
def test_equals_the_loops_with_gradients(combination, reduction):
    made = layer(combination=combination, reduction=reduction)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    expected = by_loops(made, x, reduction)
    torch.testing.assert_close(made(x), expected, rtol=1e-10, atol=1e-10)
    wanted = [x, *made.parameters()]
    ours = torch.autograd.grad(made(x).square().sum(), wanted)
    theirs = torch.autograd.grad(expected.square().sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    names = ["x", *dict(made.named_parameters())]
    unused = {name for name, gradient in zip(names, ours, strict=True) if float(gradient.abs().max()) < 1e-12}
    # softmax and layer norm do not see a constant that is added everywhere
    assert unused <= {"reduction.score.bias", "reduction.weight.bias"}


def test_activation_and_no_scaling():
    made = layer(activation=make(nn.Tanh), feature_norm="none", combination="cubic1")
    x = torch.randn(2, 4, dtype=torch.float64)
    expected = by_loops(made, x, "global_attn", activation=torch.tanh, scale=False)
    torch.testing.assert_close(made(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("feature_norm", ["feature", "batch"])
def test_values_that_share_one_scaling(feature_norm):
    made = layer(feature_norm=feature_norm)
    basis = (
        made.basis(torch.randn(3, 4, dtype=torch.float64)).detach().requires_grad_()
    )  # (samples, intervals, features)
    if feature_norm == "feature":
        groups = [[list(sample[:, i])] for sample in basis for i in range(4)]
    else:
        groups = [[list(sample[:, i]) for sample in basis for i in range(4)]]
    rows = [torch.stack(row) for group in groups for row in reference.scaled(group)]
    expected = torch.stack(rows).view(3, 4, 3).transpose(1, 2)
    found, incoming = made.scale_features(basis), torch.randn(3, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(values, basis, incoming)[0] for values in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_norm_over_the_batch_and_bias():
    made = layer(norm="batch", bias=True)
    x = torch.randn(5, 4, dtype=torch.float64)
    parameters = dict(made.reduction.named_parameters())
    samples = [[list(sample[:, i]) for i in range(4)] for sample in made.basis(x)]
    h = torch.stack([torch.stack(reference.reduced(reference.scaled(one), "global_attn", parameters))
                     for one in samples])  # fmt: skip
    columns = []
    for i, column in enumerate(h.unbind(1)):
        mean = sum(column) / 5
        deviation = (sum((value - mean) ** 2 for value in column) / 5 + 1e-5).sqrt()
        columns.append(reference.silu((column - mean) / deviation * made.norm.weight[i] + made.norm.bias[i]))
    rows = torch.stack(columns, 1)
    expected = torch.stack([made.linear.weight @ row + made.linear.bias for row in rows])
    torch.testing.assert_close(made(x), expected, rtol=1e-10, atol=1e-10)
    pair = [torch.autograd.grad(y.pow(2).sum(), [made.low, made.linear.bias]) for y in (made(x), expected)]
    for one, other in zip(*pair, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_basis_of_relus_is_that_of_relu_kan():
    grid, order = 3, 2
    lows, highs = reference.interval_ends(grid, order)
    ours = AFKANLayer(1, 1, grid, order, activation=make(nn.ReLU)).double()
    peer = ReLUKANLayer(1, 1, grid, order, norm="none").double()
    height = 4 * grid**2 / (order + 1) ** 2
    points = [-1.5, -0.31, 0.0, 0.4, 0.99, 2.5]
    points += [(low + high) / 2 for low, high in zip(lows, highs, strict=True)]
    for point in points:
        expected = [reference.relu_kan_basis(point, low, high, grid, order)
                    for low, high in zip(lows, highs, strict=True)]  # fmt: skip
        expected = torch.tensor(expected).double()
        x = torch.tensor([point], dtype=torch.float64)
        torch.testing.assert_close(ours.basis(x)[:, 0] * height**2, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(peer.basis(x)[:, 0], expected, rtol=1e-6, atol=1e-6)
        inside = torch.tensor([low < point < high for low, high in zip(lows, highs, strict=True)])
        assert torch.equal(expected > 0, inside)
    for place, point in enumerate(points[6:]):
        peak = peer.basis(torch.tensor([point], dtype=torch.float64))[place, 0].detach()
        assert float(peak) == pytest.approx(1.0)


def test_relu_kan_is_a_linear_map_of_its_basis():
    torch.manual_seed(0)
    made = ReLUKANLayer(3, 2, 2, 1).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    normed = nn.functional.layer_norm(x, (3,))
    y, weight = made(x).detach(), made.linear.weight.view(2, 3, 3)  # outputs, intervals, features
    lows, highs = reference.interval_ends(2, 1)
    for b, o in itertools.product(range(4), range(2)):
        total = float(made.linear.bias[o].detach())
        for j, i in itertools.product(range(3), range(3)):
            basis = reference.relu_kan_basis(float(normed[b, i]), lows[j], highs[j], 2, 1)
            total += float(weight[o, j, i].detach()) * basis
        assert float(y[b, o]) == pytest.approx(total, rel=1e-5)


def test_attention_is_over_features_and_its_temperature_at_least_1():
    made = layer()
    features = made.scale_features(made.basis(torch.randn(5, 4, dtype=torch.float64)))
    weights = made.reduction.weights(features)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5).double())
    assert not torch.allclose(weights, torch.full_like(weights, 0.25), atol=1e-3)
    assert AFKANLayer(16, 1).reduction.temperature.item() == 4.0
    found = []
    for temperature in (1.0, 0.5, 2.0):
        with torch.no_grad():
            made.reduction.temperature.fill_(temperature)
        found.append(made.reduction.weights(features))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    spatial = layer(reduction="spatial_attn")
    torch.testing.assert_close(spatial.reduction.weights(features).sum(-2), torch.ones(5, 4).double())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_sample_does_not_see_the_others(reduction):
    torch.manual_seed(0)
    x, order = torch.randn(64, 12), torch.randperm(64)
    for feature_norm in ("sample", "feature"):
        made = AFKANLayer(12, 5, reduction=reduction, feature_norm=feature_norm)
        whole = made(x)
        torch.testing.assert_close(torch.cat([made(row[None]) for row in x]), whole, rtol=0, atol=1e-6)
        torch.testing.assert_close(made(x[order]), whole[order], rtol=0, atol=1e-6)
    # without the layer norm, which takes out most of one scale for all features
    leaking = AFKANLayer(12, 5, reduction=reduction, feature_norm="batch", norm="none")
    alone = torch.cat([leaking(row[None]) for row in x])
    assert float((alone - leaking(x)).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_numbers_of_parameters_and_each_is_used(reduction):
    net = AFKAN(20, 4, hidden_features=7, num_layers=3, grid=5, order=2, reduction=reduction)
    widths = [20, 7, 7, 4]
    expected = sum(reference.num_parameters(*pair, 5, 2, reduction) for pair in itertools.pairwise(widths))
    assert sum(parameter.numel() for parameter in net.parameters()) == expected
    net(torch.randn(3, 4, 5)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_published_numbers_of_parameters():
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in
             {"af": AFKAN(784, 10), "relu": ReLUKAN(784, 10)}.items()}  # fmt: skip
    assert count == {"af": 52_552, "relu": 316_842}
    fixed = AFKANLayer(784, 64, train_grid=False, norm="none", bias=True)
    assert sum(p.numel() for p in fixed.parameters()) == 784 * 64 + 64 + 8
    assert {"low", "high"} <= set(fixed.state_dict())


def test_equal_features_are_finite():
    for dtype, options in itertools.product((torch.float32, torch.float16), ({}, {"combination": "sum"})):
        made = AFKANLayer(3, 2, activation=make(nn.ReLU), **options).to(dtype)
        x = torch.full((2, 3), 9.0, dtype=dtype, requires_grad=True)  # beyond every interval: all products are 0
        y = made(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert y.isfinite().all()
        assert gradient.isfinite().all()


def test_leading_axes():
    x = torch.randn(2, 3, 6)
    for reduction, norm in (("global_attn", "layer"), ("spatial_attn", "batch"), ("multistep", "none")):
        made = AFKANLayer(6, 4, reduction=reduction, norm=norm).eval()
        assert made(x).shape == (2, 3, 4)
        torch.testing.assert_close(made(x)[1, 2], made(x[1, 2]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(made(x)[1], made(x[1]), rtol=1e-5, atol=1e-6)


def test_state_copies_and_reset():
    torch.manual_seed(0)
    net, other = AFKAN(6, 2, 5, norm="batch"), AFKAN(6, 2, 5, norm="batch")
    x = torch.randn(8, 6)
    net(x)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(x), net.eval()(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))
    for made in (net, ReLUKAN(6, 2, 5)):
        with torch.no_grad():
            made.layers[0].low += 1
        made.reset_parameters()
        assert made.layers[0].low.min().item() == -1.0
    shared = make(nn.PReLU)
    assert AFKANLayer(2, 2, activation=shared).activation is not shared


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (AFKANLayer, {"grid": 0}, "grid is 0"),
        (AFKANLayer, {"order": -1}, "order is -1"),
        (AFKANLayer, {"combination": "cubic3"}, "combination is 'cubic3'.*cubic2"),
        (AFKANLayer, {"reduction": "self_attn"}, "reduction is 'self_attn'"),
        (AFKANLayer, {"feature_norm": "layer"}, "feature_norm is 'layer'"),
        (AFKANLayer, {"norm": "group"}, "norm is 'group'"),
        (AFKANLayer, {"eps": 0.0}, "eps is 0"),
        (ReLUKANLayer, {"norm": "batch"}, "norm is 'batch'"),
        (AFKAN, {"num_layers": 0}, "num_layers is 0"),
    ],
)
def test_bad_arguments(kind, options, named):
    with pytest.raises(ValueError, match=named):
        kind(4, 2, **options)


def test_batches_of_no_sample_and_of_one():
    for feature_norm in ("sample", "feature", "batch", "none"):
        assert AFKANLayer(4, 2, feature_norm=feature_norm)(torch.ones(0, 4)).shape == (0, 2)
    normed = AFKANLayer(4, 2, norm="batch")
    with pytest.raises(ValueError, match="norm='batch'.*drop_last=True"):
        normed(torch.ones(1, 4))
    normed.norm.eval()  # a norm that is frozen takes nothing from the batch
    assert normed(torch.ones(1, 4)).shape == (1, 2)


def test_activation_that_is_no_module():
    for wrong in ("silu", nn.SiLU):
        with pytest.raises(TypeError, match="activation is .*SiLU\\(\\)"):
            AFKANLayer(4, 2, activation=wrong)


def test_wrong_inputs():
    for made in (AFKANLayer(4, 2), ReLUKANLayer(4, 2), AFKAN(4, 2)):
        with pytest.raises(ValueError, match="4 features"):
            made(torch.randn(3, 5))
        with pytest.raises(TypeError, match="int64"):
            made(torch.zeros(3, 4, dtype=torch.int64))
