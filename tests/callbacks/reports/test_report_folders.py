"""Reports of several processes and of several runs: each asks for its folder, and forgets the run before."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from graphseq.callbacks import (
    FieldReport,
    GradientNormMonitor,
    PromptReport,
    RepresentationGeometry,
    SpectrumReport,
    WeightReport,
    draw_returns,
)
from graphseq.core import DataError, make
from graphseq.core.batches import SequenceBatch
from graphseq.models import SequenceTagger
from graphseq.tasks import Classification, Regression


class Process:
    """Trainer of the second process, in which the folder of the logger is asked for, as it is broadcast."""

    is_global_zero, fast_dev_run, default_root_dir = False, False, "."
    datamodule = SimpleNamespace(splits={"val": [0]})
    asked = 0

    @property
    def log_dir(self):
        self.asked += 1
        return "nowhere"


@pytest.mark.parametrize("report", [FieldReport(), SpectrumReport(), PromptReport(), WeightReport()])
def test_every_process_asks_for_the_folder(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = Process()
    report.on_train_end(process, Regression(make(nn.Linear, 1, 1)))
    assert process.asked == 1
    assert not list(tmp_path.iterdir())


def test_a_new_run_forgets_the_one_before_and_a_resumed_one_does_not():
    task = Regression(make(nn.Sequential, make(nn.ModuleList, [make(nn.Linear, 1, 1)])))
    kept = {"training": {0: 1.0}, "validation": {}}
    for step, left in ((7, True), (0, False)):
        run = SimpleNamespace(global_step=step)
        gradients, weights, prompts = GradientNormMonitor("model.0"), WeightReport(), PromptReport()
        gradients.load_state_dict({"history": [{"step": 0, "norms": [1.0]}]})
        weights.load_state_dict({"epochs": [0], "shares": [1.0]})
        prompts.load_state_dict(kept)
        for report in (gradients, weights, prompts):
            report.on_train_start(run, task)
        assert bool(gradients.history) == bool(weights.epochs) == bool(weights.shares) == left
        assert (prompts.returns == kept) == left


def test_geometry_of_a_second_run_of_one_object(monkeypatch):
    probe = RepresentationGeometry(["model"])
    monkeypatch.setattr(probe, "measure", lambda task, data: {"model": {"participation_ratio": 1.0}})
    for _ in range(2):
        run = SimpleNamespace(global_step=0, current_epoch=0, loggers=[])
        probe.on_train_start(run, None)
        probe.on_train_epoch_end(run, None)
        assert [entry["epoch"] for entry in probe.history] == [0, 1]


def test_geometry_refuses_rows_with_padding():
    task = Classification(SequenceTagger(2, in_channels=1, hidden_channels=3), 2)
    batch = SequenceBatch(torch.rand(4, 5, 1), torch.tensor([5, 2, 5, 1]), y=torch.tensor([0, 1, 0, 1]))
    probe = RepresentationGeometry(["model.head"], measures=["participation_ratio"], probe=[batch])
    with pytest.raises(DataError, match="padding"):
        probe.measure(task)
    batch.lengths[:] = 5
    assert probe.measure(task)["model.head"]["participation_ratio"] >= 1


def test_each_of_many_returns_has_a_line():
    assert len(draw_returns({str(n): {0: 0.1, 1: 0.2} for n in range(6)}).axes[0].lines) == 7
