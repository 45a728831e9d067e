import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from torch import nn
from torch_geometric.data import Batch, Data

from graphseq.core import DataError, make
from graphseq.models import MLP, GraphClassifier
from graphseq.tasks import Regression
from tests.reference.losses import mean_absolute, mean_squared
from tests.reference.networks import slope
from tests.tasks.small import Given, Probe, close, fit, frozen_sgd, validate

NAN = float("nan")

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be written as plain data")


def step(outputs, targets, loss=None):
    """The step of given outputs, and its gradient in them."""
    task = Regression(Given(outputs.double()), loss=loss)
    result = task.step((torch.zeros(len(outputs), 1), targets))
    (gradient,) = torch.autograd.grad(result.loss, [task.model.outputs])
    return result, gradient


def known(targets):
    """NaN stands for None."""
    return [[None if math.isnan(value) else value for value in row] for row in targets.tolist()]


TARGETS = [
    [[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]],
    [[1.0, NAN], [NAN, NAN], [3.0, 0.0]],
    [[NAN, 2.0], [NAN, -1.0], [NAN, 0.0]],
]


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(("loss", "reference"), [(None, mean_squared), (nn.L1Loss(), mean_absolute)])
def test_equals_the_reference(targets, loss, reference):
    outputs, targets = torch.randn(3, 2, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64)
    result, gradient = step(outputs, targets, loss)
    rows = outputs.tolist()
    close(result.loss.detach(), reference(rows, known(targets)))
    close(gradient, [[slope(lambda: reference(rows, known(targets)), row, k) for k in range(2)] for row in rows], 1e-8)
    assert result.size == int((~targets.isnan()).sum())
    assert torch.equal(gradient[targets.isnan()], torch.zeros(int(targets.isnan().sum()), dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 10), st.floats(-100, 100), st.permutations(range(4)))
def test_scale_shift_and_order(scale, shift, order):
    """The squared error grows with the square of the scale, and knows no shift and no order."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    targets[1, 0] = NAN
    expected = step(outputs, targets)[0].loss * scale**2
    other = step(outputs[list(order)] * scale + shift, targets[list(order)] * scale + shift)[0].loss
    torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", [None, nn.L1Loss(), nn.HuberLoss()])
def test_no_known_target(loss):
    result, gradient = step(torch.randn(3, 2) * 1e30, torch.full((3, 2), NAN), loss)
    assert result.loss.item() == 0 == result.size
    assert torch.equal(gradient, torch.zeros(3, 2, dtype=torch.float64))


def test_a_batch_without_targets_in_a_run():
    x = torch.randn(4, 3)
    unknown, labelled = (x, torch.full((4, 1), NAN)), (x, torch.tensor([1.0, NAN, 2.0, NAN]))
    task = Regression(Probe(3, 1), optimizer=frozen_sgd)
    run = fit(task, [unknown, labelled], [labelled, unknown])
    expected = task.step(labelled).loss.item()
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(run.callback_metrics["val/rmse"]) == pytest.approx(expected**0.5, rel=1e-5)


class Seen(nn.Module):
    """Half the mean error of whole samples; tells the shapes it got."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, outputs, targets):
        self.shapes.append((tuple(outputs.shape), tuple(targets.shape)))
        return (outputs - targets).abs().mean() / 2


def test_losses_get_whole_samples_where_all_is_known():
    seen = Seen()
    outputs = torch.randn(3, 2)
    assert step(outputs, torch.zeros(3, 2), seen)[0].loss.item() == pytest.approx(float(outputs.abs().mean()) / 2)
    step(outputs, torch.tensor(TARGETS[1]), seen)
    assert seen.shapes == [((3, 2), (3, 2)), ((3,), (3,))]
    with pytest.raises(ValueError, match=r"loss is \(3, 2\)"):
        step(outputs, torch.zeros(3, 2), nn.MSELoss(reduction="none"))
    with pytest.raises(TypeError, match="loss is a function"):
        Regression(Probe(3, 1), loss=nn.functional.l1_loss)


@pytest.mark.parametrize("targets", [torch.zeros(4), torch.zeros(4, 1), torch.zeros(4, 1, dtype=torch.long)])
@pytest.mark.parametrize("flat", [False, True])
def test_one_target_may_be_flat(targets, flat):
    outputs = torch.randn(4) if flat else torch.randn(4, 1)
    result, _ = step(outputs, targets)
    assert result.prediction.shape == result.target.shape == (4, 1)
    assert result.loss.item() == pytest.approx(float(outputs.square().mean()))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(3), r"targets are \(3,\), predictions \(4, 2\) .*num_outputs=2"),
        (torch.zeros(4), r"targets are \(4,\), predictions \(4, 2\)"),
        (torch.zeros(2, 4), r"targets are \(2, 4\), predictions \(4, 2\)"),
        (torch.zeros(4, 2, 1), r"targets are \(4, 2, 1\), predictions \(4, 2\)"),
    ],
)
def test_wrong_shapes(targets, message):
    with pytest.raises(DataError, match=message):
        Regression(Probe(3, 2), 2).step((torch.ones(4, 3), targets))


def test_wrong_width():
    with pytest.raises(DataError, match=r"predictions \(4, 2\) .*num_outputs=3"):
        Regression(Probe(3, 2), 3).step((torch.ones(4, 3), torch.zeros(4, 2)))


def test_targets_of_graphs_are_joined():
    edge = torch.tensor([[0], [1]])
    graphs = [Data(x=torch.randn(n, 3), edge_index=edge, y=torch.tensor([1.0 * n, NAN])) for n in (2, 3, 4)]
    task = Regression(GraphClassifier(3, 2, hidden_channels=4, num_layers=1, norm="none"), 2)
    result = task.step(Batch.from_data_list(graphs))
    torch.testing.assert_close(result.target[:, 0], torch.tensor([2.0, 3.0, 4.0]))
    assert result.target[:, 1].isnan().all()
    assert result.size == 3


def test_metrics_over_batches_equal_sklearn():
    x, y = torch.randn(23, 3), torch.randn(23, 2)
    y[torch.rand(23, 2) < 0.3] = NAN
    task = Regression(Probe(3, 2), 2)
    there = ~y.isnan()
    outputs = task((x, y)).detach()[there]
    logged = validate(task, list(zip(x.split(5), y.split(5), strict=True)))
    assert logged["val/mae"] == pytest.approx(mean_absolute_error(y[there], outputs), rel=1e-5)
    assert logged["val/rmse"] == pytest.approx(root_mean_squared_error(y[there], outputs), rel=1e-5)
    assert logged["val/loss"] == pytest.approx(logged["val/rmse"] ** 2, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_targets_keep_their_digits(precision):
    """1000.5 is 1000 in bfloat16."""

    class Watched(Regression):
        def step(self, batch, stage):
            result = super().step(batch, stage)
            seen.update({result.loss.dtype, result.prediction.dtype, result.target.dtype})
            return result

    seen = set()
    x, y = torch.zeros(2, 3), torch.full((2, 1), 1000.5)
    task = Watched(Probe(3, 1), optimizer=frozen_sgd)
    task.model.linear.bias.data.fill_(1000)
    run = fit(task, [(x, y)], [(x, y)], precision=precision)
    assert seen == {torch.float32}
    if precision == "bf16-mixed":  # with bf16-true Lightning itself rounds the batch
        assert float(run.callback_metrics["val/mae"]) == 0.5


def test_a_line_is_learned():
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3
    task = Regression(MLP(3, 1, num_layers=1), 1, loss=make(nn.HuberLoss), optimizer=lambda p: torch.optim.Adam(p, 0.1))
    batches = list(zip(x.split(16), y.split(16), strict=True))
    run = fit(task, batches, [(x, y)], max_epochs=50)
    assert run.callback_metrics["val/mae"] < 0.02
