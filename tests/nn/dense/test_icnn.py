"""Input-convex networks equal a loop over their layers, and stay convex under any optimiser."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from graphseq.core import make
from graphseq.nn import InputConvexConvNet, InputConvexNetwork, NonNegative


def softplus(z, beta):
    return np.log1p(np.exp(beta * z)) / beta


def loop(state, y, beta):
    """The formula for one point, in float64, from the stored numbers."""
    free = {name: value.double().numpy() for name, value in state.items()}
    linear = free["inputs.0.weight"] @ y
    for k in range(1, sum(name.startswith("hidden") for name in free) + 1):
        w = np.maximum(free[f"hidden.{k - 1}.parametrizations.weight.original"], 0)
        linear = w @ softplus(linear, beta) / w.shape[1] + free[f"inputs.{k}.weight"] @ y + free[f"inputs.{k}.bias"]
    return linear[0]


def shaken(network, seed=0):
    """The network with weights of any sign behind the parametrisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network.double()


def convex_share(network, points):
    """Smallest of t psi(x) + (1 - t) psi(y) - psi(t x + (1 - t) y) over random triples, and the share below 0."""
    generator = torch.Generator().manual_seed(1)
    first, second = (3 * torch.randn(points, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.rand(points[0], generator=generator, dtype=torch.float64)
    wide = t.view(-1, *[1] * (len(points) - 1))
    with torch.no_grad():
        gap = t * network(first) + (1 - t) * network(second) - network(wide * first + (1 - wide) * second)
    return float(gap.min()), float((gap < -1e-9).double().mean())


def test_equals_the_loop_and_its_differences():
    network = shaken(InputConvexNetwork(3, 5, num_layers=3, beta=2.0))
    y = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    state = network.state_dict()
    assert min(float(state[f"hidden.{k}.parametrizations.weight.original"].min()) for k in range(3)) < 0
    points = y.detach().numpy()
    expected = [loop(state, point, 2.0) for point in points]
    np.testing.assert_allclose(network(y).detach().numpy(), expected, rtol=1e-12)
    (gradient,) = torch.autograd.grad(network(y).sum(), y)
    step = 1e-5 * np.eye(3)
    slopes = [[(loop(state, p + e, 2.0) - loop(state, p - e, 2.0)) / 2e-5 for e in step] for p in points]
    np.testing.assert_allclose(gradient.numpy(), slopes, atol=1e-8)
    torch.testing.assert_close(network(y.reshape(4, 1, 1, 3)), network(y))


def test_convolutional_network_equals_its_formula():
    network = shaken(InputConvexConvNet(2, (5, 4), hidden_channels=3, strides=(1, 2), features=4, beta=3.0))
    state = {name.replace("parametrizations.weight.original", "weight"): v for name, v in network.state_dict().items()}
    y = torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    # rows 5 -> 3 and columns 4 -> 2: pixel i lies at (i + 1/2) 5 / 3 - 1/2 and (i + 1/2) 2 - 1/2 of the image
    small = torch.zeros(3, 2, 3, 2, dtype=torch.float64)
    for i, (low, share) in enumerate([(0, 1 / 3), (2, 0.0), (3, 2 / 3)]):
        for j in range(2):
            row = (1 - share) * y[:, :, low] + share * y[:, :, min(low + 1, 4)]
            small[:, :, i, j] = (row[:, :, 2 * j] + row[:, :, 2 * j + 1]) / 2

    def sigma(z):
        return torch.log1p(torch.exp(3.0 * z)) / 3.0

    z = sigma(functional.conv2d(y, state["inputs.0.weight"], padding=1))
    w = state["hidden.0.weight"].clamp(min=0)
    z = functional.conv2d(z, w, stride=2, padding=1) / 27
    z = sigma(z + functional.conv2d(small, state["inputs.1.weight"], state["inputs.1.bias"], padding=1))
    below = small.flatten(1)
    z = z.flatten(1) @ state["hidden.1.weight"].clamp(min=0).T / 18 + below @ state["inputs.2.weight"].T
    z = sigma(z + state["inputs.2.bias"]) @ state["hidden.2.weight"].clamp(min=0).T / 4
    z = z + below @ state["inputs.3.weight"].T + state["inputs.3.bias"]
    torch.testing.assert_close(network(y), z[:, 0], rtol=1e-10, atol=1e-12)
    assert convex_share(network, (300, 2, 5, 4))[0] >= -1e-9


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.5, momentum=0.9, weight_decay=0.1),
        lambda parameters: torch.optim.Adam(parameters, 0.3),
    ],
)
def test_any_optimiser_keeps_convexity(optimizer):
    """Steps that pull the potential down to something concave, without any projection afterwards."""
    network = InputConvexNetwork(2, 8, num_layers=2).double()
    stepper = optimizer(network.parameters())
    y = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for _ in range(8):
        stepper.zero_grad()
        (network(y) + y.square().sum(1)).square().mean().backward()
        stepper.step()
        assert all(bool((layer.weight >= 0).all()) for layer in network.hidden)
    free = torch.cat([layer.parametrizations.weight.original.flatten() for layer in network.hidden])
    assert free.min() < 0  # the constraint was at work
    assert convex_share(network, (10_000, 2))[0] >= -1e-8


def test_without_the_constraint_it_is_not_convex():
    bound, free = (shaken(InputConvexNetwork(2, 8, constraint=kept)) for kept in (None, make(nn.Identity)))
    assert convex_share(bound, (1000, 2))[1] == 0
    assert convex_share(free, (1000, 2))[1] > 0.1
    assert sum(p.numel() for p in bound.parameters()) == sum(p.numel() for p in free.parameters())


def test_projection_and_its_gradient():
    free = torch.tensor([1.0, -1.0, -1.0, 0.0, 0.0], requires_grad=True)
    weight = NonNegative()(free)
    assert weight.tolist() == [1, 0, 0, 0, 0]
    (weight * torch.tensor([2.0, 2.0, -2.0, 2.0, -2.0])).sum().backward()
    assert free.grad.tolist() == [2, 0, -2, 0, -2]  # descent takes the third and the last back above 0
    assert NonNegative().right_inverse(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]


def test_copies_and_states():
    network = InputConvexNetwork(3, 4)
    y = torch.randn(2, 3)
    twin, other = copy.deepcopy(network), InputConvexNetwork(3, 4)
    other.load_state_dict(network.state_dict())
    assert torch.equal(twin(y), network(y))
    assert torch.equal(other(y), network(y))
    other.reset_parameters()
    assert not torch.equal(other(y), network(y))
    assert all(bool((layer.weight > 0).any()) for layer in other.hidden)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: InputConvexNetwork(0), "in_features is 0"),
        (lambda: InputConvexNetwork(2, num_layers=0), "num_layers is 0"),
        (lambda: InputConvexNetwork(2, beta=0.0), "beta is 0"),
        (lambda: InputConvexConvNet(1, (8, 0)), r"image_size\[1\] is 0"),
        (lambda: InputConvexConvNet(1, (8, 8), strides=()), r"strides \(\)"),
        (lambda: InputConvexNetwork(2)(torch.ones(3, 4)), r"\(3, 4\).* 2 values"),
        (lambda: InputConvexConvNet(1, (8, 8), 2)(torch.ones(3, 1, 8, 9)), r"\(B, 1, 8, 8\)"),
    ],
)
def test_wrong_sizes(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_what_is_not_real(dtype):
    for network, shape in ((InputConvexNetwork(4), (2, 4)), (InputConvexConvNet(1, (2, 2), 2), (2, 1, 2, 2))):
        with pytest.raises(TypeError, match=str(dtype)):
            network(torch.ones(shape, dtype=dtype))


def test_transforms_of_torch_see_the_projection():
    network = InputConvexNetwork(2, 3, 2)
    weights = dict(network.named_parameters())
    y = torch.randn(4, 2)

    def value(own, point):
        return torch.func.functional_call(network, own, (point[None],)).squeeze()

    gradients = torch.func.vmap(torch.func.grad(value), (None, 0))(weights, y)
    network(y).sum().backward()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.sum(0), dict(network.named_parameters())[name].grad)
    with pytest.raises(ValueError, match="image_size is 8"):
        InputConvexConvNet(1, 8)
