from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from graphseq.core import DataError
from graphseq.data import (
    GraphDataModule,
    NodeDataModule,
    StoreDataModule,
    SyntheticEventsDataModule,
    SyntheticTextDataModule,
    TabularDataModule,
    TemporalDataModule,
    TemporalEvents,
    TensorStore,
)
from graphseq.models import JODIE, EdgeBank, GraphClassifier, NodeClassifier, RecurrentLanguageModel
from graphseq.tasks import (
    Classes,
    Classification,
    LanguageModeling,
    NodeClassification,
    Quantiles,
    Regression,
    SequenceTagging,
    Step,
    Task,
    TemporalLinkPrediction,
    TemporalNodeClassification,
)


class Numbers(StoreDataModule):
    """Samples 0 to 9; their test split is not in order."""

    def __init__(self, *fields, **named):
        super().__init__(4, train_transform=nn.Dropout(0.99))
        self.fields, self.named = fields, named

    def read(self):
        store = TensorStore(*self.fields, **self.named)
        return store, {"train": torch.arange(5), "val": torch.tensor([5]), "test": torch.tensor([9, 6, 8, 7])}


def graphs(count=10, **fields):
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        graph = Data(x=torch.randn(3 + number % 2, 2, generator=generator), edge_index=torch.tensor([[0, 1], [1, 0]]))
        for name, value in fields.items():
            graph[name] = value(number)
        made.append(graph)
    return GraphDataModule(made, split="random", fractions=(0.5, 0.1, 0.4))


def test_classes_by_name_in_the_order_of_the_split(tmp_path):
    path = tmp_path / "animals.csv"
    path.write_text("\n".join(["a,b,kind", *(f"{i % 7},{i},{'cat' if i % 3 else 'dog'}" for i in range(60))]))
    data = TabularDataModule(path, "kind", batch_size=5)
    task = Classification(nn.Linear(2, 2), 2)
    table = task.predictions(data, "test", batch_size=4)
    assert list(table.columns) == ["id", "split", "target", "prediction", "p_cat", "p_dog"]
    assert table["id"].tolist() == data.splits["test"].tolist()
    assert (table["split"] == "test").all()
    x, y = data.store.take(data.splits["test"])
    p = task(x).softmax(1) if isinstance(x, tuple) else task.model(x).softmax(1)
    np.testing.assert_allclose(table[["p_cat", "p_dog"]], p.detach(), atol=1e-6)
    assert table["target"].tolist() == [data.class_names[label] for label in y]
    assert table["prediction"].tolist() == [data.class_names[label] for label in p.argmax(1)]


def test_modes_come_back_and_training_samples_are_not_augmented():
    data = Numbers(torch.ones(10, 3), torch.zeros(10))
    task = Regression(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)), 1)
    task.model[0].eval()
    first = task.predictions(data, "train")
    assert task.training
    assert not task.model[0].training
    assert first["id"].tolist() == [0, 1, 2, 3, 4]
    assert first["prediction"].nunique() == 1  # neither dropout nor the transform of training
    assert task.predictions(data)["id"].tolist() == [9, 6, 8, 7]


def test_numbers_several_labels_and_unknown_targets():
    y = torch.tensor([[1.0, float("nan")]]).repeat(10, 1)
    data = Numbers(torch.ones(10, 3), y)
    numbers = Regression(nn.Linear(3, 2), 2).predictions(data)
    assert list(numbers.columns)[2:] == ["target_0", "target_1", "prediction_0", "prediction_1"]
    assert numbers["target_1"].isna().all()
    data.target_names = ["toxic", "soluble"]
    labels = Classification(nn.Linear(3, 2), 2, target="multilabel").predictions(data)
    assert list(labels.columns)[2:] == ["target_toxic", "target_soluble", "p_toxic", "p_soluble"]
    assert ((labels["p_toxic"] > 0) & (labels["p_toxic"] < 1)).all()


@pytest.mark.parametrize("kind", ["class", "label", "number"])
def test_graphs_with_and_without_labels(kind):
    network = GraphClassifier(2, 3 if kind == "class" else 1, hidden_channels=4, num_layers=1)
    task = {
        "class": lambda: Classification(network, 3),
        "label": lambda: Classification(network, 1, target="multilabel"),
        "number": lambda: Regression(network, 1),
    }[kind]()
    y = (lambda i: torch.tensor([i % 3])) if kind == "class" else (lambda i: torch.tensor([float(i % 2)]))
    labelled, unlabelled = graphs(y=y, smiles=lambda i: "C" * i), graphs()
    known, unknown = task.predictions(labelled), task.predictions(unlabelled)
    assert "target" in known
    assert "target" not in unknown
    assert known["smiles"].tolist() == ["C" * i for i in known["id"]]
    values = [name for name in unknown if name.startswith("p")]
    pandas.testing.assert_frame_equal(known[["id", *values]], unknown[["id", *values]])


def test_unknown_classes_are_empty():
    columns = Classes(2).columns(torch.zeros(3, 2), torch.tensor([1, -100, -1]), nn.Identity(), None)
    assert columns["target"] == [1, None, None]
    named = Classes(2).columns(torch.zeros(1, 2), torch.tensor([-1]), nn.Identity(), SimpleNamespace(class_names="ab"))
    assert named["target"] == [None]
    with pytest.raises(DataError, match=r"\(2,\)"):
        Classes(2).columns(torch.zeros(3, 2), torch.tensor([1, 1]), nn.Identity(), None)


def test_quantiles_have_a_column_each():
    columns = Quantiles([0.1, 0.9]).columns(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0]), nn.Identity(), None)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "target": [3.0],
        "q0.1": [1.0],
        "q0.9": [2.0],
    }


def test_nodes_of_one_graph_and_of_many():
    graph = Data(x=torch.randn(12, 2), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.arange(12) % 2)
    data = NodeDataModule(graph, split="stratified", fractions=(0.5, 0.25, 0.25))
    task = NodeClassification(GCN(2, 4, 1, 2), num_outputs=2)
    table = task.predictions(data, "val")
    assert table["id"].tolist() == data.graph.val_mask.nonzero().flatten().tolist()
    assert table["target"].tolist() == [node % 2 for node in table["id"]]
    many = NodeClassification(NodeClassifier(2, 2, hidden_channels=4, num_layers=2), 2)
    table = many.predictions(graphs(y=lambda i: torch.arange(3 + i % 2) % 2))
    assert table.groupby("id")["node"].apply(list).to_dict() == {
        i: list(range(3 + i % 2)) for i in table["id"].unique()
    }
    assert table["target"].tolist() == [node % 2 for node in table["node"]]


def test_steps_of_sequences_without_padding():
    class Tags(nn.Module):
        def forward(self, x, lengths):
            return torch.cat([x, -x], 2)

    x = torch.arange(40.0).view(10, 4, 1)
    lengths = torch.arange(10) % 4 + 1
    data = Numbers(x=x, lengths=lengths, step_y=torch.ones(10, 4).long())
    table = SequenceTagging(Tags(), 2).predictions(data)
    assert table["id"].tolist() == [i for i in (9, 6, 8, 7) for _ in range(int(lengths[i]))]
    assert table["step"].tolist() == [step for i in (9, 6, 8, 7) for step in range(int(lengths[i]))]
    assert (table["target"] == 1).all()


def test_a_language_model_refuses():
    data = SyntheticTextDataModule(400)
    task = LanguageModeling(RecurrentLanguageModel(data.vocab_size), data.vocab_size)
    with pytest.raises(DataError, match="graphseq generate"):
        task.predictions(data)


def stream(count=60, **options):
    index = torch.arange(count)
    events = TemporalEvents(
        index % 3, 3 + index % 4, 1000 + index, node_ids=torch.arange(7) * 10, y=(index % 5 == 0).float()
    )
    return TemporalDataModule(events, batch_size=7, eval_batch_size=4, **options)


def test_events_carry_ids_and_times_of_their_source():
    data = stream()
    table = TemporalLinkPrediction(JODIE(data.num_nodes, memory_dim=4)).predictions(data)
    assert list(table.columns) == ["id", "split", "src", "dst", "t", "p", "rank", "candidates"]
    assert table["id"].tolist() == data.splits["test"].tolist()
    assert table["src"].tolist() == [10 * (i % 3) for i in table["id"]]
    assert table["dst"].tolist() == [10 * (3 + i % 4) for i in table["id"]]
    assert table["t"].tolist() == [1000 + i for i in table["id"]]
    assert table["rank"].between(1, 2).all()
    events = TemporalEvents(*(torch.arange(20) % k + k for k in (2, 4)), torch.arange(20), node_ids=list("abcdefgh"))
    named = TemporalLinkPrediction(EdgeBank()).predictions(TemporalDataModule(events, batch_size=5))
    assert named["src"].tolist() == ["abcdefgh"[2 + i % 2] for i in named["id"]]
    labelled = TemporalNodeClassification(JODIE(data.num_nodes, memory_dim=4)).predictions(stream(negatives=False))
    assert list(labelled.columns)[5:] == ["target", "p"]


def test_a_stream_is_replayed_up_to_the_split_and_the_state_comes_back():
    data = stream()
    task = TemporalLinkPrediction(JODIE(data.num_nodes, memory_dim=4))
    fresh = {split: task.predictions(data, split) for split in ("train", "val", "test")}
    assert task._next_event == 0
    task.observe(data.batches("train"))
    for split in ("val", "test", "train"):  # from where the network stands, or from the beginning
        state = task.network.state_buffers()
        pandas.testing.assert_frame_equal(task.predictions(data, split), fresh[split])
        assert all(torch.equal(value, state[name]) for name, value in task.network.state_buffers().items())
    task.eval()
    task.observe(data.batches("val"))
    pandas.testing.assert_frame_equal(task.predictions(data, "test"), fresh["test"])
    reached = task._next_event
    pandas.testing.assert_frame_equal(task.predictions(data, "val"), fresh["val"])
    assert task._next_event == reached


def test_edge_bank_ranks_what_it_has_seen():
    data = SyntheticEventsDataModule(num_events=400)
    task = TemporalLinkPrediction(EdgeBank())
    table = task.predictions(data)
    seen = set(zip(*(column[:340].tolist() for column in (data.events.src, data.events.dst)), strict=True))
    first = table.iloc[0]
    assert (first["p"] > 0.6) == ((first["src"], first["dst"]) in seen)


def test_a_procedure_without_a_kind_of_target_gives_its_outputs_as_they_are():
    class Own(Task):
        def step(self, batch, stage="train"):
            return Step(self(batch).mean(), self(batch), batch[-1], 1)

    table = Own(nn.Linear(3, 2)).predictions(Numbers(torch.ones(10, 3), torch.arange(10)))
    assert list(table.columns) == ["id", "split", "target", "output_0", "output_1"]
    assert table["target"].tolist() == [9, 6, 8, 7]
    with pytest.raises(DataError, match="prediction_rows"):
        Own(nn.Flatten(0)).predictions(Numbers(torch.ones(10, 3), torch.arange(10)))


def test_splits_and_data_that_are_refused():
    data = Numbers(torch.ones(10, 3), torch.zeros(10))
    task = Regression(nn.Linear(3, 1), 1)
    with pytest.raises(DataError, match=r"'tset'.*test 4"):
        task.predictions(data, "tset")
    with pytest.raises(TypeError, match="list"):
        task.predictions([1, 2])
