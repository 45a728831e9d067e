import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN

from graphseq.core import DataError, make
from graphseq.tasks import NodeClassification
from tests.reference.losses import cross_entropy
from tests.reference.networks import slope
from tests.tasks.small import Given, Probe, close, fit, loader, validate

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be written as plain data")


def graph(nodes=9, classes=3, seed=0, masks=True):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (nodes,), generator=generator)
    data = Data(
        x=torch.randn(nodes, 4, generator=generator),
        edge_index=torch.randint(0, nodes, (2, 3 * nodes), generator=generator),
        y=y,
    )
    if masks:
        part = torch.arange(nodes) % 3
        data.train_mask, data.val_mask, data.test_mask = part == 0, part == 1, part == 2
    return data


def as_dictionary(data):
    return data.to_dict()


@pytest.mark.parametrize("kind", [lambda data: data, as_dictionary])
@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_equals_the_reference(stage, kind):
    data = graph()
    logits = torch.randn(9, 3, dtype=torch.float64)
    task = NodeClassification(Given(logits), 3)
    result = task.step(kind(data), stage)
    (gradient,) = torch.autograd.grad(result.loss, [task.model.outputs])
    rows, chosen = logits.tolist(), [n for n in range(9) if data[f"{stage}_mask"][n]]

    def expected():
        return cross_entropy([rows[n] for n in chosen], [int(data.y[n]) for n in chosen])[0]

    close(result.loss.detach(), expected())
    close(gradient, [[slope(expected, row, k) for k in range(3)] for row in rows], 1e-8)
    assert result.size == 3
    assert torch.equal(result.prediction, task.model.outputs[chosen])
    assert torch.equal(result.target, data.y[chosen])


def test_without_masks_all_nodes_count():
    task = NodeClassification(Probe(4, 3), 3)
    for data in (graph(masks=False), Batch.from_data_list([graph(4, masks=False), graph(5, masks=False)])):
        assert task.step(data).size == 9
    data = graph()
    del data.val_mask
    assert task.step(data, "val").size == 9


def test_labels_in_a_column():
    data = graph()
    task = NodeClassification(Probe(4, 3), 3)
    expected = task.step(data).loss
    data.y = data.y.unsqueeze(1)
    assert torch.equal(task.step(data).loss, expected)


def test_labels_outside_the_mask_need_not_be_known():
    data = graph()
    task = NodeClassification(Probe(4, 3), 3)
    expected = task.step(data).loss
    data.y[~data.train_mask] = -1
    assert torch.equal(task.step(data).loss, expected)
    with pytest.raises(DataError, match=r"labels .* -1 to -1; .*num_outputs=3"):
        task.step(data, "val")


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(9)))
def test_the_order_of_nodes_does_not_matter(order):
    torch.manual_seed(0)
    data = graph()
    task = NodeClassification(GCN(4, 5, 2, 3), 3).double()
    data.x = data.x.double()
    expected = task.step(data).loss
    where = torch.tensor(order)
    place = torch.empty(9, dtype=torch.long)
    place[where] = torch.arange(9)
    moved = Data(x=data.x[where], y=data.y[where], edge_index=place[data.edge_index], train_mask=data.train_mask[where])
    torch.testing.assert_close(task.step(moved).loss, expected, rtol=1e-10, atol=1e-12)


# batches of neighbour samplers: the seeds stand first


def sampled(data, seeds, others):
    """What PyG's NeighborLoader gives: the fields of seeds and neighbours, seeds first."""
    nodes = torch.tensor([*seeds, *others])
    place = {int(node): position for position, node in enumerate(nodes)}
    edges = [(place[s], place[t]) for s, t in data.edge_index.T.tolist() if s in place and t in place]
    batch = Data(x=data.x[nodes], y=data.y[nodes], edge_index=torch.tensor(edges).T.reshape(2, -1))
    for name in ("train_mask", "val_mask", "test_mask"):
        if name in data:
            batch[name] = data[name][nodes]
    batch.n_id, batch.input_id, batch.batch_size = nodes, torch.tensor(seeds), len(seeds)
    return batch


def test_only_seeds_count():
    task = NodeClassification(Probe(4, 3), 3)
    data = graph(masks=False)
    result = task.step(sampled(data, [5, 2], [7, 1, 0]))
    assert torch.equal(result.target, data.y[[5, 2]])
    torch.testing.assert_close(result.prediction, task.model(data.x[[5, 2]]))


def test_neighbours_of_the_same_split_do_not_count():
    """Neighbours that are in the training split as well lack a part of their own neighbours."""
    task = NodeClassification(Probe(4, 3), 3)
    data = graph()  # 0, 3 and 6 train
    result = task.step(sampled(data, [3, 0], [6, 1]))
    assert torch.equal(result.target, data.y[[3, 0]])
    # seeds of all nodes: those of the split count
    result = task.step(sampled(data, [3, 1, 0], [6]))
    assert torch.equal(result.target, data.y[[3, 0]])
    with pytest.raises(DataError, match="train split; .*train_mask, .*NeighborLoader"):
        task.step(sampled(data, [1, 2], [3, 0]))


def test_a_split_in_batches_equals_the_split_at_once():
    """With a network that looks at no neighbour nothing depends on the cut, so nothing may be counted twice."""
    task = NodeClassification(Probe(4, 3), 3)
    data = graph(30)
    nodes = data.val_mask.nonzero().flatten().tolist()
    rest = [node for node in range(30) if node not in nodes]
    batches = [sampled(data, nodes[:4], nodes[4:]), sampled(data, nodes[4:], nodes[:2] + rest)]
    whole, cut = validate(task, [data]), validate(task, batches)
    assert set(whole) == {"val/loss", "val/acc", "val/f1"}
    assert cut == pytest.approx(whole, rel=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("pyg_lib") is None and importlib.util.find_spec("torch_sparse") is None,
    reason="torch_geometric.loader.NeighborLoader needs pyg-lib or torch-sparse, and neither is installed",
)
def test_neighbor_loader():
    from torch_geometric.loader import NeighborLoader

    data = graph(30)
    task = NodeClassification(make(GCN, 4, 5, 2, 3), 3)
    counted = []
    for batch in NeighborLoader(data, [5, 5], input_nodes=data.train_mask, batch_size=4, shuffle=True):
        counted.append(task.step(batch).size)
    assert counted == [4, 4, 2]


# what cannot be used


def test_empty_mask():
    data = graph()
    data.val_mask[:] = False
    task = NodeClassification(Probe(4, 3), 3)
    with pytest.raises(DataError, match="val split; .*val_mask"):
        task.step(data, "val")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(9, 2, dtype=torch.bool), r"train_mask is torch\.bool \(9, 2\)"),
        (torch.ones(8, dtype=torch.bool), r"train_mask is torch\.bool \(8,\).*\(9,\)"),
        (torch.ones(9, dtype=torch.long), r"train_mask is torch.int64 \(9,\)"),  # 0 and 1 are not node numbers
        (torch.ones(9), r"train_mask is torch.float32 \(9,\)"),
    ],
)
def test_wrong_masks(mask, message):
    data = graph()
    data.train_mask = mask
    with pytest.raises(DataError, match=message):
        NodeClassification(Probe(4, 3), 3).step(data)


def test_wrong_labels_and_networks():
    data = graph()
    with pytest.raises(ValueError, match=r"Probe .*\(9, 5\); .*\(B, 3\)"):
        NodeClassification(Probe(4, 5), 3).step(data)
    with pytest.raises(ValueError, match=r"Probe returned \(9, 2\)"):
        NodeClassification(Probe(4, 2), 3).step(data)
    with pytest.raises(ValueError, match="num_outputs is 1"):
        NodeClassification(Probe(4, 1), 1)
    task = NodeClassification(Probe(4, 3), 3)
    data.y = torch.tensor([0])
    with pytest.raises(DataError, match=r"labels are \(1,\) for 9 nodes"):
        task.step(data)
    data = graph()
    data.y = data.y.float()
    with pytest.raises(DataError, match=r"labels are torch\.float32"):
        task.step(data)
    data.y = nn.functional.one_hot(graph().y, 3)
    with pytest.raises(DataError, match=r"labels are \(3, 3\) for 3 "):
        task.step(data)


def test_separable_nodes_are_learned():
    data = graph(60)
    data.x = data.x + 5 * nn.functional.one_hot(data.y, 4)
    same = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    data.edge_index = data.edge_index[:, same]
    task = NodeClassification(make(GCN, 4, 8, 2, 3), 3, optimizer=lambda p: torch.optim.Adam(p, 0.05))
    run = fit(task, [data], [data], max_epochs=40)
    assert run.callback_metrics["val/acc"] > 0.98
    tested = run.test(task, loader([data]), verbose=False)[0]
    assert set(tested) == {"test/loss", "test/acc", "test/f1"}
    assert tested["test/acc"] > 0.98
