"""The report of learned weights: what it writes, that it goes on after a stop, and what it refuses."""

import csv
import functools

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from graphseq.callbacks import WeightReport, draw_correlations, draw_effective_sample_size, draw_weights
from graphseq.data import MotifDataModule
from graphseq.models import GraphClassifier
from graphseq.nn import DecorrelationOuter, FeatureQueue, SampleWeights, UnrolledOuter
from graphseq.ops import effective_sample_size
from graphseq.tasks import Classification, Reweighted
from tests.reliability.runs import trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a", "ignore:Total length", "ignore:.*LeafSpec")
FILES = {"weights.png", "effective_sample_size.png", "correlations.png", "weighted_up.csv"}


def run(callbacks, checkpoint=None, outer=None, **options):
    lightning.seed_everything(0, verbose=False)
    data = MotifDataModule(num_train=60, num_val=20, num_test=0, batch_size=16)
    model = GraphClassifier(data.num_features, 2, hidden_channels=8, num_layers=2, norm="none", head_layers=1)
    outer = outer or UnrolledOuter(decorrelation=DecorrelationOuter(num_clusters=3))
    strong = functools.partial(torch.optim.SparseAdam, lr=0.5)
    task = Reweighted(model, 2, outer=outer, start_epoch=1, weight_optimizer=strong)
    fit = trainer(**{"max_epochs": 3, "callbacks": callbacks, **options})
    fit.fit(task, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return task, data


def test_files_and_table(tmp_path):
    report = WeightReport(num_samples=7, folder=tmp_path / "report")
    task, data = run([report])
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES
    train = data.splits["train"]
    weight = task.weights.normalize(task.weights.logit.detach()[train])
    with (tmp_path / "report" / "weighted_up.csv").open() as file:
        rows = list(csv.DictReader(file))
    order = weight.argsort(descending=True, stable=True)[:7]
    assert [int(row["idx"]) for row in rows] == train[order].tolist()
    assert [float(row["weight"]) for row in rows] == pytest.approx(weight[order].tolist(), rel=1e-4)
    assert list(rows[0]) == ["idx", "weight", "num_nodes", "y", "spurious", "env"]
    for row, index in zip(rows, train[order].tolist(), strict=True):
        graph = data.graphs[index]
        assert (int(row["num_nodes"]), int(row["y"])) == (graph.num_nodes, int(graph.y))
        assert (int(row["spurious"]), int(row["env"])) == (int(graph.spurious), 0)
    assert report.epochs == [0, 1, 2]
    assert report.shares[0] == 1.0
    assert report.shares[-1] == pytest.approx(float(effective_sample_size(weight)), rel=1e-5)
    assert report.shares[-1] < 0.99
    for name in FILES - {"weighted_up.csv"}:
        with Image.open(tmp_path / "report" / name) as image:
            assert min(image.size) > 300
            assert len(set(image.convert("L").resize((40, 40)).tobytes())) > 5  # something is drawn


def test_without_a_queue_or_clusters(tmp_path):
    outer = UnrolledOuter()
    task, _ = run([WeightReport(folder=tmp_path / "one")], outer=outer)
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES  # in the order of the variables
    task.queue = FeatureQueue(0)
    fit = trainer(max_epochs=1, callbacks=[WeightReport(folder=tmp_path / "two")])
    fit.fit(task, MotifDataModule(num_train=60, num_val=20, num_test=0, batch_size=16))
    assert {path.name for path in (tmp_path / "two").iterdir()} == FILES - {"correlations.png"}


class Interrupted(Exception):
    pass


class Stop(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            trainer.save_checkpoint(self.path)
            raise Interrupted


def test_a_run_that_went_on_is_reported_whole(tmp_path):
    whole, first, second = (WeightReport(folder=tmp_path / name) for name in "abc")
    run([whole])
    with pytest.raises(Interrupted):
        run([first, Stop(tmp_path / "k.ckpt")])
    run([second], checkpoint=tmp_path / "k.ckpt")
    assert second.epochs == whole.epochs == [0, 1, 2]
    assert second.shares == whole.shares


def test_refuses():
    with pytest.raises(ValueError, match="num_samples"):
        WeightReport(num_samples=0)
    data = MotifDataModule(num_train=20, num_val=0, num_test=0)
    task = Classification(GraphClassifier(data.num_features, 2, hidden_channels=4), 2)
    with pytest.raises(TypeError, match="Classification .*SampleWeights"):
        trainer(max_epochs=1, callbacks=[WeightReport()]).fit(task, data)


# figures


@pytest.mark.parametrize("spread", [0.0, 0.5, 4.0])
def test_every_weight_is_in_the_histogram(spread):
    weights = SampleWeights(200)
    weight = weights.normalize(spread * torch.randn(200, generator=torch.Generator().manual_seed(0)))
    (axes,) = draw_weights(weight).axes
    assert sum(bar.get_height() for bar in axes.patches) == 200
    assert axes.get_xscale() == ("log" if spread == 4.0 else "linear")
    assert f"{float(effective_sample_size(weight)):.2f}" in axes.get_title(loc="left")


def test_correlations_are_in_the_order_of_the_clusters():
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(300, 4, generator=draws)
    z[:, 2] = z[:, 0]
    z[:, 3] = 7.0
    weight = torch.rand(300, generator=draws) + 0.1
    figure = draw_correlations(z, weight, torch.tensor([0, 1, 0, 1]))
    order = [0, 2, 1, 3]
    for axes, value in zip(figure.axes[:2], (torch.ones(300), weight), strict=True):
        shown = torch.tensor(axes.images[0].get_array().tolist(), dtype=torch.float64)
        share = (value / value.sum()).double()
        for i, a in enumerate(order):
            for j, b in enumerate(order):
                x, y = z[:, a].double(), z[:, b].double()
                x, y = x - share @ x, y - share @ y
                scale = ((share @ x.square()) * (share @ y.square())) ** 0.5
                expected = 0.0 if 3 in (a, b) else float(share @ (x * y) / scale)
                assert float(shown[i, j]) == pytest.approx(expected, abs=1e-6)
    assert len(figure.axes[0].lines) == 2  # one boundary, across and down


def test_effective_sample_sizes_are_drawn_as_they_are():
    (axes,) = draw_effective_sample_size([0, 1, 2], [1.0, 0.8, 0.4], 0.2).axes
    assert axes.lines[0].get_ydata().tolist() == [1.0, 0.8, 0.4]
    assert list(axes.lines[1].get_ydata()) == [0.2, 0.2]
    assert len(draw_effective_sample_size([0], [1.0]).axes[0].lines) == 1
