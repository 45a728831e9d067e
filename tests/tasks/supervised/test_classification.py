import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from torch import nn
from torch_geometric.data import Data

import graphseq
from graphseq.core import DataError, make
from graphseq.data import GraphDataModule
from graphseq.models import MLP, GraphClassifier
from graphseq.tasks import Classification
from tests.reference.losses import binary_cross_entropy, cross_entropy
from tests.reference.networks import slope
from tests.reliability.runs import trainer
from tests.tasks.small import Given, Probe, close, fit, frozen_sgd, loader, validate

NAN = float("nan")


pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be written as plain data")


def step(logits, labels, outputs, **options):
    """The step of given logits, and its gradient in them."""
    task = Classification(Given(logits.double()), outputs, **options).double()
    result = task.step((torch.zeros(len(logits), 1), labels))
    (gradient,) = torch.autograd.grad(result.loss, [task.model.outputs])
    return result, gradient


def slopes(loss, logits):
    """Central differences of a loss in each logit."""
    return [[slope(loss, row, k) for k in range(len(row))] for row in logits]


# multiclass


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5], [0.0, 3.0, 1.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multiclass_equals_the_reference(weights, smoothing):
    logits = torch.randn(7, 3, dtype=torch.float64) * 3
    labels = torch.tensor([0, 1, 2, 2, 0, 1, 1])
    result, gradient = step(logits, labels, 3, class_weights=weights, label_smoothing=smoothing)
    rows = logits.tolist()
    loss, size = cross_entropy(rows, labels.tolist(), weights, smoothing)
    close(result.loss.detach(), loss)
    assert float(result.size) == size
    close(gradient, slopes(lambda: cross_entropy(rows, labels.tolist(), weights, smoothing)[0], rows), 1e-8)
    assert torch.equal(result.prediction.detach(), logits)
    assert torch.equal(result.target, labels)


@settings(max_examples=25, deadline=None)
@given(st.floats(-50, 50), st.permutations(range(5)))
def test_multiclass_ignores_shifts_and_the_order_of_samples(shift, order):
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3])
    expected = step(logits, labels, 4, class_weights=[1, 2, 3, 4])[0].loss
    other = step(logits[list(order)] + shift, labels[list(order)], 4, class_weights=[1, 2, 3, 4])[0].loss
    torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-12)


def test_a_batch_of_classes_without_weight_has_loss_zero():
    for smoothing in (0.0, 0.1):
        result, gradient = step(
            torch.randn(3, 2), torch.zeros(3, dtype=torch.long), 2, class_weights=[0, 1], label_smoothing=smoothing
        )
        assert result.loss.item() == 0 == result.size.item()
        assert torch.equal(gradient, torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("column", [False, True])
def test_kinds_of_labels(kind, column):
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    given_labels = labels.to(kind).unsqueeze(1) if column else labels.to(kind)
    result, _ = step(logits, given_labels, 2)
    assert torch.equal(result.target, labels)
    assert result.size == 4


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 1.0]), r"labels are torch\.float32; .*target='multilabel'"),
        (torch.tensor([0, -1]), r"labels .* -1 to 0; .*num_outputs=3"),
        (torch.tensor([0, 3]), r"labels .* 0 to 3; .*num_outputs=3"),
        (torch.tensor([0, 1, 2]), r"labels are \(3,\) for 2 "),
        (torch.tensor([[0, 1], [1, 0]]), r"labels are \(2, 2\) for 2 "),
        (torch.tensor(1), r"labels are \(\) for 2 "),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(DataError, match=message):
        Classification(Probe(3, 3), 3).step((torch.ones(2, 3), labels))


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_wrong_width_names_the_network(target):
    task = Classification(Probe(3, 4), 3, target=target)
    message = r"Probe returned \(2, 4\); logits of 3 outputs must be \(B, 3\). Set the network's last width"
    with pytest.raises(ValueError, match=message):
        task.step((torch.ones(2, 3), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match=r"Flat returned \(2,\)"):
        Classification(Flat(), 3, target=target).step((torch.ones(2, 3), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="LSTM returned a tuple"):
        Classification(make(nn.LSTM, 3, 3), 3, target=target).step((torch.ones(2, 3), torch.zeros(2, 3)))


class Flat(nn.Module):
    def forward(self, x):
        return x.sum(1)


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (1, {}, "num_outputs is 1; multiclass"),
        (0, {"target": "multilabel"}, "num_outputs is 0; multilabel"),
        (2, {"target": "binary"}, "target is 'binary'"),
        (2, {"class_weights": [1.0]}, "class_weights.*1 entries.*2 outputs"),
        (2, {"class_weights": [1.0, -1.0]}, r"class_weights is \[1\.0, -1\.0\]"),
        (2, {"class_weights": [0.0, 0.0]}, r"class_weights is \[0\.0, 0\.0\]"),
        (2, {"class_weights": [1.0, math.inf]}, r"class_weights is \[1\.0, inf\]"),
        (2, {"class_weights": [1.0, NAN]}, r"class_weights is \[1\.0, nan\]"),
        (2, {"label_smoothing": 1.0}, r"label_smoothing.*1.0"),
        (2, {"label_smoothing": 0.1, "target": "multilabel"}, "label_smoothing is 0.1; .*multilabel"),
    ],
)
def test_wrong_arguments(outputs, options, message):
    with pytest.raises(ValueError, match=message):
        Classification(Probe(3, outputs or 1), outputs, **options)


def clusters(count=60, classes=3, seed=0):
    """Rows around one corner a class, far apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return torch.randn(count, 4, generator=generator) + 6 * nn.functional.one_hot(labels, 4), labels


def test_separable_classes_are_learned():
    x, y = clusters()
    task = Classification(MLP(4, 3, hidden_features=8), 3, optimizer=lambda p: torch.optim.Adam(p, lr=0.05))
    batches = list(zip(x.split(16), y.split(16), strict=True))
    start = validate(task, [clusters(seed=1)])["val/acc"]
    run = fit(task, batches, [clusters(seed=1)], max_epochs=15)
    assert start < 0.7
    assert run.callback_metrics["val/acc"] > 0.98
    assert run.callback_metrics["val/f1"] > 0.98


def test_metrics_over_batches_equal_sklearn():
    x, y = torch.randn(23, 3), torch.randint(0, 3, (23,))  # class 3 of 4 is never seen
    task = Classification(Probe(3, 4), 4)
    guess = task((x, y)).argmax(1)
    logged = validate(task, list(zip(x.split(5), y.split(5), strict=True)))
    assert set(logged) == {"val/loss", "val/acc", "val/f1"}
    assert logged["val/acc"] == pytest.approx(accuracy_score(y, guess))
    assert logged["val/f1"] == pytest.approx(f1_score(y, guess, average="macro"), abs=1e-6)


def test_weighted_epoch_means():
    """The mean of an epoch is over the weights of its samples, however they are cut into batches."""
    x, y = torch.randn(9, 3), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2])
    task = Classification(Probe(3, 3), 3, class_weights=[1.0, 5.0, 0.2], optimizer=frozen_sgd)
    batches = list(zip(x.split(4), y.split(4), strict=True))
    run = fit(task, batches, batches)
    whole = task.step((x, y)).loss.item()
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(whole, rel=1e-5)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_losses_are_taken_in_full_precision(precision, target):
    seen = set()

    class Watched(Classification):
        def step(self, batch, stage):
            result = super().step(batch, stage)
            seen.update({result.loss.dtype, result.prediction.dtype})
            return result

    x, y = clusters(12)
    if target == "multilabel":
        y = nn.functional.one_hot(y, 3).float()
    task = Watched(Probe(4, 3), 3, target=target, class_weights=[1, 2, 3])
    run = fit(task, [(x, y)], [(x, y)], precision=precision)
    assert run.global_step == 1
    assert seen == {torch.float64 if precision == "64-true" else torch.float32}


# multilabel


def known(labels):
    """NaN stands for None."""
    return [[None if math.isnan(label) else int(label) for label in row] for row in labels.tolist()]


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5]])
def test_multilabel_equals_the_reference(weights):
    logits = torch.randn(6, 3, dtype=torch.float64) * 3
    labels = torch.tensor([[0, 1, NAN], [1, NAN, NAN], [NAN] * 3, [1, 1, 0], [0, 0, 0], [NAN, 1, 1]])
    result, gradient = step(logits, labels, 3, target="multilabel", class_weights=weights)
    rows = logits.tolist()
    loss, count = binary_cross_entropy(rows, known(labels), weights)
    close(result.loss.detach(), loss)
    assert int(result.size) == count == 11
    close(gradient, slopes(lambda: binary_cross_entropy(rows, known(labels), weights)[0], rows), 1e-8)
    assert torch.equal(gradient[labels.isnan()], torch.zeros(7, dtype=torch.float64))


def test_no_known_label():
    result, gradient = step(torch.randn(4, 2) * 100, torch.full((4, 2), NAN), 2, target="multilabel")
    assert result.loss.item() == 0 == result.size.item()
    assert torch.equal(gradient, torch.zeros(4, 2, dtype=torch.float64))


def test_a_batch_without_labels_in_a_run():
    x = torch.randn(4, 3)
    unknown, labelled = (x, torch.full((4, 2), NAN)), (x, torch.tensor([[1.0, NAN], [0, 0], [NAN, 1], [NAN, NAN]]))
    task = Classification(Probe(3, 2), 2, target="multilabel", optimizer=frozen_sgd)
    run = fit(task, [unknown, labelled], [labelled, unknown])
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(task.step(labelled).loss.item(), rel=1e-5)
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(task.step(labelled).loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_kinds_of_multilabels(kind):
    logits, labels = torch.randn(4, 2), torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]])
    expected = step(logits, labels.float(), 2, target="multilabel")[0].loss
    assert torch.equal(step(logits, labels.to(kind), 2, target="multilabel")[0].loss, expected)
    # PyG joins the labels of graphs to one long row
    assert torch.equal(step(logits, labels.to(kind).flatten(), 2, target="multilabel")[0].loss, expected)
    one = step(logits[:, :1], labels[:, 0].to(kind), 1, target="multilabel")[0]
    assert one.target.shape == (4, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([[0.0, 0.5], [1.0, 0.0], [1.0, 0.0]]), "multilabel targets .*0, 1 and NaN"),
        (torch.tensor([[0, -1], [1, 0], [1, 0]]), "multilabel targets .*0, 1 and NaN"),
        (torch.zeros(2, 2), r"labels are \(2, 2\), predictions \(3, 2\)"),
        (torch.zeros(2, 3), r"labels are \(2, 3\), predictions \(3, 2\)"),  # the transpose is not taken for it
        (torch.zeros(3), r"labels are \(3,\), predictions \(3, 2\)"),
    ],
)
def test_wrong_multilabels(labels, message):
    with pytest.raises(DataError, match=message):
        Classification(Probe(3, 2), 2, target="multilabel").step((torch.ones(3, 3), labels))


def test_multilabel_metrics_over_batches_equal_sklearn():
    x, y = torch.randn(40, 3), (torch.rand(40, 2) < 0.4).float()
    y[torch.rand(40, 2) < 0.3] = NAN
    task = Classification(Probe(3, 2), 2, target="multilabel")
    scores = task((x, y)).detach()
    logged = validate(task, list(zip(x.split(7), y.split(7), strict=True)))
    assert set(logged) == {"val/loss", "val/auroc", "val/ap"}
    for name, function in {"val/auroc": roc_auc_score, "val/ap": average_precision_score}.items():
        columns = [~y[:, k].isnan() for k in range(2)]
        expected = [function(y[rows, k], scores[rows, k]) for k, rows in enumerate(columns)]
        assert logged[name] == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_data_of_one_class():
    x = torch.randn(6, 3)
    run = fit(Classification(Probe(3, 2), 2), [(x, torch.ones(6, dtype=torch.long))])
    logged = run.validate(run.lightning_module, loader([(x, torch.ones(6, dtype=torch.long))]), verbose=False)[0]
    guess = run.lightning_module((x, None)).argmax(1)
    assert logged["val/acc"] == pytest.approx(accuracy_score([1] * 6, guess))
    assert logged["val/f1"] == pytest.approx(f1_score([1] * 6, guess, average="macro"))
    task = Classification(Probe(3, 2), 2, target="multilabel")
    with pytest.warns(UserWarning, match="MaskedAUROC is NaN: .*2 labels.* 6 samples"):
        logged = validate(task, [(x, torch.ones(6, 2))])
    assert math.isnan(logged["val/auroc"])
    assert logged["val/loss"] > 0


def test_separable_labels_are_learned():
    x, y = clusters()
    y = nn.functional.one_hot(y, 3).float()
    y[::5, 0] = NAN
    task = Classification(
        MLP(4, 3, hidden_features=8), 3, target="multilabel", optimizer=lambda p: torch.optim.Adam(p, 0.05)
    )
    run = fit(task, list(zip(x.split(16), y.split(16), strict=True)), [(x, y)], max_epochs=15)
    assert run.callback_metrics["val/auroc"] > 0.99
    assert run.callback_metrics["val/ap"] > 0.98


def balanced_graphs(labels):
    edges = torch.zeros(2, 0, dtype=torch.int64)
    graphs = [Data(x=torch.ones(1, 2) * n, edge_index=edges, y=y) for n, y in enumerate(labels)]
    split = {"train": list(range(len(graphs))), "val": [], "test": []}
    return GraphDataModule(graphs, split=split, batch_size=4)


def test_balanced_classes_are_counted_and_kept(tmp_path):
    data = balanced_graphs([torch.tensor([0 if n < 9 else 1]) for n in range(12)])
    task = Classification(GraphClassifier(2, 2, hidden_channels=4), 2, class_weights="balanced")
    fit = trainer(max_epochs=1)
    fit.fit(task, data)
    assert task.class_weights.tolist() == pytest.approx([12 / 18, 2.0])
    fit.save_checkpoint(tmp_path / "k.ckpt")
    loaded = graphseq.load(tmp_path / "k.ckpt")
    assert torch.equal(loaded.class_weights, task.class_weights)  # without the data
    given = Classification(task.model, 2, class_weights=[12 / 18, 2.0])
    batch = data.store.take(torch.arange(12))
    torch.testing.assert_close(loaded.eval().step(batch).loss, given.eval().step(batch).loss)


def test_balanced_labels_are_counted():
    data = balanced_graphs([torch.tensor([[float(n % 4 == 0), float(n % 2)]]) for n in range(12)])
    task = Classification(GraphClassifier(2, 2, hidden_channels=4), 2, target="multilabel", class_weights="balanced")
    trainer(max_epochs=1).fit(task, data)
    assert task.class_weights.tolist() == [3.0, 1.0]


def test_balanced_classes_need_data_that_count_them():
    task = Classification(GraphClassifier(2, 3, hidden_channels=4), 3, class_weights="balanced")
    data = balanced_graphs([torch.tensor([n % 2]) for n in range(12)])
    with pytest.raises(DataError, match="2 classes or labels; set num_outputs=2, not 3"):
        trainer(max_epochs=1).fit(task, data)
    with pytest.raises(DataError, match="class_weights='balanced'"):
        trainer(max_epochs=1).fit(task, torch.utils.data.DataLoader(list(data.batches()), batch_size=None))
    with pytest.raises(ValueError, match="class_weights is 'equal'"):
        Classification(GraphClassifier(2, 2, hidden_channels=4), 2, class_weights="equal")
