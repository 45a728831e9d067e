"""Values of graphs, pooled and flattened."""

import pytest
import torch

from graphseq.core import DataError
from graphseq.nn import FlattenCritic, PoolCritic

PTR = torch.tensor([0, 3, 4, 8])


def test_pooled_value_by_hand_and_gradients_reach_every_parameter():
    critic, h = PoolCritic(4, 5).double(), torch.randn(8, 4).double()
    value = critic(h, PTR)
    for number, rows in enumerate(h.tensor_split(PTR[1:-1])):
        each = critic.node(rows).relu()
        torch.testing.assert_close(value[number], critic.graph(torch.cat([each.mean(0), each.amax(0)]))[0])
    value.sum().backward()
    assert all(parameter.grad is not None for parameter in critic.parameters())
    critic.reset_parameters()
    assert not torch.equal(critic(h, PTR), value)


def test_flattened_value_is_that_of_rows_padded_with_zeros():
    critic, h = FlattenCritic(4, max_nodes=5).double(), torch.randn(8, 4, dtype=torch.float64)
    padded = torch.zeros(3, 20).double()
    for number, rows in enumerate(h.tensor_split(PTR[1:-1])):
        padded[number, : rows.numel()] = rows.flatten()
    torch.testing.assert_close(critic(h, PTR), critic.layers(padded)[:, 0])
    assert [layer.out_features for layer in critic.layers if hasattr(layer, "out_features")] == [1, 1, 1]
    assert FlattenCritic(100, 10).layers[0].out_features == 50


def test_refuses():
    with pytest.raises(DataError, match=r"4 nodes.*max_nodes=3"):
        FlattenCritic(4, 3)(torch.ones(8, 4), PTR)
    with pytest.raises(ValueError, match="max_nodes=492 and in_channels=300 make"):
        FlattenCritic(300, 492)
    with pytest.raises(ValueError, match="max_nodes=0"):
        FlattenCritic(4, 0)
    with pytest.raises(ValueError, match="hidden_channels=0"):
        PoolCritic(4, 0)
