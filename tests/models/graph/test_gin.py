import copy

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from graphseq.core import DataError, apply_model
from graphseq.models import GINClassifier
from tests.reference import graph as reference


def one_batch(seed=0, sizes=(4, 1, 5)):
    generator = torch.Generator().manual_seed(seed)
    data = [
        Data(
            x=torch.randn(size, 3, generator=generator, dtype=torch.float64),
            edge_index=torch.randint(size, (2, 2 * size if size > 1 else 0), generator=generator),
        )
        for size in sizes
    ]
    return data, next(iter(DataLoader(data, batch_size=len(data))))


def statistics(norm, training):
    return [] if training else [norm.module.running_mean, norm.module.running_var]


def logits_by_loops(network, x, batch, training):
    """Section 4.2: at each depth, pool and map linearly; add the maps up."""
    rows, owners = list(x), batch.batch.tolist()
    pooled = reference.pool(rows, owners, batch.num_graphs, network.pool.mode)
    logits = [torch.stack(reference.linear(pooled, network.heads[0].weight, network.heads[0].bias))]
    for conv, norm, head in zip(network.convs, network.norms, network.heads[1:], strict=True):
        first, inner, _, second = conv.nn
        summed = reference.gin_sum(rows, batch.edge_index, conv.eps)
        inside = [inner.module.weight, inner.module.bias, *statistics(inner, training)]
        new = reference.gin_mlp(summed, (first.weight, first.bias), inside, (second.weight, second.bias))
        outside = [norm.module.weight, norm.module.bias, *statistics(norm, training)]
        rows = reference.relu(reference.batch_norm(new, *outside))
        pooled = reference.pool(rows, owners, batch.num_graphs, network.pool.mode)
        logits.append(torch.stack(reference.linear(pooled, head.weight, head.bias)))
    return sum(logits)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("pool", "train_eps"), [("sum", False), ("mean", True)])
def test_equals_loops_and_its_gradient_too(pool, train_eps, training):
    torch.manual_seed(0)
    network = GINClassifier(3, 2, 4, 3, pool=pool, train_eps=train_eps, dropout=0).double().train(training)
    if train_eps:
        torch.nn.init.constant_(network.convs[0].eps, 0.3)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    _, batch = one_batch()
    x = batch.x.clone().requires_grad_()
    expected = logits_by_loops(network, x, batch, training)
    got = network(x, batch.edge_index, batch.batch, ptr=batch.ptr)
    torch.testing.assert_close(got, expected)
    parameters = [x, *network.parameters()]
    cotangent = torch.randn_like(expected)
    gradients = torch.autograd.grad(got, parameters, cotangent)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, parameters, cotangent), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_is_the_paper_s_by_default():
    network = GINClassifier(7, 2)
    assert len(network.convs) == 4  # five layers, the input counted
    assert len(network.heads) == 5
    assert [head.in_features for head in network.heads] == [7, 32, 32, 32, 32]
    assert not any(parameter is conv.eps for conv in network.convs for parameter in network.parameters())
    inner = sum(7 * 32 + 32 if layer == 0 else 32 * 32 + 32 for layer in range(4)) + 4 * (32 * 32 + 32)
    norms = 8 * 2 * 32
    heads = 7 * 2 + 2 + 4 * (32 * 2 + 2)
    assert sum(p.numel() for p in network.parameters()) == inner + norms + heads


def test_dropout_takes_whole_logits_of_single_depths():
    network = GINClassifier(3, 2000, 4, 2, dropout=0.5).double()
    for head, value in zip(network.heads, (1.0, 3.0), strict=True):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, value)
    data, _ = one_batch()
    values = network(data[0].x, data[0].edge_index).unique()
    assert values.tolist() == [0, 2, 6, 8]  # of 1 and 3, doubled: none, one, the other, both


def test_encode_is_what_the_readout_reads():
    _, batch = one_batch()
    network = GINClassifier(3, 2, 4, 3, pool="mean").double().eval()
    graph, node = network.encode(batch.x, batch.edge_index, batch.batch, ptr=batch.ptr)
    assert (graph.size(1), node.size(1)) == (network.graph_channels, network.node_channels) == (11, 11)
    assert node[:, :3].equal(batch.x)
    weight = torch.cat([head.weight for head in network.heads], dim=1)
    bias = sum(head.bias for head in network.heads)
    torch.testing.assert_close(graph @ weight.T + bias, apply_model(network, batch))


def test_a_batch_is_its_graphs_alone():
    data, batch = one_batch(1)
    network = GINClassifier(3, 2, 4).double().eval()
    alone = torch.cat([network(d.x, d.edge_index) for d in data])
    torch.testing.assert_close(apply_model(network, batch), alone)
    torch.testing.assert_close(network(batch.x, batch.edge_index, batch.batch), alone)
    order = torch.randperm(5)
    moved = network(data[2].x[order], order.argsort()[data[2].edge_index])
    torch.testing.assert_close(moved, alone[2:])
    assert network.train()(data[1].x, data[1].edge_index).isfinite().all()  # one node has no variance


def test_copies_states_resets_and_records():
    _, batch = one_batch()
    network = GINClassifier(3, 2, hidden_channels=4, mlp_layers=3, train_eps=True).double().eval()
    output = apply_model(network, batch)
    twin = copy.deepcopy(network)
    assert apply_model(twin, batch).equal(output)
    twin.reset_parameters()
    assert not apply_model(twin, batch).equal(output)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model")
    built = parser.instantiate(parser.parse_object({"model": network._record})).model.double().eval()
    built.load_state_dict(network.state_dict())
    assert apply_model(built, batch).equal(output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 1}, "num_layers=1"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"hidden_channels": 0}, "hidden_channels is 0"),
        ({"mlp_layers": 0}, "at least 1"),
        ({"pool": "median"}, "mode='median'"),
        ({"in_channels": 0}, "OneHotDegree or Constant"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GINClassifier(**({"in_channels": 3, "out_channels": 2} | arguments))
    with pytest.raises(DataError, match=r"torch\.int64"):
        GINClassifier(3, 2)(torch.ones(2, 3, dtype=torch.long), torch.tensor([[0], [1]]))
