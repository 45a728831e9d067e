import dataclasses
import math

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN

from graphseq.core import DataError, TokenBatch, apply_model, batch_size, batch_target
from graphseq.core.batches import content_sums


def graphs():
    return Batch.from_data_list(
        [Data(x=torch.ones(n, 3), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([n])) for n in (2, 3)]
    )


class Positional(nn.Module):
    def forward(self, x, edge_index, batch):
        return x.sum(), edge_index.shape, batch.tolist()


class Whole(nn.Module):
    def forward(self, data):
        return data.num_graphs


class Needs(nn.Module):
    def forward(self, x, pos):
        return x


def test_fields_by_name():
    assert apply_model(Positional(), graphs())[2] == [0, 0, 1, 1, 1]
    assert apply_model(Whole(), graphs()) == 2
    assert apply_model(GCN(3, 4, 2, 5), graphs()).shape == (5, 5)


def test_missing_field_is_named():
    with pytest.raises(DataError, match=r"Needs\.forward.*pos.*carries.*x"):
        apply_model(Needs(), graphs())


def test_tuples_dictionaries_dataclasses():
    @dataclasses.dataclass
    class Rows:
        input: torch.Tensor
        y: torch.Tensor

    x, y = torch.ones(4, 3), torch.arange(4)
    net = nn.Linear(3, 2)
    expected = net(x)
    assert torch.equal(apply_model(net, (x, y)), expected)
    assert torch.equal(apply_model(net, {"input": x, "y": y}), expected)
    assert torch.equal(apply_model(net, Rows(x, y)), expected)
    assert torch.equal(apply_model(net, x), expected)
    assert torch.equal(batch_target({"input": x, "y": y}), y)
    assert torch.equal(batch_target((x, y)), y)
    assert batch_size((x, y)) == 4
    assert batch_size(graphs()) == 2


def test_no_target():
    with pytest.raises(DataError, match="target `y`"):
        batch_target(Batch.from_data_list([Data(x=torch.ones(2, 1))]))


def test_content_sums_of_any_batch():
    x, y = torch.tensor([[1.0, -2.0]]), torch.tensor([3])
    expected = [[3.0, 1.0 - 2.0 * math.cos(1.0)], [3.0, 3.0]]
    tokens = TokenBatch(x, y)
    for batch in ((x, y), [x, (y,)], {"x": x, "y": y}, tokens, Batch.from_data_list([Data(x=x, y=y)])):
        assert content_sums(batch)[:2] == [pytest.approx(pair) for pair in expected]
    assert content_sums(torch.tensor([2 - 1j, float("nan")]))[0][0] == 3.0
    assert content_sums(x) != content_sums(x.flip(1))  # the order of entries counts
