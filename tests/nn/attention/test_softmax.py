"""Attention over a sequence, its prefix, and another sequence: loops, gradients, padding, refusals."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from graphseq.core import make
from graphseq.nn import CausalAttention, CrossAttention, LearnedPositions, NoPositions, RotaryPositions, SelfAttention
from tests.reference import self_attention as reference

DIM, HEADS = 8, 2
LENGTHS = torch.tensor([5, 0, 3])
X = torch.randn(3, 5, DIM, dtype=torch.float64)


def heads(x, number):
    """Rows of each head of features (T, D), as nested lists."""
    return [part.tolist() for part in x.detach().chunk(number, -1)]


def looped(layer, x, visible, turn=reference.rotated):
    """Outputs of one sequence (T, D) by the loops of the reference."""
    q, k, v = (heads(part, HEADS) for part in layer.projection(x).chunk(3, -1))
    each = [reference.attention(*head, visible, turn) for head in zip(q, k, v, strict=True)]
    return layer.output(torch.cat([torch.tensor(head, dtype=torch.float64) for head in each], -1))


def test_encoder_attention_equals_the_loops():
    layer = SelfAttention(DIM, HEADS).double()
    y, state = layer(X, lengths=LENGTHS)
    assert state is None
    assert layer.bidirectional
    for row, size in enumerate(LENGTHS.tolist()):
        assert (y[row, size:] == 0).all()
        if size:
            torch.testing.assert_close(y[row, :size], looped(layer, X[row, :size], lambda t, s: True))


@pytest.mark.parametrize("prefix", [0, 2, 5])
def test_prefix_equals_the_loops(prefix):
    layer = CausalAttention(DIM, HEADS, NoPositions(), bias=True).double()
    y, _ = layer(X, None, LENGTHS, torch.full((3,), prefix))
    for row, size in enumerate(LENGTHS.tolist()):
        if size:
            expected = looped(layer, X[row, :size], lambda t, s: s <= t or s < prefix, lambda x, t: x)
            torch.testing.assert_close(y[row, :size], expected)
    if prefix == 0:
        assert torch.allclose(y, layer(X, None, LENGTHS)[0], atol=1e-14)


def test_a_prefix_is_continued_from_its_state():
    layer = CausalAttention(DIM, HEADS).double()
    prefix = torch.tensor([3, 2, 3])
    whole, _ = layer(X, None, None, prefix)
    first, state = layer(X[:, :3], None, None, prefix)
    second, _ = layer(X[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


def test_attention_over_another_sequence_equals_the_loops():
    layer = CrossAttention(DIM, HEADS, memory_dim=6).double()
    memory = torch.randn(3, 4, 6, dtype=torch.float64)
    inside = torch.tensor([[True] * 4, [False] * 4, [True, True, False, False]])
    y = layer(X, *layer.project(memory), inside)
    assert torch.isfinite(y).all()
    for row, size in ((0, 4), (2, 2)):
        q = heads(layer.query(X[row]), HEADS)
        k, v = (heads(part, HEADS) for part in layer.key_and_value(memory[row, :size]).chunk(2, -1))
        each = [reference.attention(*head, lambda t, s: True) for head in zip(q, k, v, strict=True)]
        expected = layer.output(torch.cat([torch.tensor(head, dtype=torch.float64) for head in each], -1))
        torch.testing.assert_close(y[row], expected)


def test_gradients():
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 2])
    encoder, decoder, cross = SelfAttention(4, 2).double(), CausalAttention(4, 2).double(), CrossAttention(4).double()
    assert gradcheck(lambda x: encoder(x, None, lengths)[0], (x,))
    assert gradcheck(lambda x: decoder(x, None, lengths, torch.tensor([2, 1]))[0], (x,))
    assert gradcheck(lambda x, m: cross(x, *cross.project(m)), (x, memory))


def test_a_score_of_rotary_positions_depends_on_the_distance_alone():
    rotary = RotaryPositions()
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)
    scores = [
        (rotary(q, torch.tensor([[t]])) * rotary(k, torch.tensor([[s]]))).sum() for t, s in ((3, 1), (10, 8), (3, 2))
    ]
    torch.testing.assert_close(scores[0], scores[1])
    assert abs(scores[0] - scores[2]) > 1e-3


def test_dropout_is_that_of_training():
    layer = CausalAttention(DIM, HEADS, dropout=0.5).double()
    assert not torch.equal(layer(X)[0], layer(X)[0])
    layer.eval()
    assert torch.equal(layer(X)[0], layer(X)[0])


def read_memory(inside):
    layer = CrossAttention(8)
    return layer(torch.zeros(1, 3, 8), *layer.project(torch.zeros(1, 2, 8)), inside)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: CausalAttention(6, 4), ValueError, "dim is 6"),
        (lambda: CausalAttention(6, 2), ValueError, "twice num_heads, 4"),
        (lambda: CausalAttention(8, 2, dropout=1.0), ValueError, "dropout is 1"),
        (lambda: SelfAttention(8, 0), ValueError, "num_heads is 0"),
        (lambda: RotaryPositions(1.0), ValueError, "base is 1"),
        (lambda: RotaryPositions()(torch.zeros(1, 1, 1, 3), torch.zeros(1, 1)), ValueError, "heads have 3 channels"),
        (lambda: SelfAttention(8)(torch.zeros(1, 2, 8), torch.zeros(1)), ValueError, "state is given"),
        (lambda: CausalAttention(8)(torch.zeros(1, 2, 8), None, None, torch.tensor([3])), ValueError, "prefix range"),
        (
            lambda: CausalAttention(8)(
                torch.zeros(1, 2, 8), CausalAttention(8)(torch.zeros(1, 2, 8))[1], None, torch.tensor([1])
            ),
            ValueError,
            "prefix and state",
        ),
        (lambda: CrossAttention(8, memory_dim=0), ValueError, "memory_dim is 0"),
        (lambda: CrossAttention(8).project(torch.zeros(1, 2, 7)), ValueError, r"memory has shape \(1, 2, 7\)"),
        (lambda: LearnedPositions(8, 3)(torch.zeros(1, 4, 8)), ValueError, "position 4; there are 3"),
        (lambda: CausalAttention(8, positions=LearnedPositions(8, 3)), TypeError, "give it to BlockStack"),
        (lambda: SelfAttention(8)(torch.ones(1, 2, 8).long()), ValueError, "inputs are torch.int64"),
        (lambda: SelfAttention(8)(torch.zeros(1, 2, 8), lengths=[2]), ValueError, "lengths is a list"),
        (lambda: SelfAttention(8)(torch.zeros(1, 2, 8), lengths=torch.tensor([True])), ValueError, "torch.bool"),
        (lambda: read_memory(torch.ones(1, 2)), ValueError, "inside is torch.float32"),
        (lambda: read_memory(torch.ones(1, 3) > 0), ValueError, r"\(1, 3\); a bool tensor \(1, 2\)"),
    ],
)
def test_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_positions_of_another_library():
    layer = CausalAttention(8, 2, make(Halved))
    assert torch.isfinite(layer(torch.randn(1, 3, 8))[0]).all()


class Halved(nn.Module):
    def forward(self, x, position):
        return x / 2


def test_modules_and_states_that_are_mistaken():
    x = torch.randn(2, 5, 8)
    for positions, said in ((NoPositions, "NoPositions"), ("rotary", "'rotary'")):
        for kind in (CausalAttention, SelfAttention):
            with pytest.raises(TypeError, match=f"positions is {said}"):
                kind(8, 2, positions)
    layer = CausalAttention(8, 2)
    _, state = layer(x)
    _, others = CausalAttention(8, 4)(x)
    for given in (others, state[0], state[:2], "no", (*state[:2], state[2][:, :1], state[3])):
        with pytest.raises(ValueError, match="state"):
            layer(x, given)
    learned = LearnedPositions(8, 9)
    for given in (torch.tensor([1.0, 1.0]), torch.tensor([[1], [1]]), torch.tensor([-1, 0]), "no"):
        with pytest.raises(ValueError, match="state"):
            learned(x, given)
    assert learned(x[:0], torch.zeros(0, dtype=torch.int64))[0].shape == (0, 5, 8)
