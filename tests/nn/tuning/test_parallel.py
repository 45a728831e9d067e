"""UniPT against its formulas as loops; interactions, confidences, padding, graphs in a batch."""

import pytest
import torch
from torch import nn

from graphseq.nn import (
    DenseInteraction,
    EdgeInteraction,
    GatedConfidence,
    GraphTokens,
    IdentityInteraction,
    LadderSide,
    SequenceTokens,
    UniformConfidence,
    UniPT,
)

WIDTHS = [3, 5, 4]


def normed(x, layer):
    return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def by_loop(side, hidden, neighbours):
    """Return the outputs of one sample, from states (T, D); neighbours[t]: tokens that token t reads, None for none."""
    reduced = [
        torch.stack([normed(down.weight @ token + down.bias, norm) for token in state])
        for down, norm, state in zip(side.down, side.norms, hidden, strict=True)
    ]
    *states, anchor = reduced
    if isinstance(side.confidence, GatedConfidence):
        gate = side.confidence.gate
        raw = [(gate.weight[0] * anchor.mean(0) * state.mean(0)).sum() + gate.bias[0] for state in states]
        confidence = [u.exp() / sum(other.exp() for other in raw) for u in raw]
    else:
        confidence = [1 / len(states)] * len(states)
    outputs = []
    for t, own in enumerate(anchor):
        mixed = torch.zeros_like(own)
        for weight, state in zip(confidence, states, strict=True):
            read = state[t]
            scores = [torch.relu(own @ state[s]) for s in neighbours[t]]
            for score, s in zip(scores, neighbours[t], strict=True):
                read = read + score * state[s] / sum(scores).clamp(min=1e-6)
            mixed = mixed + weight * read
        z = own + normed(side.projection.weight @ mixed + side.projection.bias, side.norm)
        outputs.append(side.up.weight @ z.relu() + side.up.bias)
    return torch.stack(outputs)


def drawn(side):
    """Return the module in double precision, with weights of norms other than one."""
    side = side.double()
    for parameter in side.parameters():
        nn.init.normal_(parameter, std=0.6)
    return side


def same_with_gradients(side, found, expected, hidden):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    weight = torch.randn_like(found)
    inputs = [*side.parameters(), *hidden]
    for one, other in zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("confidence", [None, UniformConfidence()], ids=["gated", "uniform"])
def test_sequences_equal_the_formulas_and_do_not_read_padding(confidence):
    torch.manual_seed(1)
    side = drawn(UniPT(WIDTHS, 6, dim=4, confidence=confidence))
    hidden = [torch.randn(2, 5, width, dtype=torch.float64, requires_grad=True) for width in WIDTHS]
    lengths = torch.tensor([5, 3])
    found = side(hidden, SequenceTokens(lengths))
    expected = [by_loop(side, [h[b, :n] for h in hidden], [range(n)] * n) for b, n in enumerate(lengths.tolist())]
    same_with_gradients(side, torch.cat([found[0], found[1, :3]]), torch.cat(expected), hidden)


def graphs():
    """Two graphs of 4 and 3 nodes, with edges inside each, and their nodes in mixed order."""
    batch = torch.tensor([0, 1, 0, 1, 0, 0, 1])
    edges = torch.tensor([[0, 2, 4, 5, 2, 1, 3, 6, 1], [2, 4, 5, 0, 0, 3, 6, 1, 6]])
    return edges, batch


@pytest.mark.parametrize("kind", ["dense", "edge", "identity"])
def test_graphs_equal_the_formulas_one_by_one(kind):
    torch.manual_seed(2)
    interaction = {"dense": DenseInteraction, "edge": EdgeInteraction, "identity": IdentityInteraction}[kind]()
    side = drawn(UniPT(WIDTHS, 6, dim=4, interaction=interaction))
    edges, batch = graphs()
    hidden = [torch.randn(7, width, dtype=torch.float64, requires_grad=True) for width in WIDTHS]
    found = side(hidden, GraphTokens.of(7, edges, batch))
    expected = torch.zeros_like(found)
    for graph in range(2):
        nodes = (batch == graph).nonzero()[:, 0].tolist()
        read = {
            "dense": lambda node, nodes=nodes: range(len(nodes)),
            "edge": lambda node, nodes=nodes: [nodes.index(s) for s, t in edges.T.tolist() if t == node],
            "identity": lambda node: [],
        }[kind]
        own = by_loop(side, [h[nodes] for h in hidden], [list(read(node)) for node in nodes])
        expected = expected.index_copy(0, torch.tensor(nodes), own)
    same_with_gradients(side, found, expected, hidden)


def test_ptr_and_batch_say_the_same():
    side = UniPT(WIDTHS, interaction=DenseInteraction())
    hidden, edges = [torch.randn(5, width) for width in WIDTHS], torch.tensor([[0], [1]])
    by_batch = side(hidden, GraphTokens.of(5, edges, torch.tensor([0, 0, 1, 1, 1])))
    by_ptr = side(hidden, GraphTokens.of(5, edges, ptr=torch.tensor([0, 2, 5])))
    torch.testing.assert_close(by_batch, by_ptr)


def test_permuted_tokens_permute_the_outputs():
    side, order = UniPT(WIDTHS).double(), torch.randperm(6)
    hidden = [torch.randn(2, 6, width, dtype=torch.float64) for width in WIDTHS]
    permuted = side([state[:, order] for state in hidden], SequenceTokens())
    torch.testing.assert_close(permuted, side(hidden, SequenceTokens())[:, order])


def test_scores_sum_to_one_or_to_zero():
    """Equal states show the sum of the normalised scores: it is added to the identity once, or not at all."""
    state = torch.tensor([1.0, 2.0]).expand(1, 3, 2)
    anchor = torch.tensor([[[1.0, 0.0], [0.3, 0.1], [-1.0, -1.0]]])
    mixed = DenseInteraction()(anchor, state, SequenceTokens())
    torch.testing.assert_close(mixed - state, torch.tensor([1.0, 1.0, 0.0])[None, :, None] * state)


def test_confidence_sums_to_one_for_each_sample_and_is_uniform_without_weights():
    side, tokens = UniPT(WIDTHS), SequenceTokens()
    hidden = [torch.randn(2, 4, width) for width in WIDTHS]
    found = side.confidences(hidden, tokens)
    torch.testing.assert_close(found.sum(0), torch.ones(2))
    assert not torch.equal(found[:, 0], found[:, 1])
    nn.init.zeros_(side.confidence.gate.weight)
    uniform = UniPT(WIDTHS, confidence=UniformConfidence())
    uniform.load_state_dict(side.state_dict(), strict=False)
    torch.testing.assert_close(side(hidden, tokens), uniform(hidden, tokens))


def test_ladder_equals_its_formula():
    torch.manual_seed(3)
    side = drawn(LadderSide(WIDTHS, 6, dim=4, interaction=IdentityInteraction()))
    hidden = [torch.randn(1, width, dtype=torch.float64, requires_grad=True) for width in WIDTHS]
    s, *states = [down.weight @ h[0] + down.bias for down, h in zip(side.down, hidden, strict=True)]
    for i, state in enumerate(states):
        mu = 1 / (1 + torch.exp(-side.gates[i] / 0.1))
        s = mu * s + (1 - mu) * state
        s = s + side.values[i].weight @ normed(s, side.mixing_norms[i]) + side.values[i].bias
        norm, first, _, second = side.feed_forward[i]
        s = s + second.weight @ (first.weight @ normed(s, norm) + first.bias).relu() + second.bias
    expected = (side.up.weight @ normed(s, side.norm) + side.up.bias)[None]
    found = side([h[None] for h in hidden], SequenceTokens())[0]
    same_with_gradients(side, found, expected, hidden)


def test_ladder_reads_the_interaction_that_is_given():
    torch.manual_seed(4)
    edges, batch = graphs()
    hidden = [torch.randn(7, width) for width in WIDTHS]
    side = LadderSide(WIDTHS, interaction=EdgeInteraction())
    apart = side(hidden, GraphTokens.of(7, edges[:, :0], batch))
    assert not torch.allclose(side(hidden, GraphTokens.of(7, edges, batch)), apart)
    side.interaction = IdentityInteraction()
    torch.testing.assert_close(side(hidden, GraphTokens.of(7, edges, batch)), apart)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"hidden_channels is \[8\]"):
        UniPT([8])
    with pytest.raises(ValueError, match="dim is 0"):
        LadderSide([8, 8], dim=0)
    with pytest.raises(ValueError, match=r"widths \[3, 5\]"):
        UniPT(WIDTHS)([torch.ones(1, 2, 3), torch.ones(1, 2, 5)], SequenceTokens())
    with pytest.raises(ValueError, match="hidden_channels is 8"):
        UniPT(8)
    hidden = [torch.ones(1, 2, width) for width in WIDTHS]
    for side in (UniPT(WIDTHS), LadderSide(WIDTHS)):
        with pytest.raises(TypeError, match=r"tokens is a Tensor; give SequenceTokens\(lengths\)"):
            side(hidden, torch.ones(1, 2, dtype=torch.bool))
        with pytest.raises(ValueError, match="lengths range from 3 to 3"):
            side(hidden, SequenceTokens(torch.tensor([3])))
        with pytest.raises(ValueError, match="all must have the same tokens"):
            side([hidden[0][:, :1], *hidden[1:]], SequenceTokens())
    with pytest.raises(ValueError, match="give GraphTokens"):
        UniPT(WIDTHS)([state[0] for state in hidden], SequenceTokens())
    with pytest.raises(TypeError, match="SequenceTokens"):
        EdgeInteraction()(torch.ones(1, 2, 3), torch.ones(1, 2, 3), SequenceTokens())
