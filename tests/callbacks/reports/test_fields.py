"""Figures of fields show what they are given, and a run leaves one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from graphseq.callbacks import FieldReport, draw_fields
from graphseq.core import make
from graphseq.data import PoissonDataModule, StoreDataModule, TensorStore
from graphseq.tasks import Regression


def test_rows_are_samples_and_solution_and_prediction_share_a_scale():
    x, target = torch.rand(2, 3, 4, 5), torch.arange(40.0).view(2, 1, 4, 5)
    prediction = 1.5 * target
    figure = draw_fields(x, target, prediction, ["first", "second"])
    images = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    for image, field in zip(images[4:], (x[1, 0], target[1, 0], prediction[1, 0], 0.5 * target[1, 0]), strict=True):
        assert np.allclose(image.get_array(), field)
    assert images[5].get_clim() == images[6].get_clim() == (20, 58.5)
    assert images[7].get_clim() == (-19.5, 19.5)
    assert [axes.get_ylabel() for axes in figure.axes[::4][:2]] == ["first", "second"]
    assert figure.axes[3].get_xlabel() == "relative error 50 %"


def test_a_run_leaves_a_figure_of_its_validation_split(tmp_path):
    data = PoissonDataModule(num_train=2, num_val=2, num_test=1, resolution=5)
    task = Regression(make(nn.Conv2d, 1, 1, 1))
    task.model.eval()  # such as a part that is frozen
    run = SimpleNamespace(is_global_zero=True, fast_dev_run=False, datamodule=data, log_dir=str(tmp_path / "run"))
    FieldReport(num_samples=1).on_train_end(run, task)
    assert (tmp_path / "run" / "fields.png").read_bytes().startswith(b"\x89PNG")
    assert (task.training, task.model.training) == (True, False)
    table = SimpleNamespace(**{**vars(run), "datamodule": TabularData()})
    with pytest.raises(TypeError, match="batch of tuple"):
        FieldReport().on_train_end(table, task)


class TabularData(StoreDataModule):
    def read(self):
        part = torch.arange(2)
        return TensorStore(torch.zeros(2, 3), torch.zeros(2)), {"train": part, "val": part, "test": part}


def test_bad_input():
    with pytest.raises(ValueError, match="num_samples is 0"):
        FieldReport(0)
    field = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"predictions \(1, 1, 4, 5\)"):
        draw_fields(field, field, torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match="at least one"):
        draw_fields(field[:0], field[:0], field[:0])
