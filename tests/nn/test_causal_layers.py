"""What all causal sequence layers promise: padding, states, single steps, causality, refusals, copies."""

import copy

import pytest
import torch
from torch import nn

from graphseq.core import make
from graphseq.core.spec import import_path
from graphseq.nn import (
    BlockStack,
    CausalAttention,
    CausalConvolution,
    ChunkedAttention,
    ConstantGate,
    GatedChunkedAttention,
    GatedLinearAttention,
    LearnedPositions,
    MixLNStack,
    MovingAverage,
    NoPositions,
    SequenceBlock,
    TreeConvolution,
)

DIM = 8
LAYERS = {
    "convolution": lambda: CausalConvolution(DIM, 3, dilation=2),
    "attention": lambda: CausalAttention(DIM, 2),
    "attention with biases": lambda: CausalAttention(DIM, 4, NoPositions(), bias=True),
    "learned positions": lambda: LearnedPositions(DIM, 100),
    "Mix-LN": lambda: MixLNStack(CausalAttention(DIM, 2), 2, 0.5, positions=LearnedPositions(DIM, 100)),
    "gated linear": lambda: GatedLinearAttention(DIM, 2),
    "gated linear with convolution": lambda: GatedLinearAttention(DIM, 2, kernel_size=4),
    "linear": lambda: GatedLinearAttention(DIM, 2, gate=ConstantGate(DIM // 2)),
    "tree": lambda: TreeConvolution(DIM, 3, 2, initialization="normal"),
    "tree with activation": lambda: TreeConvolution(DIM, 2, 3, activation=make(nn.SiLU), initialization="normal"),
    "moving average": lambda: MovingAverage(DIM, 3),
    "chunks": lambda: ChunkedAttention(DIM, chunk_size=4),
    "chunks over a tree": lambda: ChunkedAttention(DIM, TreeConvolution(DIM, 3, 2), chunk_size=3),
    "gated chunks over a tree": lambda: GatedChunkedAttention(DIM, TreeConvolution(DIM, 3, 2), 4, 5, 6),
    "gated chunks over averages": lambda: GatedChunkedAttention(DIM, MovingAverage(DIM, 2), chunk_size=1),
    "stack": lambda: BlockStack(
        [SequenceBlock(CausalConvolution(DIM, 4)), SequenceBlock(GatedLinearAttention(DIM, 2)),
         SequenceBlock(CausalAttention(DIM, 2))]
    ),
}  # fmt: skip
NAMES = list(LAYERS)
GROWING = ("attention", "attention with biases", "Mix-LN", "stack")


def leaves(state):
    if not isinstance(state, tuple | list):
        return [] if state is None else [state]
    return [leaf for part in state for leaf in leaves(part)]


def close(one, other):
    return torch.allclose(one.double(), other.double(), atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    """A row of no steps, rows in part and a full one: outputs, states and gradients are those of each row alone."""
    layer = LAYERS[name]().double()
    lengths = torch.tensor([6, 0, 2])
    x = torch.full((3, 6, DIM), torch.nan, dtype=torch.float64)
    for row, size in enumerate(lengths.tolist()):
        x[row, :size] = torch.randn(size, DIM, dtype=torch.float64)
    y, state = layer(x, None, lengths)
    assert torch.equal(layer.outputs(x, lengths), y)
    more = torch.randn(3, 2, DIM, dtype=torch.float64)
    after, _ = layer(more, state)
    for row, size in enumerate(lengths.tolist()):
        assert (y[row, size:] == 0).all()
        whole, _ = layer(torch.cat([x[row, :size], more[row]])[None])
        assert close(y[row, :size], whole[0, :size])
        assert close(after[row], whole[0, size:])
    y.sum().backward()
    together = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    (layer(x[:1])[0].sum() + layer(x[2:, :2])[0].sum()).backward()
    assert all(close(one, parameter.grad) for one, parameter in zip(together, layer.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_parts_and_single_steps_equal_the_whole(name):
    layer = LAYERS[name]().double()
    x = torch.randn(2, 9, DIM, dtype=torch.float64)
    y, last = layer(x)
    for cuts in ([4, 5], [1] * 9):
        state, parts = None, []
        for part in x.split(cuts, 1):
            out, state = layer(part, state)
            parts.append(out)
        assert close(torch.cat(parts, 1), y)
        assert all(close(one, other) for one, other in zip(leaves(state), leaves(last), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_output_depends_on_later_steps(name):
    layer = LAYERS[name]().double()
    x = torch.randn(1, 9, DIM, dtype=torch.float64)
    moved = x.clone()
    moved[:, 5] += 1
    y, other = layer(x)[0], layer(moved)[0]
    assert torch.allclose(y[:, :5], other[:, :5], atol=1e-12)
    assert not torch.allclose(y[:, 5], other[:, 5])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GROWING])
def test_the_state_does_not_grow(name):
    layer = LAYERS[name]()
    sizes = [[leaf.shape for leaf in leaves(layer(torch.randn(1, steps, DIM))[1])] for steps in (1, 5, 100)]
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("name", NAMES)
def test_refused(name):
    layer = LAYERS[name]()
    x = torch.randn(2, 5, DIM)
    _, state = layer(x)
    for given, message in [
        ((x[0],), r"inputs have shape \(5, 8\)"),
        ((x[..., :7],), r"\(2, 5, 7\)"),
        ((x[:, :0],), r"\(2, 0, 8\)"),
        ((x, None, torch.tensor([5, 6])), "lengths range from 5 to 6"),
        ((x, None, torch.tensor([-1, 5])), "lengths range from -1 to 5"),
        ((x, None, torch.tensor([5])), r"\(1,\); give integers \(2,\)"),
        ((x, None, torch.tensor([5.0, 5.0])), "torch.float32"),
        ((x[:1], state), "state"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(*given)


@pytest.mark.parametrize("name", NAMES)
def test_record_weights_and_copies(name):
    layer = LAYERS[name]()
    x = torch.randn(2, 5, DIM)
    before = layer(x)[0]
    twin = copy.deepcopy(layer)
    again = LAYERS[name]()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x)[0], before)
    assert torch.equal(again(x)[0], before)
    layer.reset_parameters()
    assert not torch.equal(layer(x)[0], before)
    record = layer._record
    assert import_path(record["class_path"]) is type(layer)
    assert (layer.input_size, layer.output_size) == (DIM, DIM)
