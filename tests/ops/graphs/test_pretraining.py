"""Losses of self-supervised training against loops, with their gradients, and random parts of graphs."""

import pytest
import torch

from graphseq.ops import (
    growth_times,
    hop_distances,
    induced_edges,
    info_nce_loss,
    link_loss,
    masked_cross_entropy,
    mutual_information_loss,
    random_edges,
    random_non_edges,
    segment_smallest,
)
from tests.reference import pretraining as reference


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def graph(seed=0):
    """Three graphs of 6, 1 and 5 nodes with edges in both directions, one of them doubled."""
    generator = torch.Generator().manual_seed(seed)
    ptr = torch.tensor([0, 6, 7, 12])
    parts = [
        torch.randint(int(ptr[g]), int(ptr[g + 1]), (2, count), generator=generator) for g, count in ((0, 7), (2, 4))
    ]
    edges = torch.cat([parts[0], parts[0].flip(0), parts[1], parts[1].flip(0), parts[1][:, :1]], 1)
    return edges, torch.arange(3).repeat_interleave(ptr.diff()), ptr


CASES = {
    "masked": (masked_cross_entropy, [draw(5, 4)],
               [torch.tensor([1, 3, 0, 2, 1]), torch.tensor([True, False, True, True, False])]),
    "links": (link_loss, [draw(6, 3)],
              [torch.randint(0, 6, (2, 7)), torch.randint(0, 6, (2, 7)),
               torch.tensor([1, 1, 0, 1, 0, 1, 1]).bool(), torch.tensor([1, 0, 1, 1, 1, 1, 0]).bool()]),
    "contrast": (info_nce_loss, [draw(4, 3), draw(4, 3, seed=1)], [0.3]),
    "infomax": (mutual_information_loss, [draw(4, 3, seed=seed) for seed in range(4)], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_loops(name):
    loss, vectors, rest = CASES[name]
    expected = getattr(reference, loss.__name__)(*vectors, *rest)
    found = loss(*vectors, *rest)
    assert torch.allclose(found, expected, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(found, vectors), torch.autograd.grad(expected, vectors), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_autocast_keeps_similarities_of_views_wide():
    first, second = draw(6, 16).float(), draw(6, 16, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = info_nce_loss(first, second, 0.1)
    torch.testing.assert_close(found, info_nce_loss(first, second, 0.1))


def test_nothing_masked_is_no_loss():
    nothing = torch.zeros(3, dtype=torch.bool)
    assert masked_cross_entropy(draw(3, 2), torch.zeros(3, dtype=torch.int64), nothing) == 0
    pairs = torch.zeros(2, 3, dtype=torch.int64)
    assert link_loss(draw(2, 2), pairs, pairs, nothing, ~nothing) == 0
    assert info_nce_loss(draw(1, 3), draw(1, 3), 0.1) == 0


def test_losses_refuse_wrong_arguments():
    with pytest.raises(ValueError, match="temperature is 0"):
        info_nce_loss(draw(2, 3), draw(2, 3), 0.0)
    with pytest.raises(ValueError, match="second \\(3, 3\\)"):
        info_nce_loss(draw(2, 3), draw(3, 3), 0.1)
    with pytest.raises(ValueError, match="share is 1.5"):
        random_edges(torch.zeros(2, 0, dtype=torch.int64), 1.5)
    with pytest.raises(ValueError, match="num_hops is -1"):
        growth_times(*graph(), num_hops=-1)
    with pytest.raises(ValueError, match=r"counts \(1,\)"):
        segment_smallest(torch.zeros(3), torch.tensor([1]), torch.tensor([0, 1, 3]))


def test_smallest_of_each_segment():
    generator = torch.Generator().manual_seed(3)
    ptr = torch.tensor([0, 4, 4, 5, 11])
    values = torch.randint(0, 4, (11,), generator=generator).float()
    counts = torch.tensor([2, 3, 5, 4])
    expected = reference.smallest(values.tolist(), counts.tolist(), ptr.tolist())
    assert segment_smallest(values, counts, ptr).tolist() == expected


def test_induced_edges():
    edges, batch, _ = graph()
    kept = torch.rand(len(batch), generator=torch.Generator().manual_seed(1)) < 0.7
    found, positions = induced_edges(edges, kept)
    numbers = {node: place for place, node in enumerate(kept.nonzero().flatten().tolist())}
    expected = [
        (numbers[u], numbers[v], place)
        for place, (u, v) in enumerate(edges.T.tolist())
        if u in numbers and v in numbers
    ]
    assert [(*pair, place) for pair, place in zip(found.T.tolist(), positions.tolist(), strict=True)] == expected


def test_random_edges_take_both_directions_at_the_share():
    edges, _, _ = graph()
    taken = []
    for seed in range(400):
        chosen = random_edges(edges, 0.3, torch.Generator().manual_seed(seed))
        pairs = {}
        for pair, one in zip(edges.T.tolist(), chosen.tolist(), strict=True):
            assert pairs.setdefault(tuple(sorted(pair)), one) == one
        taken += list(pairs.values())
    assert abs(sum(taken) / len(taken) - 0.3) < 4 * (0.21 / len(taken)) ** 0.5
    assert not bool(random_edges(edges, 0.0).any())
    assert bool(random_edges(edges, 1.0).all())


def test_growth_is_connected_and_reaches_what_hops_allow():
    edges, batch, ptr = graph()
    pairs = edges.T.tolist()
    for seed in range(20):
        times = growth_times(edges, batch, ptr, 2, torch.Generator().manual_seed(seed))
        starts = (times == 0).nonzero().flatten().tolist()
        assert [int(batch[start]) for start in starts] == [0, 1, 2]
        reached = set().union(*(reference.reached(pairs, start, 2) for start in starts))
        assert times.isfinite().nonzero().flatten().tolist() == sorted(reached)
        full = growth_times(edges, batch, ptr, 12, torch.Generator().manual_seed(seed))
        for node in full.isfinite().nonzero().flatten().tolist():  # each but the start has an earlier neighbour
            assert node in starts or any(v == node and full[u] < full[v] for u, v in pairs)


def test_hop_distances():
    edges, _, _ = graph()
    found = hop_distances(edges, torch.tensor([0, 8]), 12, 3).tolist()
    for node, distance in enumerate(found):
        within = [
            hops for hops in range(4) for start in (0, 8) if node in reference.reached(edges.T.tolist(), start, hops)
        ]
        assert distance == min(within, default=4)
    with pytest.raises(ValueError, match="num_hops is -2"):
        hop_distances(edges, torch.tensor([0]), 12, -2)


def test_next_node_of_a_growth_is_a_uniform_neighbour():
    """In the middle of a path with a triangle on one side, each of the three neighbours comes next as often."""
    edges = torch.tensor([[0, 1, 0, 2, 0, 3, 2, 3], [1, 0, 2, 0, 3, 0, 3, 2]])
    many = 30_000
    shifted = (edges[:, None] + 4 * torch.arange(many)[:, None]).reshape(2, -1)
    batch, ptr = torch.arange(many).repeat_interleave(4), 4 * torch.arange(many + 1)
    times = growth_times(shifted, batch, ptr, 4, torch.Generator().manual_seed(0)).view(-1, 4)
    times = times[times[:, 0] == 0]
    second = times[:, 1:].argmin(1).bincount() / len(times)
    assert (second - 1 / 3).abs().max() < 4 * (2 / 9 / len(times)) ** 0.5


def test_non_edges_are_of_the_same_graph_and_no_edges():
    edges, batch, ptr = graph()
    present = {tuple(pair) for pair in edges.T.tolist()}
    seen = set()
    for seed in range(200):
        pairs, valid = random_non_edges(edges, batch, ptr, torch.Generator().manual_seed(seed))
        assert torch.equal(pairs[0], edges[0])
        assert torch.equal(batch[pairs[0]], batch[pairs[1]])
        for (u, v), good in zip(pairs.T.tolist(), valid.tolist(), strict=True):
            assert good == (u != v and (u, v) not in present)
            seen.add((u, v))
    assert seen == {(u, v) for u in edges[0].tolist() for v in range(12) if batch[u] == batch[v]}
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert random_non_edges(none, batch, ptr)[1].shape == (0,)


def test_a_pair_is_an_edge_in_either_direction():
    """Products of node vectors do not tell directions: the other end of an edge is no negative pair."""
    path = torch.tensor([[0, 1], [1, 2]])
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        pairs, valid = random_non_edges(path, torch.zeros(3, dtype=torch.int64), torch.tensor([0, 3]), generator)
        assert {tuple(sorted(pair)) for pair in pairs.T[valid].tolist()} <= {(0, 2)}
