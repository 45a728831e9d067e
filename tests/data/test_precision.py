"""What a batch holds follows the trainer's precision where it is measured, and keeps its type where it is not."""

import copy

import lightning
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from graphseq.data import (
    GraphDataModule,
    GraphStore,
    ImageDataModule,
    NodeDataModule,
    StoreDataModule,
    TemporalDataModule,
    TemporalEvents,
    TensorStore,
)
from graphseq.data.precision import TRUE_PRECISIONS, cast_floats
from graphseq.models import APAN, JODIE, MLP, TGAT, TGN, ConvNet, DyRep, GINClassifier, GraphClassifier, NodeClassifier
from graphseq.nn import PRESCorrector, SampleWeights
from graphseq.tasks import (
    Classification,
    NodeClassification,
    Regression,
    Reweighted,
    TemporalLinkPrediction,
    TemporalNodeClassification,
)

PRECISIONS = [*TRUE_PRECISIONS, "bf16-mixed"]
CONVS = {
    "gcn": {},
    "gin": {},
    "sage": {},
    "gat": {},
    "gine": {"edge_channels": 2},
    "pna": {"edge_channels": 2, "degree_histogram": [10, 30]},
    "gin with a virtual node": {"conv": "gin", "virtual_node": True, "jumping_knowledge": "lstm"},
}


def trainer(precision, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, **quiet, **options)


def graphs(target, count=40):
    draws = torch.Generator().manual_seed(0)
    return [
        Data(
            x=torch.rand(4, 3, generator=draws),
            edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]),
            edge_attr=torch.rand(3, 2, generator=draws),
            y=torch.tensor([i % 2]) if target == "class" else torch.rand(1, 2, generator=draws).double(),
            time=torch.tensor([1.7e9 + i], dtype=torch.float64),
        )
        for i in range(count)
    ]


class Seen(lightning.Callback):
    """Notes the types of the fields of each batch."""

    def __init__(self):
        self.types = []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        fields = batch.to_dict().items() if isinstance(batch, Data) else enumerate(batch)
        self.types.append({name: value.dtype for name, value in fields if isinstance(value, torch.Tensor)})

    def on_validation_batch_start(self, trainer, task, batch, batch_idx, dataloader_idx=0):
        self.on_train_batch_start(trainer, task, batch, batch_idx)


def fit(task, data, precision, **options):
    seen = Seen()
    run = trainer(precision, callbacks=[seen], **options)
    run.fit(task, data)
    run.test(task, data, verbose=False)
    assert all(bool(torch.isfinite(p).all()) for p in task.parameters())
    assert "val/loss" in run.callback_metrics or "test/loss" in run.callback_metrics
    return seen.types


def check_types(types, precision):
    wanted = TRUE_PRECISIONS.get(precision, torch.float32)
    for one in types:
        assert one["x"] == one["edge_attr"] == wanted
        assert one["edge_index"] == one["batch"] == one["ptr"] == torch.int64
        assert one["time"] == torch.float64


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_of_classes(precision, conv, resident):
    data = GraphDataModule(graphs("class"), split="stratified", batch_size=8, device_resident=resident)
    network = GraphClassifier(3, 2, **{"conv": conv, **CONVS[conv]})
    types = fit(Classification(network, 2), data, precision)
    check_types(types, precision)
    assert all(one["y"] == torch.int64 for one in types)
    assert data.graphs.field("x").dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_of_numbers(precision):
    data = GraphDataModule(graphs("number"), batch_size=8)
    types = fit(Regression(GraphClassifier(3, 2), 2), data, precision)
    check_types(types, precision)
    assert all(one["y"] == TRUE_PRECISIONS.get(precision, torch.float64) for one in types)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_reweighted(precision):
    data = GraphDataModule(graphs("class"), split="stratified", batch_size=8)
    fit(Reweighted(GraphClassifier(3, 2), 2, start_epoch=0, weights=SampleWeights(40)), data, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nodes(precision):
    draws = torch.Generator().manual_seed(0)
    graph = Data(
        x=torch.rand(40, 5, generator=draws),
        edge_index=torch.randint(0, 40, (2, 90), generator=draws),
        y=torch.arange(40) % 2,
    )
    data = NodeDataModule(graph, split="stratified")
    types = fit(NodeClassification(NodeClassifier(5, 2), 2), data, precision)
    assert all(one["x"] == TRUE_PRECISIONS.get(precision, torch.float32) for one in types)
    assert all(one["y"] == one["edge_index"] == torch.int64 and one["train_mask"] == torch.bool for one in types)
    assert graph.x.dtype == data.graph.x.dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_images(precision):
    data = ImageDataModule("digits", augmentation="crop", batch_size=64)
    types = fit(
        Classification(ConvNet(1, 10), 10),
        data,
        precision,
        limit_train_batches=2,
        limit_val_batches=1,
        limit_test_batches=1,
    )
    assert all(one == {0: TRUE_PRECISIONS.get(precision, torch.float32), 1: torch.int64} for one in types)


class Rows(StoreDataModule):
    def read(self):
        store = TensorStore(torch.rand(30, 4), torch.rand(30, 1))
        return store, {"train": torch.arange(20), "val": torch.arange(20, 25), "test": torch.arange(25, 30)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows(precision):
    types = fit(Regression(MLP(4, 1), 1), Rows(10, train_transform=nn.Identity()), precision)
    assert all(set(one.values()) == {TRUE_PRECISIONS.get(precision, torch.float32)} for one in types)


def test_an_epsilon_that_is_zero_in_float16_is_refused():
    task = Regression(MLP(4, 1), 1, optimizer=torch.optim.Adam)
    with pytest.raises(ValueError, match="eps"):
        trainer("16-true").fit(task, Rows(10))
    trainer("bf16-true").fit(Regression(MLP(4, 1), 1, optimizer=torch.optim.Adam), Rows(10))


class SeenTimes(lightning.Callback):
    """Compares the times of each training batch with those of the stream."""

    def __init__(self, times):
        self.times, self.exact = times, []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.exact.append(batch.t.dtype == self.times.dtype and torch.equal(batch.t, self.times[batch.e_id]))


def stream(**options):
    draws = torch.Generator().manual_seed(0)
    src, dst = torch.randint(0, 9, (200,), generator=draws), torch.randint(9, 20, (200,), generator=draws)
    msg, y = torch.rand(200, 3, generator=draws), torch.arange(200) % 2
    events = TemporalEvents(src, dst, 1.7e9 + torch.arange(200.0).double(), msg=msg, y=y)
    return TemporalDataModule(events, batch_size=50, **options)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_times_of_events_are_never_rounded(precision, resident):
    data = stream(device_resident=resident)
    seen = SeenTimes(data.events.t)
    task = TemporalLinkPrediction(TGN(data.num_nodes, 3, memory_dim=8, time_dim=8, embedding_dim=8))
    trainer(precision, callbacks=[seen]).fit(task, data)
    assert seen.exact
    assert all(seen.exact)
    assert all(bool(torch.isfinite(p).all()) for p in task.parameters())


SIZES = {"memory_dim": 8, "time_dim": 8}
STREAMS = {
    "jodie": lambda data: JODIE(data.num_nodes, 3, data.time_statistics, **SIZES),
    "dyrep": lambda data: DyRep(data.num_nodes, 3, num_neighbors=3, **SIZES),
    "tgat": lambda data: TGAT(data.num_nodes, 3, embedding_dim=8, time_dim=8, num_neighbors=3),
    "apan": lambda data: APAN(data.num_nodes, 3, memory_dim=8, num_mails=3, num_neighbors=3),
    "jodie with pres": lambda data: JODIE(
        data.num_nodes, 3, corrector=PRESCorrector(rate="time"), mean_gap=data.mean_gap, **SIZES
    ),
    "tgn with pres": lambda data: TGN(data.num_nodes, 3, embedding_dim=8, corrector=PRESCorrector(), **SIZES),
    "apan with pres": lambda data: APAN(data.num_nodes, 3, memory_dim=8, corrector=PRESCorrector()),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_networks_over_streams(precision, name):
    data = stream()
    network = STREAMS[name](data)
    seen = SeenTimes(data.events.t)
    task = TemporalLinkPrediction(network, coherence_weight=0.0 if name == "tgat" else 0.1)
    run = trainer(precision, callbacks=[seen])
    run.fit(task, data)
    run.test(task, data, verbose=False)
    assert seen.exact
    assert all(seen.exact)
    floats = {key: value for key, value in task.state_dict().items() if value.is_floating_point()}
    assert all(bool(torch.isfinite(value).all()) for value in floats.values())
    assert {p.dtype for p in task.parameters()} == {TRUE_PRECISIONS.get(precision, torch.float32)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nodes_of_streams(precision):
    data = stream()
    task = TemporalNodeClassification(STREAMS["tgn with pres"](data))
    run = trainer(precision)
    run.fit(task, data)
    assert torch.isfinite(run.callback_metrics["val/loss"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gin_of_the_paper(precision):
    data = GraphDataModule(graphs("class"), split="stratified", batch_size=8)
    check_types(fit(Classification(GINClassifier(3, 2), 2), data, precision), precision)


def test_what_is_cast():
    batch = {
        "x": torch.rand(2),
        "ids": torch.arange(2),
        "t": torch.rand(2).double(),
        "nested": [{"w": torch.rand(1), "time": torch.rand(1)}, (torch.rand(1), "text")],
        "mask": torch.tensor([True]),
        "phase": torch.rand(1).to(torch.complex64),
    }
    cast = cast_floats(batch, torch.bfloat16)
    assert cast["x"].dtype == cast["nested"][0]["w"].dtype == cast["nested"][1][0].dtype == torch.bfloat16
    assert cast["nested"][1][1] == "text"
    assert (cast["t"].dtype, cast["nested"][0]["time"].dtype) == (torch.float64, torch.float32)
    assert (cast["ids"].dtype, cast["mask"].dtype, cast["phase"].dtype) == (torch.int64, torch.bool, torch.complex64)
    assert batch["x"].dtype == torch.float32


def test_a_cast_batch_is_a_batch_and_the_store_is_left_alone():
    store = GraphStore.from_dataset([Data(x=torch.rand(n, 1), info={"a": [torch.rand(1)]}) for n in (1, 2)])
    batch = store.take([1, 0])
    twin = copy.copy(batch)
    cast = cast_floats(batch, torch.float64)
    assert isinstance(cast, Batch)
    assert cast.x.dtype == cast.info["a"][0].dtype == torch.float64
    assert twin.x.dtype == batch.x.dtype == store.field("x").dtype == torch.float32
    assert [graph.num_nodes for graph in cast.to_data_list()] == [2, 1]
