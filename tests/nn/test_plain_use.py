"""Vision layers as parts of an ordinary torch program: layouts, half precision, copies and states."""

import copy
import io
import pickle

import pytest
import torch

from graphseq.models import AFKAN, P3DResNet, ResNetEncoder, SelfieNetwork
from graphseq.nn import (
    AFKANLayer,
    AttentionPooling,
    BetaMaskPolicy,
    FixedReweightingHead,
    MixedPool2d,
    P3DBlock,
    PosetConv2d,
    PosetPool2d,
    ProjectionHead,
    QuadraticConv2d,
    QuadraticLinear,
    RandomMask,
    ReLUKANLayer,
)

LAYERS = {
    "p3d block": (lambda: P3DBlock(4, 2, "C"), (2, 4, 3, 4, 4)),
    "p3d": (lambda: P3DResNet(2, 3, (1, 1, 1, 1), 2), (2, 2, 3, 9, 9)),
    "af-kan layer": (lambda: AFKANLayer(6, 3, norm="batch", reduction="spatial_attn"), (3, 6)),
    "af-kan": (lambda: AFKAN(16, 3, 4), (3, 1, 4, 4)),
    "relu-kan": (lambda: ReLUKANLayer(6, 3), (3, 6)),
    "quadratic": (lambda: QuadraticLinear(6, 3, initialization="random"), (3, 6)),
    "quadratic convolution": (lambda: QuadraticConv2d(3, 2, 3, initialization="random"), (2, 3, 5, 6)),
    "poset pooling": (lambda: PosetPool2d("N"), (2, 3, 5, 6)),
    "poset filter": (lambda: PosetConv2d("claw", ties="split"), (2, 3, 5, 6)),
    "mixed pooling": (lambda: MixedPool2d(), (2, 3, 4, 6)),
    "policy": (lambda: BetaMaskPolicy(3, 2, blur_kernel_size=3), (2, 3, 5, 6)),
    "random mask": (lambda: RandomMask(2, blur_kernel_size=3), (2, 3, 5, 6)),
    "attention pooling": (lambda: AttentionPooling(8, 1), (2, 4, 8)),
    "selfie": (lambda: SelfieNetwork(ResNetEncoder(1, 4, (1,)), (1, 8, 8)), (2, 1, 8, 8)),
    "head": (lambda: ProjectionHead(6), (3, 6)),
    "fixed head": (lambda: FixedReweightingHead(6), (3, 6)),
}


def call(layer, x):
    y = layer(x)
    return getattr(y, "images", y)


@pytest.mark.parametrize("name", LAYERS)
def test_layouts_copies_states_and_half_precision(name):
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer, x = build().eval(), torch.rand(shape)
    y = call(layer, x).detach()
    reversed_axes = range(len(shape) - 1, -1, -1)
    strided = x.permute(*reversed_axes).contiguous().permute(*reversed_axes)
    torch.testing.assert_close(call(layer, strided), y)
    if len(shape) > 3:
        layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        torch.testing.assert_close(call(layer, x.to(memory_format=layout)), y)
    assert call(layer, x[:0]).shape == (0, *y.shape[1:])
    torch.testing.assert_close(call(layer, x[:1]), y[:1])
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # its own bytes
        assert torch.equal(call(twin, x), y)
    file, other = io.BytesIO(), build().eval()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(call(other, x), y)
    broken = x.clone()
    broken[0] = float("nan")
    found = call(layer, broken)
    assert bool(found[0].isnan().any())
    torch.testing.assert_close(found[1:], y[1:])  # no sample sees the others
    for trained in (layer.train(), copy.deepcopy(layer).bfloat16()):
        kind = next((value.dtype for value in trained.parameters()), torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float32):
            half = call(trained, x.to(kind))
        assert bool(half.isfinite().all())
        if half.requires_grad:
            half.float().square().sum().backward()
            assert all(bool(value.grad.isfinite().all()) for value in trained.parameters() if value.grad is not None)
