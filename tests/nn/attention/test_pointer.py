import copy

import pytest
import torch

from graphseq.nn import PointerAttention, PointFeedback, SymbolFeedback
from graphseq.ops import segment_softmax
from tests.reference import pointing as reference


def build(bias=False):
    layer = PointerAttention(3, 4, 5, bias).double()
    return layer, torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 7, 4, dtype=torch.float64)


def test_scores_equal_the_equation():
    layer, query, keys = build()
    found = layer(query, keys)
    for b in range(2):
        for i in range(6):
            for j in range(7):
                wanted = reference.score(layer.key.weight, layer.query.weight, layer.weight, keys[b, j], query[b, i])
                assert abs(float((found[b, i, j] - wanted).detach())) < 1e-10
    assert torch.equal(layer.scores(query, layer.project(keys)), found)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients(bias):
    layer, query, keys = build(bias)
    names = list(dict(layer.named_parameters()))
    assert len(names) == 3 + bias

    def run(query, keys, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (query, keys))

    inputs = [part.detach().requires_grad_() for part in (query[:1, :2], keys[:1, :3], *layer.parameters())]
    assert torch.autograd.gradcheck(run, inputs)


def test_a_permutation_of_the_keys_permutes_the_distribution():
    layer, query, keys = build()
    order = torch.randperm(7)
    assert torch.equal(layer(query, keys[:, order]).softmax(2), layer(query, keys)[..., order].softmax(2))


def test_masked_keys_get_nothing():
    layer, query, keys = build()
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    p = layer(query, keys, mask).softmax(2)
    assert torch.allclose(p[1, :, :3], layer(query[1:], keys[1:, :3]).softmax(2)[0], atol=1e-12)
    assert (p[1, :, 3:] == 0).all()


def test_nodes_of_graphs_equal_padded_sets():
    layer, query, keys = build()
    sizes = [7, 3]
    nodes = torch.cat([keys[b, :size] for b, size in enumerate(sizes)])
    batch = torch.tensor([0] * 7 + [1] * 3)
    p = segment_softmax(layer.node_scores(query[:, 0], nodes, batch), batch)
    mask = torch.arange(7) < torch.tensor(sizes)[:, None]
    assert torch.allclose(p, layer(query[:, :1], keys, mask).softmax(2)[:, 0][mask], atol=1e-12)


def test_state_and_copies():
    layer, query, keys = build()
    other = build()[0]
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(query, keys), layer(query, keys))
    assert torch.equal(copy.deepcopy(layer)(query, keys), layer(query, keys))
    before = layer.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("name", ["query_channels", "key_channels", "hidden_channels"])
def test_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        PointerAttention(**{"query_channels": 2, "key_channels": 2, "hidden_channels": 2, name: 0})


def test_feedback_reads_the_last_output():
    x = torch.randn(2, 4, 3)
    previous = torch.tensor([[-1, 3, 0], [2, -1, 2]])
    points, symbols = PointFeedback(3), SymbolFeedback(4, 6)
    found, embedded = points(x, previous), symbols(x, previous)
    for b in range(2):
        for i, place in enumerate(previous[b].tolist()):
            assert torch.equal(found[b, i], points.start if place < 0 else x[b, place])
            assert torch.equal(embedded[b, i], symbols.embedding.weight[place + 1])
    assert (points.output_size, symbols.output_size) == (3, 6)
    with pytest.raises(ValueError, match="in_channels is 0"):
        PointFeedback(0)
    with pytest.raises(ValueError, match="num_symbols is 0"):
        SymbolFeedback(0, 2)


def test_what_would_be_broadcast():
    x, previous = torch.randn(2, 3, 2), torch.tensor([[0], [2]])
    for given, rows in (
        (x[..., :1], previous),
        (torch.randn(2, 3, 4), previous),
        (x, previous[:1]),
        (x, previous + 0.5),
    ):
        with pytest.raises(ValueError, match="previous"):
            PointFeedback(2)(given, rows)
    layer, query, keys = PointerAttention(4, 5, 8), torch.randn(2, 1, 4), torch.randn(2, 3, 5)
    for mask in (torch.ones(1, 3, dtype=torch.bool), torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="key_mask"):
            layer(query, keys, mask)
    with pytest.raises(ValueError, match=r"batch \(1,\)"):
        layer.node_scores(query[:, 0], keys[0], torch.tensor([0]))
