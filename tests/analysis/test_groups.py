import pytest
import torch
from torch import nn

from graphseq.analysis import group_graph, group_modularity
from graphseq.callbacks import draw_group_strengths
from graphseq.nn import GroupToGroupLinear


def test_strengths_and_edges_by_loops():
    layers = nn.Sequential(
        GroupToGroupLinear(12, 12, 3, 1.0, 0.5, seed=0),
        nn.ReLU(),
        GroupToGroupLinear(12, 24, 3, 1.0, 0.0, "interleaved"),
    )
    data = group_graph(layers)
    assert data.num_nodes == 12
    assert data.validate()
    weight, mask = layers[0].to_dense()
    for target in range(3):
        for source in range(3):
            block = weight[4 * target : 4 * target + 4, 4 * source : 4 * source + 4]
            torch.testing.assert_close(data.strength[0, target, source], block.detach().abs().sum())
            edge = (data.edge_index == torch.tensor([[source], [3 + target]])).all(0) & (data.edge_kind == 0)
            density = mask[4 * target : 4 * target + 4, 4 * source : 4 * source + 4].float().mean()
            torch.testing.assert_close(data.edge_attr[edge][0, 0], density)
    shared = data.edge_kind == 1  # each contiguous group of 4 has 1 or 2 units of each interleaved one
    assert int(shared.sum()) == 9
    assert set(data.edge_attr[shared, 0].tolist()) == {0.25, 0.5}
    assert (data.side[data.edge_index[0, shared]] == 1).all()
    assert (data.layer[data.edge_index[1, shared]] == 1).all()
    assert int(((data.edge_kind == 0) & (data.layer[data.edge_index[0]] == 1)).sum()) == 3
    torch.testing.assert_close(data.modularity[1], torch.tensor(2 / 3), atol=0.02, rtol=0)  # of random weights
    assert 0 < data.modularity[0] < data.modularity[1]
    assert len(draw_group_strengths(data.strength).axes) == 3


def test_modularity_of_extremes():
    assert group_modularity(torch.ones(5, 5)).item() == pytest.approx(0, abs=1e-6)
    assert group_modularity(torch.zeros(2, 3, 3)).tolist() == [0, 0]


def test_networks_without_groups_are_refused():
    with pytest.raises(ValueError, match="Linear has 0"):
        group_graph(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"\[2, 4\]"):
        group_graph(nn.Sequential(GroupToGroupLinear(8, 8, 2), GroupToGroupLinear(8, 8, 4)))
