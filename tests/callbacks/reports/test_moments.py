"""The monitor changes nothing, sees what is there, and leaves no hook behind."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from graphseq.callbacks import MomentMonitor
from graphseq.models import MLP
from graphseq.nn import SNN
from graphseq.tasks import Classification
from tests.reliability.runs import trainer


def loader(features=8):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, features, generator=generator), torch.randint(0, 3, (256,), generator=generator)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=64)


def fit(folder, callbacks, model=None, features=8, epochs=2):
    torch.manual_seed(0)
    model = SNN(features, 3, 16, 4, dropout=0.1) if model is None else model()
    task = Classification(model, 3)
    run = trainer(max_epochs=epochs, callbacks=callbacks, logger=CSVLogger(folder), log_every_n_steps=1)
    run.fit(task, loader(features))
    with open(f"{run.log_dir}/metrics.csv") as file:
        return task, [row for row in csv.DictReader(file)]


def test_training_is_the_same_with_and_without(tmp_path):
    plain, _ = fit(tmp_path / "a", [])
    watched, rows = fit(tmp_path / "b", [MomentMonitor(every_n_steps=1)])
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name
    assert any("moments/model.hidden.0.0/mean" in row for row in rows)
    assert not any(layer._forward_hooks for layer in watched.modules())


def test_prediction_and_measurement_agree_at_the_start(tmp_path):
    _, rows = fit(tmp_path, [MomentMonitor(every_n_steps=100)], lambda: SNN(512, 3, 512, 4), features=512, epochs=1)
    seen = [row for row in rows if row["moments/model.hidden.0.0/mean"]]
    assert len(seen) == 1
    for depth in range(3):
        of = {key: float(seen[0][f"moments/model.hidden.{depth}.0/{key}"]) for key in
              ("mean", "var", "predicted_mean", "predicted_var", "weight_square_sum_min", "inside")}  # fmt: skip
        assert abs(of["mean"] - of["predicted_mean"]) < 0.02
        assert abs(of["var"] - of["predicted_var"]) < 0.05  # 64 samples of 512 units that share them
        assert 0.7 < of["weight_square_sum_min"] < 1
        assert 0 <= of["inside"] <= 1
    assert not any("head" in key for key in seen[0])  # no SELU follows it


def test_steps_and_layers_in_between(tmp_path):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.second, self.head = (
                nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3),
            )  # fmt: skip
            self.selu = nn.SELU()

        def forward(self, x):
            return self.head(self.selu(self.second(self.selu(self.norm(self.first(x))))))

    _, rows = fit(tmp_path, [MomentMonitor(every_n_steps=3)], Normed)
    seen = [row for row in rows if row.get("moments/model.second/mean")]
    assert [int(row["step"]) for row in seen] == [0, 3, 6]
    assert "moments/model.first/mean" not in rows[0]


def test_hooks_are_gone_after_an_error(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, *args):
            raise RuntimeError("stop")

    torch.manual_seed(0)
    task = Classification(SNN(8, 3, 16, 4), 3)
    with pytest.raises(RuntimeError, match="stop"):
        trainer(callbacks=[MomentMonitor(1), Stop()], logger=CSVLogger(tmp_path)).fit(task, loader())
    assert not any(layer._forward_hooks for layer in task.modules())


def test_bad_use():
    with pytest.raises(ValueError, match="every_n_steps"):
        MomentMonitor(0)
    with pytest.raises(ValueError, match="SELU"):
        trainer(callbacks=[MomentMonitor()]).fit(Classification(MLP(8, 3), 3), loader())
