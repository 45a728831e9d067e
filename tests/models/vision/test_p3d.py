import pytest
import torch
from torch import nn
from torch.nn import functional

from graphseq.models import P3DResNet, inflate_from_2d
from tests.conftest import REAL_EMPTY

SMALL = {"in_channels": 2, "out_channels": 3, "layers": (1, 2, 1, 1), "base_width": 2, "dropout": 0.0}
FRAMEWISE = {**SMALL, "temporal_pool": (False, False, False, False)}


@pytest.fixture
def without_memory(monkeypatch):
    """Shapes alone: no weight takes memory, none is drawn."""
    monkeypatch.setattr(torch, "empty", lambda *args, **options: REAL_EMPTY(*args, **{**options, "device": "meta"}))
    for rule in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, rule, lambda weight, *args, **options: weight)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    ("layers", "outputs", "depth", "parameters"),
    [
        ((3, 4, 6, 3), 101, 63, 25_132_581),
        ((3, 4, 23, 3), 400, 131, 48_088_400),
        ((3, 8, 36, 3), 400, 199, 66_492_240),
    ],
)
def test_published_sizes(without_memory, layers, outputs, depth, parameters):
    model = P3DResNet(3, outputs, layers)
    assert model.depth == depth
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    kinds = [block.kind for block in model.blocks()]
    temporal = sum(layers[:3])
    assert kinds == [("A", "B", "C")[place % 3] for place in range(temporal)] + ["2d"] * 3
    assert model.get_submodule("layer3.0").kind == "ABC"[sum(layers[:2]) % 3]


def test_without_temporal_convolutions_it_is_resnet_50(without_memory):
    model = P3DResNet(3, 101, order=("2d",))
    assert model.depth == 50
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_714_981


def test_shapes_of_the_stages(without_memory):
    stages = P3DResNet(layers=(1, 1, 1, 1)).stages(torch.zeros(1, 3, 16, 160, 160))
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (64, 16, 80, 80), (64, 8, 40, 40), (256, 8, 40, 40), (512, 4, 20, 20), (1024, 2, 10, 10), (2048, 1, 5, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 3, 3), (8, 32, 32), (5, 7, 30)])
def test_short_clips_and_small_frames_pass(shape):
    assert P3DResNet(**SMALL)(torch.randn(2, 2, *shape)).shape == (2, 3)


def test_reaches_as_many_frames_to_each_side_as_it_has_temporal_convolutions():
    torch.manual_seed(0)
    model = P3DResNet(**{**FRAMEWISE, "layers": (1, 1, 1, 1), "base_width": 4}).double().eval()
    assert [block.kind for block in model.blocks()] == ["A", "B", "C", "2d"]
    x = torch.randn(1, 2, 11, 9, 9, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.stages(x)[-1][:, :, 5].sum(), x)
    assert (gradient.abs().sum((0, 1, 3, 4)) > 0).tolist() == [False] * 2 + [True] * 7 + [False] * 2


def state_of_a_network_on_images():
    """Names and shapes of a bottleneck ResNet on images, with weights and statistics drawn at random."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (2, 2, 7, 7), "bn1": (2,)}
    channels = 2
    for stage, (depth, width) in enumerate(zip((1, 2, 1, 1), (2, 4, 8, 16), strict=True), start=1):
        for place in range(depth):
            name = f"layer{stage}.{place}"
            shapes |= {f"{name}.conv1.weight": (width, channels, 1, 1), f"{name}.bn1": (width,)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), f"{name}.bn2": (width,)}
            shapes |= {f"{name}.conv3.weight": (4 * width, width, 1, 1), f"{name}.bn3": (4 * width,)}
            if place == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, channels, 1, 1)}
                shapes |= {f"{name}.downsample.1": (4 * width,)}
            channels = 4 * width
    state = {}
    for name, shape in shapes.items():
        if len(shape) == 4:
            state[name] = torch.randn(shape, dtype=torch.float64) / shape[1] ** 0.5
            continue
        state[f"{name}.running_var"] = torch.rand(shape, dtype=torch.float64) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        for entry in ("weight", "bias", "running_mean"):
            state[f"{name}.{entry}"] = torch.randn(shape, dtype=torch.float64)
    return state | {"fc.weight": torch.randn(3, 64, dtype=torch.float64), "fc.bias": torch.randn(3).double()}


def network_on_images(state, x):
    """The same network on images (B, C, Y, X), from its state."""

    def norm(name, x):
        mean, variance, gain, shift = (
            state[f"{name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, gain, shift)

    x = norm("bn1", functional.conv2d(x, state["conv1.weight"], stride=2, padding=3)).relu()
    x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
    for stage, depth in enumerate((1, 2, 1, 1), start=1):
        for place in range(depth):
            name, stride = f"layer{stage}.{place}", 2 if stage > 1 and place == 0 else 1
            z = norm(f"{name}.bn1", functional.conv2d(x, state[f"{name}.conv1.weight"], stride=stride)).relu()
            z = norm(f"{name}.bn2", functional.conv2d(z, state[f"{name}.conv2.weight"], padding=1)).relu()
            z = norm(f"{name}.bn3", functional.conv2d(z, state[f"{name}.conv3.weight"]))
            if place == 0:
                x = functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(f"{name}.downsample.1", x)
            x = (x + z).relu()
    return functional.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("order", [("B", "C"), ("2d",)])
def test_begins_as_the_network_on_images_that_it_is_inflated_from(order):
    """Frame by frame and averaged, with temporal parts that begin at zero, or without any."""
    state = state_of_a_network_on_images()
    model = P3DResNet(**FRAMEWISE, order=order, zero_init_temporal=True).double()
    kept = inflate_from_2d(model, state)
    assert all(".temporal" in name for name in kept)
    assert (len(kept) > 0) == (order != ("2d",))
    x = torch.randn(2, 2, 3, 20, 20, dtype=torch.float64)
    expected = torch.stack([network_on_images(state, frame) for frame in x.unbind(2)]).mean(0)
    torch.testing.assert_close(model.eval()(x), expected)


def test_inflation_keeps_a_head_of_other_classes_and_refuses_other_widths():
    state = state_of_a_network_on_images()
    model = P3DResNet(**{**SMALL, "out_channels": 5}).double()
    head = model.head.weight.clone()
    assert {"head.weight", "head.bias"} <= set(inflate_from_2d(model, state))
    assert torch.equal(model.head.weight, head)
    with pytest.raises(ValueError, match=r"conv1.weight'\] is of shape \(2, 2, 1, 7, 7\)"):
        inflate_from_2d(P3DResNet(**{**SMALL, "base_width": 4}), state)
    with pytest.raises(ValueError, match=r"layer2.2.conv1.weight'\] is missing"):
        inflate_from_2d(P3DResNet(**{**SMALL, "layers": (1, 3, 1, 1)}), state)


def test_state_and_reset():
    model, other = P3DResNet(**SMALL, zero_init_temporal=True), P3DResNet(**SMALL)
    x = torch.randn(3, 2, 4, 9, 9)
    model(x)  # statistics other than those at the beginning
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), other.eval()(x))
    before = model.conv1.weight.clone()
    model.reset_parameters()
    assert not torch.equal(model.conv1.weight, before)
    gains = [float(block.temporal_norm.weight.detach().abs().sum()) for block in model.blocks() if block.kind != "2d"]
    assert [gain > 0 for gain in gains] == [True, False, False, True]  # A, B, C, A
    assert all(not module.running_mean.any() for module in model.modules() if isinstance(module, nn.BatchNorm3d))


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: P3DResNet(**{**SMALL, "layers": (1, 1, 1)}), ValueError, r"layers is \(1, 1, 1\)"),
        (lambda: P3DResNet(**{**SMALL, "base_width": 0}), ValueError, "base_width is 0"),
        (lambda: P3DResNet(**SMALL, order=()), ValueError, r"order is \(\)"),
        (lambda: P3DResNet(**SMALL, order=("A", "3d")), ValueError, "'3d'"),
        (lambda: P3DResNet(**SMALL, temporal_pool=(True,)), ValueError, "temporal_pool"),
        (lambda: P3DResNet(**{**SMALL, "dropout": 1.0}), ValueError, "dropout is 1"),
        (lambda: P3DResNet(**SMALL)(torch.zeros(2, 2, 2, 9, 9)), ValueError, "2 frames, fewer than the 3"),
        (lambda: P3DResNet(**SMALL)(torch.zeros(2, 2, 9, 9)), ValueError, r"\(2, 2, 9, 9\)"),
        (lambda: P3DResNet(**SMALL)(torch.zeros(2, 3, 4, 9, 9)), ValueError, "in_channels"),
        (lambda: P3DResNet(**SMALL)(torch.zeros(2, 4, 2, 9, 9)), ValueError, r"transpose\(1, 2\)"),
        (lambda: P3DResNet(**SMALL)(torch.zeros(2, 2, 4, 2, 9)), ValueError, "frames are 2 x 9"),
        (lambda: P3DResNet(**SMALL)(torch.zeros(2, 2, 4, 9, 9).byte()), TypeError, "uint8"),
    ],
)
def test_refused(build, kind, message):
    with pytest.raises(kind, match=message):
        build()
