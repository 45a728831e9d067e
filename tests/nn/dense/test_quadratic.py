"""Quadratic layers against loops, what ReLinear's start keeps, and how random ones fail in depth."""

import copy

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.models import MLP, ConvNet, QuadraticNetwork
from graphseq.nn import QuadraticConv2d, QuadraticLinear, quadratize, relinear_param_groups
from graphseq.nn.dense.quadratic import make_quadratic_layers
from tests.reference import quadratic as reference

NONE = (torch.zeros(8, 8, 8, 8, dtype=torch.float64), torch.ones(8, dtype=torch.float64))  # a gate of 1


def maps(layer):
    gate = (layer.gate.weight, layer.gate.bias) if layer.gate is not None else NONE
    if layer.gate is None and layer.linear.weight.dim() == 2:
        gate = (NONE[0][:, :, 0, 0], NONE[1])
    return (layer.linear.weight, layer.linear.bias), gate, (layer.power.weight, layer.power.bias)


def same(layer, x, expected):
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    wanted = [x, *layer.parameters()]
    ours = torch.autograd.grad(layer(x).pow(3).sum(), wanted)
    theirs = torch.autograd.grad(expected.pow(3).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "bias"), [("full", True), ("full", False), ("compact", True)])
def test_linear_equals_the_loops_with_gradients(kind, bias):
    torch.manual_seed(0)
    layer = QuadraticLinear(4, 3, bias, kind, "random").double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    same(layer, x, reference.linear(x, *maps(layer)))
    assert layer(x[None, 0]).shape == (1, 3)
    assert layer(x[0]).shape == (3,)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("full", {"padding": (1, 0), "stride": (2, 1)}),
        ("full", {"groups": 2, "dilation": (1, 2), "bias": False}),
        ("compact", {"padding": (1, 1)}),
    ],
)
def test_convolution_equals_the_loops_with_gradients(kind, options):
    torch.manual_seed(0)
    layer = QuadraticConv2d(2, 2, (2, 2), kind=kind, initialization="random", **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    steps = {name: value for name, value in options.items() if name != "bias"}
    same(layer, x, reference.convolution(x, *maps(layer), **steps))


def test_relinear_is_the_conventional_network_and_nothing_is_dead():
    torch.manual_seed(0)
    plain = ConvNet(1, 3, hidden_channels=4, num_layers=2)
    x, y = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    quadratic = QuadraticNetwork(copy.deepcopy(plain), skip=["head"])
    assert torch.equal(quadratic(x), plain(x))
    assert torch.equal(QuadraticNetwork(copy.deepcopy(plain), skip=["head"], kind="compact")(x), plain(x))
    for network in (plain, quadratic):
        nn.functional.cross_entropy(network(x), y).backward()
    for name, parameter in plain.named_parameters():
        inner = name.replace(".0.weight", ".0.linear.weight") if name.endswith(".0.weight") else name
        assert torch.equal(dict(quadratic.network.named_parameters())[inner].grad, parameter.grad), name
    for name, parameter in quadratic.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_one_neuron_fits_a_product_and_a_circle():
    torch.manual_seed(0)
    x = torch.rand(64, 2, dtype=torch.float64) * 2 - 1
    linear = torch.cat([x, torch.ones(64, 1, dtype=torch.float64)], 1)
    for target in (x[:, 0] * x[:, 1], x.square().sum(1) - 1):
        neuron = QuadraticLinear(2, 1, initialization="random").double()
        optimizer = torch.optim.LBFGS(neuron.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def loss(neuron=neuron, optimizer=optimizer, target=target):
            optimizer.zero_grad()
            error = (neuron(x)[:, 0] - target).square().mean()
            error.backward()
            return error

        optimizer.step(loss)
        assert float(loss().detach()) < 1e-6
        best = linear @ torch.linalg.lstsq(linear, target).solution
        assert float((best - target).square().mean()) > 0.05


def test_degree_doubles_with_each_layer():
    torch.manual_seed(1)
    net = nn.Sequential(*(QuadraticLinear(3, 3, initialization="random") for _ in range(2))).double()
    line = torch.arange(-4.0, 5.0, dtype=torch.float64)[:, None] * torch.randn(3, dtype=torch.float64)
    values = net(line).detach()
    assert float(values.diff(n=4, dim=0).abs().min()) > 1e-2
    assert float(values.diff(n=5, dim=0).abs().max()) < 1e-9 * float(values.abs().max())


def test_random_initialisation_fails_in_depth_and_relinear_does_not():
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))

    def size(depth, initialization):
        torch.manual_seed(0)
        network = MLP(16, 1, 16, depth + 1, initialization="he")
        quadratic = QuadraticNetwork(network, ["head"], initialization=initialization)
        return quadratic.network.encode(x).abs().max().item()

    assert size(2, "random") < 1e3
    assert size(4, "random") > 1e6
    assert not torch.tensor(size(8, "random")).isfinite()
    assert 0.1 < size(8, "relinear") < 20


def test_quadratize_keeps_the_function_and_leaves_what_is_to_stay():
    network = ConvNet(3, 2, hidden_channels=4, num_layers=2).eval()
    x = torch.randn(2, 3, 8, 8)
    before = network(x)
    assert quadratize(network, skip=["blocks.0"]) == ["blocks.1.0", "head"]
    assert torch.equal(network(x), before)
    assert network._record["class_path"] == "graphseq.core.Replaced"
    assert type(network.blocks[0][0]) is nn.Conv2d
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        quadratize(network, skip=["blocks.0"])
    with pytest.raises(ValueError, match=r"skip names 'stem'.*blocks\.0"):
        quadratize(ConvNet(3, 2), skip=["stem"])
    with pytest.raises(ValueError, match=r"outside of \['0'\]"):
        make_quadratic_layers(nn.Sequential(nn.Linear(2, 2)), skip=["0"])


def test_shared_and_frozen_layers():
    shared = nn.Linear(2, 2).requires_grad_(False)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    quadratize(network)
    assert network[0] is network[2]
    assert not network[0].linear.weight.requires_grad
    assert network[0].gate.weight.requires_grad


def test_reset_of_a_network():
    torch.manual_seed(0)
    model = QuadraticNetwork(MLP(4, 2, 8, 3), skip=["head"])
    old = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.reset_parameters()
    layer = model.network.hidden[1][0]
    assert not layer.gate.weight.any()
    assert torch.equal(layer.gate.bias, torch.ones(8))
    assert not any(torch.equal(model.state_dict()[name], old[name]) for name in
                   ("network.hidden.0.0.linear.weight", "network.head.weight"))  # fmt: skip
    assert not model.network.head.weight.abs().max() > 0.5
    images = QuadraticNetwork(ConvNet(1, 2, 4, 2), skip=["head"])  # which would draw all its convolutions
    images.reset_parameters()
    assert not images.network.blocks[0][0].power.weight.any()


def test_groups_hold_each_parameter_once_and_do_not_decay_the_gates_to_0():
    torch.manual_seed(0)
    model = QuadraticNetwork(MLP(4, 2, 8, 3), skip=["head"])
    groups = relinear_param_groups(model, 0.1, gamma_g=0.5, gamma_b=0.25)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    assert len(grouped) == len(list(model.parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: (group["lr"], group.get("weight_decay")) for group in groups for p in group["params"]}
    assert rates["network.hidden.1.0.linear.bias"] == rates["network.head.weight"] == (0.1, None)
    assert rates["network.hidden.1.0.gate.weight"] == (0.05, None)
    assert rates["network.hidden.0.0.gate.bias"] == (0.05, 0.0)
    assert rates["network.hidden.0.0.power.bias"] == (0.025, None)
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.network.hidden[0][0].gate.bias, torch.ones(8))
    model.network.head.requires_grad_(False)
    assert len(relinear_param_groups(model.network.head, 0.1)) == 0
    with pytest.raises(ValueError, match="gamma_b is -1"):
        relinear_param_groups(model, 0.1, gamma_b=-1)


def test_factor_0_trains_the_conventional_network():
    torch.manual_seed(0)
    plain = MLP(4, 2, 8, 4)
    model = QuadraticNetwork(copy.deepcopy(plain), skip=["head"])
    x, y = torch.randn(16, 4), torch.randint(0, 2, (16,))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    groups = relinear_param_groups(model, 0.1, 0.0, 0.0)
    for network, parameters in ((plain, plain.parameters()), (model, groups)):
        optimizer = torch.optim.SGD(parameters, **options)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    assert torch.equal(model(x), plain(x))
    assert not any(layer.power.weight.any() for layer in model.modules() if isinstance(layer, QuadraticLinear))


def test_products_do_not_overflow_in_half_precision():
    layer = QuadraticLinear(2, 1)
    with torch.no_grad():
        layer.linear.weight.fill_(300.0)
        layer.gate.weight.fill_(300.0)
    with torch.autocast("cpu", torch.float16):
        assert float(layer(torch.ones(1, 2)).detach()) == pytest.approx(600 * 601)


@pytest.mark.parametrize("kind", ["full", "compact"])
def test_squares_do_not_overflow_in_half_precision(kind):
    """In float16 the square of 300 is infinite, and 0 times that NaN."""
    for layer, x in (
        (QuadraticLinear(2, 1, kind=kind), torch.full((1, 2), 300.0)),
        (QuadraticConv2d(1, 2, 3, kind=kind), torch.full((1, 1, 4, 4), 300.0)),
    ):
        with torch.autocast("cpu", torch.float16):
            for given in (x, x.half()):
                assert torch.equal(layer(given), layer.linear(given).float())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: QuadraticLinear(0, 2), "in_features is 0"),
        (lambda: QuadraticConv2d(1, 0, 3), "out_channels is 0"),
        (lambda: QuadraticLinear(2, 2, kind="square"), "kind is 'square'"),
        (lambda: QuadraticLinear(2, 2, initialization="zero"), "initialization is 'zero'"),
        (lambda: QuadraticConv2d(3, 2, 3)(torch.ones(2, 1, 8, 8)), r"\(2, 1, 8, 8\).*\(B, 3, Y, X\)"),
        (lambda: QuadraticConv2d(3, 2, 3)(torch.ones(2, 3)), r"\(2, 3\)"),
        (lambda: QuadraticLinear(3, 2)(torch.ones(2, 4)), r"\(2, 4\).*3 features"),
        (lambda: quadratize(nn.Linear(2, 2)), "network is itself a Linear"),
        (lambda: QuadraticNetwork(make(nn.Conv2d, 2, 2, 1)), "network is itself a Conv2d"),
    ],
)
def test_bad_arguments(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: QuadraticLinear(3, 2)(torch.ones(2, 3).long()), "x is torch.int64"),
        (lambda: QuadraticConv2d(3, 2, 1)(torch.ones(2, 3, 4, 4).byte()), "x is torch.uint8"),
        (lambda: quadratize(MLP(3, 2), skip="head"), r"skip is 'head'; give a list of names, \['head'\]"),
        (lambda: relinear_param_groups(QuadraticLinear(3, 2), 0.1, parameters=MLP(3, 2).named_parameters()), "a tuple"),
    ],
)
def test_wrong_types(call, named):
    with pytest.raises(TypeError, match=named):
        call()


def test_shapes_without_memory():
    for kind in ("full", "compact"):
        layer = QuadraticLinear(3, 2, kind=kind).to("meta")
        assert layer(torch.ones(4, 3, device="meta")).shape == (4, 2)
