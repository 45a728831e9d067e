"""Rectified attention along edges against a loop over nodes, gradients too."""

import pytest
import torch

from graphseq.ops import rectified_edge_attention


def by_loop(query, keys, edge_index):
    rows = []
    for node in range(len(query)):
        sources = edge_index[0][edge_index[1] == node].tolist()
        scores = [torch.relu(query[node] @ keys[source]) for source in sources]
        total = sum(scores, torch.zeros((), dtype=query.dtype))
        weighted = sum((score * keys[source] for score, source in zip(scores, sources, strict=True)), 0 * query[node])
        rows.append(weighted / total.clamp(min=1e-6))
    return torch.stack(rows)


def test_equals_a_loop_over_nodes_and_gradients_too():
    torch.manual_seed(0)
    query, keys = (torch.randn(7, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    edges = torch.randint(0, 6, (2, 20))  # the last node has no edge; some edges stand twice
    found, expected = rectified_edge_attention(query, keys, edges), by_loop(query, keys, edges)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(found)
    for one, other in zip(*(torch.autograd.grad((y * weight).sum(), (query, keys)) for y in (found, expected)),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_gradient_where_the_sum_of_scores_is_below_its_bound():
    query = torch.tensor([[1e-4], [0.0]], dtype=torch.float64, requires_grad=True)
    keys = torch.tensor([[3e-4], [2e-4]], dtype=torch.float64, requires_grad=True)
    edges = torch.tensor([[0, 1], [0, 0]])
    for one, other in zip(*(torch.autograd.grad(f(query, keys, edges).sum(), (query, keys))
                            for f in (rectified_edge_attention, by_loop)), strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_keeps_nothing_of_the_size_of_the_messages():
    query, keys = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        rectified_edge_attention(query, keys, torch.randint(0, 5, (2, 900)))
    assert max(sizes) == 1800  # edge_index itself; messages have 3600


def test_no_edges_and_no_positive_score_give_zero():
    x = torch.ones(3, 2, requires_grad=True)
    y = rectified_edge_attention(x, -x, torch.tensor([[0, 1], [1, 2]]))
    y.sum().backward()
    assert not y.any()
    assert not x.grad.any()
    assert not rectified_edge_attention(x, x, torch.empty(2, 0, dtype=torch.int64)).any()


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"keys \(3, 2\)"):
        rectified_edge_attention(torch.ones(3, 1), torch.ones(3, 2), torch.ones(2, 1, dtype=torch.int64))
