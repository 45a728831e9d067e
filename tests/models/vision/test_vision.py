import copy
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphseq.models import ConvNet
from tests.reference import networks as reference


def as_lists(model: ConvNet) -> tuple[list[dict], dict]:
    blocks = [
        {"weight": block[0].weight.tolist(), "gain": block[1].weight.tolist(), "shift": block[1].bias.tolist()}
        for block in model.blocks
    ]
    return blocks, {"weight": model.head.weight.tolist(), "bias": model.head.bias.tolist()}


def random_convnet(in_channels: int, hidden_channels: int, num_layers: int) -> ConvNet:
    torch.manual_seed(0)
    model = ConvNet(in_channels, 3, hidden_channels, num_layers).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)  # gains of both signs: pooling does not commute with them
    return model


@pytest.mark.parametrize(
    ("num_layers", "shape"), [(1, (2, 2, 2, 2)), (1, (3, 1, 5, 4)), (2, (2, 2, 4, 7)), (3, (2, 1, 8, 9))]
)
def test_equals_reference(num_layers, shape):
    model = random_convnet(shape[1], 2, num_layers)
    x = torch.randn(shape, dtype=torch.float64)
    expected = reference.convnet(x.tolist(), *as_lists(model))
    assert torch.allclose(model(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)


def test_gradients_equal_reference():
    model = random_convnet(1, 2, 2)
    x = torch.randn(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, dtype=torch.float64)
    (model(x) * weights).sum().backward()
    inputs, (blocks, head) = x.tolist(), as_lists(model)

    def loss() -> float:
        outputs = reference.convnet(inputs, blocks, head)
        return sum(
            o * w for row, signs in zip(outputs, weights.tolist(), strict=True) for o, w in zip(row, signs, strict=True)
        )

    def slopes(values: list) -> torch.Tensor:
        if isinstance(values[0], list):
            return torch.stack([slopes(row) for row in values])
        return torch.tensor([reference.slope(loss, values, k) for k in range(len(values))], dtype=torch.float64)

    pairs = [(x.grad, inputs), (model.head.weight.grad, head["weight"]), (model.head.bias.grad, head["bias"])]
    for block, lists in zip(model.blocks, blocks, strict=True):
        pairs += [
            (block[0].weight.grad, lists["weight"]),
            (block[1].weight.grad, lists["gain"]),
            (block[1].bias.grad, lists["shift"]),
        ]
    for gradient, values in pairs:
        assert torch.allclose(gradient, slopes(values), rtol=1e-5, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 6), height=st.integers(4, 12), width=st.integers(4, 12), seed=st.integers(0, 1000))
def test_samples_do_not_see_each_other_in_evaluation(batch, height, width, seed):
    model = random_convnet(2, 3, 2)
    x = torch.randn(batch, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    model(torch.randn(8, 2, 8, 8, dtype=torch.float64))  # statistics other than those of the batch
    model.eval()
    together = model(x)
    order = torch.randperm(batch)
    assert torch.allclose(model(x[order]), together[order])
    assert torch.allclose(torch.cat([model(image[None]) for image in x]), together)


@settings(max_examples=15, deadline=None)
@given(down=st.integers(0, 3), right=st.integers(0, 3), seed=st.integers(0, 100))
def test_shift_by_the_stride_changes_nothing(down, right, seed):
    # away from the border, a shift by whole cells of the last pooling only moves the features that are averaged
    model = random_convnet(1, 2, 2).eval()
    for block in model.blocks:
        block[1].bias.data.zero_()  # an empty background stays empty
    pattern = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    x[:, :, 8:16, 8:16] = pattern
    assert torch.allclose(model(x.roll((4 * down, 4 * right), (2, 3))), model(x))


def test_constant_kernel_gives_the_mean():
    # the limit in which a block only copies: kernels with a one in the middle, norms of one, positive 2 x 2 tiles
    model = ConvNet(1, 1, hidden_channels=1, num_layers=1).eval()
    nn.init.zeros_(model.blocks[0][0].weight)
    model.blocks[0][0].weight.data[0, 0, 1, 1] = 1.0
    tiles = torch.rand(5, 1, 4, 4)
    features = model.encode(tiles.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.allclose(features, tiles.mean((2, 3)), atol=1e-4)


def test_encode_is_the_input_of_the_head():
    model = ConvNet(3, 10, hidden_channels=4, num_layers=3).eval()
    x = torch.randn(2, 3, 9, 11)
    assert model.encode(x).shape == (2, 16) == (2, model.encoded_channels)
    assert torch.equal(model.head(model.encode(x)), model(x))


@pytest.mark.parametrize("size", [8, 16, 28, 32])
def test_sizes_of_the_data_sets(size):
    assert ConvNet(1, 10, hidden_channels=2)(torch.randn(2, 1, size, size)).shape == (2, 10)


def test_dropout_is_before_the_head_and_of_training_only():
    model = ConvNet(1, 1, hidden_channels=2000, num_layers=1, dropout=0.25)
    nn.init.ones_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    x = torch.randn(1, 1, 2, 2)
    torch.manual_seed(0)
    features, outputs = model.encode(x), [model(x).item() for _ in range(3)]
    assert len(set(outputs)) == 3
    assert outputs[0] == pytest.approx(features.sum().item(), rel=0.1)
    model.eval()
    assert model(x).item() == model(x).item()


def test_reset_parameters_draws_what_the_constructor_draws():
    torch.manual_seed(5)
    fresh = ConvNet(2, 3, 4, 2)
    used = ConvNet(2, 3, 4, 2)
    for parameter in used.parameters():
        nn.init.constant_(parameter, 3.0)
    used(torch.randn(8, 2, 8, 8))
    torch.manual_seed(5)
    used.reset_parameters()
    for (name, value), (_, expected) in zip(used.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name


def test_state_dict_copy_and_record():
    model = ConvNet(in_channels=1, out_channels=10, hidden_channels=4, num_layers=2, dropout=0.1)
    x = torch.randn(4, 1, 8, 8)
    model(x)
    model.eval()
    other = ConvNet(1, 10, 4, 2).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert model._record == {
        "class_path": "graphseq.models.ConvNet",
        "init_args": {"in_channels": 1, "out_channels": 10, "hidden_channels": 4, "num_layers": 2, "dropout": 0.1},
    }
    # the command line links the sizes of the data to these two names
    assert list(inspect.signature(ConvNet).parameters)[:2] == ["in_channels", "out_channels"]


def test_traces_without_breaks():
    model = ConvNet(1, 10, hidden_channels=2).eval()
    x = torch.randn(2, 1, 8, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), model(x))


def test_learns_where_the_stroke_runs():
    torch.manual_seed(0)
    x = torch.randn(256, 1, 8, 8) * 0.3
    labels = torch.arange(256) % 2
    for n in range(256):  # a stroke across or down the image
        at = int(torch.randint(0, 8, (1,)))
        (x[n, 0, at] if labels[n] else x[n, 0, :, at]).add_(1.0)
    model = ConvNet(1, 2, hidden_channels=8, num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x[:192]), labels[:192])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert (model(x[192:]).argmax(1) == labels[192:]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels is 0"),
        ({"out_channels": 0}, "out_channels is 0"),
        ({"hidden_channels": 0}, "hidden_channels is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**{"in_channels": 1, "out_channels": 2, **arguments})


def test_wrong_inputs():
    model = ConvNet(1, 10, num_layers=4)
    with pytest.raises(ValueError, match=r"\(4, 28, 28\), .*\(B, 1, Y, X\)"):
        model(torch.zeros(4, 28, 28))
    with pytest.raises(ValueError, match=r"\(4, 3, 28, 28\).*\(B, 1, Y, X\)"):
        model(torch.zeros(4, 3, 28, 28))
    with pytest.raises(ValueError, match="28 x 8 .* 4 poolings.*16 x 16"):
        model(torch.zeros(4, 1, 28, 8))
    with pytest.raises(TypeError, match=r"images are torch\.uint8; .*ToFloat"):
        model(torch.zeros(4, 1, 28, 28, dtype=torch.uint8))
