"""Labels as users have them: names, scalars and arrays of numpy, OGB's name of a split."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphseq.core import DataError
from graphseq.data import GraphDataModule, NodeDataModule, SequenceDataModule, TensorStore
from graphseq.data.base import StoreDataModule

KINDS = ["toxic", "inert", "inert", "odd"] * 10


def graphs(labels):
    return [Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]), y=label) for label in labels]


@pytest.mark.parametrize("form", [str, np.str_, lambda name: np.array(name)])
def test_names_of_classes_of_graphs(form):
    given = graphs([form(kind) for kind in KINDS])
    data = GraphDataModule(given, split="stratified", fractions=[0.5, 0.25, 0.25])
    assert (data.class_names, data.num_outputs) == (["inert", "odd", "toxic"], 3)
    assert data.graphs.field("y").tolist() == [data.class_names.index(kind) for kind in KINDS]
    assert str(given[0].y) == "toxic"  # the user's graphs are not changed
    assert len(data.class_weights) == 3


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float32, np.array, lambda v: np.array([v])])
def test_numbers_of_numpy_are_numbers(kind):
    data = GraphDataModule(graphs([kind(n % 2) for n in range(40)]), batch_size=8)
    assert data.class_names == []
    y = next(data.batches()).y
    assert y.shape == (8,)
    assert y.is_floating_point() == (kind is np.float32)


def test_mixed_and_empty_names():
    for labels, message in (
        (["a", 1] * 20, "label of graph 1 is 1"),
        (["a", "b", None, "a"] * 10, "graph 2 .*differ in fields|label of graph 2 is None"),
        (["a", " "] * 20, "label of graph 1 is ' '"),
    ):
        with pytest.raises(DataError, match=message):
            GraphDataModule(graphs(labels)).load()


def test_checkpoints_know_the_names():
    trained = GraphDataModule(graphs(KINDS))
    state = trained.state_dict()
    trained.load_state_dict(state)
    other = GraphDataModule(graphs([kind.replace("toxic", "a") for kind in KINDS]))
    with pytest.raises(DataError, match=r"class_names \['inert', 'odd', 'toxic'\].*\['a', 'inert', 'odd'\]"):
        other.load_state_dict(state)


def test_names_of_classes_of_nodes():
    x, edge_index = torch.eye(40), torch.tensor([[0], [1]])
    for y in (KINDS, np.array(KINDS)):
        data = NodeDataModule(Data(x=x, edge_index=edge_index, y=y), split="stratified")
        assert (data.class_names, data.num_outputs) == (["inert", "odd", "toxic"], 3)
        assert data.graph.y.tolist() == [data.class_names.index(kind) for kind in KINDS]
        assert data.state_dict()["class_names"] == data.class_names
    numbers = NodeDataModule(Data(x=x, edge_index=edge_index, y=np.arange(40) % 2), split="stratified")
    assert (numbers.class_names, numbers.num_outputs) == ([], 2)


def test_names_of_classes_of_sequences():
    waves = [[0.1 * n] * (2 + n % 3) for n in range(40)]
    for labels in (KINDS, np.array(KINDS)):
        data = SequenceDataModule(waves, labels)
        assert (data.class_names, data.num_outputs) == (["inert", "odd", "toxic"], 3)
        assert data.store.y.tolist() == [data.class_names.index(kind) for kind in KINDS]
    assert SequenceDataModule(waves, [np.int64(n % 2) for n in range(40)]).num_outputs == 2


def test_valid_is_val():
    train, rest = torch.arange(30), {"valid": torch.arange(30, 35), "test": torch.arange(35, 40)}
    data = GraphDataModule(graphs(KINDS), split={"train": train, **rest})
    assert data.split_sizes() == {"train": 30, "val": 5, "test": 5}

    class Own(StoreDataModule):
        def read(self):
            return TensorStore(torch.ones(40, 1), torch.ones(40)), {"train": train, **rest, **more}

    more = {}
    assert Own().split_sizes()["val"] == 5
    more = {"val": torch.arange(2)}
    with pytest.raises(DataError, match="val and valid"):
        Own().load()
    masks = {name: torch.arange(40) % 3 == n for n, name in enumerate(("train_mask", "valid_mask", "test_mask"))}
    nodes = NodeDataModule(Data(x=torch.eye(40), edge_index=torch.tensor([[0], [1]]), y=KINDS, **masks))
    assert nodes.split_sizes() == {"train": 14, "val": 13, "test": 13}
