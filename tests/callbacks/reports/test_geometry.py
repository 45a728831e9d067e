"""The callback sees any layer of any network, and training does not notice it."""

import csv
import functools
import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN

from graphseq.callbacks import RepresentationGeometry, draw_representation_geometry
from graphseq.core import DataError
from graphseq.data import AlignedTaskDataModule
from graphseq.metrics import feature_alignment, parallelism_score, partial_feature_alignment, participation_ratio
from graphseq.models import MLP
from graphseq.tasks import Classification, NodeClassification
from tests.reliability.runs import build, graphs, trainer, weights

ALL = [
    "target_alignment", "input_alignment", "input_beyond_target", "participation_ratio", "parallelism",
    "generalization", "decodability",
]  # fmt: skip


def aligned(seed=0, **options):
    torch.manual_seed(seed)
    data = AlignedTaskDataModule(dim=6, num_train=32, num_val=16, num_test=4, batch_size=8, seed=seed)
    task = Classification(MLP(6, 1, 5, 3, **options), 1, target="multilabel")
    return task, data


def test_values_are_those_of_the_functions():
    task, data = aligned(dropout=0.5)
    callback = RepresentationGeometry(["model.hidden.?", "model.head"], measures=ALL, batch_size=5)
    found = callback.measure(task, data)
    assert list(found) == ["model.hidden.0", "model.hidden.1", "model.head"]
    batch = data.store.take(data.splits["val"])
    with torch.no_grad():
        rows = task.model.eval().hidden[0](batch["x"]).double()
    z, x, y = (
        torch.stack([part[batch["condition"] == c].double().mean(0) for c in range(4)])
        for part in (rows, batch["x"], batch["y"])
    )
    expected = {
        "target_alignment": feature_alignment(z, y),
        "input_alignment": feature_alignment(z, x),
        "input_floor": feature_alignment(y, x),
        "input_beyond_target": partial_feature_alignment(z, x, y),
        "participation_ratio": participation_ratio(z),
        "parallelism": parallelism_score(z, y[:, 0]),
    }
    here = found["model.hidden.0"]
    assert {name: here[name] for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-6
    )
    assert set(here) == {*ALL, "input_floor"}
    assert found["model.head"]["participation_ratio"] == pytest.approx(1)
    clean = RepresentationGeometry(["model.hidden.0"], split="conditions").measure(task, data)["model.hidden.0"]
    assert clean["input_alignment"] != pytest.approx(here["input_alignment"], abs=1e-6)


def test_training_of_a_graph_network_is_the_same_bit_for_bit(tmp_path):
    """Dropout, batch norm, shuffling: whatever a probe could disturb."""
    losses = []
    probes = [RepresentationGeometry(["*.nn*"], max_samples=30, figure=None), RepresentationGeometry(["model.head"])]
    for callbacks in ([], probes):
        task, data = build()
        run = trainer(max_epochs=2, callbacks=callbacks, logger=CSVLogger(tmp_path), log_every_n_steps=1)
        run.fit(task, data)
        assert not any(layer._forward_hooks for layer in task.modules())
        losses.append((weights(task), float(run.callback_metrics["train/loss"]), torch.rand(2)))
    (plain, loss, drawn), (probed, other, again) = losses
    assert loss == other
    assert torch.equal(drawn, again)
    for name, value in plain.items():
        assert torch.equal(probed[name], value), name
    assert task.training
    with open(f"{run.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    named = "geometry/model.head/participation_ratio"
    assert [row["step"] for row in rows if row.get(named)] == ["0", str(run.global_step // 2), str(run.global_step)]
    assert (tmp_path / run.log_dir / "geometry.png").stat().st_size > 1000
    assert [entry["epoch"] for entry in probes[0].history] == [0, 1, 2]
    assert len(probes[0].history[0]["values"]) > 2  # what the pattern matches and the pass runs
    fresh = RepresentationGeometry(["model.head"])
    fresh.load_state_dict(probes[1].state_dict())
    assert fresh.history == probes[1].history
    assert fresh.state_key == probes[1].state_key != probes[0].state_key


def test_a_probe_leaves_generators_buffers_modes_and_gradients():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.off = nn.Linear(3, 4), nn.Dropout(0.5).eval()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.first(x) + torch.randn(len(x), 4)

    task = Classification(Noisy(), 4)
    before = torch.get_rng_state()
    RepresentationGeometry(["model.first"], probe=[(torch.ones(6, 3).cumsum(0), torch.arange(6) % 4)]).measure(task)
    assert torch.equal(torch.get_rng_state(), before)
    assert task.model.calls == 0
    assert (task.model.training, task.model.off.training) == (True, False)
    assert task.model.first.weight.grad is None
    assert not task.model.first._forward_hooks


def test_layers_of_nodes_and_of_graphs():
    task, _ = build()
    batch = Batch.from_data_list(graphs(12))
    names = [name for name, layer in task.named_modules() if name == "model.head" or isinstance(layer, nn.BatchNorm1d)]
    callback = RepresentationGeometry(names, measures=ALL[:4], probe=[batch])
    found = callback.measure(task)
    assert all(math.isfinite(value) for each in found.values() for value in each.values())
    seen = {}
    for name in names:
        task.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: seen.update({name: y.detach()}))
    with torch.no_grad():
        task.eval()(batch)
    classes = nn.functional.one_hot(batch.y, 3).double()
    nodes, whole = names[0], "model.head"
    assert len(seen[nodes]) == batch.num_nodes
    torch.testing.assert_close(
        found[nodes]["target_alignment"], float(feature_alignment(seen[nodes], classes[batch.batch]))
    )
    means = torch.stack([batch.x[batch.batch == g].mean(0) for g in range(12)])
    torch.testing.assert_close(
        found[whole]["input_alignment"], float(feature_alignment(seen[whole], means)), atol=1e-6, rtol=1e-6
    )


def test_pyg_network_on_the_nodes_of_one_graph():
    torch.manual_seed(0)
    graph = Data(x=torch.randn(9, 4), edge_index=torch.randint(0, 9, (2, 20)), y=torch.arange(9) % 3)
    task = NodeClassification(GCN(4, 8, 2, 3), num_outputs=3)
    found = RepresentationGeometry(["model.convs.*"], measures=ALL[:4], probe=[graph]).measure(task)
    assert {"model.convs.0", "model.convs.1"} <= set(found)
    assert all(0 <= value <= 8 for value in found["model.convs.1"].values())


def test_outputs_of_several_parts():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head, self.unused = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2), nn.Linear(1, 1)

        def forward(self, x):
            y, _ = self.cell(x)
            return self.head(y[:, -1])

    task = Classification(Recurrent(), 2)
    x, y = torch.randn(6, 5, 3), torch.arange(6) % 2
    found = RepresentationGeometry(["model.cell"], probe=[(x[:4], y[:4]), (x[4:], y[4:])]).measure(task)
    rows = task.model.cell(x)[0].detach().flatten(1)
    assert found["model.cell"]["input_alignment"] == pytest.approx(
        float(feature_alignment(rows, x.flatten(1))), abs=1e-6
    )
    with pytest.raises(DataError, match=r"model\.cell gives rows of widths \[16, 20\]"):
        RepresentationGeometry(["model.cell"], probe=[(x, y), (x[:, 1:], y)]).measure(task)
    with pytest.raises(DataError, match=r"does not reach .* model\.unused"):
        RepresentationGeometry(["model.unused"], probe=[(x, y)]).measure(task)
    with pytest.raises(DataError, match="need batches with a field `condition`"):
        RepresentationGeometry(["model.cell"], measures=["parallelism"], probe=[(x, y)]).measure(task)
    with pytest.raises(DataError, match="all 6 targets are equal"):
        RepresentationGeometry(["model.cell"], probe=[(x, 0 * y)]).measure(task)
    with pytest.raises(DataError, match=r"model\.cell gives 6 rows, the batch has 4 rows of targets"):
        RepresentationGeometry(["model.cell"], probe=[(x, y[:4])]).measure(task)
    with pytest.raises(DataError, match="probe has no batch"):
        RepresentationGeometry(["model.cell"], probe=[]).measure(task)


def test_layers_that_work_in_place_do_not_write_into_what_was_measured():
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    found = RepresentationGeometry(["model.0"], probe=[(x, y)]).measure(Classification(network, 2))
    with torch.no_grad():
        before = network[0](x)
    assert found["model.0"]["input_alignment"] == pytest.approx(float(feature_alignment(before, x)), abs=1e-6)
    assert feature_alignment(before, x) != pytest.approx(float(feature_alignment(before.relu(), x)), abs=1e-3)


def test_representations_without_variance_or_with_nan_are_nan():
    task, data = aligned()
    with torch.no_grad():
        task.model.hidden[0][0].weight.zero_()
    callback = RepresentationGeometry(["model.hidden.0"], measures=ALL)
    found = callback.measure(task, data)["model.hidden.0"]
    assert [name for name, value in found.items() if not math.isnan(value)] == ["input_floor"]
    with torch.no_grad():
        task.model.hidden[0][0].bias[0] = math.nan
    found = callback.measure(task, data)["model.hidden.0"]
    assert [name for name, value in found.items() if not math.isnan(value)] == ["input_floor"]


def test_bad_use():
    task, data = aligned()
    with pytest.raises(DataError, match=r"'model\.hiden\.0', which matches no layer .*model\.hidden\.0"):
        trainer(callbacks=[RepresentationGeometry(["model.hiden.0"])]).fit(task, data)
    with pytest.raises(DataError, match=r"split is 'dev'; .*conditions"):
        RepresentationGeometry(["model.head"], split="dev").measure(task, data)
    with pytest.raises(DataError, match="data module"):
        RepresentationGeometry(["model.head"]).measure(task)
    with pytest.raises(ValueError, match="layers is 'model.head'"):
        RepresentationGeometry("model.head")
    with pytest.raises(ValueError, match=r"measures are \['cka'\]"):
        RepresentationGeometry(["model.head"], measures=["cka"])
    with pytest.raises(ValueError, match="max_samples is 1"):
        RepresentationGeometry(["model.head"], max_samples=1)
    with pytest.raises(ValueError, match="history is empty"):
        draw_representation_geometry([])


@pytest.mark.slow
def test_tanh_takes_the_geometry_of_the_targets_and_relu_keeps_more_of_the_inputs():
    """The direction of the published effect, on one seed; effect.geometry measures it."""
    found = {}
    for name, activation in (("tanh", nn.Tanh()), ("relu", nn.ReLU())):
        torch.manual_seed(0)
        task = Classification(
            MLP(100, 1, activation=activation), 1, target="multilabel",
            optimizer=functools.partial(torch.optim.Adam, lr=1e-3),
        )  # fmt: skip
        data = AlignedTaskDataModule(batch_size=128)
        trainer(max_epochs=15).fit(task, data)
        callback = RepresentationGeometry(["model.hidden.0"], measures=ALL, split="conditions")
        found[name] = callback.measure(task, data)["model.hidden.0"]
    assert found["tanh"]["target_alignment"] > 0.99
    assert found["relu"]["input_alignment"] > found["tanh"]["input_alignment"] + 0.08
    assert found["tanh"]["parallelism"] > found["relu"]["parallelism"] + 0.1


def test_a_probe_is_several_batches_that_can_be_read_again():
    batch = (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    graph = Data(x=torch.zeros(2, 2), edge_index=torch.zeros(2, 1, dtype=torch.int64))
    for probe in (batch, {"x": batch[0]}, graph):
        with pytest.raises(ValueError, match="probe is one batch"):
            RepresentationGeometry(["model"], probe=probe)
    with pytest.raises(ValueError, match="only once"):
        RepresentationGeometry(["model"], probe=iter([batch]))
    with pytest.raises(ValueError, match="measures is 'parallelism'"):
        RepresentationGeometry(["model"], measures="parallelism")
