import copy
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphseq.core import make
from graphseq.models import MLP
from tests.reference import networks as reference


def as_lists(model: MLP) -> tuple[list[dict], dict]:
    layers = []
    for block in model.hidden:
        linear, norm = block[0], block[1]
        layers.append(
            {
                "weight": linear.weight.tolist(),
                "bias": None if linear.bias is None else linear.bias.tolist(),
                "gain": getattr(norm, "weight", torch.empty(0)).tolist(),
                "shift": getattr(norm, "bias", torch.empty(0)).tolist(),
            }
        )
    return layers, {"weight": model.head.weight.tolist(), "bias": model.head.bias.tolist()}


def random_mlp(norm: str, num_layers: int = 3, seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    model = MLP(6, 2, hidden_features=5, num_layers=num_layers, norm=norm).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)  # gains of one and shifts of zero would hide a mistake
    return model


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_equals_reference(norm, num_layers):
    model = random_mlp(norm, num_layers)
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    layers, head = as_lists(model)
    expected = reference.mlp(x.flatten(1).tolist(), layers, head, norm)
    assert torch.allclose(model(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_gradients_equal_reference(norm):
    model = random_mlp(norm)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 2, dtype=torch.float64)
    (model(x) * weights).sum().backward()
    inputs, (layers, head) = x.tolist(), as_lists(model)

    def loss() -> float:
        outputs = reference.mlp(inputs, layers, head, norm)
        return sum(
            o * w for row, signs in zip(outputs, weights.tolist(), strict=True) for o, w in zip(row, signs, strict=True)
        )

    def slopes(values: list) -> torch.Tensor:
        if isinstance(values[0], list):
            return torch.stack([slopes(row) for row in values])
        return torch.tensor([reference.slope(loss, values, k) for k in range(len(values))], dtype=torch.float64)

    pairs = [(x.grad, inputs), (model.head.weight.grad, head["weight"]), (model.head.bias.grad, head["bias"])]
    for block, layer in zip(model.hidden, layers, strict=True):
        pairs.append((block[0].weight.grad, layer["weight"]))
        if layer["bias"] is not None:
            pairs.append((block[0].bias.grad, layer["bias"]))
        if norm != "none":
            pairs += [(block[1].weight.grad, layer["gain"]), (block[1].bias.grad, layer["shift"])]
    for gradient, values in pairs:
        assert torch.allclose(gradient, slopes(values), rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(norm=st.sampled_from(["none", "layer", "batch"]), seed=st.integers(0, 1000), batch=st.integers(1, 9))
def test_samples_do_not_see_each_other_in_evaluation(norm, seed, batch):
    model = random_mlp(norm, seed=seed).eval()
    x = torch.randn(batch, 2, 3, dtype=torch.float64)
    order = torch.randperm(batch)
    together = model(x)
    assert torch.allclose(model(x[order]), together[order])
    assert torch.allclose(torch.cat([model(row[None]) for row in x]), together)


def test_one_layer_is_a_linear_model():
    model = MLP(12, 3, num_layers=1)
    x = torch.randn(5, 3, 4)
    assert model.encoded_features == 12
    assert torch.equal(model.encode(x), x.flatten(1))
    assert torch.equal(model(x), nn.functional.linear(x.flatten(1), model.head.weight, model.head.bias))


def test_bias_where_no_batch_norm_takes_it_away():
    for norm, needed in (("none", True), ("layer", True), ("batch", False)):
        model = MLP(8, 3, norm=norm, num_layers=3)
        assert [block[0].bias is not None for block in model.hidden] == [needed, needed]
        assert model.head.bias is not None


def test_encode_is_the_input_of_the_head():
    model = MLP(8, 3, hidden_features=7, num_layers=4)
    x = torch.randn(5, 8)
    assert model.encode(x).shape == (5, 7) == (5, model.encoded_features)
    assert torch.equal(model.head(model.encode(x)), model(x))


def test_dropout_is_of_hidden_units_and_of_training_only():
    model = MLP(4, 2, hidden_features=4000, dropout=0.25, activation=make(nn.Identity))
    torch.manual_seed(0)
    hidden = model.encode(torch.randn(1, 4))
    assert abs((hidden == 0).float().mean() - 0.25) < 0.03
    model.eval()
    assert (model.encode(torch.randn(1, 4)) != 0).all()


def test_each_layer_has_an_activation_of_its_own():
    given_activation = make(nn.PReLU, init=0.3)
    model = MLP(4, 2, num_layers=3, activation=given_activation)
    first, second = (block[2] for block in model.hidden)
    assert first is not second
    assert first.weight is not given_activation.weight
    model(torch.randn(6, 4)).sum().backward()
    assert first.weight.grad is not None
    assert second.weight.grad is not None
    assert given_activation.weight.grad is None


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "weight"])
def test_reset_parameters_draws_what_the_constructor_draws(norm):
    torch.manual_seed(5)
    fresh = MLP(6, 2, num_layers=3, norm=norm, activation=make(nn.PReLU))
    used = MLP(6, 2, num_layers=3, norm=norm, activation=make(nn.PReLU))
    for parameter in used.parameters():
        nn.init.constant_(parameter, 3.0)
    used(torch.randn(8, 6))  # moves the statistics of batch norm
    torch.manual_seed(5)
    used.reset_parameters()
    for (name, value), (_, expected) in zip(used.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name


def test_he_initialisation_and_weight_norm():
    torch.manual_seed(0)
    model = MLP(400, 10, 400, 3, norm="weight", initialization="he")
    model.reset_parameters()
    for block in model.hidden:
        assert abs(float(block[0].weight.square().sum(1).mean()) - 2) < 0.1
        assert not block[0].bias.any()
    assert abs(float(model.head.weight.square().sum(1).mean()) - 1) < 0.2
    # the length of a unit's weights is a parameter of its own
    layer = model.hidden[0][0]
    length, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    torch.testing.assert_close(layer.weight, length * direction / direction.norm(dim=1, keepdim=True))
    plain = MLP(400, 10, 400, 3)
    for block, other in zip(plain.hidden, model.hidden, strict=True):
        block[0].load_state_dict({"weight": other[0].weight.detach(), "bias": other[0].bias.detach()})
    plain.head.load_state_dict(model.head.state_dict())
    x = torch.randn(3, 400)
    assert torch.equal(model(x), plain(x))


def test_state_dict_copy_and_record():
    model = MLP(in_features=6, out_features=2, norm="batch", activation=make(nn.GELU))
    x = torch.randn(4, 6)
    model(x)
    model.eval()
    other = MLP(6, 2, norm="batch", activation=make(nn.GELU)).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert model._record == {
        "class_path": "graphseq.models.MLP",
        "init_args": {
            "in_features": 6,
            "out_features": 2,
            "norm": "batch",
            "activation": {"class_path": "torch.nn.GELU", "init_args": {}},
        },
    }
    # the command line links the sizes of the data to these two names
    assert list(inspect.signature(MLP).parameters)[:2] == ["in_features", "out_features"]


def test_traces_without_breaks():
    model = MLP(6, 2, norm="layer")
    x = torch.randn(4, 2, 3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features is 0"),
        ({"out_features": -1}, "out_features is -1"),
        ({"hidden_features": 0}, "hidden_features is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, r"dropout.*1\.0"),
        ({"norm": "group"}, "norm is 'group'"),
        ({"initialization": "zeros"}, "initialization is 'zeros'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"in_features": 4, "out_features": 2, **arguments})


def test_wrong_inputs():
    model = MLP(784, 10)
    with pytest.raises(ValueError, match=r"\(4, 1, 32, 32\), .*784 features"):
        model(torch.zeros(4, 1, 32, 32))
    with pytest.raises(ValueError, match=r"shape \(784,\)"):
        model(torch.zeros(784))
    with pytest.raises(TypeError, match=r"inputs are torch\.uint8; .*ToFloat"):
        model(torch.zeros(4, 1, 28, 28, dtype=torch.uint8))
