import functools

import pytest
import torch

import graphseq
from graphseq.core import DataError, SequenceBatch
from graphseq.data import ConvexHullDataModule, DelaunayDataModule, PointsDataModule, TourDataModule
from graphseq.metrics import is_tour
from graphseq.models import EncoderDecoder, PointerNet, SequenceTagger
from graphseq.tasks import Pointing
from tests.reference import sequences as reference
from tests.reliability.runs import trainer

X = torch.rand(3, 6, 2, dtype=torch.float64)
LENGTHS = torch.tensor([6, 4, 5])
Y = torch.tensor([[5, 0, 2], [3, 1, -100], [4, -100, -100]])


def build(problem="positions", end_token=True, **options):
    return Pointing(PointerNet(2, 6, end_token=end_token).double(), problem, **options)


def batch(**changes):
    return SequenceBatch(**{"x": X, "lengths": LENGTHS, "y": Y, **changes})


@pytest.mark.parametrize("end_token", [True, False])
def test_loss_equals_the_loop(end_token):
    task = build(end_token=end_token)
    terms = []
    for row, size in enumerate(LENGTHS.tolist()):
        target = [place + 1 for place in Y[row].tolist() if place >= 0]
        logits = task.model(X[row : row + 1, :size], None, torch.tensor([[place - 1 for place in target]]))[0]
        terms += reference.negative_log_likelihoods(logits.tolist(), target + [0] * end_token)
    step = task.step(batch(), "train")
    assert int(step.size) == len(terms) == 6 + 3 * end_token
    assert float(step.loss.detach()) == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    assert torch.equal(task.step(batch(), "val").loss, step.loss)


def test_what_is_beyond_a_set_never_counts():
    task = build()
    other = X.clone()
    other[1, 4:], other[2, 5:] = 1e3, -1e3
    steps = [task.step(batch(x=x), "val") for x in (X, other)]
    gradients = [torch.autograd.grad(step.loss, list(task.parameters())) for step in steps]
    assert torch.equal(steps[0].prediction, steps[1].prediction)
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("module", "problem", "names"),
    [
        (ConvexHullDataModule, "hull", {"acc", "area", "simple"}),
        (DelaunayDataModule, "delaunay", {"acc", "coverage"}),
        (TourDataModule, "tour", {"acc", "length", "gap", "valid"}),
    ],
)
def test_metrics_of_a_problem(module, problem, names, tmp_path):
    data = module(40, 8, 8, min_points=4, max_points=6, batch_size=16)
    task = Pointing(PointerNet(2, 8, end_token=problem != "tour"), problem, beam_size=2, mask="visited")
    trainer(max_epochs=1).fit(task, data)
    (logged,) = trainer().test(task, data, verbose=False)
    assert set(logged) == {"test/loss", *(f"test/{name}" for name in names)}
    metrics = task.configure_metrics()
    for each in data.batches("test"):
        metrics.update(task.decoded(each.x, each.lengths), each.y, points=each.x, lengths=each.lengths)
    for name, value in metrics.compute().items():
        assert logged[f"test/{name}"] == pytest.approx(float(value), nan_ok=True)
    if problem == "tour":
        assert logged["test/valid"] == 1
        assert logged["test/gap"] >= 0
        assert all(is_tour(task.predict_step(each, 0), each.lengths).all() for each in data.batches("test"))


class Sorted(PointsDataModule):
    """The points from left to right."""

    def solve(self, points):
        return points[..., 0].argsort(1)


def test_learns_and_loads(tmp_path):
    data = Sorted(1000, 64, 128, min_points=3, batch_size=32)
    adam = functools.partial(torch.optim.Adam, lr=1e-2)
    task = Pointing(PointerNet(2, 32), optimizer=adam)
    fitted = trainer(max_epochs=5, gradient_clip_val=2.0)
    fitted.fit(task, data)
    (logged,) = trainer().test(task, data, verbose=False)
    assert logged["test/acc"] > 0.5  # guessing reaches 0.17
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    again = graphseq.load(tmp_path / "a.ckpt")
    table = again.predictions(data)
    assert table["prediction"].tolist() == task.predictions(data)["prediction"].tolist()
    right = (table["prediction"] == table["target"]).mean()
    assert right == pytest.approx(logged["test/acc"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "y is missing"),
        ({"y": Y.double()}, "y is torch.float64"),
        ({"y": Y[:, 0]}, r"y is torch.int64 \(3,\)"),
        ({"y": torch.tensor([[5], [4], [0]])}, r"y\[1\] holds 4; positions of this input are 0..3"),
        ({"y": torch.tensor([[5], [0], [-7]])}, r"y\[2\] holds -7"),
        ({"lengths": torch.tensor([6, 0, 5])}, "lengths range from 0"),
        ({"lengths": torch.tensor([6, 7, 5])}, "lengths range from 5 to 7"),
    ],
)
def test_bad_batches(changes, message):
    with pytest.raises(DataError, match=message):
        build().step(batch(**changes), "train")


def test_refused():
    with pytest.raises(ValueError, match="EncoderDecoder has 5 output symbols, the batch 6"):
        Pointing(EncoderDecoder(5, in_channels=2, hidden_channels=6).double()).step(batch(y=Y.clamp(max=3)), "train")
    with pytest.raises(TypeError, match="SequenceTagger has no decode"):
        Pointing(SequenceTagger(3, in_channels=2))
    with pytest.raises(ValueError, match="problem is 'sort'"):
        build("sort")
    with pytest.raises(ValueError, match="mask is 'tour'"):
        build(mask="tour")
    with pytest.raises(ValueError, match="beam_size is 0"):
        build(beam_size=0)
