"""Context prediction: surroundings and rings against PyG's subgraphs, one graph at a time, and its loss."""

import functools

import pytest
import torch
from torch.nn import functional
from torch_geometric.data import Batch, Data
from torch_geometric.utils import k_hop_subgraph, subgraph

import graphseq
from graphseq.data import GraphDataModule
from graphseq.models import GraphEncoder
from graphseq.nn import Pretrained
from graphseq.tasks import ContextPrediction
from tests.reliability.runs import trainer, weights

SIZES = [14, 2, 12, 1, 16]


def graphs(repeats=1):
    """Paths with a few further edges; the small ones have no ring."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for nodes in SIZES * repeats:
        half = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
        if nodes > 2:
            half = torch.cat([half, torch.tensor([[0], [2]])], 1)
        x = torch.randn(nodes, 3, generator=generator)
        found.append(Data(x=x, edge_index=torch.cat([half, half.flip(0)], 1)))
    return found


def build(**options):
    torch.manual_seed(0)
    options = {"num_hops": 2, "inner_hops": 1, "outer_hops": 4, **options}
    return ContextPrediction(GraphEncoder(3, 8, 2, norm="none"), **options)


def test_vectors_and_loss_equal_single_graphs():
    task, parts = build().eval(), graphs()
    batch = Batch.from_data_list(parts)
    centers = batch.ptr[:-1] + torch.tensor([5, 0, 1, 0, 9])
    vector, context, known = task.pairs(batch, centers)
    rows = []
    for place, graph in enumerate(parts):
        center = int(centers[place] - batch.ptr[place])
        near, edges, own, _ = k_hop_subgraph(center, 2, graph.edge_index, relabel_nodes=True, num_nodes=len(graph.x))
        expected = task.model.encode(graph.x[near], edges)[1][own[0]]
        assert torch.allclose(vector[place], expected, atol=1e-6)
        wide = set(k_hop_subgraph(center, 4, graph.edge_index, num_nodes=len(graph.x))[0].tolist())
        ring = torch.tensor(sorted(wide - {center}), dtype=torch.int64)
        assert bool(known[place]) == (len(ring) > 0)
        if len(ring):
            edges, _ = subgraph(ring, graph.edge_index, relabel_nodes=True, num_nodes=len(graph.x))
            around = task.context_model.encode(graph.x[ring], edges)[1]
            anchors = torch.isin(ring, near)
            assert torch.allclose(context[place], around[anchors].mean(0), atol=1e-6)
            rows.append((vector[place], context[place]))
    assert len(rows) == 4
    step = task.step(batch, "val")
    assert torch.equal(step.loss, task.step(batch, "val").loss)
    h, c = step.prediction, step.target
    expected = sum(
        -functional.logsigmoid((h[g] * c[g]).sum()) - functional.logsigmoid(-(h[g] * c[g - 1]).sum())
        for g in range(len(h))
    ) / len(h)
    assert torch.allclose(step.loss, expected)


def test_training_and_the_checkpoint(tmp_path):
    task = build(optimizer=functools.partial(torch.optim.Adam, lr=0.01))
    module = GraphDataModule(graphs(8), batch_size=16)
    before, batch = weights(task), module.graphs.take(slice(None))
    first = task.step(batch, "val").loss
    run = trainer(max_epochs=5)
    run.fit(task, module)
    assert task.step(batch, "val").loss < first
    changed = {name.split(".")[0] for name, value in weights(task).items() if not torch.equal(value, before[name])}
    assert changed == {"model", "context_model"}
    run.save_checkpoint(tmp_path / "context.ckpt")
    again, task = graphseq.load(tmp_path / "context.ckpt").eval(), task.eval()
    assert torch.equal(again.step(batch, "val").loss, task.step(batch, "val").loss)
    part = Pretrained(tmp_path / "context.ckpt")
    assert torch.equal(part(batch.x, batch.edge_index, batch.batch), task.model(batch.x, batch.edge_index, batch.batch))


def test_batches_without_a_ring():
    task = build()
    step = task.step(Batch.from_data_list([graphs()[3]] * 2), "val")
    assert step.loss == 0
    assert step.size == 0
    step.loss.backward()
    alone = task.step(Batch.from_data_list([graphs()[0]]), "val")
    assert torch.allclose(alone.loss, -functional.logsigmoid((alone.prediction[0] * alone.target[0]).sum()))


def test_graphs_without_nodes_are_left_out():
    none = Data(x=torch.zeros(0, 3), edge_index=torch.zeros(2, 0, dtype=torch.int64))
    task, (first, _, second, *_) = build(), graphs()
    batch = Batch.from_data_list([first, none, second, none])
    assert task.step(batch, "val").size == 2
    expected = task.pairs(Batch.from_data_list([first, second]), torch.tensor([5, 15]))
    found = task.pairs(batch, torch.tensor([5, 26, 15, 26]))
    assert found[2].tolist() == [True, False, True, False]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[found[2]], other)


def test_the_other_encoder_has_other_weights():
    task = build()
    pairs = zip(task.model.parameters(), task.context_model.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_refusals():
    with pytest.raises(ValueError, match="inner_hops is 3"):
        build(inner_hops=3)
    with pytest.raises(ValueError, match="outer_hops is 1"):
        build(outer_hops=1)
