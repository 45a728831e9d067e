"""Training without labels: what each loss is made of, that it falls, and that later tasks take the encoder by path."""

import functools

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import graphseq
from graphseq.core import DataError
from graphseq.data import GraphDataModule
from graphseq.models import GraphEncoder
from graphseq.nn import DropEdges, Pretrained
from graphseq.tasks import (
    AttributeMasking,
    Classification,
    EdgePrediction,
    GraphContrast,
    Infomax,
    PretrainingTask,
)
from tests.reliability.runs import trainer, weights


def molecules(count=40, labelled=True):
    """Rings whose atoms alternate between two types with the types of their bonds, so that a neighbour tells them."""
    graphs = []
    for position in range(count):
        nodes = 4 + 2 * (position % 3)
        order = torch.arange(nodes)
        kind = (order + position) % 2
        half = torch.stack([order, (order + 1) % nodes])
        edges = torch.cat([half, half.flip(0)], 1)
        x = torch.stack([kind + 2 * (position % 2), torch.zeros_like(kind)], 1)
        edge_attr = kind[half[0]].repeat(2)[:, None]
        y = {"y": torch.tensor([position % 2])} if labelled else {}
        graphs.append(Data(x=x, edge_index=edges, edge_attr=edge_attr, **y))
    return graphs


def categorical(**options):
    torch.manual_seed(0)
    return GraphEncoder(2, 16, 2, "gine", node_categories=[4, 1], edge_categories=[2], **{"norm": "batch", **options})


ADAM = functools.partial(torch.optim.Adam, lr=0.01)
TASKS = {
    "attributes": lambda: AttributeMasking(categorical(), [4, 1], [2], optimizer=ADAM),
    "links": lambda: EdgePrediction(categorical(), optimizer=ADAM),
    "contrast": lambda: GraphContrast(categorical(), optimizer=ADAM),
    "infomax": lambda: Infomax(categorical(), optimizer=ADAM),
}


def data(**options):
    return GraphDataModule(molecules(**options), batch_size=16, fractions=(0.8, 0.1, 0.1))


class Probe(nn.Module):
    def __init__(self, encoder, out_channels):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.graph_channels, out_channels)

    def forward(self, x, edge_index, batch=None, edge_attr=None, ptr=None):
        return self.head(self.encoder(x, edge_index, batch, edge_attr, ptr))


@pytest.mark.parametrize("name", TASKS)
def test_loss_falls_and_a_later_task_takes_the_encoder_frozen(name, tmp_path):
    task, module = TASKS[name](), data(labelled=False)
    before = weights(task)
    run = trainer(max_epochs=8)
    first = task.step(module.graphs.take(slice(None)), "val").loss
    run.fit(task, module)
    moved = {key for key, value in weights(task).items() if not torch.equal(value, before[key])}
    assert any(key.startswith("model.convs") for key in moved)
    path = tmp_path / "pretrained.ckpt"
    run.save_checkpoint(path)
    again = graphseq.load(path)
    assert all(torch.equal(value, weights(task)[key]) for key, value in weights(again).items())
    later = Classification(Probe(Pretrained(path), 2), 2, optimizer=ADAM)
    frozen = {key: value.clone() for key, value in later.model.encoder.module.state_dict().items()}
    assert all(torch.equal(value, weights(task)[f"model.{key}"]) for key, value in frozen.items())
    trainer(max_epochs=2).fit(later, data())
    assert all(torch.equal(value, frozen[key]) for key, value in later.model.encoder.module.state_dict().items())
    assert task.train().step(module.graphs.take(slice(None)), "val").loss < 0.9 * first


def test_masked_attributes_are_hidden_and_predicted():
    task = TASKS["attributes"]()
    batch = data().graphs.take([0, 1, 2])
    view = task.embedded(batch)
    chosen = torch.zeros(len(batch.x), dtype=torch.bool)
    chosen[[0, 5]] = True
    masked, touched = task.masked(view, chosen)
    assert torch.equal(masked.h[chosen], task.node_mask.expand(2, -1))
    assert torch.equal(masked.h[~chosen], view.h[~chosen])
    for place, (u, v) in enumerate(batch.edge_index.T.tolist()):
        assert bool(touched[place]) == (u in (0, 5) or v in (0, 5))
    assert torch.equal(masked.edge[touched], task.edge_mask.expand(int(touched.sum()), -1))
    assert torch.equal(masked.edge[~touched], view.edge[~touched])


def test_a_masked_atom_does_not_leak():
    """The loss of a graph of one masked node does not depend on its own category but through the target."""
    task = AttributeMasking(categorical(norm="none"), [4, 1], [2], mask_share=1.0).eval()
    batch = data().graphs.take([0])
    logits = task.step(batch, "val").prediction
    batch.x = (batch.x + torch.tensor([1, 0])) % torch.tensor([4, 1])
    assert torch.equal(task.step(batch, "val").prediction, logits)


def test_share_of_masked_nodes():
    task = AttributeMasking(categorical(), [4, 1], mask_share=0.25)
    step = task.step(data().graphs.take([0, 1, 2]), "val")  # 4, 6 and 8 nodes
    assert int(step.size) == 2 + 2 + 3
    assert not task.edge_columns


def test_hidden_edges_are_not_seen():
    """With all edges hidden node vectors are those of graphs without edges."""
    encoder = categorical(norm="none")
    task = EdgePrediction(encoder, mask_share=1.0).eval()
    batch = data().graphs.take([0, 1])
    view = task.embedded(batch).with_edges(torch.zeros(batch.edge_index.shape[1], dtype=torch.bool))
    assert torch.equal(task.step(batch, "val").prediction, view.encode(encoder)[1])
    seen = EdgePrediction(encoder, mask_share=0.0).eval().step(batch, "val")
    assert torch.equal(seen.prediction, task.embedded(batch).encode(encoder)[1])
    assert int(seen.size) == batch.edge_index.shape[1]


def test_evaluation_draws_the_same_each_time_and_training_does_not():
    task = TASKS["links"]().eval()
    batch = data().graphs.take(slice(None))
    assert task.step(batch, "val").loss == task.step(batch, "val").loss
    assert task.step(batch, "train").loss != task.step(batch, "train").loss


def test_one_graph_of_nodes():
    """A citation graph is one graph: its negative nodes have permuted features."""
    graph = molecules(1)[0]
    graph.x = torch.rand(len(graph.x), 3)
    encoder = GraphEncoder(3, 8, 2, "gin", norm="none")
    for task in (Infomax(encoder), EdgePrediction(encoder)):
        step = task.step(graph)
        step.loss.backward()
        assert step.loss > 0
    assert any(bool(parameter.grad.any()) for parameter in encoder.parameters())


def test_refusals():
    with pytest.raises(TypeError, match="embed, encode_embedded"):
        PretrainingTask(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="mask_share is 0"):
        AttributeMasking(categorical(), [4, 1], mask_share=0)
    with pytest.raises(ValueError, match="node_columns holds 2"):
        AttributeMasking(categorical(), [4, 1], node_columns=[2])
    with pytest.raises(ValueError, match="no edge features"):
        AttributeMasking(GraphEncoder(1, 8, node_categories=[4]), [4], [2])
    with pytest.raises(ValueError, match="views has 1"):
        GraphContrast(categorical(), views=[DropEdges(0.1)])
    with pytest.raises(ValueError, match="temperature is 0"):
        GraphContrast(categorical(), temperature=0)
    with pytest.raises(ValueError, match="mask_share is 2"):
        EdgePrediction(categorical(), mask_share=2)
    task = AttributeMasking(GraphEncoder(1, 8, node_categories=[9]), [4])
    with pytest.raises(DataError, match=r"column 0 of x ranges from 0 to 8; with node_categories\[0\]=4"):
        task.step({"x": torch.tensor([[0], [8]]), "edge_index": torch.tensor([[0], [1]])})
    task = AttributeMasking(GraphEncoder(3, 8), [4])
    with pytest.raises(DataError, match=r"x is torch.float32"):
        task.step({"x": torch.rand(2, 3), "edge_index": torch.tensor([[0], [1]])})
